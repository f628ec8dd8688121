// SPDX-License-Identifier: Apache-2.0
#include "agent/instance_files.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <utility>

#include "agent/instance_variables.h"
#include "agent/snapshot_taker.h"
#include "agent/state_files.h"
#include "base/text.h"
#include "formats/qcow2.h"
#include "vm/seed.h"

namespace vallum::agent {
namespace {

constexpr std::string_view kDesiredKind = "instance";
constexpr std::string_view kStatusKind = "status";
constexpr std::string_view kKeySetKind = "key-set";
constexpr std::string_view kBootKind = "boot-id";
constexpr std::string_view kLeaseRefusalKind = "lease-refusal";

bool Exists(const std::filesystem::path& path) {
  struct stat info{};
  return lstat(path.c_str(), &info) == 0;
}

Result<void> GiveTo(const std::filesystem::path& path, const std::optional<vm::RunAs>& user) {
  if (user && lchown(path.c_str(), user->uid, user->gid) != 0) {
    return ErrnoError(errno, "give " + path.string() + " to uid " + std::to_string(user->uid));
  }
  return Ok();
}

template <typename Message>
std::optional<Message> LoadMessage(const std::filesystem::path& path, std::string_view kind,
                                   std::string& problem) {
  auto payload = ReadStateFile(path, kind);
  if (!payload) {
    if (payload.error().code() != ErrorCode::kNotFound) {
      problem = payload.error().Describe() + "; " + payload.error().fix();
    }
    return std::nullopt;
  }
  Message message;
  if (!message.ParseFromString(*payload)) {
    problem = "state file " + path.string() + " is damaged: its content does not parse";
    return std::nullopt;
  }
  return message;
}

Result<void> MakeOverlay(const InstancePaths& paths, const v1::DesiredInstance& desired,
                         const std::optional<vm::RunAs>& user) {
  if (!Exists(paths.root_disk)) {
    ASSIGN_OR_RETURN(const ByteCount size, RootDiskSize(desired));
    ASSIGN_OR_RETURN(const Bytes overlay, formats::MakeQcow2Overlay(size));
    RETURN_IF_ERROR(WriteFileAtomically(paths.root_disk, overlay, 0600));
  }
  return GiveTo(paths.root_disk, user);
}

Result<void> MakeSeed(const InstancePaths& paths, const v1::DesiredInstance& desired,
                      const std::optional<vm::RunAs>& user) {
  const v1::Seed& seed = desired.spec().seed();
  vm::SeedSpec spec;
  spec.instance_id = desired.uid();
  spec.hostname = seed.hostname().empty() ? desired.name() : seed.hostname();
  spec.user_data = seed.user_data();
  spec.ssh_keys = {seed.ssh_authorized_keys().begin(), seed.ssh_authorized_keys().end()};
  ASSIGN_OR_RETURN(const Bytes image, vm::MakeNoCloudSeed(spec));
  auto before = ReadWholeFile(paths.seed, ByteCount::MiB(8));
  if (!before || *before != image) {
    RETURN_IF_ERROR(WriteFileAtomically(paths.seed, image, 0400));
  }
  return GiveTo(paths.seed, user);
}

}  // namespace

std::string CurrentBootId() {
  // Not ReadWholeFile: files of /proc say that they are empty.
  std::string id;
  if (FILE* file = std::fopen("/proc/sys/kernel/random/boot_id", "re"); file != nullptr) {
    char buffer[64];
    const size_t n = std::fread(buffer, 1, sizeof buffer, file);
    std::fclose(file);
    id = std::string(Trim(std::string_view(buffer, n)));
  }
  return id;
}

StoredInstance LoadInstance(const InstancePaths& paths, const std::string& uid) {
  StoredInstance stored;
  stored.status = LoadMessage<v1::InstanceStatus>(paths.status, kStatusKind, stored.problem);
  stored.desired = LoadMessage<v1::DesiredInstance>(paths.desired, kDesiredKind, stored.problem);
  if (stored.desired && stored.desired->uid() != uid) {
    stored.desired.reset();
    stored.problem = "state file " + paths.desired.string() + " belongs to another instance";
  }
  if (!stored.desired && stored.problem.empty()) {
    stored.problem = "state file " + paths.desired.string() + " is missing";
  }
  return stored;
}

Result<void> StoreDesired(const InstancePaths& paths, const v1::DesiredInstance& desired) {
  RETURN_IF_ERROR(MakeDirectory(paths.directory, 0711));
  return WriteStateFile(paths.desired, kDesiredKind, desired.SerializeAsString());
}

Result<void> StoreStatus(const InstancePaths& paths, const v1::InstanceStatus& status) {
  return WriteStateFile(paths.status, kStatusKind, status.SerializeAsString());
}

std::string LoadBootId(const InstancePaths& paths) {
  auto id = ReadStateFile(paths.boot, kBootKind);
  return id ? *id : "";
}

Result<void> StoreBootId(const InstancePaths& paths) {
  const std::string id = CurrentBootId();
  return LoadBootId(paths) == id ? Ok() : WriteStateFile(paths.boot, kBootKind, id);
}

std::optional<int64_t> LoadLeaseRefusal(const InstancePaths& paths) {
  const auto text = ReadStateFile(paths.lease_refusal, kLeaseRefusalKind);
  int64_t generation = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), generation).ptr !=
                   text->data() + text->size()) {
    return std::nullopt;
  }
  return generation;
}

Result<void> StoreLeaseRefusal(const InstancePaths& paths, std::optional<int64_t> generation) {
  return generation
             ? WriteStateFile(paths.lease_refusal, kLeaseRefusalKind, std::to_string(*generation))
             : RemoveTree(paths.lease_refusal);
}

std::optional<AssignedKeys> LoadAssignedKeys(const InstancePaths& paths) {
  std::string problem;
  const auto stored = LoadMessage<v1::DesiredInstance>(paths.key_set, kKeySetKind, problem);
  if (!stored) {
    return std::nullopt;
  }
  auto keys = ToKeySet(*stored);
  if (!keys) {
    return std::nullopt;
  }
  return AssignedKeys{KeySetLabel(stored->key_set_name(), stored->key_set_version()),
                      *std::move(keys)};
}

Result<void> StoreAssignedKeys(const InstancePaths& paths, const v1::DesiredInstance& desired) {
  if (!desired.has_key_set()) {
    return RemoveTree(paths.key_set);
  }
  v1::DesiredInstance keys;
  *keys.mutable_key_set() = desired.key_set();
  keys.set_key_set_name(desired.key_set_name());
  keys.set_key_set_version(desired.key_set_version());
  keys.mutable_boot()->set_mode(desired.boot().mode());
  return WriteStateFile(paths.key_set, kKeySetKind, keys.SerializeAsString());
}

Result<std::vector<std::string>> PrepareFiles(const InstancePaths& paths,
                                              const v1::DesiredInstance& desired,
                                              const LaunchPlan& plan, WallTime now,
                                              const std::optional<vm::RunAs>& user) {
  RETURN_IF_ERROR(MakeDirectory(paths.directory, 0711));
  RETURN_IF_ERROR(MakeDirectory(paths.run_dir.parent_path(), 0711));
  if (plan.effective.tpm_model() != "none") {
    RETURN_IF_ERROR(MakeDirectory(paths.tpm_dir, 0700));
    RETURN_IF_ERROR(GiveTo(paths.tpm_dir, user));
    if (Exists(TpmStateFile(paths))) {
      RETURN_IF_ERROR(GiveTo(TpmStateFile(paths), user));
    }
  }
  RETURN_IF_ERROR(MakeOverlay(paths, desired, user)).context("making the root disk");
  RETURN_IF_ERROR(MakeSeed(paths, desired, user)).context("making the seed");
  ASSIGN_OR_RETURN(std::vector<std::string> notes, PrepareVariables(paths, desired, plan, now));
  if (!plan.variable_template.empty()) {
    RETURN_IF_ERROR(GiveTo(paths.variables, user));
  }
  RETURN_IF_ERROR(StoreAssignedKeys(paths, desired));
  RETURN_IF_ERROR(RemoveTree(paths.evidence));  // of another boot
  return notes;
}

Result<void> RemoveFiles(const InstancePaths& paths) {
  RETURN_IF_ERROR(RemoveTree(paths.run_dir));
  // What was asked for goes last: until then a restarted agent knows what it was removing.
  std::error_code failure;
  for (const auto& entry : std::filesystem::directory_iterator(paths.directory, failure)) {
    if (entry.path() != paths.desired) {
      RETURN_IF_ERROR(RemoveTree(entry.path()));
    }
  }
  return RemoveTree(paths.directory);
}

}  // namespace vallum::agent
