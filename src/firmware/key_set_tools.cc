// SPDX-License-Identifier: Apache-2.0
#include "firmware/key_set_tools.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <utility>

#include "base/text.h"
#include "firmware/auth_file.h"
#include "firmware/pkcs7.h"

namespace vallum::firmware {
namespace {

// The PK and KEK of Debian's OVMF_VARS*.snakeoil.fd: anybody has its private key.
constexpr std::string_view kSnakeoilSha256 =
    "282e8130b7070f107aaecc25d3992ca4440270860b09088792a5075fab0d13f8";
// AMI's test platform keys, which shipped in products (CVE-2024-8105).
constexpr std::array<std::string_view, 2> kTestKeyNames = {"DO NOT TRUST", "DO NOT SHIP"};
constexpr int kLeastRsaBits = 2048;
constexpr int kLeastEcBits = 224;

// What an entry decides on: who put it there does not matter.
using Meaning = std::pair<Guid, Bytes>;

using Meanings = std::set<Meaning>;

Meaning MeaningOf(const Signature& entry) { return {entry.type_guid, entry.data}; }

Meanings MeaningsOf(const std::vector<Signature>& entries) {
  Meanings out;
  for (const Signature& entry : entries) out.insert(MeaningOf(entry));
  return out;
}

std::vector<std::string> MoreIn(const std::vector<Signature>& entries, const Meanings& other) {
  std::vector<std::string> out;
  Meanings said;
  for (const Signature& entry : entries) {
    const Meaning meaning = MeaningOf(entry);
    if (!other.contains(meaning) && said.insert(meaning).second) {
      out.push_back(DescribeSignature(entry));
    }
  }
  return out;
}

std::string Day(int64_t seconds) {
  return fmt::format("{:%Y-%m-%d}", fmt::gmtime(static_cast<std::time_t>(seconds)));
}

int64_t SecondsOf(WallTime time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

// Collects what is found on a set.
class Examination {
 public:
  Examination(const KeySet& keys, WallTime now) : keys_(keys), now_(SecondsOf(now)) {}

  std::vector<KeyFinding> Run() && {
    if (keys_.pk.empty() && keys_.db.empty() && keys_.kek.empty()) {
      Add(FindingSeverity::kNote,
          "the set has no keys: firmware is in setup mode and checks nothing");
      return std::move(findings_);
    }
    ExamineCompleteness();
    for (const KeyList& list : KeyLists()) ExamineList(list);
    ExamineContradictions();
    return std::move(findings_);
  }

 private:
  void Add(FindingSeverity severity, std::string text) {
    findings_.push_back({.severity = severity, .text = std::move(text)});
  }

  void ExamineCompleteness() {
    if (keys_.pk.empty()) {
      Add(FindingSeverity::kError,
          "PK is empty: firmware is in setup mode and checks nothing, whatever db holds");
    }
    if (keys_.pk.size() > 1) {
      Add(FindingSeverity::kError,
          fmt::format("PK has {} entries: firmware takes one", keys_.pk.size()));
    }
    if (keys_.kek.empty()) {
      Add(FindingSeverity::kWarning, "KEK is empty: guests can take over no update of db and dbx");
    }
    if (keys_.db.empty()) {
      Add(FindingSeverity::kError, "db is empty: firmware starts no program at all");
    }
    if (keys_.dbx.empty()) {
      Add(FindingSeverity::kWarning, "dbx is empty: programs that were revoked since would start");
    }
  }

  void ExamineList(const KeyList& list) {
    const std::vector<Signature>& entries = keys_.*list.entries;
    const size_t distinct = MeaningsOf(entries).size();
    if (distinct < entries.size()) {
      Add(FindingSeverity::kNote, fmt::format("{} has {} entries more than once", list.variable,
                                              entries.size() - distinct));
    }
    const bool signs = list.entries == &KeySet::pk || list.entries == &KeySet::kek;
    for (const Signature& entry : entries) {
      if (entry.type == SignatureType::kX509) {
        ExamineCertificate(list.variable, entry.data);
      } else if (entry.type == SignatureType::kOther) {
        Add(FindingSeverity::kWarning,
            fmt::format("{} has an entry of a type that firmware ignores: {}", list.variable,
                        DescribeSignature(entry)));
      } else if (signs) {
        Add(FindingSeverity::kError,
            fmt::format("{} has a digest, where a certificate is needed: {}", list.variable,
                        DescribeSignature(entry)));
      }
    }
  }

  void ExamineCertificate(std::string_view where, ByteView der) {
    const Result<Certificate> parsed = Certificate::Parse(der);
    if (!parsed.has_value()) {
      Add(FindingSeverity::kError, fmt::format("{} has a certificate that cannot be read: {}",
                                               where, parsed.error().Describe()));
      return;
    }
    const std::string name = fmt::format("{}: {}", where, parsed->CommonName());
    if (ToHex(Sha256(der)) == kSnakeoilSha256) {
      Add(FindingSeverity::kError, name + " is Debian's snakeoil key: everybody can sign with it");
    }
    for (const std::string_view mark : kTestKeyNames) {
      if (parsed->CommonName().find(mark) != std::string::npos ||
          parsed->IssuerName().find(mark) != std::string::npos) {
        Add(FindingSeverity::kError, name + " is a test key whose private part is published");
        break;
      }
    }
    const int least = parsed->KeyType() == "EC" ? kLeastEcBits : kLeastRsaBits;
    if (parsed->KeyBits() < least) {
      Add(FindingSeverity::kError,
          fmt::format("{} has a key of {} bits, below {}", name, parsed->KeyBits(), least));
    }
    if (parsed->HasWeakSignature()) {
      Add(FindingSeverity::kNote, name +
                                      " is signed by way of SHA-1 or MD5; firmware does not check "
                                      "that signature of an entry");
    }
    ExamineValidity(name, *parsed);
  }

  void ExamineValidity(const std::string& name, const Certificate& certificate) {
    const auto valid = certificate.ValidBetween();
    if (!valid) {
      Add(FindingSeverity::kWarning, name + " does not say until when it is valid");
    } else if (now_ > valid->not_after) {
      Add(FindingSeverity::kWarning,
          fmt::format("{} expired on {}; firmware goes on to accept it, its owner signs no more",
                      name, Day(valid->not_after)));
    } else if (now_ < valid->not_before) {
      Add(FindingSeverity::kWarning,
          fmt::format("{} is valid from {} only", name, Day(valid->not_before)));
    }
  }

  void ExamineContradictions() {
    const Meanings refused = MeaningsOf(keys_.dbx);
    for (const Signature& entry : keys_.db) {
      if (refused.contains(MeaningOf(entry))) {
        Add(FindingSeverity::kWarning,
            "db and dbx both have " + DescribeSignature(entry) + ": dbx wins, it starts nothing");
      }
    }
    const Meanings accepted = MeaningsOf(keys_.db);
    for (const Signature& entry : keys_.pk) {
      if (accepted.contains(MeaningOf(entry))) {
        Add(FindingSeverity::kNote,
            "db has the platform key as well: whoever signs programs with it "
            "can also replace every key");
      }
    }
  }

  const KeySet& keys_;
  int64_t now_;
  std::vector<KeyFinding> findings_;
};

}  // namespace

Result<std::vector<Signature>> SignaturesFromFile(ByteView file, const Guid& owner) {
  if (auto certificates = CertificatesFromFile(file, owner); certificates.has_value()) {
    return certificates;
  }
  Result<std::vector<Signature>> entries = InvalidInput("no entries");
  if (auto update = ParseAuthFile(file); update.has_value()) {
    entries = std::move(update->signatures);
  } else if (entries = ParseSignatureLists(file); !entries.has_value()) {
    return InvalidInput("neither certificates (PEM, DER) nor signature lists (.esl, .auth): " +
                        entries.error().Describe())
        .WithFix("give a certificate, a file of signature lists or a signed update");
  }
  if (entries->empty()) return InvalidInput("the file has no entries");
  return entries;
}

Result<Signature> SignatureFromDigest(std::string_view hex, const Guid& owner) {
  const Result<Bytes> digest = FromHex(hex);
  if (!digest.has_value() || digest->size() != DigestSize(HashAlgorithm::kSha256)) {
    return InvalidInput("'" + Printable(hex, 80) + "' is no SHA-256")
        .WithFix(
            "give the 64 hexadecimal digits of the program's Authenticode digest, as `vallum "
            "image inspect` shows it");
  }
  return MakeSignature(SignatureType::kSha256, owner, *digest);
}

Sha256Digest DigestOf(const KeySet& keys) {
  KeySet nameless = keys;
  nameless.name.clear();
  return Sha256(AsBytes(ToJson(nameless)));
}

std::vector<KeyListDifference> DiffKeySets(const KeySet& before, const KeySet& after) {
  std::vector<KeyListDifference> differences;
  const auto add = [&](std::string list, std::vector<std::string> added,
                       std::vector<std::string> removed) {
    if (added.empty() && removed.empty()) return;
    differences.push_back(
        {.list = std::move(list), .added = std::move(added), .removed = std::move(removed)});
  };
  for (const KeyList& list : KeyLists()) {
    add(list.variable, MoreIn(after.*list.entries, MeaningsOf(before.*list.entries)),
        MoreIn(before.*list.entries, MeaningsOf(after.*list.entries)));
  }
  if (before.sbat_level != after.sbat_level) {
    const auto level = [](const std::string& text) {
      return std::vector{text.empty() ? "none: shim's own" : Printable(text, 200)};
    };
    add("SbatLevel", level(after.sbat_level), level(before.sbat_level));
  }
  if (before.secure_boot != after.secure_boot) {
    const auto state = [](bool on) { return std::vector<std::string>{on ? "on" : "off"}; };
    add("Secure Boot", state(after.secure_boot), state(before.secure_boot));
  }
  return differences;
}

std::string_view FindingSeverityName(FindingSeverity severity) {
  switch (severity) {
    case FindingSeverity::kNote:
      return "note";
    case FindingSeverity::kWarning:
      return "warning";
    case FindingSeverity::kError:
      return "error";
  }
  return "?";
}

std::vector<KeyFinding> VerifyKeySet(const KeySet& keys, WallTime now) {
  return Examination(keys, now).Run();
}

std::vector<AgingCertificate> FindAgingCertificates(const KeySet& keys, WallTime now) {
  std::set<std::string_view> held;
  for (const KeyList& list : KeyLists()) {
    for (const Signature& entry : keys.*list.entries) {
      if (const KnownCertificate* known = FindKnownCertificate(entry.data))
        held.insert(known->name);
    }
  }
  std::vector<AgingCertificate> aging;
  for (const KeyList& list : KeyLists()) {
    if (list.entries == &KeySet::dbx || list.entries == &KeySet::mokx) continue;
    for (const Signature& entry : keys.*list.entries) {
      const KnownCertificate* known = FindKnownCertificate(entry.data);
      if (known == nullptr || known->successors.front().empty()) continue;
      AgingCertificate& out = aging.emplace_back();
      out.name = known->name;
      out.list = list.variable;
      out.expires = known->expires.ToString().substr(0, 10);
      // Both are UTC in the same form, so they sort as text.
      out.expired = FormatTime(now).substr(0, 10) > out.expires;
      for (const std::string_view successor : known->successors) {
        if (!successor.empty() && !held.contains(successor)) out.missing.emplace_back(successor);
      }
    }
  }
  return aging;
}

}  // namespace vallum::firmware
