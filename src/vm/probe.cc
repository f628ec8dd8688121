// SPDX-License-Identifier: Apache-2.0
#include "vm/probe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/text.h"
#include "vm/host_resources.h"
#include "vm/launch.h"
#include "vm/process_files.h"
#include "vm/qmp_client.h"

namespace vallum::vm {
namespace {

constexpr std::string_view kProbeVersion = "1";  // of the tests made; part of the cache's key
constexpr std::chrono::milliseconds kQmpSessionLimit{20000};

// The tiny guest: a 64 KiB BIOS for q35 that does what Secure Boot needs. It lets the chipset raise
// a System Management Interrupt and puts two instructions at the SMI entry, 0x38000, that end QEMU
// with code 0x33; when no SMI is taken, it ends QEMU with 0x11 itself. isa-debug-exit makes the
// exit status 2 * code + 1.
constexpr std::array<uint8_t, 91> kGuestCode = {
    0xfa,                                // cli
    0x66, 0xb8, 0x40, 0xf8, 0x00, 0x80,  // mov eax, 0x8000f840: 00:1f.0 PMBASE
    0xba, 0xf8, 0x0c, 0x66, 0xef,        // out 0xcf8, eax
    0xba, 0xfc, 0x0c,                    // mov dx, 0xcfc
    0x66, 0xb8, 0x01, 0x06, 0x00, 0x00,  // mov eax, 0x601: at port 0x600
    0x66, 0xef,                          // out dx, eax
    0x66, 0xb8, 0x44, 0xf8, 0x00, 0x80,  // mov eax, 0x8000f844: ACPI_CNTL
    0xba, 0xf8, 0x0c, 0x66, 0xef,        // out 0xcf8, eax
    0xba, 0xfc, 0x0c,                    // mov dx, 0xcfc
    0x66, 0xb8, 0x80, 0x00, 0x00, 0x00,  // mov eax, 0x80: enable
    0x66, 0xef,                          // out dx, eax
    0xb8, 0x00, 0x38, 0x8e, 0xd8,        // mov ds, 0x3800
    0x66, 0xb8, 0xb0, 0x33, 0xe6, 0xf4,  // mov eax, "mov al, 0x33; out 0xf4, al"
    0x66, 0xa3, 0x00, 0x00,              // mov [0x38000], eax
    0xba, 0x30, 0x06,                    // mov dx, 0x630: SMI_EN
    0x66, 0xb8, 0x21, 0x00, 0x00, 0x00,  // mov eax, GBL_SMI_EN | APMC_EN
    0x66, 0xef,                          // out dx, eax
    0xb0, 0x01, 0xe6, 0xb2,              // out 0xb2, 1: raise the SMI
    0x66, 0xb9, 0x00, 0x00, 0x10, 0x00,  // mov ecx, 0x100000
    0x67, 0xe2, 0xfd,                    // loop: time for it to be taken
    0xb0, 0x11, 0xe6, 0xf4,              // out 0xf4, 0x11
    0xf4, 0xeb, 0xfd,                    // hlt, for ever
};
constexpr std::string_view kExitNoSmi = "exit status 35";
constexpr std::string_view kExitSmi = "exit status 103";

Bytes MakeGuestRom() {
  Bytes rom(0x10000);
  std::ranges::copy(std::as_bytes(std::span(kGuestCode)), rom.begin());
  // The reset vector: jmp 0xf000:0x0000.
  constexpr std::array<uint8_t, 5> kJump = {0xea, 0x00, 0x00, 0x00, 0xf0};
  std::ranges::copy(std::as_bytes(std::span(kJump)), rom.begin() + 0xfff0);
  return rom;
}

// A private directory that goes away with its files.
class ScratchDir {
 public:
  static Result<std::unique_ptr<ScratchDir>> Create() {
    std::string path = "/tmp/vallum-probe-XXXXXX";
    if (mkdtemp(path.data()) == nullptr) {
      return ErrnoError(errno, "make a directory in /tmp");
    }
    return std::unique_ptr<ScratchDir>(new ScratchDir(std::move(path)));
  }
  ~ScratchDir() {
    for (const char* name : {"guest.rom", "log", "qmp.sock"}) {
      unlink(File(name).c_str());
    }
    rmdir(path_.c_str());
  }
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  std::string File(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  explicit ScratchDir(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

struct GuestRun {
  std::string end;    // exit status in words
  std::string words;  // QEMU's last line
  // It came to its own end: not too slow for the limit, not ended for want of memory.
  bool conclusive = false;
};

Result<GuestRun> RunGuest(const ProbeOptions& options, const ScratchDir& dir, Accelerator accel,
                          VariableProtection protection) {
  const bool smm = protection == VariableProtection::kSmm;
  const bool kvm = accel == Accelerator::kKvm;
  const Command command{.argv = {options.qemu_program, "-nodefaults", "-no-user-config", "-display",
                                 "none", "-machine", std::string("q35,smm=") + (smm ? "on" : "off"),
                                 "-accel", kvm ? "kvm" : "tcg", "-cpu", kvm ? "host" : "max", "-m",
                                 "16", "-bios", dir.File("guest.rom"), "-device",
                                 "isa-debug-exit,iobase=0xf4,iosize=4"}};
  unlink(dir.File("log").c_str());
  ASSIGN_OR_RETURN(auto process, Process::Spawn({.command = command,
                                                 .descriptors = {},
                                                 .run_as = {},
                                                 .output_path = dir.File("log"),
                                                 .identity_path = "",
                                                 .cgroup_dir = ""}));
  GuestRun run;
  if (auto end = process->Wait(options.guest_limit); end.has_value()) {
    run.end = *end;
    run.conclusive = !end->starts_with("signal 9 ");
  } else {
    EndProcess(*process, std::chrono::milliseconds(0), std::chrono::milliseconds(500));
    run.end = "no end after " + std::to_string(options.guest_limit.count()) + " ms";
  }
  const auto lines = ReadLastLines(dir.File("log"), 1);
  run.words = lines.empty() ? "" : lines.front();
  return run;
}

// False when a guest came to no end of its own, which may be otherwise when the host is less busy.
bool ProbeAccelerator(const ProbeOptions& options, const ScratchDir& dir, Accelerator accel,
                      std::vector<Probe>& probes) {
  bool lasting = true;
  const bool kvm = accel == Accelerator::kKvm;
  const auto add = [&](std::string_view name, VariableProtection protection) {
    auto run = RunGuest(options, dir, accel, protection);
    lasting = lasting && run.has_value() && run->conclusive;
    if (!run.has_value()) {
      probes.push_back({std::string(name), false, run.error().Describe()});
      return false;
    }
    const bool need_smi = protection == VariableProtection::kSmm;
    const bool ok = run->end == kExitSmi || (!need_smi && run->end == kExitNoSmi);
    std::string detail =
        ok ? (need_smi ? "a guest entered System Management Mode" : "a guest ran")
           : "the probe guest failed: " + run->end + (run->words.empty() ? "" : ": " + run->words);
    probes.push_back({std::string(name), ok, std::move(detail)});
    return ok;
  };
  const std::string_view smm_name = kvm ? kProbeKvmSmm : kProbeTcgSmm;
  if (kvm && access("/dev/kvm", R_OK | W_OK) != 0) {
    const std::string why = ErrnoError(errno, "open /dev/kvm").Describe();
    probes.push_back({std::string(kProbeKvm), false, why});
    probes.push_back({std::string(smm_name), false, why});
    return true;
  }
  if (!add(kvm ? kProbeKvm : kProbeTcg, VariableProtection::kNone)) {
    probes.push_back({std::string(smm_name), false, "the accelerator itself does not work"});
    return lasting;
  }
  add(smm_name, VariableProtection::kSmm);
  return lasting;
}

void AddNames(const Json& list, std::string_view prefix, std::vector<Probe>& probes) {
  for (const Json& item : list) {
    for (const char* key : {"name", "alias"}) {  // "q35" is an alias of "pc-q35-7.2"
      if (item.is_object() && item.contains(key) && item[key].is_string()) {
        probes.push_back({std::string(prefix) + item[key].get<std::string>(), true, ""});
      }
    }
  }
}

Result<void> AskQemu(const ProbeOptions& options, const ScratchDir& dir, HostProbes& result) {
  ASSIGN_OR_RETURN(UniqueFd listen, ListenUnix(dir.File("qmp.sock"), std::nullopt));
  ASSIGN_OR_RETURN(auto qmp, QmpClient::Dial(dir.File("qmp.sock")));
  const Command command{.argv = {options.qemu_program, "-nodefaults", "-no-user-config", "-display",
                                 "none", "-machine", "none", "-chardev",
                                 "socket,id=qmp,fd=3,server=on,wait=off", "-mon",
                                 "chardev=qmp,mode=control"}};
  ASSIGN_OR_RETURN(auto process, Process::Spawn({.command = command,
                                                 .descriptors = {listen.get()},
                                                 .run_as = {},
                                                 .output_path = dir.File("log"),
                                                 .identity_path = "",
                                                 .cgroup_dir = ""}));
  listen.Reset();
  const auto ask = [&]() -> Result<void> {
    RETURN_IF_ERROR(qmp->Handshake(kQmpSessionLimit));
    result.qemu_version = qmp->version();
    result.probes.push_back({std::string(kProbeQemu), true, qmp->version()});
    ASSIGN_OR_RETURN(const Json machines,
                     qmp->Execute("query-machines", Json::object(), kQmpSessionLimit));
    AddNames(machines, "machine:", result.probes);
    for (const auto& [type, prefix] : {std::pair<const char*, const char*>{"device", "device:"},
                                       {"user-creatable", "object:"}}) {
      ASSIGN_OR_RETURN(const Json types,
                       qmp->Execute("qom-list-types", {{"implements", type}, {"abstract", false}},
                                    kQmpSessionLimit));
      AddNames(types, prefix, result.probes);
    }
    return Ok();
  };
  auto asked = ask();
  const std::string end = EndProcess(*process, std::chrono::milliseconds(0), kQmpSessionLimit);
  if (!asked.has_value()) {
    const auto lines = ReadLastLines(dir.File("log"), 3);
    return std::move(asked).error().Context("asking " + options.qemu_program + " (" + end +
                                            "): " + Join(lines, "; "));
  }
  return Ok();
}

Probe ProbeSwtpm(const ProbeOptions& options, const ScratchDir& dir) {
  unlink(dir.File("log").c_str());
  auto process = Process::Spawn({.command = {.argv = {options.swtpm_program, "--version"}},
                                 .descriptors = {},
                                 .run_as = {},
                                 .output_path = dir.File("log"),
                                 .identity_path = "",
                                 .cgroup_dir = ""});
  if (!process.has_value()) {
    return {std::string(kProbeSwtpm), false, process.error().Describe()};
  }
  const std::string end =
      EndProcess(**process, std::chrono::seconds(5), std::chrono::milliseconds(500));
  const auto lines = ReadLastLines(dir.File("log"), 1);
  return {std::string(kProbeSwtpm), end == "exit status 0", lines.empty() ? end : lines.front()};
}

Probe ProbeCgroup(const ProbeOptions& options) {
  const auto usable = CheckCgroupParent(options.cgroup_parent);
  return {std::string(kProbeCgroupV2), usable.has_value(),
          usable.has_value() ? options.cgroup_parent : usable.error().Describe()};
}

// What the results depend on: a changed one makes the cache stale.
Result<std::string> CacheKey(const ProbeOptions& options) {
  std::string key(kProbeVersion);
  for (const std::string& program : {options.qemu_program, options.swtpm_program}) {
    struct stat info{};
    if (stat(program.c_str(), &info) == 0) {
      key += "|" + program + "|" + std::to_string(info.st_size) + "|" +
             std::to_string(info.st_mtim.tv_sec) + "." + std::to_string(info.st_mtim.tv_nsec);
    } else if (program == options.qemu_program) {
      return ErrnoError(errno, "find " + program).WithFix("install qemu-system-x86");
    }
  }
  utsname kernel{};
  uname(&kernel);
  struct stat kvm{};
  const bool has_kvm = stat("/dev/kvm", &kvm) == 0 && access("/dev/kvm", R_OK | W_OK) == 0;
  return key + "|" + kernel.release + "|" + kernel.version + (has_kvm ? "|kvm" : "|no kvm");
}

std::optional<HostProbes> ReadCache(const std::string& path, const std::string& key) {
  const auto fd = OpenFile(path, O_RDONLY);
  if (path.empty() || !fd.has_value()) {
    return std::nullopt;
  }
  std::string text(size_t{1} << 20U, '\0');
  const ssize_t got = read(fd->get(), text.data(), text.size());
  text.resize(got < 0 ? 0 : static_cast<size_t>(got));
  const Json cache = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!cache.is_object() || cache.value("key", Json()) != Json(key) ||
      !cache.value("version", Json()).is_string() || !cache.value("probes", Json()).is_array()) {
    return std::nullopt;
  }
  HostProbes result{.qemu_version = cache["version"].get<std::string>(), .probes = {}};
  for (const Json& item : cache["probes"]) {
    if (!item.is_array() || item.size() != 3 || !item[0].is_string() || !item[1].is_boolean() ||
        !item[2].is_string()) {
      return std::nullopt;
    }
    result.probes.push_back(
        {item[0].get<std::string>(), item[1].get<bool>(), item[2].get<std::string>()});
  }
  return result;
}

Result<void> WriteCache(const std::string& path, const std::string& key, const HostProbes& result) {
  Json probes = Json::array();
  for (const Probe& probe : result.probes) {
    probes.push_back({probe.name, probe.ok, probe.detail});
  }
  const Json cache = {{"key", key}, {"version", result.qemu_version}, {"probes", probes}};
  return WriteFileAtomically(path, cache.dump(1, ' ', false, Json::error_handler_t::replace));
}

}  // namespace

const Probe* HostProbes::Find(std::string_view name) const {
  const auto found = std::ranges::find(probes, name, &Probe::name);
  return found == probes.end() ? nullptr : &*found;
}

bool HostProbes::Has(std::string_view name) const {
  const Probe* probe = Find(name);
  return probe != nullptr && probe->ok;
}

std::optional<Accelerator> HostProbes::BestAccelerator(VariableProtection protection) const {
  const bool smm = protection == VariableProtection::kSmm;
  if (Has(kProbeKvm) && (!smm || Has(kProbeKvmSmm))) {
    return Accelerator::kKvm;
  }
  if (Has(kProbeTcg) && (!smm || Has(kProbeTcgSmm))) {
    return Accelerator::kTcg;
  }
  return std::nullopt;
}

Result<HostProbes> ProbeHost(const ProbeOptions& options) {
  ASSIGN_OR_RETURN(const std::string key, CacheKey(options));
  auto result = ReadCache(options.cache_path, key);
  if (!result.has_value()) {
    result.emplace();
    ASSIGN_OR_RETURN(const auto dir, ScratchDir::Create());
    RETURN_IF_ERROR(WriteFileAtomically(dir->File("guest.rom"), AsText(MakeGuestRom())));
    RETURN_IF_ERROR(AskQemu(options, *dir, *result));
    const bool kvm_lasts = ProbeAccelerator(options, *dir, Accelerator::kKvm, result->probes);
    const bool tcg_lasts = ProbeAccelerator(options, *dir, Accelerator::kTcg, result->probes);
    result->probes.push_back(ProbeSwtpm(options, *dir));
    // Only what is so whatever else the host does: the next start asks again.
    const bool swtpm_lasts =
        result->Has(kProbeSwtpm) || access(options.swtpm_program.c_str(), X_OK) != 0;
    const bool lasting = kvm_lasts && tcg_lasts && swtpm_lasts;
    auto written = options.cache_path.empty() || !lasting
                       ? Ok()
                       : WriteCache(options.cache_path, key, *result);
    if (!written.has_value()) {
      result->probes.push_back({"cache", false, written.error().Describe()});
    }
  }
  result->probes.push_back(ProbeCgroup(options));  // configuration, not a property of QEMU
  return *std::move(result);
}

}  // namespace vallum::vm
