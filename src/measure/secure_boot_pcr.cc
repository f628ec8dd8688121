// SPDX-License-Identifier: Apache-2.0
#include "measure/secure_boot_pcr.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "measure/authorities.h"
#include "measure/event_digest.h"
#include "measure/pcr.h"

namespace vallum::measure {
namespace {

using firmware::kGlobalVariableGuid;
using firmware::kSecurityDatabaseGuid;
using firmware::kShimLockGuid;
using firmware::SecureBootSetting;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;

// One step of the configuration part, which firmware measures before it starts any image.
struct Step {
  Pcr7EventKind kind = Pcr7EventKind::kKeyVariable;
  std::string name;
  std::vector<Bytes> admissible;  // the first is what firmware with Secure Boot measures
  std::string explanation;
};

struct KeyVariable {
  std::string_view name;
  firmware::Guid vendor;
  enum class Presence { kAlways, kWhenStored } measured;
};
// "SecureBoot, PK, KEK, db, dbx" are measured even when absent; the others only when they exist
// (TCG PC Client Platform Firmware Profile, section 3.3.4.8).
constexpr KeyVariable kKeyVariables[] = {
    {"PK", kGlobalVariableGuid, KeyVariable::Presence::kAlways},
    {"KEK", kGlobalVariableGuid, KeyVariable::Presence::kAlways},
    {"db", kSecurityDatabaseGuid, KeyVariable::Presence::kAlways},
    {"dbx", kSecurityDatabaseGuid, KeyVariable::Presence::kAlways},
    {"dbt", kSecurityDatabaseGuid, KeyVariable::Presence::kWhenStored},
    {"dbr", kSecurityDatabaseGuid, KeyVariable::Presence::kWhenStored},
};

Bytes SecureBootDigest(HashAlgorithm bank, ByteView value) {
  return VariableEventDigest(bank, "SecureBoot", kGlobalVariableGuid, value);
}
Bytes OnDigest(HashAlgorithm bank) { return SecureBootDigest(bank, Bytes{std::byte{1}}); }
Bytes OffDigest(HashAlgorithm bank) { return SecureBootDigest(bank, Bytes{std::byte{0}}); }
// Firmware built without Secure Boot has no such variable and measures it as empty.
Bytes AbsentDigest(HashAlgorithm bank) { return SecureBootDigest(bank, {}); }

Step SecureBootStep(HashAlgorithm bank, SecureBootSetting setting) {
  Step step;
  step.kind = Pcr7EventKind::kSecureBoot;
  step.name = "SecureBoot";
  if (setting == SecureBootSetting::kOn) {
    step.admissible = {OnDigest(bank)};
    step.explanation = "SecureBoot is 1: keys are enrolled and SecureBootEnable allows it";
  } else {
    step.admissible = {OffDigest(bank), AbsentDigest(bank)};
    step.explanation =
        fmt::format("SecureBoot is off, as the store says ({})", SecureBootSettingName(setting));
  }
  return step;
}

std::vector<Step> ConfigurationSteps(HashAlgorithm bank, const firmware::VariableStore& store) {
  std::vector<Step> steps = {SecureBootStep(bank, DeriveSecureBoot(store))};
  for (const KeyVariable& key : kKeyVariables) {
    const firmware::Variable* variable = store.Find(key.name, key.vendor);
    if (variable == nullptr && key.measured == KeyVariable::Presence::kWhenStored) {
      continue;
    }
    const Bytes data = variable == nullptr ? Bytes{} : variable->data;
    steps.push_back({Pcr7EventKind::kKeyVariable,
                     std::string(key.name),
                     {VariableEventDigest(bank, key.name, key.vendor, data)},
                     fmt::format("{} of the variable store ({} bytes)", key.name, data.size())});
  }
  steps.push_back({Pcr7EventKind::kSeparator,
                   "the separator",
                   {SeparatorDigest(bank)},
                   "separator: the end of the configuration part"});
  return steps;
}

// The recomputed digest that the measured one equals, or nullptr.
const Bytes* Admitted(const Step& step, const Bytes& measured) {
  const auto found = std::find(step.admissible.begin(), step.admissible.end(), measured);
  return found == step.admissible.end() ? nullptr : &*found;
}

// What an extend is that nothing in the instance's artefacts explains, if it is known at all.
std::string NameUnexplained(const Bytes& digest) {
  if (digest == OnDigest(kBank)) {
    return "SecureBoot measured as 1";
  }
  if (digest == OffDigest(kBank) || digest == AbsentDigest(kBank)) {
    return "SecureBoot measured as off";
  }
  if (digest == SeparatorDigest(kBank)) {
    return "a separator";
  }
  if (digest == ErrorSeparatorDigest(kBank)) {
    return "the firmware's mark for failed measurements";
  }
  for (const std::string_view action : {"UEFI Debug Mode", "DMA Protection Disabled"}) {
    if (digest == ActionDigest(kBank, action)) {
      return fmt::format("the action \"{}\"", action);
    }
  }
  return "a digest that no artefact of this instance gives: " + ToHex(digest);
}

// Walks over the measured extends and says of each what it is.
class Explainer {
 public:
  Explainer(std::span<const Bytes> measured, Pcr7Explanation& out)
      : measured_(measured), out_(out) {}

  // Explains the configuration part; a step that is missing or different makes a reason.
  void Configuration(const std::vector<Step>& steps) {
    for (size_t i = 0; i < steps.size(); ++i) {
      const Step& step = steps[i];
      if (const Bytes* recomputed = AtEnd() ? nullptr : Admitted(step, Next());
          recomputed != nullptr) {
        computed_.push_back(*recomputed);
        Explain(step.kind, step.explanation);
        continue;
      }
      computed_.push_back(step.admissible.front());
      if (AtEnd() || ExplainsLater(steps, i)) {
        Reason(fmt::format("{} was not measured where it belongs", step.name));
        continue;
      }
      Unexplained(fmt::format("expected {}, found {}", step.explanation, NameUnexplained(Next())));
    }
  }

  // Explains what follows the separator.
  void AuthorityPart(const std::vector<Authority>& admissible, SecureBootSetting configured) {
    std::vector<Bytes> digests;
    for (const Authority& authority : admissible) {
      digests.push_back(authority.DigestIn(kBank));
    }
    std::vector<size_t> uses(admissible.size());
    bool loader_started = configured != SecureBootSetting::kOn;
    while (!AtEnd()) {
      const auto digest = std::find(digests.begin(), digests.end(), Next());
      if (digest == digests.end()) {
        Unexplained("after the separator: " + NameUnexplained(Next()));
        continue;
      }
      const auto found = admissible.begin() + (digest - digests.begin());
      const bool by_firmware = found->kind == Pcr7EventKind::kDbAuthority;
      // Firmware and shim each measure an authority once, and both may use db.
      const size_t limit = by_firmware ? 2 : 1;
      if (++uses[static_cast<size_t>(found - admissible.begin())] > limit) {
        Unexplained(fmt::format("measured too often: {}", found->explanation));
        continue;
      }
      if (!by_firmware && !loader_started) {
        Unexplained(fmt::format("before db let any loader start: {}", found->explanation));
        continue;
      }
      loader_started = true;
      computed_.push_back(*digest);
      Explain(found->kind, found->explanation);
    }
  }

  Result<void> Finish() {
    ASSIGN_OR_RETURN(out_.measured_digest, ReplayPcr(kBank, measured_));
    ASSIGN_OR_RETURN(out_.computed_digest, ReplayPcr(kBank, computed_));
    out_.matches = out_.matches && out_.computed_digest == out_.measured_digest;
    return Ok();
  }

  void Reason(std::string reason) {
    out_.matches = false;
    out_.reasons.push_back(std::move(reason));
  }

 private:
  bool AtEnd() const { return next_ == measured_.size(); }
  const Bytes& Next() const { return measured_[next_]; }

  bool ExplainsLater(const std::vector<Step>& steps, size_t current) const {
    return std::any_of(steps.begin() + static_cast<std::ptrdiff_t>(current) + 1, steps.end(),
                       [&](const Step& step) { return Admitted(step, Next()) != nullptr; });
  }

  void Explain(Pcr7EventKind kind, std::string explanation) {
    if (kind == Pcr7EventKind::kSecureBoot) {
      out_.secure_boot = Next() == OnDigest(kBank) ? SecureBootState::kOn : SecureBootState::kOff;
    }
    out_.events.push_back({kind, Next(), computed_.back(), std::move(explanation)});
    ++next_;
  }

  void Unexplained(std::string why) {
    Reason(fmt::format("extend {} of PCR 7: {}", next_ + 1, why));
    out_.events.push_back({Pcr7EventKind::kUnexplained, Next(), {}, std::move(why)});
    ++next_;
  }

  std::span<const Bytes> measured_;
  Pcr7Explanation& out_;
  std::vector<Bytes> computed_;
  size_t next_ = 0;
};

// "MokSBState ... 1: shim does not verify what it starts": then PCR 7 says nothing about GRUB.
bool ShimIsSwitchedOff(const firmware::VariableStore& store) {
  const firmware::Variable* state = store.Find("MokSBState", kShimLockGuid);
  return state != nullptr && state->data == Bytes{std::byte{1}};
}

}  // namespace

std::string_view SecureBootStateName(SecureBootState state) {
  switch (state) {
    case SecureBootState::kOn:
      return "on";
    case SecureBootState::kOff:
      return "off";
    case SecureBootState::kUnknown:
      return "unknown";
  }
  return "";
}

Result<Pcr7Explanation> ComputePcr7(const firmware::VariableStore& store,
                                    std::span<const BootBinary> binaries,
                                    std::span<const Bytes> measured) {
  RETURN_IF_ERROR(ReplayPcr(kBank, measured)).context("replaying PCR 7");
  ASSIGN_OR_RETURN(Authorities authorities, FindAuthorities(store, binaries));
  Pcr7Explanation explanation;
  explanation.configured = DeriveSecureBoot(store);
  explanation.matches = true;
  Explainer explainer(measured, explanation);
  explainer.Configuration(ConfigurationSteps(kBank, store));
  explainer.AuthorityPart(authorities.admissible, explanation.configured);
  if (ShimIsSwitchedOff(store)) {
    explainer.Reason("shim's verification is switched off (MokSBState is 1)");
  }
  RETURN_IF_ERROR(explainer.Finish());
  explanation.reasons.insert(explanation.reasons.end(), authorities.notes.begin(),
                             authorities.notes.end());
  return explanation;
}

std::vector<Pcr7Configuration> ExpectedPcr7Configuration(HashAlgorithm bank,
                                                         const firmware::VariableStore& store) {
  std::vector<Pcr7Configuration> configuration;
  for (const Step& step : ConfigurationSteps(bank, store)) {
    configuration.push_back({step.admissible.front(), step.explanation});
  }
  return configuration;
}

}  // namespace vallum::measure
