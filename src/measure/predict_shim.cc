// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "base/text.h"
#include "firmware/shim.h"
#include "firmware/signature_list.h"
#include "measure/authorities.h"
#include "measure/predict_stages.h"

namespace vallum::measure {
namespace {

using firmware::kShimLockGuid;

// The version whose measurements were compared with real boots.
constexpr std::string_view kKnownVersion = "16.1";

std::string ShimVersion(std::string_view sbat) {
  for (const std::string_view vendor :
       {"shim.debian", "shim.ubuntu", "shim.redhat", "shim.fedora"}) {
    if (std::string version = FindSbatVersion(sbat, vendor); !version.empty()) {
      return version;
    }
  }
  return "";
}

// A variable that shim mirrors; it deletes one whose attributes are not these and goes on without.
Bytes MokVariable(const BootRun& run, std::string_view name) {
  constexpr uint32_t kNeeded = 1U | 2U;  // non-volatile, boot services
  constexpr uint32_t kForbidden = 4U;    // run time
  const firmware::Variable* variable = run.store.Find(name, kShimLockGuid);
  if (variable == nullptr || (variable->attributes & kNeeded) == 0 ||
      (variable->attributes & kForbidden) != 0) {
    return {};
  }
  return variable->data;
}

void Append(Bytes& to, ByteView data) { to.insert(to.end(), data.begin(), data.end()); }

// MokList as shim measures it: what is built in, then the variable.
Bytes FullMokList(const BootRun& run, const firmware::VendorCertificates& vendor) {
  Bytes list;
  if (!vendor.allowed.empty()) {
    for (const firmware::Signature& entry : VendorEntries(vendor)) {
      Append(list, EncodeSignatureList(entry));
    }
    if (firmware::ParseSignatureLists(vendor.allowed).has_value()) {
      list = vendor.allowed;  // whole lists are taken as they are
    }
  }
  Append(list, MokVariable(run, "MokList"));
  return list;
}

// A database that would be empty holds one digest of zeros instead.
void ExtendDatabase(const BootRun& run, Bytes list, const std::string& name) {
  if (list.empty()) {
    firmware::Signature none;
    none.type_guid = firmware::kSha256CertificateGuid;
    none.owner = kShimLockGuid;
    none.data = Bytes(DigestSize(HashAlgorithm::kSha256));
    list = EncodeSignatureList(none);
  }
  run.ExtendBytes(kMokPcr, list, name);
}

void PredictMok(const BootRun& run, const ChainBinary& shim) {
  const auto vendor = firmware::ParseVendorCertSection(shim.binary.vendor_cert_section);
  if (!vendor.has_value()) {
    run.out.Stop(kMokPcr, "shim's .vendor_cert: " + vendor.error().Describe());
    return;
  }
  ExtendDatabase(run, FullMokList(run, *vendor), "MokList and what is built into shim");
  Bytes denied = vendor->forbidden;
  Append(denied, MokVariable(run, "MokListX"));
  ExtendDatabase(run, denied, "MokListX and what is built into shim");
  for (const std::string_view name : {"MokSBState", "MokPolicy"}) {
    if (run.store.Find(name, kShimLockGuid) != nullptr) {
      run.out.Stop(kMokPcr, fmt::format("the variable {} was not seen on a real boot", name));
    }
  }
  if (run.store.Find("MokListTrusted", kShimLockGuid) == nullptr) {
    run.ExtendBytes(kMokPcr, Bytes{std::byte{1}}, "MokListTrusted, which is not set");
  }
}

Result<void> PredictNext(const BootRun& run, const ChainBinary& shim, const ChainBinary& next) {
  if (run.secure_boot) {
    ASSIGN_OR_RETURN(const auto authority, ShimAuthority(run.store, shim.binary, next.binary));
    if (!authority.has_value()) {
      const std::string reason = fmt::format("neither db nor shim admits {}: shim refuses it",
                                             Printable(next.binary.path));
      run.out.Stop(kPolicyPcr, reason);
      run.out.Stop(kImagesPcr, reason);
      return Ok();
    }
    run.out.Extend(kPolicyPcr, authority->DigestIn(run.out.bank()), authority->explanation);
  }
  run.ExtendImage(next, "shim");
  return Ok();
}

}  // namespace

Result<void> PredictShim(const BootRun& run, const ChainBinary& shim, const ChainBinary* next) {
  const std::string version = ShimVersion(shim.version);
  if (version != kKnownVersion) {
    const std::string reason = fmt::format(
        "what shim {} measures was not compared with a real boot; {} was",
        version.empty() ? "of an unknown version" : Printable(version, 20), kKnownVersion);
    for (const PcrIndex pcr : {kImagesPcr, kPolicyPcr, kMokPcr}) {
      run.out.Stop(pcr, reason);
    }
  }
  if (run.store.Find("MokSBState", kShimLockGuid) != nullptr) {
    run.out.Stop(kPolicyPcr, "MokSBState is set: shim may verify nothing");
    run.out.Stop(kImagesPcr, "MokSBState is set: shim may verify nothing");
  }
  PredictMok(run, shim);
  if (const auto level = SbatLevelAuthority(run.store, shim.binary); level.has_value()) {
    run.out.Extend(kPolicyPcr, level->DigestIn(run.out.bank()), level->explanation);
  } else {
    run.out.Stop(kPolicyPcr, level.error().Describe());
  }
  return next == nullptr ? Ok() : PredictNext(run, shim, *next);
}

}  // namespace vallum::measure
