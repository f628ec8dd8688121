// SPDX-License-Identifier: Apache-2.0
#include "images/boot_chain.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "firmware/image_verification.h"
#include "firmware/sbat.h"
#include "firmware/shim.h"
#include "formats/pe.h"
#include "images/boot_binaries.h"
#include "images/boot_config.h"
#include "images/esp.h"

namespace vallum::images {
namespace {

using firmware::ImageVerdict;
using firmware::KeySet;
using firmware::SbatNeed;
using firmware::ShimTrust;

constexpr std::string_view kDefaultLoader = "\\EFI\\BOOT\\BOOTX64.EFI";
constexpr std::string_view kDefaultFolder = "\\efi\\boot";
constexpr std::string_view kFallbackName = "\\fbx64.efi";
// What a shim starts that was told nothing else.
constexpr std::string_view kSecondStageName = "\\grubx64.efi";

// A program to be started, and who judges it.
struct Step {
  std::string path;
  std::shared_ptr<const ShimTrust> shim;  // nullptr: the firmware
  SbatNeed need = SbatNeed::kRequired;
  bool certain = true;  // false: it is one of several, and which one is not known
};

// One program of the chain with its verdicts.
struct Link {
  BootBinary binary;
  LinkRole role = LinkRole::kOther;
  bool by_shim = false;
  bool certain = true;
  std::vector<std::string> sbat;
  std::vector<ImageVerdict> verdicts;  // one for each key set
};

LinkRole RoleOf(const formats::PeImage& pe, const Step& step) {
  if (pe.Section(".vendor_cert").has_value()) return LinkRole::kShim;
  if (pe.Section("mods").has_value()) return LinkRole::kGrub;
  if (pe.Section(".linux").has_value()) return LinkRole::kUnifiedKernel;
  if (const std::optional<ByteView> magic = pe.Section(".sdmagic");
      magic.has_value() && AsText(*magic).find("systemd-boot") != std::string_view::npos) {
    return LinkRole::kBootManager;
  }
  if (IsLinuxKernel(pe)) return LinkRole::kKernel;
  // Nothing in it tells what it is: shim knows it by its name.
  if (step.shim != nullptr && NormalPath(step.path).ends_with(kFallbackName)) {
    return LinkRole::kFallback;
  }
  return LinkRole::kOther;
}

std::vector<std::string> SbatLines(const std::string& text) {
  std::vector<std::string> lines;
  const auto components = firmware::ParseSbat(AsBytes(text));
  if (!components.has_value()) return lines;
  for (const firmware::SbatComponent& component : *components) {
    lines.push_back(fmt::format("{},{}", Printable(component.name, 80), component.generation));
  }
  return lines;
}

// With Secure Boot on, a shim refuses to run when its own generation is revoked.
void CheckShimItself(const formats::PeImage& pe, const ShimTrust& trust, const KeySet& keys,
                     ImageVerdict& verdict) {
  if (!keys.secure_boot || keys.pk.empty()) return;
  const Result<std::string> text = firmware::AppliedSbatLevel(keys.sbat_level, trust.sbat_levels,
                                                              firmware::SbatPolicy::kAutomatic);
  if (text.has_value() && text->empty()) return;
  const Result<firmware::SbatLevel> level = text.has_value()
                                                ? firmware::ParseSbatLevel(*text)
                                                : Result<firmware::SbatLevel>(text.error());
  firmware::SbatVerdict self;
  if (level.has_value()) {
    self = firmware::CheckSbat(pe.Section(".sbat"), *level, SbatNeed::kRequired);
  } else {
    self.reasons.push_back("the revocation level cannot be read: " + level.error().Describe());
  }
  if (self.allowed) return;
  verdict.allowed = false;
  for (const std::string& reason : self.reasons) {
    verdict.reasons.push_back("shim's check of itself (SBAT) fails: " + reason);
  }
  verdict.fixes.emplace_back("use an image with a newer shim");
}

class Walker {
 public:
  Walker(const Esp& esp, std::span<const KeySet> key_sets) : esp_(esp), key_sets_(key_sets) {}

  Result<BootChainReport> Walk() && {
    report_.facts = esp_.facts();
    RETURN_IF_ERROR(Follow());
    RETURN_IF_ERROR(DescribeOthers());
    const auto others = static_cast<ptrdiff_t>(report_.binaries.size());
    AddLoaderFact();
    for (size_t i = 0; i < key_sets_.size(); ++i) report_.reports.push_back(Report(i));
    for (Link& link : links_) report_.binaries.push_back(std::move(link.binary));
    // Those of the chain first.
    std::ranges::rotate(report_.binaries, report_.binaries.begin() + others);
    return std::move(report_);
  }

 private:
  Result<void> Follow() {
    std::vector<Step> steps = {{.path = std::string(kDefaultLoader), .shim = nullptr}};
    for (size_t i = 0; i < steps.size(); ++i) {
      if (links_.size() == kMaxChainLinks) {
        unknown_.push_back(fmt::format("only the first {} programs are followed", kMaxChainLinks));
        return Ok();
      }
      const Step step = steps[i];
      if (!seen_.insert(NormalPath(step.path)).second) continue;
      ASSIGN_OR_RETURN(std::vector<Step> next, Take(step));
      std::ranges::move(next, std::back_inserter(steps));
    }
    return Ok();
  }

  // Reads and judges one program. Returns what it would start.
  Result<std::vector<Step>> Take(const Step& step) {
    const EspFile* const file = esp_.Find(step.path);
    if (file == nullptr) {
      Break(step, Printable(step.path) + " does not exist on the EFI system partition" +
                      (step.shim != nullptr ? ", and the shim starts nothing else" : ""));
      return std::vector<Step>();
    }
    const Result<Bytes> content = esp_.Read(*file);
    if (!content.has_value()) return Unreadable(step, content.error());
    const Result<formats::PeImage> pe = formats::PeImage::Parse(*content);
    if (!pe.has_value()) return Unreadable(step, pe.error());
    Result<DescribedBinary> described = DescribeBootBinary(file->path, *pe);
    if (!described.has_value()) return Unreadable(step, described.error());
    std::ranges::move(described->facts, std::back_inserter(report_.facts));
    Link link{.binary = std::move(described->binary),
              .role = RoleOf(*pe, step),
              .by_shim = step.shim != nullptr,
              .certain = step.certain,
              .sbat = {},
              .verdicts = {}};
    link.sbat = SbatLines(link.binary.sbat);
    Judge(*pe, step, link);
    std::vector<Step> next = NextSteps(*pe, step, link);
    // What only one of several would start is as uncertain as that one.
    for (Step& each : next) each.certain = each.certain && step.certain;
    links_.push_back(std::move(link));
    return next;
  }

  Result<std::vector<Step>> Unreadable(const Step& step, const Error& error) {
    if (!IsAboutContent(error)) return error;
    Break(step, Printable(step.path) + " is no program that starts: " + error.Describe());
    return std::vector<Step>();
  }

  // The chain ends in a program that cannot start; one of several need not be the one.
  void Break(const Step& step, std::string reason) {
    (step.certain ? missing_ : unknown_).push_back(std::move(reason));
  }

  void Judge(const formats::PeImage& pe, const Step& step, Link& link) {
    Result<ShimTrust> itself = link.role == LinkRole::kShim
                                   ? firmware::ReadShimTrust(pe)
                                   : Result<ShimTrust>(NotFound("no shim"));
    for (const KeySet& keys : key_sets_) {
      ImageVerdict verdict = step.shim == nullptr
                                 ? firmware::VerifyByFirmware(pe, keys)
                                 : firmware::VerifyByShim(pe, keys, *step.shim, step.need);
      if (itself.has_value()) CheckShimItself(pe, *itself, keys, verdict);
      // What decided comes first: an entry of db may have allowed it before one of dbx did not.
      if (!verdict.allowed) std::ranges::reverse(verdict.reasons);
      link.verdicts.push_back(std::move(verdict));
    }
    if (link.role != LinkRole::kShim) return;
    if (!itself.has_value()) {
      unknown_.push_back(Printable(link.binary.path) +
                         ": what this shim trusts cannot be read: " + itself.error().Describe());
    }
    shim_ = itself.has_value() ? std::make_shared<const ShimTrust>(*std::move(itself)) : nullptr;
  }

  std::vector<Step> NextSteps(const formats::PeImage& pe, const Step& step, const Link& link) {
    const std::string folder(FolderOf(link.binary.path));
    switch (link.role) {
      case LinkRole::kShim:
        return AfterShim(folder);
      case LinkRole::kFallback:
        return AfterFallback(step);
      case LinkRole::kUnifiedKernel:
      case LinkRole::kKernel:
        return {};
      case LinkRole::kGrub:
        return AfterConfiguration(ReadGrubKernels(esp_, pe, folder), step);
      case LinkRole::kBootManager:
        return AfterConfiguration(ReadBootManagerKernels(esp_), step);
      case LinkRole::kOther:
        unknown_.push_back(Printable(link.binary.path) +
                           " is of no known kind: what it starts is not known");
        return {};
    }
    return {};
  }

  // shim.c, should_use_fallback: a shim that was started as the default loader runs the fallback
  // program beside it, if there is one.
  std::vector<Step> AfterShim(const std::string& folder) {
    if (shim_ == nullptr) return {};  // what it would accept is not known, which was said
    if (ToLower(folder) == kDefaultFolder &&
        esp_.Find(folder + std::string(kFallbackName)) != nullptr) {
      return {{.path = folder + std::string(kFallbackName), .shim = shim_}};
    }
    return {{.path = folder + std::string(kSecondStageName), .shim = shim_}};
  }

  // The fallback program makes boot options of what it finds, and the firmware starts these.
  std::vector<Step> AfterFallback(const Step& step) {
    std::vector<Step> next;
    const std::vector<std::string> loaders = RegisteredLoaders(esp_);
    for (const std::string& path : loaders) {
      next.push_back({.path = path, .shim = nullptr, .certain = loaders.size() == 1});
    }
    if (loaders.empty()) {
      Break(step, "no BOOTX64.CSV tells the fallback program what to start");
    } else if (loaders.size() > 1) {
      unknown_.emplace_back("which loader of BOOTX64.CSV starts first is not known");
    }
    return next;
  }

  std::vector<Step> AfterConfiguration(const ConfiguredKernels& kernels, const Step& step) {
    std::ranges::copy(kernels.unknown, std::back_inserter(unknown_));
    std::vector<Step> next;
    for (const std::string& path : kernels.paths) {
      next.push_back({.path = path,
                      .shim = step.shim,
                      .need = SbatNeed::kOptional,
                      .certain = kernels.certain});
    }
    return next;
  }

  Result<void> DescribeOthers() {
    for (const EspFile& file : esp_.files()) {
      const std::string path = NormalPath(file.path);
      if (!path.starts_with("\\efi\\") || !path.ends_with(".efi") || seen_.contains(path)) continue;
      if (report_.binaries.size() + links_.size() >= kMaxBootBinaries) {
        report_.facts.emplace_back("the EFI system partition has more programs than are read");
        return Ok();
      }
      RETURN_IF_ERROR(DescribeOther(file));
    }
    return Ok();
  }

  Result<void> DescribeOther(const EspFile& file) {
    const auto note = [&](const Error& error) -> Result<void> {
      if (!IsAboutContent(error)) return error;
      // A partition may hold thousands; the report has room for what people read.
      if (report_.facts.size() < kMaxChainFacts) {
        report_.facts.push_back(Printable(file.path) + " is not read: " + error.Describe());
      }
      return Ok();
    };
    const Result<Bytes> content = esp_.Read(file);
    if (!content.has_value()) return note(content.error());
    const Result<formats::PeImage> pe = formats::PeImage::Parse(*content);
    if (!pe.has_value()) return note(pe.error());
    Result<DescribedBinary> described = DescribeBootBinary(file.path, *pe);
    if (!described.has_value()) return note(described.error());
    std::ranges::move(described->facts, std::back_inserter(report_.facts));
    report_.binaries.push_back(std::move(described->binary));
    return Ok();
  }

  void AddLoaderFact() {
    if (esp_.Find(kDefaultLoader) == nullptr) {
      report_.facts.emplace_back(
          "no \\EFI\\BOOT\\BOOTX64.EFI: UEFI firmware finds nothing to start by itself");
    } else if (!links_.empty()) {
      const BootBinary& loader = links_.front().binary;
      report_.facts.push_back(Printable(loader.path) + " is " + DescribeSigner(loader));
    }
  }

  static LinkReport MakeLink(const Link& link, const ImageVerdict& verdict) {
    LinkReport out{.path = link.binary.path,
                   .role = link.role,
                   .authenticode_sha256 = link.binary.authenticode_sha256,
                   .signer = link.binary.signer,
                   .sbat = link.sbat,
                   .verified_by = link.by_shim ? "shim" : "firmware",
                   .allowed = verdict.allowed,
                   .authority = {},
                   .reasons = verdict.reasons,
                   .fixes = verdict.fixes};
    const std::optional<firmware::DecidingEntry> decided =
        !verdict.authorities.empty() ? std::optional(verdict.authorities.front())
                                     : verdict.forbidden_by;
    if (decided.has_value()) {
      out.authority = decided->database + ": " + firmware::DescribeSignature(decided->entry);
    }
    return out;
  }

  KeySetReport Report(size_t index) const {
    const KeySet& keys = key_sets_[index];
    KeySetReport out{
        .key_set = keys.name,
        .readiness = links_.empty() ? SecureBootReadiness::kNotSupported : ReadinessOf(keys),
        .bootable = unknown_.empty() ? Bootable::kYes : Bootable::kAsFarAsKnown,
        .chain = {},
        .reasons = unknown_,
        .fixes = {}};
    for (const Link& link : links_) {
      const ImageVerdict& verdict = link.verdicts[index];
      out.chain.push_back(MakeLink(link, verdict));
      if (verdict.allowed) continue;
      // A menu may offer a kernel that is refused and start another.
      if (link.certain && std::exchange(out.bootable, Bootable::kNo) != Bootable::kNo) {
        out.reasons.clear();
      }
      for (const std::string& reason : verdict.reasons) {
        out.reasons.push_back(Printable(link.binary.path) + ": " + reason);
      }
      std::ranges::copy(verdict.fixes, std::back_inserter(out.fixes));
    }
    if (missing_.empty()) return out;
    if (std::exchange(out.bootable, Bootable::kNo) != Bootable::kNo) out.reasons.clear();
    std::ranges::copy(missing_, std::back_inserter(out.reasons));
    out.fixes.emplace_back("put what is missing on the image's EFI system partition");
    return out;
  }

  const Esp& esp_;
  const std::span<const KeySet> key_sets_;
  BootChainReport report_;
  std::vector<Link> links_;
  std::set<std::string> seen_;             // normal paths of what was taken
  std::vector<std::string> unknown_;       // why the chain is not followed to its end
  std::vector<std::string> missing_;       // why it breaks
  std::shared_ptr<const ShimTrust> shim_;  // of the last shim
};

}  // namespace

Result<BootChainReport> InspectBootChain(const formats::RandomAccessReader& disk,
                                         const formats::GptTable& table,
                                         std::span<const KeySet> key_sets) {
  const Result<std::unique_ptr<Esp>> esp = Esp::Open(disk, table);
  if (esp.has_value()) return Walker(**esp, key_sets).Walk();
  if (esp.error().code() != ErrorCode::kNotFound) return esp.error();
  BootChainReport report;
  report.facts.push_back(esp.error().message());
  for (const KeySet& keys : key_sets) {
    report.reports.push_back(ReportWithoutChain(keys, esp.error().message()));
  }
  return report;
}

}  // namespace vallum::images
