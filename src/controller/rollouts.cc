// SPDX-License-Identifier: Apache-2.0
#include "controller/rollouts.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/text.h"
#include "controller/instance_origin.h"
#include "controller/key_set_content.h"
#include "controller/key_set_service.h"
#include "controller/verdict_words.h"

namespace vallum::controller {
namespace {

using Find = std::function<std::shared_ptr<const v1::Instance>(const std::string&)>;
using Instances = std::vector<std::shared_ptr<const v1::Instance>>;

constexpr size_t kMaxInstances = 2000;
// Agents name it when the keys could not be placed.
constexpr std::string_view kVariableStore = "variable store";

bool Is(const v1::RolloutInstance& one, std::string_view state) { return one.state() == state; }

bool HasKeys(const v1::Instance& instance, const std::string& key_set, int32_t version) {
  return KeySetOf(instance) == key_set && instance.spec().key_set_version() == version;
}

std::string Verdict(const v1::BootMeasured& measured) {
  std::string word = VerdictWord(measured.verdict());
  if (!measured.reasons().empty()) word += ": " + measured.reasons(0);
  return word;
}

// Why the boot of an instance is bad, as far as can be told.
enum class Blame { kNone, kInstance, kKeys };

// Guests write their own disks and extend their own PCRs: only what keys change speaks of keys.
Blame BlameFor(const v1::BootMeasured& measured, const v1::RolloutInstance& one) {
  constexpr int kSecureBootPcr = 7;
  const bool keys = measured.verdict() == v1::BOOT_REFUSED
                        ? !one.unbootable().empty()
                        : measured.first_difference().pcr() == kSecureBootPcr;
  return keys ? Blame::kKeys : Blame::kInstance;
}

void Mark(v1::RolloutInstance& one, const char* state, std::string detail) {
  one.set_state(state);
  one.set_detail(std::move(detail));
}

// What became of an instance that has the version: its boot, or when it will have one.
Blame JudgeBoot(const v1::RolloutSpec& spec, const v1::Instance& instance,
                v1::RolloutInstance& one) {
  const v1::InstanceStatus& status = instance.status();
  const v1::BootEffective& effective = status.boot().effective();
  const v1::BootMeasured& measured = status.boot().measured();
  const auto mark = [&](Blame blame, const char* state, std::string detail) {
    Mark(one, state, std::move(detail));
    return blame;
  };
  const bool started =
      effective.key_set() == spec.key_set() && effective.key_set_version() == spec.version();
  // It has shown that it boots with them: what it does later is its own.
  if (Is(one, "verified")) return Blame::kNone;
  if (started &&
      (measured.verdict() == v1::BOOT_DIVERGED || measured.verdict() == v1::BOOT_REFUSED)) {
    return mark(BlameFor(measured, one), "bad", "its boot is " + Verdict(measured));
  }
  if (status.phase() == v1::INSTANCE_FAILED) {
    const bool keys = status.reason().find(kVariableStore) != std::string::npos;
    return mark(keys ? Blame::kKeys : Blame::kInstance, "bad",
                "it could not start: " + status.reason());
  }
  if (!started) {
    const bool runs = status.phase() == v1::INSTANCE_RUNNING;
    return mark(Blame::kNone, "set",
                runs ? "takes effect at its next reboot" : "takes effect when it starts");
  }
  if (measured.verdict() == v1::BOOT_VERIFIED) return mark(Blame::kNone, "verified", "");
  if (status.phase() == v1::INSTANCE_CRASHED) {
    return mark(Blame::kInstance, "bad",
                "it crashed before its boot was verified: " + status.last_exit());
  }
  return mark(Blame::kNone, "set",
              measured.verdict() == v1::BOOT_UNMEASURED
                  ? "started with it; its boot is not measured"
                  : "started with it; waits for the verdict on its boot");
}

Blame Look(const v1::RolloutSpec& spec, const Find& find, v1::RolloutInstance& one) {
  const auto skip = [&](std::string why) {
    Mark(one, "skipped", std::move(why));
    return Blame::kNone;
  };
  if (Is(one, "skipped")) return Blame::kNone;
  const auto instance = find(one.instance());
  if (instance == nullptr || instance->metadata().has_delete_time()) {
    return skip("the instance was deleted");
  }
  const bool has_it = HasKeys(*instance, spec.key_set(), spec.version());
  const bool has_old = HasKeys(*instance, one.from_key_set(), one.from_version());
  if (!has_it && !(Is(one, "waiting") && has_old)) {
    return skip("somebody gave it key set " +
                VersionWords(KeySetOf(*instance), instance->spec().key_set_version()));
  }
  if (Is(one, "waiting")) {
    if (instance->status().phase() == v1::INSTANCE_FAILED) {
      return skip("it could not start with the version that it has");
    }
    if (!has_it) return Blame::kNone;
  }
  return JudgeBoot(spec, *instance, one);
}

// The bad instances that speak against the keys; empty: not enough of them. A canary is there to
// find what is wrong, so one is enough. Later it takes a tenth of the instances and two of them,
// of two tenants where there are two: else a guest or tenant could hold up everybody's keys.
std::vector<std::string> AgainstKeys(const v1::RolloutStatus& status,
                                     const std::vector<Blame>& blames, const Find& find) {
  const bool canary = status.state() == v1::ROLLOUT_CANARY;
  std::vector<std::string> against;
  std::set<std::string> tenants;
  std::set<std::string> tenants_against;
  size_t count = 0;
  for (size_t i = 0; i < blames.size(); ++i) {
    const v1::RolloutInstance& one = status.instances(static_cast<int>(i));
    const auto instance = find(one.instance());
    if (Is(one, "skipped") || instance == nullptr) continue;
    ++count;
    tenants.insert(instance->metadata().tenant());
    if (blames[i] == Blame::kKeys || (canary && blames[i] == Blame::kInstance)) {
      against.push_back(one.instance() + ": " + one.detail());
      tenants_against.insert(instance->metadata().tenant());
    }
  }
  if (canary) return against;
  const size_t enough = std::min(count, std::max<size_t>(2, (count + 9) / 10));
  const bool of_enough = tenants_against.size() >= std::min<size_t>(2, tenants.size());
  return against.size() >= enough && of_enough ? against : std::vector<std::string>();
}

KeySetChange Forward(const v1::RolloutSpec& spec, const v1::RolloutInstance& one) {
  return {.instance = one.instance(),
          .from_key_set = one.from_key_set(),
          .from_version = one.from_version(),
          .key_set = spec.key_set(),
          .version = spec.version()};
}

KeySetChange Back(const v1::RolloutSpec& spec, const v1::RolloutInstance& one) {
  return {.instance = one.instance(),
          .from_key_set = spec.key_set(),
          .from_version = spec.version(),
          .key_set = one.from_key_set(),
          .version = one.from_version()};
}

// From here on it goes back, whatever else happens: nothing is changed before that is stored, for
// boots with the former keys say nothing of the new ones any more.
void BeginReturn(const std::vector<std::string>& against, RolloutStep& step) {
  step.status.set_state(v1::ROLLOUT_RETURNING);
  step.status.set_reason("instance " + against.front());
  if (against.size() > 1) {
    step.status.set_reason(step.status.reason() + "; and " + std::to_string(against.size() - 1) +
                           " more");
  }
}

// Takes back what is not back yet; once everything is, says so.
void Return(const v1::RolloutSpec& spec, const Find& find, RolloutStep& step) {
  std::vector<v1::RolloutInstance*> back;
  for (v1::RolloutInstance& one : *step.status.mutable_instances()) {
    if (Is(one, "skipped") || Is(one, "returned")) continue;
    const auto instance = find(one.instance());
    if (instance == nullptr || instance->metadata().has_delete_time()) continue;
    // One that "waits" may have been given the keys just before it was to be noted.
    if (HasKeys(*instance, spec.key_set(), spec.version())) {
      step.changes.push_back(Back(spec, one));
    } else if (!Is(one, "waiting") && HasKeys(*instance, one.from_key_set(), one.from_version())) {
      back.push_back(&one);
    }
  }
  if (!step.changes.empty()) return;
  for (v1::RolloutInstance* one : back) {
    const std::string former =
        "back at key set " + VersionWords(one->from_key_set(), one->from_version());
    if (Is(*one, "bad")) {
      one->set_detail(one->detail() + "; " + former);
    } else {
      Mark(*one, "returned", former);
    }
  }
  step.status.set_state(v1::ROLLOUT_RETURNED);
}

// Whether nothing more is to be waited for.
bool IsSettled(const v1::RolloutInstance& one, const Find& find) {
  if (Is(one, "verified") || Is(one, "skipped") || Is(one, "bad")) return true;
  const auto instance = find(one.instance());
  return !one.canary() && Is(one, "set") && instance != nullptr &&
         instance->spec().tpm_model() == "none";
}

}  // namespace

RolloutStep AdvanceRollout(const v1::Rollout& rollout, const Find& find) {
  RolloutStep step{.status = rollout.status(), .changes = {}};
  if (!IsUnderWay(rollout)) return step;
  if (step.status.state() == v1::ROLLOUT_RETURNING) {
    Return(rollout.spec(), find, step);
    return step;
  }
  auto& all = *step.status.mutable_instances();
  std::vector<Blame> blames;
  for (v1::RolloutInstance& one : all) blames.push_back(Look(rollout.spec(), find, one));
  if (const auto against = AgainstKeys(step.status, blames, find); !against.empty()) {
    BeginReturn(against, step);
    return step;
  }
  const auto canary_with = [&](std::string_view state) {
    return std::ranges::any_of(all, [&](const auto& o) { return o.canary() && Is(o, state); });
  };
  if (step.status.state() == v1::ROLLOUT_CANARY && !canary_with("waiting") && !canary_with("set")) {
    if (!canary_with("verified")) {
      step.status.set_state(v1::ROLLOUT_STOPPED);
      step.status.set_reason("no canary is left, so nothing was verified");
      return step;
    }
    step.status.set_state(v1::ROLLOUT_ROLLING);
  }
  for (v1::RolloutInstance& one : all) {
    if (!Is(one, "waiting")) continue;
    if (step.status.state() == v1::ROLLOUT_CANARY && !one.canary()) continue;
    step.changes.push_back(Forward(rollout.spec(), one));
    Mark(one, "set", "takes effect at its next start or reboot");
  }
  if (std::ranges::all_of(all, [&](const auto& one) { return IsSettled(one, find); })) {
    step.status.set_state(v1::ROLLOUT_DONE);
    const auto bad = std::ranges::count_if(all, [](const auto& one) { return Is(one, "bad"); });
    if (bad > 0) {
      step.status.set_reason(std::to_string(bad) +
                             " instances are bad for reasons of their own: see each");
    }
  }
  return step;
}

namespace {

// Those that are asked for; all that use the key set when none is named.
Result<Instances> Choose(const View& view, const v1::RolloutSpec& spec) {
  Instances chosen;
  for (const std::string& name : spec.instances()) {
    const auto instance = view.Get<v1::Instance>(name);
    if (instance == nullptr || instance->metadata().has_delete_time()) {
      return NotFound("instance \"" + Printable(name, 63) + "\" does not exist")
          .WithFix("`vallum instance list` shows what there is");
    }
    const bool twice = std::ranges::any_of(
        chosen, [&](const auto& other) { return other->metadata().name() == name; });
    if (!twice) chosen.push_back(instance);
  }
  if (spec.instances().empty()) {
    for (const auto& instance : view.All<v1::Instance>()) {
      if (KeySetOf(*instance) == spec.key_set() && !instance->metadata().has_delete_time()) {
        chosen.push_back(instance);
      }
    }
    // Those that run say soonest how it goes.
    std::ranges::stable_partition(chosen, [](const auto& instance) {
      return instance->status().phase() == v1::INSTANCE_RUNNING;
    });
  }
  if (chosen.size() > kMaxInstances) {
    return Exhausted(std::to_string(chosen.size()) + " instances, at most " +
                     std::to_string(kMaxInstances) + " are in one roll-out")
        .WithFix("name some of them with --instances");
  }
  return chosen;
}

Result<void> CheckFree(const View& view, const Instances& chosen) {
  for (const auto& other : view.All<v1::Rollout>()) {
    if (!IsUnderWay(*other)) continue;
    for (const v1::RolloutInstance& one : other->status().instances()) {
      if (Is(one, "skipped")) continue;
      const bool both = std::ranges::any_of(
          chosen, [&](const auto& mine) { return mine->metadata().name() == one.instance(); });
      if (both) {
        return Conflict("instance " + one.instance() + " is in roll-out " +
                        other->metadata().name() + ", which is under way")
            .WithFix("wait for it, or `vallum rollout stop " + other->metadata().name() + "`");
      }
    }
  }
  return Ok();
}

// Judges each image once under each keys that its instances get.
class Judge {
 public:
  Judge(const View& view, const Preflight& preflight) : view_(view), preflight_(preflight) {}

  // Why the instance would not start; empty: it would, or verifies nothing.
  //   instance: with the new key set.
  Result<std::string> WhyNot(const v1::Instance& instance) {
    if (instance.status().boot().requested().mode() != v1::BOOT_MODE_SECURE) return std::string();
    ASSIGN_OR_RETURN(const firmware::KeySet keys, KeysFor(view_, instance));
    const std::string id = OriginWords(instance.spec()) + " " + ContentSha256(keys);
    if (const auto known = known_.find(id); known != known_.end()) return known->second;
    const auto image = OriginOf(view_, instance.spec());
    std::string reason;
    if (image == nullptr) {
      reason = "its image is gone, so that its boot chain cannot be judged";
    } else {
      const Result<PreflightVerdict> verdict = preflight_(*image, keys);
      reason = !verdict.has_value()
                   ? "its boot chain cannot be judged: " + verdict.error().message()
               : verdict->starts ? ""
                                 : "it would stop booting: " + verdict->reason;
    }
    known_.emplace(id, reason);
    return reason;
  }

 private:
  const View& view_;
  const Preflight& preflight_;
  std::map<std::string, std::string> known_;
};

Result<v1::RolloutInstance> PlanOne(const View& view, const v1::RolloutSpec& spec,
                                    const v1::Instance& instance, Judge& judge) {
  v1::RolloutInstance one;
  one.set_instance(instance.metadata().name());
  one.set_from_key_set(KeySetOf(instance));
  one.set_from_version(instance.spec().key_set_version());
  v1::Instance wanted = instance;
  wanted.mutable_spec()->set_key_set(spec.key_set());
  wanted.mutable_spec()->set_key_set_version(spec.version());
  RETURN_IF_ERROR(ResolveKeySet(view, instance.status().boot().requested(), wanted))
      .context("instance " + instance.metadata().name());
  if (HasKeys(instance, spec.key_set(), spec.version())) {
    Mark(one, "skipped", "it has this version already");
    return one;
  }
  if (instance.status().phase() == v1::INSTANCE_FAILED) {
    Mark(one, "skipped", "it could not start with the version that it has");
    return one;
  }
  ASSIGN_OR_RETURN(const std::string why_not, judge.WhyNot(wanted));
  one.set_unbootable(why_not);
  const bool skip = !why_not.empty() && !spec.include_unbootable();
  Mark(one, skip ? "skipped" : "waiting", why_not);
  return one;
}

v1::RolloutInstance Unplannable(const v1::Instance& instance, const Error& why) {
  v1::RolloutInstance one;
  one.set_instance(instance.metadata().name());
  one.set_from_key_set(KeySetOf(instance));
  one.set_from_version(instance.spec().key_set_version());
  Mark(one, "skipped", "it cannot have the version: " + Printable(why.Describe(), 500));
  return one;
}

Result<void> ChooseCanaries(const View& view, v1::Rollout& rollout) {
  int32_t wanted = rollout.spec().canaries();
  rollout.mutable_status()->set_state(wanted > 0 ? v1::ROLLOUT_CANARY : v1::ROLLOUT_ROLLING);
  if (wanted == 0) return Ok();
  int32_t chosen = 0;
  for (v1::RolloutInstance& one : *rollout.mutable_status()->mutable_instances()) {
    const auto instance = view.Get<v1::Instance>(one.instance());
    // Without a vTPM there is never a verdict to wait for.
    if (!Is(one, "waiting") || instance == nullptr || instance->spec().tpm_model() == "none") {
      continue;
    }
    if (chosen == wanted) break;
    one.set_canary(true);
    ++chosen;
  }
  if (chosen > 0) return Ok();
  return InvalidInput("spec.canaries=" + std::to_string(wanted) +
                      ": no instance of the roll-out has a vTPM, so no boot can be verified")
      .WithFix("use --canaries 0 to set all at once");
}

}  // namespace

Result<void> PlanRollout(const View& view, const Preflight& preflight, v1::Rollout& rollout) {
  v1::RolloutSpec& spec = *rollout.mutable_spec();
  rollout.clear_status();
  if (spec.canaries() < 0) return InvalidInput("spec.canaries cannot be negative");
  const auto key_set = view.Get<v1::KeySet>(spec.key_set());
  if (key_set == nullptr) {
    return NotFound("keyset \"" + Printable(spec.key_set(), 63) + "\" does not exist")
        .WithFix("`vallum keyset list` shows what there is");
  }
  if (spec.version() == 0) spec.set_version(key_set->status().version());
  if (FindContent(*key_set, spec.version()) == nullptr) {
    return NotFound("keyset " + spec.key_set() + " has no version " +
                    std::to_string(spec.version()))
        .WithFix("`vallum keyset show " + spec.key_set() + "` lists the versions");
  }
  ASSIGN_OR_RETURN(const Instances chosen, Choose(view, spec));
  RETURN_IF_ERROR(CheckFree(view, chosen));
  Judge judge(view, preflight);
  for (const auto& instance : chosen) {
    Result<v1::RolloutInstance> one = PlanOne(view, spec, *instance, judge);
    if (!one.has_value() && !spec.instances().empty()) return one.error();
    // Nobody asked for this very instance: it does not keep the others from their keys.
    *rollout.mutable_status()->add_instances() =
        one.has_value() ? *std::move(one) : Unplannable(*instance, one.error());
  }
  const auto& all = rollout.status().instances();
  if (std::ranges::none_of(all, [](const auto& one) { return Is(one, "waiting"); })) {
    rollout.mutable_status()->set_state(v1::ROLLOUT_DONE);
    rollout.mutable_status()->set_reason("no instance is left to be set");
    return Ok();
  }
  return ChooseCanaries(view, rollout);
}

Result<void> CreateRollout(ResourceStore& resources, const View& view, v1::Rollout& rollout) {
  const std::string name = rollout.metadata().name();
  RETURN_IF_ERROR(ValidateName("rollout", name));
  const std::string& key_set = rollout.spec().key_set();
  const AnyResource used = view.Find(Kind::kKeySet, key_set);
  if (used == nullptr) return NotFound("keyset " + key_set + " was deleted meanwhile");
  resources.PrepareCreate(rollout);
  store::Txn txn;
  txn.compares = {
      {.key = KeyOf(Kind::kRollout, name), .mod_revision = 0},
      {.key = KeyOf(Kind::kKeySet, key_set), .mod_revision = MetadataOf(*used).revision()}};
  txn.writes = {store::Write::Put(KeyOf(Kind::kRollout, name), EncodeResource(rollout)),
                store::Write::Put(UseKey(Kind::kKeySet, key_set), rollout.metadata().uid())};
  ASSIGN_OR_RETURN(const store::TxnResult done, resources.raw().Commit(txn));
  RETURN_IF_ERROR(view.WaitFor(done.revision));
  if (!done.succeeded) {
    return Conflict(view.Find(Kind::kRollout, name) != nullptr
                        ? "rollout \"" + name + "\" exists already"
                        : "keyset " + key_set + " changed meanwhile")
        .WithFix("try again, with another name if that one is taken");
  }
  rollout.mutable_metadata()->set_revision(done.revision);
  return Ok();
}

Result<v1::Rollout> StopRollout(ResourceStore& resources, const View& view, const std::string& name,
                                const std::string& user) {
  ASSIGN_OR_RETURN(v1::Rollout stopped,
                   resources.Modify<v1::Rollout>(
                       name, [&](v1::Rollout& current) -> Result<ResourceStore::Change> {
                         if (!IsUnderWay(current)) {
                           return Conflict("rollout " + name + " has ended already");
                         }
                         current.mutable_status()->set_state(v1::ROLLOUT_STOPPED);
                         current.mutable_status()->set_reason("stopped by " + user);
                         return ResourceStore::Change::kWrite;
                       }));
  RETURN_IF_ERROR(view.WaitFor(stopped.metadata().revision()));
  return stopped;
}

}  // namespace vallum::controller
