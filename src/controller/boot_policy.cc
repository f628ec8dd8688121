// SPDX-License-Identifier: Apache-2.0
#include "controller/boot_policy.h"

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "controller/boot_settings.h"
#include "placement/trait_set.h"

namespace vallum::controller {
namespace {

constexpr const char* kSecureFix =
    "use boottype=UEFI bootmode=SECURE, or an image without the requirement";

template <typename A, typename B>
Error Clash(const Said<A>& a, const Said<B>& b, std::string fix) {
  return InvalidInput(a.Words() + " conflicts with " + b.Words()).WithFix(std::move(fix));
}

// Statements of one owner about one thing must agree.
template <typename T>
Result<std::optional<Said<T>>> Agreed(const std::vector<Said<T>>& said) {
  std::optional<Said<T>> first;
  for (const Said<T>& one : said) {
    if (first && first->value != one.value) {
      return Clash(*first, one, "keep one of the two settings");
    }
    if (!first) {
      first = one;
    }
  }
  return first;
}

// What each owner says, after its own spellings were found to agree.
struct OwnerBoot {
  std::optional<Said<v1::BootType>> type;
  std::optional<Said<SecureLevel>> level;
  std::optional<Said<std::string>> machine;
  std::optional<Said<std::string>> tpm;
  std::optional<Said<std::string>> signature;
};

// "some TPM" agrees with any model, but not with none.
Result<std::optional<Said<std::string>>> AgreedTpm(const std::vector<Said<std::string>>& said) {
  std::optional<Said<std::string>> best;
  for (const Said<std::string>& one : said) {
    if (!best || (best->value == "any" && one.value != "none")) {
      best = one;
      continue;
    }
    if (one.value != best->value && (one.value != "any" || best->value == "none")) {
      return Clash(*best, one, "keep one of the two settings");
    }
  }
  return best;
}

Result<void> SecureAgreesWithin(const OwnerBoot& boot) {
  if (boot.level && boot.level->value == SecureLevel::kRequired) {
    if (boot.type && boot.type->value == v1::BOOT_TYPE_BIOS) {
      return Clash(*boot.level, *boot.type, kSecureFix);
    }
    if (boot.machine && boot.machine->value == "pc") {
      return Clash(*boot.level, *boot.machine,
                   "use hw_machine_type=q35: Secure Boot needs the SMM of q35");
    }
  }
  return Ok();
}

Result<OwnerBoot> Condense(const BootStatements& statements) {
  OwnerBoot boot;
  ASSIGN_OR_RETURN(boot.type, Agreed(statements.types));
  ASSIGN_OR_RETURN(boot.level, Agreed(statements.levels));
  ASSIGN_OR_RETURN(boot.machine, Agreed(statements.machines));
  ASSIGN_OR_RETURN(boot.tpm, AgreedTpm(statements.tpm_models));
  ASSIGN_OR_RETURN(boot.signature, Agreed(statements.signatures));
  RETURN_IF_ERROR(SecureAgreesWithin(boot));
  return boot;
}

// The typed request (spec.boot, spec.tpm_model) as statements of the request.
Result<void> AddTyped(const BootInputs& inputs, BootStatements& out) {
  const std::string owner = "request";
  if (inputs.request.type() != v1::BOOT_TYPE_UNSPECIFIED) {
    const bool bios = inputs.request.type() == v1::BOOT_TYPE_BIOS;
    out.types.push_back({.value = inputs.request.type(),
                         .setting = bios ? "boot.type=BIOS" : "boot.type=UEFI",
                         .owner = owner});
  }
  if (inputs.request.mode() != v1::BOOT_MODE_UNSPECIFIED) {
    const bool secure = inputs.request.mode() == v1::BOOT_MODE_SECURE;
    out.levels.push_back({.value = secure ? SecureLevel::kRequired : SecureLevel::kDisabled,
                          .setting = secure ? "boot.mode=SECURE" : "boot.mode=LEGACY",
                          .owner = owner});
    out.type_without_mode = false;
  }
  if (const std::string& model = inputs.request_tpm_model; !model.empty()) {
    const std::string lower = ToLower(model);
    if (lower != "tpm-crb" && lower != "tpm-tis" && lower != "none") {
      return InvalidInput("tpm_model=" + Printable(model) +
                          " (request) is not a value of tpm_model")
          .WithFix("use tpm-crb, tpm-tis or none");
    }
    out.tpm_models.push_back({.value = lower, .setting = "tpm_model=" + lower, .owner = owner});
  }
  return Ok();
}

struct Owners {
  OwnerBoot request;
  OwnerBoot image;
  OwnerBoot flavor;
  std::vector<std::string> warnings;
};

Result<Owners> ReadOwners(const BootInputs& inputs) {
  Owners owners;
  ASSIGN_OR_RETURN(const BootStatements flavor,
                   ReadBootSettings(Owner::kFlavor, inputs.flavor_name, inputs.flavor_extra_specs));
  ASSIGN_OR_RETURN(const BootStatements image,
                   ReadBootSettings(Owner::kImage, inputs.image_name, inputs.image_properties));
  ASSIGN_OR_RETURN(BootStatements request,
                   ReadBootSettings(Owner::kRequest, "", inputs.request_properties));
  RETURN_IF_ERROR(AddTyped(inputs, request));
  if (request.type_without_mode) {
    return InvalidInput("boottype=UEFI (request) needs bootmode as well")
        .WithFix("add bootmode=SECURE or bootmode=LEGACY");
  }
  ASSIGN_OR_RETURN(owners.flavor, Condense(flavor));
  ASSIGN_OR_RETURN(owners.image, Condense(image));
  ASSIGN_OR_RETURN(owners.request, Condense(request));
  owners.warnings = flavor.warnings;
  return owners;
}

bool Says(const std::optional<Said<SecureLevel>>& level, SecureLevel value) {
  return level && level->value == value;
}

// The statement that demands SECURE, the weightiest first.
const Said<SecureLevel>* Demand(const Owners& owners) {
  for (const OwnerBoot* owner : {&owners.flavor, &owners.image, &owners.request}) {
    if (Says(owner->level, SecureLevel::kRequired)) {
      return &*owner->level;
    }
  }
  return nullptr;
}

Result<void> CheckDemand(const Said<SecureLevel>& demand, const Owners& owners) {
  if (Says(owners.request.level, SecureLevel::kDisabled)) {
    return Clash(
        demand, *owners.request.level,
        "use bootmode=SECURE, or " + std::string(Says(owners.flavor.level, SecureLevel::kRequired)
                                                     ? "a flavor without the requirement"
                                                     : "an image without the requirement"));
  }
  for (const OwnerBoot* owner : {&owners.request, &owners.image}) {
    if (owner->type && owner->type->value == v1::BOOT_TYPE_BIOS) {
      return Clash(
          demand, *owner->type,
          Says(owners.flavor.level, SecureLevel::kRequired)
              ? "use boottype=UEFI bootmode=SECURE with an image that boots with UEFI, or a "
                "flavor without the requirement"
              : kSecureFix);
    }
  }
  for (const OwnerBoot* owner : {&owners.request, &owners.image, &owners.flavor}) {
    if (owner->machine && owner->machine->value == "pc") {
      return Clash(demand, *owner->machine,
                   "use hw_machine_type=q35: Secure Boot needs the SMM of q35");
    }
  }
  return Ok();
}

void Origin(v1::BootRequested& out, const std::string& words) { out.set_origin(words); }

std::string OriginWords(const Said<SecureLevel>& said) { return said.owner + ": " + said.setting; }

Result<void> DecideSecure(const Said<SecureLevel>& demand, const Owners& owners,
                          v1::BootRequested& out) {
  RETURN_IF_ERROR(CheckDemand(demand, owners));
  if (Says(owners.image.level, SecureLevel::kDisabled)) {
    out.add_warnings(owners.image.level->Words() + " is overruled by " + demand.Words() +
                     ": its loader may not be signed");
  }
  out.set_type(v1::BOOT_TYPE_UEFI);
  out.set_mode(v1::BOOT_MODE_SECURE);
  Origin(out, OriginWords(demand));
  return Ok();
}

// What follows when nobody demands SECURE and the type is known.
void DecideMode(const Owners& owners, SecureHosts hosts, v1::BootRequested& out) {
  out.set_mode(v1::BOOT_MODE_LEGACY);
  if (Says(owners.request.level, SecureLevel::kDisabled)) {
    Origin(out, OriginWords(*owners.request.level));
    return;
  }
  // The request's word goes before the image's: it may be `optional` too (os_secure_boot).
  const std::optional<Said<SecureLevel>>& level =
      owners.request.level ? owners.request.level : owners.image.level;
  if (!Says(level, SecureLevel::kOptional)) {
    if (level) {
      Origin(out, OriginWords(*level));
    }
    return;
  }
  Origin(out, OriginWords(*level));
  const std::string words = level->Words();
  const OwnerBoot& request = owners.request;
  const OwnerBoot& image = owners.image;
  const bool pc = (request.machine && request.machine->value == "pc") ||
                  (image.machine && image.machine->value == "pc");
  const bool no_tpm =
      (request.tpm && request.tpm->value == "none") || (image.tpm && image.tpm->value == "none");
  if (out.type() == v1::BOOT_TYPE_BIOS || pc || no_tpm) {
    out.add_warnings(words + ": Secure Boot is off because the other settings rule it out (" +
                     (out.type() == v1::BOOT_TYPE_BIOS ? "BIOS" : (pc ? "machine pc" : "no TPM")) +
                     ")");
    return;
  }
  if (hosts == SecureHosts::kNone) {
    out.add_warnings(words +
                     ": Secure Boot is off because no host of the pool that is up can do it; "
                     "ask for it with bootmode=SECURE to have it or an error");
    return;
  }
  out.set_mode(v1::BOOT_MODE_SECURE);
}

Result<void> DecideType(const Owners& owners, v1::BootRequested& out) {
  const auto& asked = owners.request.type;
  const auto& declared = owners.image.type;
  if (asked && declared && asked->value != declared->value) {
    return Clash(*declared, *asked,
                 std::string("use boottype=") +
                     (declared->value == v1::BOOT_TYPE_UEFI ? "UEFI with a bootmode" : "BIOS") +
                     ", or another image");
  }
  const auto& said = asked ? asked : declared;
  out.set_type(said ? said->value : v1::BOOT_TYPE_UEFI);
  Origin(out, said ? said->owner + ": " + said->setting : "default: UEFI, LEGACY");
  return Ok();
}

Result<void> DecideTpm(const Owners& owners, BootPolicy& policy) {
  std::optional<Said<std::string>> chosen;
  for (const OwnerBoot* owner : {&owners.flavor, &owners.image, &owners.request}) {
    if (!owner->tpm) {
      continue;
    }
    std::vector<Said<std::string>> both;
    if (chosen) {
      both.push_back(*chosen);
    }
    both.push_back(*owner->tpm);
    // An image's "no TPM" is only its default: the request may add one.
    if (chosen && chosen->value == "none" && owner == &owners.request) {
      chosen = owner->tpm;
      continue;
    }
    ASSIGN_OR_RETURN(chosen, AgreedTpm(both));
  }
  const bool secure = policy.requested.mode() == v1::BOOT_MODE_SECURE;
  const bool bios = policy.requested.type() == v1::BOOT_TYPE_BIOS;
  if (secure && chosen && chosen->value == "none") {
    return InvalidInput(chosen->Words() + " conflicts with bootmode=SECURE (" +
                        policy.requested.origin() + ")")
        .WithFix("leave " + chosen->setting +
                 " out: Secure Boot is measured into a TPM, or use "
                 "bootmode=LEGACY");
  }
  policy.tpm_model = chosen ? chosen->value : (bios ? "none" : "tpm-crb");
  if (policy.tpm_model == "any") {
    policy.tpm_model = "tpm-crb";
  }
  return Ok();
}

Result<void> DecideMachine(const Owners& owners, BootPolicy& policy) {
  std::vector<Said<std::string>> said;
  for (const OwnerBoot* owner : {&owners.flavor, &owners.image, &owners.request}) {
    if (owner->machine) {
      said.push_back(*owner->machine);
    }
  }
  ASSIGN_OR_RETURN(const auto machine, Agreed(said));
  policy.machine = machine ? machine->value : "q35";
  return Ok();
}

// Whose loader the instance may start beside what its key set allows.
Result<void> DecideSignature(const Owners& owners, BootPolicy& policy) {
  std::vector<Said<std::string>> said;
  for (const OwnerBoot* owner : {&owners.image, &owners.request}) {
    if (owner->signature) said.push_back(*owner->signature);
  }
  ASSIGN_OR_RETURN(const auto signature, Agreed(said));
  if (!signature) return Ok();
  if (policy.requested.mode() == v1::BOOT_MODE_SECURE) {
    policy.signature = signature->value;
  } else if (owners.request.signature) {
    policy.requested.add_warnings(signature->Words() + " says nothing without Secure Boot");
  }
  return Ok();
}

void RequireTraits(BootPolicy& policy) {
  if (policy.requested.type() == v1::BOOT_TYPE_UEFI) {
    policy.required_traits.emplace_back(placement::kTraitUefi);
  }
  if (policy.requested.mode() == v1::BOOT_MODE_SECURE) {
    policy.required_traits.emplace_back(placement::kTraitSmm);
    policy.required_traits.emplace_back(placement::kTraitSecureBoot);
  }
  if (policy.tpm_model != "none") {
    policy.required_traits.emplace_back(placement::kTraitTpm20);
    policy.required_traits.emplace_back(policy.tpm_model == "tpm-tis" ? placement::kTraitTpmTis
                                                                      : placement::kTraitTpmCrb);
  }
}

}  // namespace

Result<BootPolicy> ResolveBoot(const BootInputs& inputs) {
  ASSIGN_OR_RETURN(const Owners owners, ReadOwners(inputs));
  BootPolicy policy;
  for (const std::string& warning : owners.warnings) {
    policy.requested.add_warnings(warning);
  }
  if (const Said<SecureLevel>* demand = Demand(owners); demand != nullptr) {
    RETURN_IF_ERROR(DecideSecure(*demand, owners, policy.requested));
  } else {
    RETURN_IF_ERROR(DecideType(owners, policy.requested));
    DecideMode(owners, inputs.secure_hosts, policy.requested);
  }
  RETURN_IF_ERROR(DecideMachine(owners, policy));
  RETURN_IF_ERROR(DecideTpm(owners, policy));
  RETURN_IF_ERROR(DecideSignature(owners, policy));
  RequireTraits(policy);
  return policy;
}

Result<void> CheckImageProperties(const std::string& image_name, const Properties& properties) {
  BootInputs inputs;
  inputs.image_name = image_name;
  inputs.image_properties = properties;
  inputs.secure_hosts = SecureHosts::kSome;
  RETURN_IF_ERROR(ResolveBoot(inputs));
  return Ok();
}

}  // namespace vallum::controller
