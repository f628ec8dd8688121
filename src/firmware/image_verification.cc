// SPDX-License-Identifier: Apache-2.0
#include "firmware/image_verification.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/text.h"
#include "firmware/authenticode.h"
#include "firmware/pkcs7.h"

namespace vallum::firmware {
namespace {

using formats::PeCertificate;
using formats::PeImage;

constexpr uint16_t kWinCertTypeGuid = 0x0ef1;
constexpr size_t kWinCertHeader = 8;
constexpr size_t kGuidSize = 16;
// EFI_CERT_TYPE_PKCS7_GUID.
constexpr Guid kPkcs7Guid =
    MakeGuid(0x4aafd29d, 0x68df, 0x49ee, {0x8a, 0xa9, 0x34, 0x7d, 0x37, 0x56, 0x65, 0xa7});

SignatureType ImageDigestType(HashAlgorithm algorithm) {
  switch (algorithm) {
    case HashAlgorithm::kSha1:
      return SignatureType::kSha1;
    case HashAlgorithm::kSha256:
      return SignatureType::kSha256;
    case HashAlgorithm::kSha384:
      return SignatureType::kSha384;
    case HashAlgorithm::kSha512:
      return SignatureType::kSha512;
  }
  return SignatureType::kSha256;
}

// One image under judgement: its digests are taken once each.
class Subject {
 public:
  explicit Subject(const PeImage& image) : image_(image) {}

  const PeImage& image() const { return image_; }
  // Empty when the image cannot be digested.
  const Bytes& Digest(HashAlgorithm algorithm) {
    std::optional<Bytes>& digest = digests_[static_cast<size_t>(algorithm)];
    if (!digest.has_value()) {
      Result<Bytes> taken = image_.AuthenticodeDigest(algorithm);
      digest = taken.has_value() ? *std::move(taken) : Bytes();
    }
    return *digest;
  }

 private:
  const PeImage& image_;
  std::array<std::optional<Bytes>, 4> digests_;
};

// The entry of the list that holds the image's digest. A digest that no entry could hold is not
// taken: that would be another pass over the image.
const Signature* FindDigest(const std::vector<Signature>& list, Subject& subject,
                            HashAlgorithm algorithm) {
  const SignatureType type = ImageDigestType(algorithm);
  const auto it = std::ranges::find_if(list, [&](const Signature& entry) {
    return entry.type == type && entry.data == subject.Digest(algorithm);
  });
  return it == list.end() ? nullptr : &*it;
}

std::string SignerText(const Authenticode& signature) {
  const Result<Certificate> signer = Certificate::Parse(signature.message.signers().front());
  if (!signer.has_value()) return "an unreadable certificate";
  return fmt::format("{} (issued by {})", signer->CommonName(), signer->IssuerName());
}

void Allow(ImageVerdict& verdict, std::string database, const Signature& entry) {
  verdict.allowed = true;
  verdict.reasons.push_back(
      fmt::format("{} lets it start: {}", database, DescribeSignature(entry)));
  verdict.authorities.push_back({std::move(database), entry});
}

void Forbid(ImageVerdict& verdict, std::string database, const Signature& entry) {
  verdict.allowed = false;
  verdict.reasons.push_back(fmt::format("{} forbids it: {}", database, DescribeSignature(entry)));
  verdict.fixes.emplace_back("use a newer build of the program: this one is revoked");
  verdict.forbidden_by = {std::move(database), entry};
}

// What would let an image start that no entry lets start.
void AddFixes(ImageVerdict& verdict, Subject& subject, const std::string& database,
              const std::vector<std::string>& issuers) {
  for (const std::string& issuer : issuers) {
    verdict.fixes.push_back(fmt::format(
        "use a key set whose {} holds {}, or add that certificate to it", database, issuer));
  }
  if (issuers.empty()) {
    verdict.fixes.push_back(fmt::format("sign it with a key that {} trusts", database));
  }
  if (const Bytes& digest = subject.Digest(HashAlgorithm::kSha256); !digest.empty()) {
    verdict.fixes.push_back(
        fmt::format("or add its digest SHA-256 {} to {}", ToHex(digest), database));
  }
}

ImageVerdict SecureBootIsOff() {
  ImageVerdict verdict;
  verdict.allowed = true;
  verdict.reasons.emplace_back("Secure Boot is off: nothing is verified");
  return verdict;
}

// The part of a WIN_CERTIFICATE that firmware takes for a signature.
enum class BlobKind { kSignature, kSkipped, kCorrupt };
struct Blob {
  BlobKind kind = BlobKind::kSkipped;
  ByteView pkcs7;
};
Blob SignatureOf(const PeCertificate& certificate) {
  const ByteView data = certificate.data;
  if (certificate.type == formats::kWinCertTypePkcs7) {
    return {data.empty() ? BlobKind::kCorrupt : BlobKind::kSignature, data};
  }
  if (certificate.type != kWinCertTypeGuid) return {};
  if (data.size() <= kGuidSize) return {BlobKind::kCorrupt, {}};
  if (!std::ranges::equal(data.first(kGuidSize), kPkcs7Guid.bytes)) return {};
  return {BlobKind::kSignature, data.subspan(kGuidSize)};
}

// Firmware wants the certificates, each padded to eight bytes, to fill their table.
bool FillTheirTable(const PeImage& image) {
  size_t size = 0;
  for (const PeCertificate& certificate : image.certificates()) {
    size += (certificate.data.size() + kWinCertHeader + 7) / 8 * 8;
  }
  return size == image.certificate_table_size();
}

// An entry of dbx that revokes the certificate by the digest of its signed part.
const Signature* FindRevocation(const std::vector<Signature>& dbx, const Certificate& certificate) {
  const Bytes signed_part = certificate.ToBeSigned();
  const auto it = std::ranges::find_if(dbx, [&](const Signature& entry) {
    switch (entry.type) {
      case SignatureType::kX509Sha256:
      case SignatureType::kX509Sha384:
      case SignatureType::kX509Sha512: {
        const HashAlgorithm algorithm = SignatureAlgorithm(entry.type);
        return std::ranges::equal(Digest(algorithm, signed_part),
                                  ByteView(entry.data).first(DigestSize(algorithm)));
      }
      case SignatureType::kX509:
      case SignatureType::kSha1:
      case SignatureType::kSha256:
      case SignatureType::kSha384:
      case SignatureType::kSha512:
      case SignatureType::kOther:
        return false;
    }
    return false;
  });
  return it == dbx.end() ? nullptr : &*it;
}

// The decision of DxeImageVerificationHandler over all signatures of one image.
class FirmwareDecision {
 public:
  FirmwareDecision(const PeImage& image, const KeySet& keys) : subject_(image), keys_(keys) {}

  ImageVerdict Decide() && {
    if (subject_.image().certificate_table_size() == 0) {
      DecideUnsigned();
    } else {
      DecideSigned();
    }
    if (!verdict_.allowed && verdict_.fixes.empty()) AddFixes(verdict_, subject_, "db", issuers_);
    return std::move(verdict_);
  }

 private:
  enum class Next { kContinue, kStop };

  void DecideUnsigned() {
    for (const HashAlgorithm algorithm :
         {HashAlgorithm::kSha256, HashAlgorithm::kSha384, HashAlgorithm::kSha512}) {
      if (const Signature* entry = FindDigest(keys_.dbx, subject_, algorithm); entry != nullptr) {
        return Forbid(verdict_, "dbx", *entry);
      }
    }
    if (const Signature* entry = FindDigest(keys_.db, subject_, HashAlgorithm::kSha256);
        entry != nullptr) {
      return Allow(verdict_, "db", *entry);
    }
    verdict_.reasons.emplace_back("it is not signed, and db does not hold its digest");
  }

  void DecideSigned() {
    size_t number = 0;
    for (const PeCertificate& certificate : subject_.image().certificates()) {
      const Blob blob = SignatureOf(certificate);
      if (blob.kind == BlobKind::kCorrupt) return RefuseTable();
      if (blob.kind == BlobKind::kSkipped) continue;
      if (JudgeSignature(++number, blob.pkcs7) == Next::kStop) return;
    }
    if (!FillTheirTable(subject_.image())) return RefuseTable();
    if (number == 0) verdict_.reasons.emplace_back("none of its signatures is a PKCS#7 one");
  }

  void RefuseTable() {
    verdict_ = {};
    verdict_.reasons.emplace_back(
        "its table of certificates is damaged, so that firmware refuses "
        "it whoever signed");
    verdict_.fixes.emplace_back("sign it anew, after removing its signatures");
  }

  void Note(size_t number, std::string_view what) {
    verdict_.reasons.push_back(fmt::format("signature {}: {}", number, what));
  }

  Next JudgeSignature(size_t number, ByteView pkcs7) {
    const Result<HashAlgorithm> algorithm = AuthenticodeAlgorithm(pkcs7);
    if (!algorithm.has_value() || subject_.Digest(*algorithm).empty()) {
      Note(number, "skipped: its digest algorithm is not known to firmware");
      return Next::kContinue;
    }
    const Bytes& digest = subject_.Digest(*algorithm);
    const Result<Authenticode> signature = ParseAuthenticode(pkcs7);
    if (!signature.has_value()) {
      Note(number, signature.error().Describe());
      // Whose signers cannot be looked up in dbx is forbidden.
      if (!keys_.dbx.empty()) {
        verdict_.allowed = false;
        verdict_.authorities.clear();
        verdict_.fixes = {"remove the damaged signature"};
        return Next::kStop;
      }
    } else if (IsForbidden(*signature, digest)) {
      return Next::kStop;
    } else if (!verdict_.allowed) {
      TryCertificates(number, *signature, digest);
    }
    return JudgeDigest(*algorithm);
  }

  Next JudgeDigest(HashAlgorithm algorithm) {
    if (const Signature* entry = FindDigest(keys_.dbx, subject_, algorithm); entry != nullptr) {
      Refuse("dbx", *entry);
      return Next::kStop;
    }
    if (verdict_.allowed) return Next::kContinue;
    if (const Signature* entry = FindDigest(keys_.db, subject_, algorithm); entry != nullptr) {
      Allow(verdict_, "db", *entry);
    }
    return Next::kContinue;
  }

  // A later signature can take away what an earlier one gave.
  void Refuse(const char* database, const Signature& entry) {
    verdict_.authorities.clear();
    Forbid(verdict_, database, entry);
  }

  bool IsForbidden(const Authenticode& signature, const Bytes& digest) {
    for (const Signature& entry : keys_.dbx) {
      if (entry.type != SignatureType::kX509) continue;
      const Result<Certificate> certificate = Certificate::Parse(entry.data);
      if (certificate.has_value() && IsTrusted(signature, digest, *certificate)) {
        Refuse("dbx", entry);
        return true;
      }
    }
    for (const Bytes& der : signature.message.signers()) {
      const Result<Certificate> signer = Certificate::Parse(der);
      const Signature* entry = signer.has_value() ? FindRevocation(keys_.dbx, *signer) : nullptr;
      if (entry != nullptr && !WasSignedBefore(signature, *entry)) {
        Refuse("dbx", *entry);
        return true;
      }
    }
    return false;
  }

  void TryCertificates(size_t number, const Authenticode& signature, const Bytes& digest) {
    for (const Signature& entry : keys_.db) {
      if (entry.type != SignatureType::kX509) continue;
      const Result<Certificate> certificate = Certificate::Parse(entry.data);
      if (!certificate.has_value() || !IsTrusted(signature, digest, *certificate)) continue;
      const Signature* revocation = FindRevocation(keys_.dbx, *certificate);
      if (revocation == nullptr || WasSignedBefore(signature, *revocation)) {
        return Allow(verdict_, "db", entry);
      }
      // Firmware looks no further in db.
      return Note(number, fmt::format("{} would let it start, but dbx revokes it: {}",
                                      DescribeSignature(entry), DescribeSignature(*revocation)));
    }
    if (const Result<void> valid = VerifySignature(signature, digest); !valid.has_value()) {
      return Note(number, valid.error().message());
    }
    Note(number, fmt::format("by {}, whom db does not trust", SignerText(signature)));
    AddIssuer(signature);
  }

  void AddIssuer(const Authenticode& signature) {
    const Result<Certificate> signer = Certificate::Parse(signature.message.signers().front());
    if (signer.has_value()) issuers_.push_back(signer->IssuerName());
  }

  // A revocation with a time spares what a trusted authority saw before it (PassTimestampCheck).
  bool WasSignedBefore(const Authenticode& signature, const Signature& revocation) const {
    const size_t at = DigestSize(SignatureAlgorithm(revocation.type));
    const VariableTime revoked = ReadRevocationTime(ByteView(revocation.data).subspan(at));
    if (revoked == VariableTime()) return false;
    return std::ranges::any_of(keys_.dbt, [&](const Signature& entry) {
      if (entry.type != SignatureType::kX509) return false;
      const Result<Certificate> authority = Certificate::Parse(entry.data);
      if (!authority.has_value()) return false;
      const Result<VariableTime> time = signature.message.Timestamp(*authority);
      return time.has_value() && *time <= revoked;
    });
  }

  static VariableTime ReadRevocationTime(ByteView bytes) {
    const auto byte = [&](size_t i) { return std::to_integer<uint8_t>(bytes[i]); };
    VariableTime time;
    time.year = static_cast<uint16_t>(byte(0) | (byte(1) << 8U));
    time.month = byte(2);
    time.day = byte(3);
    time.hour = byte(4);
    time.minute = byte(5);
    time.second = byte(6);
    return time;
  }

  Subject subject_;
  const KeySet& keys_;
  ImageVerdict verdict_;
  std::vector<std::string> issuers_;
};

// shim looks only at certificates whose length takes two bytes, and at none for kernel modules
// (verify_x509, verify_eku).
bool IsUsableByShim(ByteView der, const Certificate& certificate) {
  const auto byte = [&](size_t i) { return std::to_integer<size_t>(der[i]); };
  return der.size() > 4 && byte(0) == 0x30 && byte(1) == 0x82 &&
         ((byte(2) << 8U) | byte(3)) == der.size() - 4 && !certificate.IsForModulesOnly();
}

// The decision of verify_buffer_authenticode over one image.
class ShimDecision {
 public:
  ShimDecision(const PeImage& image, const KeySet& keys, const ShimTrust& shim) : subject_(image) {
    forbidden_ = {{"vendor_dbx", &shim.vendor_dbx}, {"dbx", &keys.dbx}, {"MokListX", &keys.mokx}};
    mok_list_rt_ = keys.mok;
    mok_list_rt_.insert(mok_list_rt_.end(), shim.vendor.begin(), shim.vendor.end());
    allowed_.push_back({"db", &keys.db});
    if (shim.has_vendor_db) allowed_.push_back({"vendor_db", &shim.vendor});
    allowed_.push_back({"MokListRT", &mok_list_rt_});
  }
  ShimDecision(const ShimDecision&) = delete;
  ShimDecision& operator=(const ShimDecision&) = delete;

  ImageVerdict Decide() && {
    if (!ByDigest()) BySignatures();
    if (!verdict_.allowed && verdict_.fixes.empty()) {
      AddFixes(verdict_, subject_, "db or MokList", issuers_);
    }
    return std::move(verdict_);
  }

 private:
  struct Database {
    const char* name;
    const std::vector<Signature>* list;
  };

  const Signature* FindImage(const Database& database) {
    const Signature* entry = FindDigest(*database.list, subject_, HashAlgorithm::kSha256);
    // By SHA-1 too, but not in the lists of the machine's owner.
    if (entry == nullptr && !std::string_view(database.name).starts_with("MokList")) {
      entry = FindDigest(*database.list, subject_, HashAlgorithm::kSha1);
    }
    return entry;
  }

  // Returns whether that decided.
  bool ByDigest() {
    for (const Database& database : forbidden_) {
      if (const Signature* entry = FindImage(database); entry != nullptr) {
        Forbid(verdict_, database.name, *entry);
        return true;
      }
    }
    for (const Database& database : allowed_) {
      if (const Signature* entry = FindImage(database); entry != nullptr) {
        Allow(verdict_, database.name, *entry);
        return true;
      }
    }
    return false;
  }

  void BySignatures() {
    size_t number = 0;
    for (const PeCertificate& certificate : subject_.image().certificates()) {
      if (certificate.type != formats::kWinCertTypePkcs7) continue;
      ++number;
      const Result<Authenticode> signature = ParseAuthenticode(certificate.data);
      if (signature.has_value()) {
        JudgeSignature(number, *signature);
      } else {
        Note(number, signature.error().Describe());
      }
    }
    if (number == 0) {
      verdict_.reasons.emplace_back(
          "it is not signed, and neither db nor MokList holds its digest");
    }
    // A revoked signature does not undo another that counts.
    if (verdict_.allowed) {
      verdict_.forbidden_by.reset();
      verdict_.fixes.clear();
    }
  }

  void Note(size_t number, std::string_view what) {
    verdict_.reasons.push_back(fmt::format("signature {}: {}", number, what));
  }

  void JudgeSignature(size_t number, const Authenticode& signature) {
    for (const Database& database : forbidden_) {
      if (const Signature* entry = FindIssuer(database, signature); entry != nullptr) {
        const bool allowed = verdict_.allowed;
        Forbid(verdict_, database.name, *entry);
        verdict_.allowed = allowed;
        return;
      }
    }
    for (const Database& database : allowed_) {
      if (const Signature* entry = FindIssuer(database, signature); entry != nullptr) {
        return Allow(verdict_, database.name, *entry);
      }
    }
    const Result<void> valid = VerifySignature(signature, subject_.Digest(HashAlgorithm::kSha256));
    if (!valid.has_value()) return Note(number, valid.error().message());
    Note(number,
         fmt::format("by {}, whom neither db nor shim nor MokList trusts", SignerText(signature)));
    const Result<Certificate> signer = Certificate::Parse(signature.message.signers().front());
    if (signer.has_value()) issuers_.push_back(signer->IssuerName());
  }

  const Signature* FindIssuer(const Database& database, const Authenticode& signature) {
    const Bytes& digest = subject_.Digest(HashAlgorithm::kSha256);
    const auto it = std::ranges::find_if(*database.list, [&](const Signature& entry) {
      if (entry.type != SignatureType::kX509) return false;
      const Result<Certificate> certificate = Certificate::Parse(entry.data);
      return certificate.has_value() && IsUsableByShim(entry.data, *certificate) &&
             IsTrusted(signature, digest, *certificate);
    });
    return it == database.list->end() ? nullptr : &*it;
  }

  Subject subject_;
  std::vector<Signature> mok_list_rt_;
  std::vector<Database> forbidden_;
  std::vector<Database> allowed_;
  ImageVerdict verdict_;
  std::vector<std::string> issuers_;
};

SbatVerdict JudgeSbat(const PeImage& image, const KeySet& keys, const ShimTrust& shim,
                      SbatNeed need) {
  const auto refuse = [](std::string reason) { return SbatVerdict{false, {std::move(reason)}}; };
  const auto is_sbat = [](const formats::PeSection& s) { return s.name == ".sbat"; };
  if (std::ranges::count_if(image.sections(), is_sbat) > 1) {
    return refuse("it has several sections .sbat; shim accepts one");
  }
  const Result<std::string> text =
      AppliedSbatLevel(keys.sbat_level, shim.sbat_levels, SbatPolicy::kAutomatic);
  if (!text.has_value()) return refuse(text.error().Describe());
  if (text->empty()) return {true, {}};
  const Result<SbatLevel> level = ParseSbatLevel(*text);
  if (!level.has_value()) return refuse(level.error().Describe());
  return CheckSbat(image.Section(".sbat"), *level, need);
}

}  // namespace

ImageVerdict VerifyByFirmware(const formats::PeImage& image, const KeySet& keys) {
  if (!keys.secure_boot) return SecureBootIsOff();
  return FirmwareDecision(image, keys).Decide();
}

ImageVerdict VerifyByShim(const formats::PeImage& image, const KeySet& keys, const ShimTrust& shim,
                          SbatNeed need) {
  if (!keys.secure_boot) return SecureBootIsOff();
  ImageVerdict verdict = ShimDecision(image, keys, shim).Decide();
  SbatVerdict sbat = JudgeSbat(image, keys, shim, need);
  if (sbat.allowed) return verdict;
  verdict.allowed = false;
  verdict.authorities.clear();
  std::ranges::move(sbat.reasons, std::back_inserter(verdict.reasons));
  if (verdict.fixes.empty()) {
    verdict.fixes.emplace_back("use a build whose section .sbat meets shim's revocation level");
  }
  return verdict;
}

}  // namespace vallum::firmware
