// SPDX-License-Identifier: Apache-2.0
// Verification of a whole boot chain (shim, GRUB, kernel) beside the SHA-256 of the same bytes; an
// instance's variable store made from a key set, beside copying a template.
//   firmware_bench [tree]   Debian's loaders as scripts/make-debian-guest unpacks them; default:
//   its cache of this build tree

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/digest.h"
#include "firmware/image_verification.h"
#include "firmware/key_set.h"
#include "firmware/key_store.h"
#include "firmware/shim.h"
#include "firmware/variable_store.h"
#include "formats/pe.h"
#include "median.h"

namespace {

namespace firmware = vallum::firmware;
namespace fs = std::filesystem;
using vallum::Bytes;
using vallum::formats::PeImage;

constexpr int kRounds = 40;
constexpr double kTargetRatio = 1.2;

Bytes ReadFile(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  return vallum::ToBytes(vallum::AsBytes(text));
}

fs::path FirstBelow(const fs::path& folder, std::string_view prefix) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().filename().string().starts_with(prefix)) return entry.path();
  }
  return {};
}

template <typename Work>
double MedianMs(Work work) {
  return vallum::bench::MedianMs(kRounds, work);
}

// Microsoft's keys: the largest set that there is.
void CompareKeyStore(const firmware::KeySet& keys, const Bytes& template_store) {
  constexpr firmware::VariableTime kTime = {
      .year = 2026, .month = 1, .day = 2, .hour = 3, .minute = 4, .second = 5};
  constexpr double kTargetMs = 5;
  const double copy = MedianMs([&] {
    const Bytes copied = template_store;
    CHECK(copied.size() == template_store.size());
  });
  const double make = MedianMs(
      [&] { CHECK(firmware::MakeKeyStore(keys, firmware::OvmfBuild::k4M, kTime).has_value()); });
  const double replace =
      MedianMs([&] { CHECK(firmware::ReplaceKeys(template_store, keys, kTime).has_value()); });
  std::printf(
      "variable store: made in %.3f ms, keys replaced in %.3f ms, copied in %.3f ms "
      "(target %.0f ms)\n",
      make, replace, copy, kTargetMs);
}

}  // namespace

int main(int argc, char** argv) {
  const fs::path tree = argc > 1 ? argv[1] : FirstBelow("build/guest/cache", "tree-");
  const Bytes shim = ReadFile(tree / "usr/lib/shim/shimx64.efi.signed");
  const Bytes grub = ReadFile(tree / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed");
  const Bytes kernel = ReadFile(FirstBelow(tree / "boot", "vmlinuz-"));
  const auto store = firmware::VariableStore::Parse(ReadFile("/usr/share/OVMF/OVMF_VARS_4M.ms.fd"));
  if (shim.empty() || grub.empty() || kernel.empty() || !store.has_value()) {
    std::printf("firmware: skipped, Debian's loaders or the package ovmf are not there\n");
    return 0;
  }
  const firmware::KeySet keys = *firmware::KeySetFromStore(*store);
  CompareKeyStore(keys, ReadFile("/usr/share/OVMF/OVMF_VARS_4M.ms.fd"));
  const double reference = MedianMs([&] {
    for (const Bytes* file : {&shim, &grub, &kernel}) vallum::Sha256(*file);
  });
  const double verify = MedianMs([&] {
    const auto first = PeImage::Parse(shim);
    CHECK(firmware::VerifyByFirmware(*first, keys).allowed);
    const auto trust = firmware::ReadShimTrust(*first);
    for (const Bytes* file : {&grub, &kernel}) {
      const auto next = PeImage::Parse(*file);
      CHECK(firmware::VerifyByShim(*next, keys, *trust, firmware::SbatNeed::kOptional).allowed);
    }
  });
  const double megabytes = static_cast<double>(shim.size() + grub.size() + kernel.size()) / 1e6;
  std::printf(
      "boot chain of %.1f MB: verified in %.2f ms, SHA-256 %.2f ms, ratio %.2f (target %.1f)\n",
      megabytes, verify, reference, verify / reference, kTargetRatio);
  return 0;
}
