// SPDX-License-Identifier: Apache-2.0
#include "agent/host_facts_reader.h"

#include <sys/utsname.h>

#include <algorithm>
#include <fstream>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "base/text.h"

namespace vallum::agent {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxFile = size_t{64} << 10U;
constexpr size_t kMaxFeatures = 512;
constexpr int kMaxLayers = 8;
constexpr const char* kSecureBootVariable =
    "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

// Files of /proc and /sys say nothing of their size.
std::string ReadText(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxFile, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(0, file.gcount())));
  return text;
}

std::string ReadLine(const fs::path& path) { return std::string(Trim(ReadText(path))); }

bool HasEntries(const fs::path& directory) {
  std::error_code failure;
  const fs::directory_iterator entries(directory, failure);
  return !failure && entries != fs::directory_iterator();
}

// "none [integrity] confidentiality".
std::string Chosen(const std::string& line) {
  const size_t begin = line.find('[');
  const size_t end = line.find(']');
  return begin < end && end != std::string::npos ? line.substr(begin + 1, end - begin - 1) : "";
}

// Whether all that lies below a block device is encrypted by dm-crypt.
bool IsEncrypted(const fs::path& root, const std::string& device, int layer) {
  const fs::path block = root / "sys/class/block" / device;
  if (ReadLine(block / "dm/uuid").starts_with("CRYPT-")) {
    return true;
  }
  std::error_code failure;
  bool any = false;
  for (const auto& below : fs::directory_iterator(block / "slaves", failure)) {
    any = true;
    if (layer == kMaxLayers || !IsEncrypted(root, below.path().filename(), layer + 1)) {
      return false;
    }
  }
  return any;
}

// Compressed memory that is written to no device is no swap in the sense of leaving memory.
bool StaysInMemory(const fs::path& root, const std::string& device) {
  const std::string backing = ReadLine(root / "sys/class/block" / device / "backing_dev");
  return device.starts_with("zram") && (backing.empty() || backing == "none");
}

std::string ReadSwap(const fs::path& root) {
  std::istringstream lines(ReadText(root / "proc/swaps"));
  std::string line;
  std::getline(lines, line);  // the heading
  std::string found = "none";
  while (std::getline(lines, line)) {
    const fs::path path = line.substr(0, line.find_first_of(" \t"));
    // A file is as its file system is, which is not looked into.
    const bool is_device = path.string().starts_with("/dev/");
    std::error_code failure;
    const fs::path real = fs::canonical(root / path.relative_path(), failure);
    const std::string name = (failure ? path : real).filename();
    if (is_device && StaysInMemory(root, name)) {
      continue;
    }
    if (!is_device || !IsEncrypted(root, name, 0)) {
      return "plain";
    }
    found = "encrypted";
  }
  return found;
}

std::string ReadSecureBoot(const fs::path& root) {
  // Four bytes of attributes, then the value: Linux, efivarfs.
  const std::string variable = ReadText(root / kSecureBootVariable);
  if (variable.size() != 5) {
    return "unknown";
  }
  return variable[4] == 1 ? "on" : "off";
}

void ReadProcessor(const fs::path& root, v1::HostFacts& facts) {
  std::istringstream lines(ReadText(root / "proc/cpuinfo"));
  std::string line;
  while (std::getline(lines, line) && !line.empty()) {  // of the first processor
    const size_t colon = line.find(':');
    const std::string key(Trim(std::string_view(line).substr(0, colon)));
    const std::string value(
        colon == std::string::npos ? "" : Trim(std::string_view(line).substr(colon + 1)));
    if (key == "model name") {
      facts.set_cpu_model(Printable(value));
    } else if (key == "microcode") {
      facts.set_microcode(Printable(value));
    } else if (key == "flags") {
      for (const std::string& feature : Split(value, ' ')) {
        if (facts.cpu_features_size() < static_cast<int>(kMaxFeatures)) {
          facts.add_cpu_features(Printable(feature));
        }
      }
    }
  }
}

}  // namespace

v1::HostFacts ReadHostFacts(const fs::path& root) {
  v1::HostFacts facts;
  facts.set_kernel_release(Printable(ReadLine(root / "proc/sys/kernel/osrelease")));
  facts.set_command_line(Printable(ReadLine(root / "proc/cmdline"), kMaxFile));
  facts.set_lockdown(Chosen(ReadLine(root / "sys/kernel/security/lockdown")));
  facts.set_iommu(
      HasEntries(root / "sys/class/iommu") || HasEntries(root / "sys/kernel/iommu_groups") ? "on"
                                                                                           : "off");
  facts.set_swap(ReadSwap(root));
  facts.set_kdump(ReadLine(root / "sys/kernel/kexec_crash_loaded") == "1" ? "loaded" : "none");
  facts.set_secure_boot(ReadSecureBoot(root));
  ReadProcessor(root, facts);
  utsname names{};
  uname(&names);
  facts.set_architecture(names.machine);
  return facts;
}

}  // namespace vallum::agent
