// SPDX-License-Identifier: Apache-2.0
#include "images/boot_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/result.h"
#include "base/text.h"
#include "firmware/grub_image.h"
#include "formats/fat.h"
#include "formats/fields.h"
#include "formats/reader.h"
#include "formats/text16.h"
#include "images/boot_binaries.h"
#include "measure/grub_script.h"

namespace vallum::images {
namespace {

constexpr size_t kMaxConfiguration = size_t{256} << 10U;
// Of the files of a partition together: thousands of names may share their clusters.
constexpr size_t kMaxConfigurations = size_t{4} << 20U;

std::vector<std::string> SplitWords(std::string_view line) {
  std::vector<std::string> words;
  for (size_t at = 0; at < line.size();) {
    const size_t begin = line.find_first_not_of(" \t\r", at);
    if (begin == std::string_view::npos) break;
    const size_t end = std::min(line.find_first_of(" \t\r", begin), line.size());
    words.emplace_back(line.substr(begin, end - begin));
    at = end;
  }
  return words;
}

// BOOTX64.CSV is UTF-16, little-endian, with a byte order mark or without.
std::string TextOfCsv(ByteView content) {
  std::u16string text;
  for (size_t i = 0; i + 1 < content.size(); i += 2) {
    const auto unit = static_cast<char16_t>(formats::U16Le(content, i));
    if (unit != 0xfeff) text.push_back(unit);
  }
  return formats::Utf16ToUtf8(text);
}

std::string WithSlashes(std::string path) {
  std::ranges::replace(path, '\\', '/');
  return path;
}

bool IsConfiguration(const EspFile& file) {
  return NormalPath(file.path).ends_with(".cfg") && file.size() <= kMaxConfiguration;
}

// "(hd0,gpt1)/vmlinuz" and "/vmlinuz" without their device.
std::string_view WithoutDevice(std::string_view path) {
  if (!path.starts_with('(')) return path;
  const size_t end = path.find(')');
  return end == std::string_view::npos ? std::string_view() : path.substr(end + 1);
}

// Debian's and others' images run "normal (memdisk)/grub.cfg" first: what counts is in there.
std::string EmbeddedScript(const firmware::GrubImage& image) {
  if (image.config.find("(memdisk)") == std::string::npos) return image.config;
  const formats::MemoryReader reader(image.memdisk);
  const Result<formats::FatVolume> volume = formats::FatVolume::Open(reader);
  if (!volume.has_value()) return {};
  const Result<formats::FatEntry> file = volume->Find("grub.cfg");
  if (!file.has_value()) return {};
  const Result<Bytes> script = volume->Read(*file, kMaxConfiguration);
  return script.has_value() ? std::string(AsText(*script)) : std::string();
}

// Takes what it reads off `left`.
Result<Bytes> ReadConfiguration(const Esp& esp, const EspFile& file, size_t& left) {
  ASSIGN_OR_RETURN(Bytes content, esp.Read(file, std::min(left, kMaxConfiguration)));
  left -= content.size();
  return content;
}

void AddFile(const Esp& esp, const EspFile& file, std::span<const HashAlgorithm> banks,
             size_t& left, measure::GrubInput& input) {
  measure::GrubFile& out = input.volumes.front().files.emplace_back();
  out.path = WithSlashes(file.path);
  const bool configuration = IsConfiguration(file);
  if (!configuration && banks.empty()) return;
  // What cannot be read stays without digest and script: it is named when it is needed.
  const Result<Bytes> content = configuration ? ReadConfiguration(esp, file, left) : esp.Read(file);
  if (!content.has_value()) return;
  if (configuration) out.script = std::string(AsText(*content));
  for (const HashAlgorithm bank : banks) out.digests[bank] = Digest(bank, *content);
  if (banks.empty() || !formats::HasText(*content, 0x202, "HdrS")) return;
  const Result<formats::PeImage> pe = formats::PeImage::Parse(*content);
  if (!pe.has_value()) return;
  Result<measure::ChainBinary> kernel = DescribeForPrediction(out.path, *pe, banks);
  if (kernel.has_value()) input.kernels.push_back(*std::move(kernel));
}

// The second word of each line that loads a kernel or a program.
std::vector<std::string> NamedKernels(std::string_view script) {
  std::vector<std::string> out;
  for (const std::string& line : Split(script, '\n')) {
    const std::vector<std::string> words = SplitWords(line);
    if (words.size() < 2) continue;
    if (words[0] == "linux" || words[0] == "linuxefi" || words[0] == "chainloader") {
      out.emplace_back(WithoutDevice(words[1]));
    }
  }
  return out;
}

void AddOnce(const Esp& esp, std::string_view path, std::vector<std::string>& paths) {
  if (paths.size() == kMaxBootBinaries) return;
  const EspFile* const file = esp.Find(path);
  if (file != nullptr && std::ranges::find(paths, file->path) == paths.end()) {
    paths.push_back(file->path);
  }
}

// "linux /vmlinuz" in an entry of the Boot Loader Specification.
std::optional<std::string> ValueOf(std::string_view entry, std::string_view key) {
  for (const std::string& line : Split(entry, '\n')) {
    const std::vector<std::string> words = SplitWords(line);
    if (words.size() >= 2 && words[0] == key) return words[1];
  }
  return std::nullopt;
}

}  // namespace

measure::GrubInput DescribeGrub(const Esp& esp, const formats::PeImage& grub,
                                const std::string& folder, std::span<const HashAlgorithm> banks) {
  measure::GrubInput input;
  input.device = fmt::format("hd0,gpt{}", esp.partition_number());
  input.directory = WithSlashes(folder);
  // Without readable modules there is no script to follow, which is said when it is run.
  if (const std::optional<ByteView> modules = grub.Section("mods"); modules.has_value()) {
    if (const auto image = firmware::ParseGrubModules(*modules); image.has_value()) {
      input.prefix = image->prefix;
      input.embedded_script = EmbeddedScript(*image);
    }
  }
  measure::GrubVolume& volume = input.volumes.emplace_back();
  volume.device = input.device;
  volume.ignores_case = true;
  volume.uuid = esp.volume().serial();
  size_t left = kMaxConfigurations;
  for (const EspFile& file : esp.files()) AddFile(esp, file, banks, left, input);
  return input;
}

ConfiguredKernels ReadGrubKernels(const Esp& esp, const formats::PeImage& grub,
                                  const std::string& folder) {
  ConfiguredKernels out;
  const measure::GrubInput input = DescribeGrub(esp, grub, folder, {});
  const measure::GrubRun run = measure::RunGrub(input);
  for (const measure::GrubEvent& event : run.events) {
    if (event.kind == measure::GrubEvent::Kind::kKernel) {
      AddOnce(esp, WithoutDevice(event.text), out.paths);
    }
  }
  // A script that is not followed to its end may load another kernel after the one that was seen.
  if (!out.paths.empty() && run.stopped.empty()) return out;
  out.certain = false;
  for (const measure::GrubFile& file : input.volumes.front().files) {
    if (!file.script.has_value()) continue;
    for (const std::string& path : NamedKernels(*file.script)) AddOnce(esp, path, out.paths);
  }
  out.unknown.push_back(
      "the kernel that GRUB starts is not known" +
      (run.stopped.empty() ? std::string() : ": " + Printable(run.stopped, 300)) +
      (out.paths.empty() ? " (kernels on other file systems than the EFI system partition are not "
                           "read)"
                         : ""));
  return out;
}

ConfiguredKernels ReadBootManagerKernels(const Esp& esp) {
  ConfiguredKernels out;
  size_t left = kMaxConfigurations;
  bool all_read = true;
  for (const EspFile& file : esp.files()) {
    const std::string path = NormalPath(file.path);
    if (path.starts_with("\\efi\\linux\\") && path.ends_with(".efi")) {
      AddOnce(esp, path, out.paths);
    }
    if (!path.starts_with("\\loader\\entries\\") || !path.ends_with(".conf")) continue;
    const Result<Bytes> entry = ReadConfiguration(esp, file, left);
    if (!entry.has_value()) {
      all_read = false;
      continue;
    }
    for (const std::string_view key : {"linux", "efi", "uki"}) {
      const std::optional<std::string> program = ValueOf(AsText(*entry), key);
      if (program.has_value()) AddOnce(esp, *program, out.paths);
    }
  }
  out.certain = out.paths.size() == 1 && all_read;
  if (out.paths.empty()) {
    out.unknown.emplace_back("systemd-boot finds no entry on the EFI system partition");
  } else if (!out.certain) {
    out.unknown.emplace_back("which entry systemd-boot starts is not known");
  }
  return out;
}

std::vector<std::string> RegisteredLoaders(const Esp& esp) {
  std::vector<std::string> out;
  size_t left = kMaxConfigurations;
  for (const EspFile& file : esp.files()) {
    const std::string path = NormalPath(file.path);
    if (!path.starts_with("\\efi\\") || !path.ends_with("\\bootx64.csv")) continue;
    const Result<Bytes> content = ReadConfiguration(esp, file, left);
    if (!content.has_value()) continue;
    const std::string text = TextOfCsv(*content);
    for (const std::string& line : Split(text, '\n')) {
      const std::string name = std::string(Trim(line.substr(0, line.find(','))));
      if (!name.empty()) AddOnce(esp, std::string(FolderOf(file.path)) + "\\" + name, out);
    }
  }
  return out;
}

bool IsLinuxKernel(const formats::PeImage& pe) {
  return formats::HasText(pe.file(), 0x202, "HdrS");
}

}  // namespace vallum::images
