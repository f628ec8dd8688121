// SPDX-License-Identifier: Apache-2.0
#include "agent/instance_variables.h"

#include <chrono>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "agent/boot_keys.h"
#include "agent/state_files.h"
#include "base/text.h"
#include "firmware/key_store.h"
#include "firmware/variable_store.h"

namespace vallum::agent {
namespace {

using firmware::VariableStore;

constexpr std::string_view kOriginKind = "variable-origin";
constexpr ByteCount kStoreLimit = ByteCount::Bytes(VariableStore::kMaxImageSize);

firmware::VariableTime ToVariableTime(WallTime now) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(now);
  const auto day = std::chrono::floor<std::chrono::days>(seconds);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss time(seconds - day);
  return {.year = static_cast<uint16_t>(static_cast<int>(date.year())),
          .month = static_cast<uint8_t>(static_cast<unsigned>(date.month())),
          .day = static_cast<uint8_t>(static_cast<unsigned>(date.day())),
          .hour = static_cast<uint8_t>(time.hours().count()),
          .minute = static_cast<uint8_t>(time.minutes().count()),
          .second = static_cast<uint8_t>(time.seconds().count())};
}

Result<Bytes> ReadTemplate(const std::string& path) {
  std::error_code failure;
  const auto target = std::filesystem::canonical(path, failure);
  if (failure) {
    return ErrnoError(failure.value(), "read " + path);
  }
  return ReadWholeFile(target, kStoreLimit);
}

// One start's work on vars.fd.
class Maker {
 public:
  Maker(const InstancePaths& paths, const v1::DesiredInstance& desired, const LaunchPlan& plan,
        WallTime now)
      : paths_(paths), desired_(desired), plan_(plan), time_(ToVariableTime(now)) {}

  Result<std::vector<std::string>> Run() {
    ASSIGN_OR_RETURN(template_, ReadTemplate(plan_.variable_template));
    if (auto blank = VariableStore::Parse(template_); blank) {
      build_ = blank->layout().build;
    } else if (desired_.has_key_set()) {
      return std::move(blank).error().Context("reading " + plan_.variable_template);
    }
    const std::string origin = VariableOrigin(plan_);
    auto before = ReadStateFile(paths_.origin, kOriginKind);
    auto store = ReadWholeFile(paths_.variables, kStoreLimit);
    if (!store && store.error().code() != ErrorCode::kNotFound) {
      return std::move(store).error();
    }
    const bool placed = before && *before == kPlacedOrigin;
    Bytes content;
    if (!store) {
      if (before && !placed) {
        notes_.emplace_back("the UEFI variable store was missing and was made anew");
      }
      ASSIGN_OR_RETURN(content, MakeNew());
    } else if (before && *before == origin) {
      RETURN_IF_ERROR(CheckStore(*store));
      if (notes_.empty()) {
        return notes_;  // as it is
      }
      ASSIGN_OR_RETURN(content, MakeNew());
    } else if (placed) {
      ASSIGN_OR_RETURN(
          content, Change(*store, "it was taken from a snapshot", firmware::GuestTrust::kDropped));
    } else {
      const std::string was = before ? Printable(*before) : std::string("something unknown");
      ASSIGN_OR_RETURN(content, Change(*store,
                                       "it was made for '" + was +
                                           "' and the instance now starts with '" + origin + "'",
                                       firmware::GuestTrust::kKept));
    }
    // The store first: a crash in between does the same once more.
    RETURN_IF_ERROR(WriteFileAtomically(paths_.variables, content, 0600));
    RETURN_IF_ERROR(StoreVariableOrigin(paths_, origin));
    return notes_;
  }

 private:
  // A store that nobody asked to change. Only of firmware whose template is understood.
  Result<void> CheckStore(const Bytes& store) {
    if (!build_) {
      return Ok();
    }
    const auto parsed = VariableStore::Parse(store);
    if (!parsed) {
      return Corrupt("the instance's UEFI variable store is damaged: " + parsed.error().Describe())
          .WithFix(
              "restore the instance from a snapshot, or give it another version of its key "
              "set: then the store is made anew, without the guest's own boot options");
    }
    if (parsed->layout().build != *build_) {
      notes_.push_back("the UEFI variable store was rebuilt: " + LayoutChanged(*parsed));
    }
    return Ok();
  }

  std::string LayoutChanged(const VariableStore& store) const {
    return "the firmware's layout is now " + std::string(OvmfBuildName(*build_)) +
           " and the store's was " + std::string(OvmfBuildName(store.layout().build));
  }

  Result<Bytes> MakeNew() {
    if (!desired_.has_key_set()) {
      return template_;
    }
    ASSIGN_OR_RETURN(const firmware::KeySet keys, ToKeySet(desired_));
    return firmware::MakeKeyStore(keys, *build_, time_);
  }

  Result<Bytes> Change(const Bytes& store, const std::string& why, firmware::GuestTrust trust) {
    const auto parsed = VariableStore::Parse(store);
    std::string lost;
    if (!parsed) {
      lost = "it was damaged (" + parsed.error().Describe() + ")";
    } else if (build_ && parsed->layout().build != *build_) {
      lost = LayoutChanged(*parsed);
    }
    if (!desired_.has_key_set() || !lost.empty()) {
      notes_.push_back("the UEFI variable store was rebuilt: " + why +
                       (lost.empty() ? "" : "; nothing of it was kept: " + lost));
      return MakeNew();
    }
    ASSIGN_OR_RETURN(const firmware::KeySet keys, ToKeySet(desired_));
    auto replaced = firmware::ReplaceKeys(store, keys, time_, trust);
    if (!replaced) {
      return std::move(replaced).error().Context("changing the keys of the UEFI variable store");
    }
    // The snapshot of an instance with the same keys: nothing is worth a word.
    if (trust == firmware::GuestTrust::kDropped && replaced->rebuilt.empty()) {
      return std::move(replaced->image);
    }
    notes_.push_back("the keys of the UEFI variable store were rebuilt: " + why);
    if (!replaced->rebuilt.empty()) {
      notes_.push_back("rebuilt: " + Join(replaced->rebuilt, "; "));
    }
    if (!replaced->kept.empty()) {
      notes_.push_back("kept: " + Join(replaced->kept, "; "));
    }
    return std::move(replaced->image);
  }

  const InstancePaths& paths_;
  const v1::DesiredInstance& desired_;
  const LaunchPlan& plan_;
  const firmware::VariableTime time_;
  Bytes template_;
  std::optional<firmware::OvmfBuild> build_;
  std::vector<std::string> notes_;
};

}  // namespace

Result<std::vector<std::string>> PrepareVariables(const InstancePaths& paths,
                                                  const v1::DesiredInstance& desired,
                                                  const LaunchPlan& plan, WallTime now) {
  if (plan.variable_template.empty()) {
    return std::vector<std::string>();
  }
  return Maker(paths, desired, plan, now).Run();
}

std::string LoadVariableOrigin(const InstancePaths& paths) {
  auto origin = ReadStateFile(paths.origin, kOriginKind);
  return origin ? *origin : "";
}

Result<void> StoreVariableOrigin(const InstancePaths& paths, const std::string& origin) {
  return WriteStateFile(paths.origin, kOriginKind, origin);
}

}  // namespace vallum::agent
