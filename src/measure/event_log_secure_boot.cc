// SPDX-License-Identifier: Apache-2.0
#include "measure/event_log_secure_boot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "base/text.h"
#include "measure/event_content.h"
#include "measure/event_data.h"

namespace vallum::measure {
namespace {

using firmware::Guid;

constexpr uint32_t kPolicyPcr = 7;
constexpr uint32_t kPolicyRtmr = 1;
constexpr std::string_view kDebugMode = "UEFI Debug Mode";
constexpr std::string_view kDmaProtection = "DMA Protection Disabled";

struct PolicyVariable {
  std::string_view name;
  const Guid& vendor;
  std::vector<firmware::Signature> LoggedSecureBootPolicy::* keys;  // nullptr for SecureBoot
};
// In the order in which firmware measures them; all of them, even when they are empty.
constexpr std::array kVariables = {
    PolicyVariable{"SecureBoot", firmware::kGlobalVariableGuid, nullptr},
    PolicyVariable{"PK", firmware::kGlobalVariableGuid, &LoggedSecureBootPolicy::pk},
    PolicyVariable{"KEK", firmware::kGlobalVariableGuid, &LoggedSecureBootPolicy::kek},
    PolicyVariable{"db", firmware::kSecurityDatabaseGuid, &LoggedSecureBootPolicy::db},
    PolicyVariable{"dbx", firmware::kSecurityDatabaseGuid, &LoggedSecureBootPolicy::dbx},
};

struct OtherVariable {
  std::string_view name;
  const Guid& vendor;
};
// What firmware may measure besides (PFP 3.3.4.8); none of them lets anything start.
constexpr std::array kOtherVariables = {
    OtherVariable{"dbt", firmware::kSecurityDatabaseGuid},
    OtherVariable{"dbr", firmware::kSecurityDatabaseGuid},
    OtherVariable{"SetupMode", firmware::kGlobalVariableGuid},
    OtherVariable{"AuditMode", firmware::kGlobalVariableGuid},
    OtherVariable{"DeployedMode", firmware::kGlobalVariableGuid},
};

bool IsOther(const VariableEvent& variable) {
  return std::ranges::any_of(kOtherVariables, [&](const OtherVariable& each) {
    return each.name == variable.name && each.vendor == variable.vendor;
  });
}

class PolicyReader {
 public:
  PolicyReader(const EventLog& log, HashAlgorithm bank) : log_(log), hasher_(bank) {}

  LoggedSecureBootPolicy Run() && {
    const uint32_t wanted = log_.kind() == EventLogKind::kTpm ? kPolicyPcr : kPolicyRtmr;
    for (size_t i = 0; i < log_.events().size(); ++i) {
      const LoggedEvent& event = log_.events()[i];
      if (event.index != wanted || !log_.Extends(event)) {
        continue;
      }
      if (log_.DigestOf(event, hasher_.bank()).empty()) {
        Problem(fmt::format("event {} has no digest in the bank {}: nothing proves it", i,
                            HashAlgorithmName(hasher_.bank())));
        continue;
      }
      Read(i, event);
    }
    Conclude();
    return std::move(out_);
  }

 private:
  void Problem(std::string text) {
    if (out_.problems.size() + 1 < kMaxPolicyProblems) {
      out_.problems.push_back(std::move(text));
    } else if (out_.problems.size() < kMaxPolicyProblems) {
      out_.problems.emplace_back("more problems than are listed");
    }
  }

  void Read(size_t number, const LoggedEvent& event) {
    if (event.type == EventType::kSeparator) {
      ReadSeparator(number, event);
    } else if (event.type == EventType::kVariableDriverConfig) {
      ReadVariable(number, event);
    } else if (event.type == EventType::kVariableAuthority) {
      ReadAuthority(number, event);
    } else if (event.type == EventType::kEfiAction && AsText(event.data) == kDebugMode) {
      Problem(fmt::format("event {}: a debugger was attached to the firmware", number));
    } else if (event.type == EventType::kEfiAction && AsText(event.data) == kDmaProtection) {
      Problem(fmt::format("event {}: the firmware had DMA protection switched off", number));
    } else if (log_.kind() == EventLogKind::kTpm) {
      Problem(fmt::format("event {}: {} does not belong into PCR 7", number,
                          EventTypeName(event.type)));
    }
  }

  void ReadSeparator(size_t number, const LoggedEvent& event) {
    if (out_.separator) {
      Problem(fmt::format("event {}: a second separator in {}", number,
                          log_.RegisterName(event.index)));
      return;
    }
    out_.separator = true;
    if (CheckContent(log_, event, hasher_) != ContentCheck::kMatches ||
        ParseSeparator(event.data) != SeparatorKind::kNormal) {
      Problem(
          fmt::format("event {}: the separator says that measuring failed, or is none", number));
    }
  }

  void ReadVariable(size_t number, const LoggedEvent& event) {
    const auto variable = ParseVariableEvent(event.data);
    if (!variable.has_value()) {
      Problem(fmt::format("event {}: {}", number, variable.error().message()));
      return;
    }
    const auto known = std::ranges::find_if(kVariables, [&](const PolicyVariable& each) {
      return each.name == variable->name && each.vendor == variable->vendor;
    });
    const bool covered = CheckContent(log_, event, hasher_) == ContentCheck::kMatches;
    if (known == kVariables.end()) {
      // The type is not part of what was hashed: what is not the firmware's policy may be the use
      // of a key under another label.
      if (!covered || out_.separator || !IsOther(*variable)) {
        AddAuthority(number, *variable, covered);
      }
      return;
    }
    const auto position = static_cast<size_t>(known - kVariables.begin());
    const bool repeated = seen_[position];
    CheckPlace(number, position);
    seen_[position] = true;
    if (!covered) {
      Problem(
          fmt::format("event {}: the digest is not that of the logged {}", number, known->name));
    }
    // What was measured after the separator is not the firmware's.
    if (known->keys == nullptr) {
      SetState(!covered || repeated || out_.separator, *variable);
    } else if (covered && !repeated && !out_.separator) {
      ReadKeys(number, *known, *variable);
    }
  }

  void CheckPlace(size_t number, size_t position) {
    const std::string_view name = kVariables[position].name;
    if (out_.separator) {
      Problem(fmt::format("event {}: {} was measured after the separator", number, name));
    }
    if (seen_[position]) {
      Problem(fmt::format("event {}: {} was measured twice", number, name));
    }
    if (std::any_of(seen_.begin() + static_cast<std::ptrdiff_t>(position) + 1, seen_.end(),
                    [](bool seen) { return seen; })) {
      Problem(fmt::format("event {}: {} was measured out of order", number, name));
    }
  }

  void SetState(bool contradicted, const VariableEvent& variable) {
    const ByteView value = variable.data;
    if (contradicted || value.size() > 1) {
      out_.state = LoggedSecureBoot::kUnreadable;
    } else if (value.empty()) {
      out_.state = LoggedSecureBoot::kEmptyVariable;
    } else if (value[0] == std::byte{1}) {
      out_.state = LoggedSecureBoot::kOn;
    } else {
      out_.state =
          value[0] == std::byte{0} ? LoggedSecureBoot::kOff : LoggedSecureBoot::kUnreadable;
    }
    if (out_.state == LoggedSecureBoot::kUnreadable && !contradicted) {
      Problem("SecureBoot has a value other than 0 or 1");
    }
  }

  void ReadKeys(size_t number, const PolicyVariable& known, const VariableEvent& variable) {
    auto keys = firmware::ParseSignatureLists(variable.data);
    if (!keys.has_value()) {
      Problem(fmt::format("event {}: {} is no signature list: {}", number, known.name,
                          keys.error().message()));
      return;
    }
    out_.*known.keys = *std::move(keys);
  }

  void ReadAuthority(size_t number, const LoggedEvent& event) {
    const auto variable = ParseVariableEvent(event.data);
    if (!variable.has_value()) {
      Problem(fmt::format("event {}: {}", number, variable.error().message()));
      return;
    }
    AddAuthority(number, *variable, CheckContent(log_, event, hasher_) == ContentCheck::kMatches);
  }

  void AddAuthority(size_t number, const VariableEvent& variable, bool covered) {
    if (!covered) {
      Problem(DescribeMismatch(log_, {.event = number, .bank = hasher_.bank()}));
    }
    out_.authorities.push_back({.event = number,
                                .variable = variable.name,
                                .vendor = variable.vendor,
                                .before_separator = !out_.separator,
                                .covered = covered,
                                .description = DescribeAuthority(variable)});
  }

  // EFI_SIGNATURE_DATA, a bare certificate (shim's "Shim"), or text (SbatLevel).
  static std::string DescribeAuthority(const VariableEvent& variable) {
    constexpr size_t kOwnerSize = 16;
    constexpr std::byte kDerSequence{0x30};
    const ByteView data = variable.data;
    if (const auto text = ParseEventText(data); text.has_value()) {
      return Printable(*text);
    }
    if (data.size() > kOwnerSize && data[kOwnerSize] == kDerSequence) {
      return DescribeSignature(
          MakeSignature(firmware::SignatureType::kX509, {}, data.subspan(kOwnerSize)));
    }
    if (!data.empty() && data[0] == kDerSequence) {
      return DescribeSignature(MakeSignature(firmware::SignatureType::kX509, {}, data));
    }
    if (data.size() == kOwnerSize + DigestSize(HashAlgorithm::kSha256)) {
      return DescribeSignature(
          MakeSignature(firmware::SignatureType::kSha256, {}, data.subspan(kOwnerSize)));
    }
    return fmt::format("{} bytes: {}", data.size(),
                       ToHex(data.first(std::min<size_t>(data.size(), kOwnerSize))));
  }

  void Conclude() {
    if (out_.state == LoggedSecureBoot::kNotMeasured) {
      return;
    }
    for (size_t i = 0; i < kVariables.size(); ++i) {
      if (!seen_[i]) {
        Problem(fmt::format("{} was not measured", kVariables[i].name));
      }
    }
    if (!out_.separator) {
      Problem("no separator ends the firmware's part");
    }
    if (out_.state != LoggedSecureBoot::kOn) {
      return;
    }
    if (out_.pk.empty() || out_.kek.empty() || out_.db.empty()) {
      Problem("Secure Boot is on, but PK, KEK or db is empty");
    }
    if (out_.authorities.empty()) {
      Problem("Secure Boot is on, but no key was used: nothing that it lets start did start");
    }
  }

  const EventLog& log_;
  BankHasher hasher_;
  LoggedSecureBootPolicy out_;
  std::array<bool, kVariables.size()> seen_{};
};

}  // namespace

std::string_view LoggedSecureBootName(LoggedSecureBoot state) {
  switch (state) {
    case LoggedSecureBoot::kOn:
      return "on";
    case LoggedSecureBoot::kOff:
      return "off";
    case LoggedSecureBoot::kEmptyVariable:
      return "empty variable";
    case LoggedSecureBoot::kNotMeasured:
      return "not measured";
    case LoggedSecureBoot::kUnreadable:
      return "unreadable";
  }
  return "unreadable";
}

LoggedSecureBootPolicy ReadSecureBootPolicy(const EventLog& log, HashAlgorithm bank) {
  return PolicyReader(log, bank).Run();
}

}  // namespace vallum::measure
