// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "measure/predict_stages.h"

namespace vallum::measure {
namespace {

// The versions whose measurements were compared with real boots.
constexpr std::string_view kKnownStub = "systemd-stub 252.";
constexpr std::string_view kKnownKernel = "6.1.";

// In this order; .pcrsig is not measured, and what 252 does not know it does not measure.
constexpr std::string_view kMeasured[] = {".linux",  ".osrel", ".cmdline", ".initrd",
                                          ".splash", ".dtb",   ".pcrpkey"};

// The stub compares only as many letters as its own name has, and takes the last that fits.
const ImageSection* FindSection(const BootRun& run, std::string_view name) {
  const auto& sections = run.input.stub_sections;
  const auto found = std::find_if(sections.rbegin(), sections.rend(),
                                  [&](const ImageSection& s) { return s.name.starts_with(name); });
  return found == sections.rend() || found->content.empty() ? nullptr : &*found;
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > 0 && c <= 0x7e; });
}

// UTF-16 with its closing zero, as load options are passed.
Bytes WideText(std::string_view text) {
  ByteWriter out;
  for (const char c : text) {
    out.U8(static_cast<uint8_t>(c)).U8(0);
  }
  return std::move(out.U8(0).U8(0)).Take();
}

// The built-in command line: up to a zero, control characters as blanks, no blanks at the end
// (mangle_stub_cmdline of systemd 252; later versions drop those in front as well).
std::string BuiltInOptions(ByteView section) {
  const std::string_view text = AsText(section);
  std::string options(text.substr(0, text.find('\0')));
  std::replace_if(options.begin(), options.end(), [](char c) { return c >= 0 && c < 0x20; }, ' ');
  while (options.ends_with(' ')) {
    options.pop_back();
  }
  return options;
}

void PredictSections(const BootRun& run) {
  for (const std::string_view name : kMeasured) {
    const ImageSection* section = FindSection(run, name);
    if (section == nullptr) {
      continue;
    }
    Bytes with_zero = ToBytes(AsBytes(name));
    with_zero.push_back(std::byte{0});
    run.ExtendBytes(kSectionsPcr, with_zero, fmt::format("name of the section {}", name));
    run.ExtendBytes(kSectionsPcr, section->content, fmt::format("content of the section {}", name));
  }
}

// The command line that the kernel inside gets, and whether the stub measured it.
std::string PredictParameters(const BootRun& run) {
  const std::string& passed = run.input.load_options;
  if (!run.secure_boot && !passed.empty()) {
    run.out.Stop(kParametersPcr, "a command line from outside was not seen on a real boot");
    run.out.Stop(kCommandsPcr, "the stub may measure the command line here too");
    run.out.Stop(kFilesPcr, "a command line from outside was not seen on a real boot");
    return passed;
  }
  const ImageSection* built_in = FindSection(run, ".cmdline");
  if (built_in == nullptr) {
    return "";
  }
  std::string options = BuiltInOptions(built_in->content);
  if (options.empty()) {
    run.out.Stop(kFilesPcr, "an empty built-in command line was not seen on a real boot");
  }
  return options;
}

void StopStub(const BootRun& run, const std::string& reason) {
  for (const PcrIndex pcr : {kImagesPcr, kFilesPcr, kSectionsPcr, kParametersPcr, kExtensionsPcr}) {
    run.out.Stop(pcr, reason);
  }
}

}  // namespace

void PredictStub(const BootRun& run, const ChainBinary& stub, const ChainBinary* kernel) {
  if (stub.version.find(kKnownStub) == std::string::npos) {
    StopStub(run, fmt::format("what \"{}\" measures was not compared with a real boot; {}x was",
                              Printable(stub.version, 60), kKnownStub));
    return;
  }
  if (kernel == nullptr || kernel->stage != BootStage::kKernel) {
    StopStub(run, "the kernel inside the image was not given");
    return;
  }
  PredictSections(run);
  const std::string options = PredictParameters(run);
  if (!run.input.stub_extras.empty()) {
    const std::string reason =
        fmt::format("{} is passed on to the kernel", Printable(run.input.stub_extras.front()));
    for (const PcrIndex pcr : {kFilesPcr, kParametersPcr, kExtensionsPcr}) {
      run.out.Stop(pcr, reason);
    }
  }
  // Under Secure Boot the stub vouches for the kernel itself, past what would measure it.
  if (!run.secure_boot) {
    run.ExtendImage(*kernel, "firmware, for the stub");
  }
  if (FindSection(run, ".pcrsig") != nullptr || FindSection(run, ".pcrpkey") != nullptr) {
    run.out.Stop(kFilesPcr, "the stub adds .pcrsig or .pcrpkey to the initrd");
  }
  const ImageSection* initrd = FindSection(run, ".initrd");
  PredictKernel(run, *kernel, options, initrd == nullptr ? nullptr : &initrd->content);
}

void PredictKernel(const BootRun& run, const ChainBinary& kernel, std::string_view options,
                   const ByteView* initrd) {
  if (!kernel.version.starts_with(kKnownKernel)) {
    run.out.Stop(kFilesPcr, fmt::format("what Linux {} measures was not compared with a real boot; "
                                        "{}x was",
                                        Printable(kernel.version, 40), kKnownKernel));
    return;
  }
  if (!IsAscii(options)) {
    run.out.Stop(kFilesPcr, "the command line is not plain ASCII");
    return;
  }
  if (!options.empty()) {
    run.ExtendBytes(kFilesPcr, WideText(options), "load options: " + Printable(options));
  }
  if (initrd != nullptr) {
    run.ExtendBytes(kFilesPcr, *initrd, "initrd");
  }
}

}  // namespace vallum::measure
