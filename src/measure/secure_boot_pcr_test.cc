// SPDX-License-Identifier: Apache-2.0
#include "measure/secure_boot_pcr.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <fstream>
#include <memory>
#include <sstream>

#include "firmware/signature_list.h"
#include "firmware/variable_store_editor.h"
#include "measure/event_digest.h"
#include "measure/pcr.h"

namespace vallum::measure {
namespace {

using firmware::Variable;
using firmware::VariableStore;
using ::testing::Contains;
using ::testing::HasSubstr;

// A real boot: see testdata/README.md.
const std::string kBoot = std::string(VALLUM_TESTDATA) + "/debian12-secure/";
constexpr size_t kImageSize = 540672;

std::string ReadText(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

Bytes ReadFile(const std::string& path) { return ToBytes(AsBytes(ReadText(path))); }

std::vector<Bytes> ReadSigners(const std::string& path) {
  std::vector<Bytes> signers;
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new_file(path.c_str(), "r"), &BIO_free);
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr)) {
    unsigned char* der = nullptr;
    const int size = i2d_X509(certificate, &der);
    const auto* begin = reinterpret_cast<const std::byte*>(der);
    signers.emplace_back(begin, begin + size);
    OPENSSL_free(der);
    X509_free(certificate);
  }
  EXPECT_FALSE(signers.empty());
  return signers;
}

// Everything about the captured boot, to be broken one thing at a time.
struct Boot {
  std::vector<Variable> variables;
  std::vector<BootBinary> binaries;
  std::vector<Bytes> measured;

  Variable& Get(const std::u16string& name) {
    for (Variable& variable : variables) {
      if (variable.name == name) {
        return variable;
      }
    }
    ADD_FAILURE() << "no such variable";
    return variables.front();
  }
  void Erase(const std::u16string& name) {
    std::erase_if(variables, [&](const Variable& variable) { return variable.name == name; });
  }
  Pcr7Explanation Explain() const {
    const auto store = VariableStore::Parse(*firmware::MakeVariableStoreImage(variables));
    EXPECT_TRUE(store.has_value());
    auto explanation = ComputePcr7(*store, binaries, measured);
    EXPECT_TRUE(explanation.has_value());
    return *explanation;
  }
};

Boot MakeValidBoot() {
  Boot boot;
  Bytes image = ReadFile(kBoot + "vars-used.bin");
  image.resize(kImageSize, std::byte{0xff});
  const auto store = VariableStore::Parse(image);
  EXPECT_TRUE(store.has_value());
  for (const Variable* variable : store->Variables()) {
    boot.variables.push_back(*variable);
  }
  BootBinary shim;
  shim.path = "EFI/BOOT/BOOTX64.EFI";
  shim.signer_certificates = ReadSigners(kBoot + "shim-signers.pem");
  shim.vendor_cert_section = ReadFile(kBoot + "shim.vendor_cert");
  shim.sbat_level_section = ReadFile(kBoot + "shim.sbatlevel");
  boot.binaries = {shim};
  std::istringstream lines(ReadText(kBoot + "pcr7-extends.txt"));
  for (std::string line; std::getline(lines, line);) {
    boot.measured.push_back(*FromHex(line));
  }
  EXPECT_EQ(boot.measured.size(), 9U);
  return boot;
}

Bytes VariableDigest(std::string_view name, const firmware::Guid& vendor, ByteView data) {
  return VariableEventDigest(HashAlgorithm::kSha256, name, vendor, data);
}

std::vector<Bytes> ConfigurationDigests(const VariableStore& store) {
  std::vector<Bytes> digests;
  for (const Pcr7Configuration& each : ExpectedPcr7Configuration(HashAlgorithm::kSha256, store)) {
    digests.push_back(each.digest);
  }
  return digests;
}

void ExpectDiverged(const Boot& boot, const char* words) {
  const Pcr7Explanation explanation = boot.Explain();
  EXPECT_FALSE(explanation.matches);
  EXPECT_THAT(explanation.reasons, Contains(HasSubstr(words)));
}

TEST(Pcr7, RealBootIsExplainedFromItsArtefacts) {
  const Boot boot = MakeValidBoot();
  const Pcr7Explanation explanation = boot.Explain();
  EXPECT_TRUE(explanation.matches) << ::testing::PrintToString(explanation.reasons);
  EXPECT_EQ(explanation.secure_boot, SecureBootState::kOn);
  EXPECT_EQ(explanation.configured, firmware::SecureBootSetting::kOn);
  EXPECT_EQ(ToHex(explanation.computed_digest) + "\n", ReadText(kBoot + "pcr7-read-by-guest.txt"));
  std::vector<Pcr7EventKind> kinds;
  for (const Pcr7Event& event : explanation.events) {
    kinds.push_back(event.kind);
    EXPECT_EQ(event.computed, event.measured);
  }
  using enum Pcr7EventKind;
  EXPECT_EQ(kinds, (std::vector<Pcr7EventKind>{kSecureBoot, kKeyVariable, kKeyVariable,
                                               kKeyVariable, kKeyVariable, kSeparator, kDbAuthority,
                                               kSbatLevel, kShimAuthority}));
  EXPECT_THAT(explanation.events[6].explanation,
              ::testing::AllOf(HasSubstr("UEFI CA 2011"), HasSubstr("let EFI/BOOT/BOOTX64.EFI")));
  EXPECT_THAT(explanation.events[8].explanation, HasSubstr("Debian Secure Boot CA"));
}

TEST(Pcr7, ConfigurationPartIsPredictedFromTheStoreAlone) {
  const Boot boot = MakeValidBoot();
  const auto store = VariableStore::Parse(*firmware::MakeVariableStoreImage(boot.variables));
  EXPECT_EQ(ConfigurationDigests(*store),
            std::vector<Bytes>(boot.measured.begin(), boot.measured.begin() + 6));
}

TEST(Pcr7, SbatLevelOfAFirstBootIsExplainedByShimItself) {
  Boot boot = MakeValidBoot();
  boot.Erase(u"SbatLevel");
  EXPECT_TRUE(boot.Explain().matches);
  boot.binaries[0].sbat_level_section.clear();
  ExpectDiverged(boot, "after the separator");
}

TEST(Pcr7, OneChangedByteInAnyKeyVariableIsADivergence) {
  for (const char16_t* name : {u"PK", u"KEK", u"db", u"dbx"}) {
    Boot boot = MakeValidBoot();
    boot.Get(name).data.back() ^= std::byte{1};
    const Pcr7Explanation explanation = boot.Explain();
    EXPECT_FALSE(explanation.matches);
    EXPECT_NE(explanation.computed_digest, explanation.measured_digest);
    EXPECT_THAT(explanation.reasons, Contains(HasSubstr("of the variable store")));
  }
}

TEST(Pcr7, AdditionalRevocationInTheStoreIsADivergence) {
  Boot boot = MakeValidBoot();
  Bytes& dbx = boot.Get(u"dbx").data;
  const Bytes more = dbx;
  dbx.insert(dbx.end(), more.begin(), more.end());
  ExpectDiverged(boot, "dbx of the variable store");
}

TEST(Pcr7, SecureBootMeasuredOffWhereTheStoreSaysOnIsADivergence) {
  Boot boot = MakeValidBoot();
  boot.measured[0] =
      VariableDigest("SecureBoot", firmware::kGlobalVariableGuid, Bytes{std::byte{0}});
  ExpectDiverged(boot, "SecureBoot measured as off");
  EXPECT_EQ(boot.Explain().secure_boot, SecureBootState::kUnknown);
}

TEST(Pcr7, SecureBootMeasuredOnWhereTheStoreSaysOffIsADivergence) {
  Boot boot = MakeValidBoot();
  boot.Get(u"SecureBootEnable").data = {std::byte{0}};
  ExpectDiverged(boot, "SecureBoot measured as 1");
}

TEST(Pcr7, SetupModeMatchesAndIsShownAsOff) {
  for (const Bytes& value : {Bytes{std::byte{0}}, Bytes{}}) {
    Boot boot = MakeValidBoot();
    for (const char16_t* name : {u"PK", u"KEK", u"db", u"dbx", u"SbatLevel"}) {
      boot.Erase(name);
    }
    const auto store = VariableStore::Parse(*firmware::MakeVariableStoreImage(boot.variables));
    boot.measured = ConfigurationDigests(*store);
    boot.measured[0] = VariableDigest("SecureBoot", firmware::kGlobalVariableGuid, value);
    boot.measured.push_back(
        VariableDigest("SbatLevel", firmware::kShimLockGuid, AsBytes("sbat,1,2021030218\n")));
    const Pcr7Explanation explanation = boot.Explain();
    EXPECT_TRUE(explanation.matches) << ::testing::PrintToString(explanation.reasons);
    EXPECT_EQ(explanation.secure_boot, SecureBootState::kOff);
    if (!value.empty()) {
      // What guests read after the same chain on Debian's OVMF_VARS_4M.fd, with either code file.
      EXPECT_EQ(ToHex(explanation.computed_digest),
                "b926225ac488e9c50ef2fa815aa7104b385a06907093bfb1dc62eeb7abecddf1");
    }
  }
}

TEST(Pcr7, UnknownExtendAnywhereIsADivergence) {
  for (size_t at = 0; at <= 9; ++at) {
    Boot boot = MakeValidBoot();
    boot.measured.insert(boot.measured.begin() + static_cast<long>(at), Bytes(32, std::byte{7}));
    const Pcr7Explanation explanation = boot.Explain();
    EXPECT_FALSE(explanation.matches) << at;
    ASSERT_GT(explanation.events.size(), at);
    EXPECT_EQ(explanation.events[at].kind, Pcr7EventKind::kUnexplained) << at;
    EXPECT_TRUE(explanation.events[at].computed.empty());
  }
}

TEST(Pcr7, EachMissingConfigurationExtendIsADivergence) {
  for (size_t at = 0; at < 6; ++at) {
    Boot boot = MakeValidBoot();
    boot.measured.erase(boot.measured.begin() + static_cast<long>(at));
    EXPECT_FALSE(boot.Explain().matches) << at;
  }
}

TEST(Pcr7, MissingSeparatorIsNamed) {
  Boot boot = MakeValidBoot();
  boot.measured.resize(5);
  ExpectDiverged(boot, "the separator was not measured");
}

TEST(Pcr7, NothingMeasuredIsUnknownNotOff) {
  Boot boot = MakeValidBoot();
  boot.measured.clear();
  ExpectDiverged(boot, "SecureBoot was not measured");
  EXPECT_EQ(boot.Explain().secure_boot, SecureBootState::kUnknown);
}

TEST(Pcr7, SwappedKeyVariablesAreADivergence) {
  Boot boot = MakeValidBoot();
  std::swap(boot.measured[3], boot.measured[4]);
  EXPECT_FALSE(boot.Explain().matches);
}

TEST(Pcr7, ErrorSeparatorAndDebuggerAreNamed) {
  Boot failed = MakeValidBoot();
  failed.measured[5] = ErrorSeparatorDigest(HashAlgorithm::kSha256);
  ExpectDiverged(failed, "failed measurements");
  Boot debugged = MakeValidBoot();
  debugged.measured.insert(debugged.measured.begin(),
                           ActionDigest(HashAlgorithm::kSha256, "UEFI Debug Mode"));
  ExpectDiverged(debugged, "UEFI Debug Mode");
}

TEST(Pcr7, VendorCertificateOfAnotherShimIsNotExplained) {
  Boot boot = MakeValidBoot();
  boot.binaries[0].vendor_cert_section.back() ^= std::byte{1};  // in the forbidden part: no matter
  EXPECT_TRUE(boot.Explain().matches);
  boot.binaries[0].vendor_cert_section[100] ^= std::byte{1};
  ExpectDiverged(boot, "extend 9 of PCR 7");
}

TEST(Pcr7, BrokenShimSectionIsNotedAndExplainsNothing) {
  Boot boot = MakeValidBoot();
  boot.binaries[0].vendor_cert_section.resize(10);
  ExpectDiverged(boot, "EFI/BOOT/BOOTX64.EFI");
}

TEST(Pcr7, ShimBeforeAnyLoaderWasAllowedIsADivergence) {
  Boot boot = MakeValidBoot();
  std::swap(boot.measured[6], boot.measured[7]);
  ExpectDiverged(boot, "before db let any loader start");
}

TEST(Pcr7, ShimAuthorityTwiceIsADivergence) {
  Boot boot = MakeValidBoot();
  boot.measured.push_back(boot.measured.back());
  ExpectDiverged(boot, "measured too often");
}

TEST(Pcr7, AuthorityInTheMokListOfTheStoreIsExplained) {
  Boot boot = MakeValidBoot();
  firmware::Signature mine;
  mine.type_guid = *firmware::Guid::Parse("a5c059a1-94e4-4aa7-87b5-ab155c2bf072");
  mine.type = firmware::SignatureType::kX509;
  mine.data = Bytes(40, std::byte{0x30});
  boot.measured.push_back(VariableDigest("MokListRT", firmware::kShimLockGuid, mine.Encode()));
  EXPECT_FALSE(boot.Explain().matches);
  Variable list;
  list.name = u"MokList";
  list.attributes = 3;
  list.vendor = firmware::kShimLockGuid;
  list.data = firmware::EncodeSignatureList(mine);
  boot.variables.push_back(list);
  EXPECT_TRUE(boot.Explain().matches);
}

TEST(Pcr7, ShimWithVerificationSwitchedOffNeverMatches) {
  Boot boot = MakeValidBoot();
  Variable state;
  state.name = u"MokSBState";
  state.attributes = 3;
  state.vendor = firmware::kShimLockGuid;
  state.data = {std::byte{1}};
  boot.variables.push_back(state);
  ExpectDiverged(boot, "switched off");
}

TEST(Pcr7, DbEntryThatSignedNoKnownLoaderIsSaid) {
  Boot boot = MakeValidBoot();
  boot.binaries[0].signer_certificates.clear();
  EXPECT_THAT(boot.Explain().events[6].explanation, HasSubstr("not among the disk's known"));
}

TEST(Pcr7, DigestOfAnotherBankIsRefused) {
  const auto store = VariableStore::Parse(*firmware::MakeVariableStoreImage({}));
  EXPECT_EQ(ComputePcr7(*store, {}, std::vector<Bytes>{Bytes(20)}).error().code(),
            ErrorCode::kInvalidInput);
}

TEST(Pcr7, DamagedDbIsAnErrorNotAVerdict) {
  Boot boot = MakeValidBoot();
  boot.Get(u"db").data.pop_back();
  const auto store = VariableStore::Parse(*firmware::MakeVariableStoreImage(boot.variables));
  EXPECT_EQ(ComputePcr7(*store, boot.binaries, boot.measured).error().code(), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace vallum::measure
