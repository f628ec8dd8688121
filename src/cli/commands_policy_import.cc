// SPDX-License-Identifier: Apache-2.0
// `policy import-pcrlock`, `policy import-whitelist`: policies of what other verifiers read,
// without a server.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "attest/oat_whitelist.h"
#include "attest/pcrlock.h"
#include "attest/pcrlock_policy.h"
#include "base/bytes.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/local_image.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxWhitelist = size_t{4} << 20U;
constexpr size_t kMaxFiles = 4096;
constexpr size_t kMaxTotal = size_t{64} << 20U;  // bytes of all files

struct WhitelistOptions {
  std::string file, name = "oat", out;
};
struct PcrlockOptions {
  std::vector<std::string> folders;
  std::vector<uint32_t> pcrs;
  std::string name = "pcrlock", out;
};

// Files by their path below pcrlock.d, of the first folder that has one of that path.
using Files = std::map<std::string, fs::path>;

Result<std::vector<fs::directory_entry>> List(const fs::path& folder) {
  std::vector<fs::directory_entry> out;
  std::error_code failed;
  for (fs::directory_iterator at(folder, failed), end; !failed && at != end; at.increment(failed)) {
    if (out.size() == kMaxFiles) {
      return InvalidInput(Printable(folder.string(), 400) + " has more than " +
                          std::to_string(kMaxFiles) + " files")
          .WithFix("name the folder that holds NAME.pcrlock and NAME.pcrlock.d alone");
    }
    out.push_back(*at);
  }
  if (failed) return ErrnoError(failed.value(), "list " + Printable(folder.string(), 400));
  return out;
}

// Adds the .pcrlock files of a folder; `below` is "" or "NAME.pcrlock.d/".
Result<void> AddFiles(Tool* tool, const fs::path& folder, const std::string& below, Files& files) {
  ASSIGN_OR_RETURN(const std::vector<fs::directory_entry> entries, List(folder));
  for (const fs::directory_entry& entry : entries) {
    const std::string name = entry.path().filename().string();
    std::error_code ignored;
    if (below.empty() && name.ends_with(".pcrlock.d") && entry.is_directory(ignored)) {
      RETURN_IF_ERROR(AddFiles(tool, entry.path(), name + "/", files));
    } else if (name.ends_with(".pcrlock")) {
      files.try_emplace(below + name, entry.path());
    } else {
      tool->err() << "passed over " << Printable(entry.path().string(), 400)
                  << ": it is no .pcrlock file\n";
    }
    if (files.size() > kMaxFiles) {
      return InvalidInput("there are more than " + std::to_string(kMaxFiles) + " .pcrlock files")
          .WithFix("name fewer folders");
    }
  }
  return Ok();
}

// A link to /dev/null takes away the file of that path in later folders. Source:
// systemd.pcrlock(5), as for other drop-in files (systemd.unit(5)).
bool IsMask(const fs::path& path) {
  std::error_code failed;
  return fs::is_symlink(path, failed) && fs::read_symlink(path, failed) == "/dev/null";
}

Result<std::vector<attest::PcrlockFile>> ReadFiles(Tool* tool, const PcrlockOptions& options) {
  Files files;
  for (const std::string& folder : options.folders) {
    RETURN_IF_ERROR(AddFiles(tool, folder, "", files));
  }
  std::vector<attest::PcrlockFile> out;
  size_t total = 0;
  for (const auto& [name, path] : files) {
    if (IsMask(path)) continue;
    ASSIGN_OR_RETURN(const Bytes content, ReadInputFile(path.string(), attest::kMaxPcrlockText));
    if (content.empty()) {  // masked as well, but maybe by accident
      tool->err() << "passed over " << Printable(path.string(), 400) << ": it is empty\n";
      continue;
    }
    total += content.size();
    if (total > kMaxTotal) {
      return InvalidInput("the .pcrlock files are larger than " + std::to_string(kMaxTotal) +
                          " bytes in all")
          .WithFix("name fewer folders");
    }
    out.push_back({.path = name, .text = std::string(AsText(content))});
  }
  if (out.empty()) {
    return InvalidInput("there is no .pcrlock file in " +
                        Printable(Join(options.folders, ", "), 400))
        .WithFix("name a folder such as /var/lib/pcrlock.d, copied from the host");
  }
  return out;
}

Result<void> Print(Tool* tool, const std::string& document, const std::string& out) {
  if (out.empty()) {
    tool->out() << document;
    return Ok();
  }
  RETURN_IF_ERROR(tls::WriteFileAtomically(out, AsBytes(document), 0644));
  tool->err() << "wrote " << Printable(out, 400) << "\n";
  return Ok();
}

Result<void> ImportWhitelist(Tool* tool, const WhitelistOptions& options) {
  ASSIGN_OR_RETURN(const Bytes content, ReadInputFile(options.file, kMaxWhitelist));
  ASSIGN_OR_RETURN_CONTEXT(const attest::AttestationPolicy policy,
                           attest::PolicyOfPcrBeans(AsText(content), options.name),
                           Printable(options.file, 400));
  const std::string document = attest::FormatPolicy(
      policy, {{"", "A draft from a whitelist: a PCR that has no rule here is not judged."}});
  RETURN_IF_ERROR(attest::ParsePolicy(document)).context("the policy of this whitelist");
  return Print(tool, document, options.out);
}

Result<void> ImportPcrlock(Tool* tool, const PcrlockOptions& options) {
  ASSIGN_OR_RETURN(const std::vector<attest::PcrlockFile> files, ReadFiles(tool, options));
  ASSIGN_OR_RETURN(std::vector<attest::ReferenceComponent> components,
                   attest::ReadPcrlockFolder(files));
  ASSIGN_OR_RETURN(const attest::PcrlockPolicy made,
                   attest::PolicyFromPcrlock(options.name, std::move(components),
                                             {options.pcrs.begin(), options.pcrs.end()}));
  return Print(tool, made.document, options.out);
}

void AddImportWhitelist(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<WhitelistOptions>();
  CLI::App* command = group->add_subcommand(
      "import-whitelist", "Draft a policy of OpenAttestation's whitelist, without a server");
  command
      ->add_option(
          "FILE", options->file,
          "What GET /WLMService/resources/mles/whitelist/pcr answers: {\"pcrBean\": [...]}")
      ->required();
  command->add_option("--name", options->name, "The policy's name (default: oat)");
  command->add_option("--out", options->out, "Write it to this file");
  command->callback([=] { tool->action = [=] { return ImportWhitelist(tool, *options); }; });
  command->footer("Example:\n  vallum policy import-whitelist pcrs.json --name gold > gold.toml");
}

void AddImportPcrlock(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<PcrlockOptions>();
  CLI::App* command = group->add_subcommand(
      "import-pcrlock", "Draft a policy of systemd-pcrlock's components, without a server");
  command
      ->add_option("DIR", options->folders,
                   "Folders with NAME.pcrlock and NAME.pcrlock.d; of files of one path that of the "
                   "first counts")
      ->required();
  command
      ->add_option("--pcr", options->pcrs,
                   "PCRs that get a rule (default: all that the components measure)")
      ->check(CLI::Range(0U, static_cast<unsigned>(PcrIndex::kCount) - 1));
  command->add_option("--name", options->name, "The policy's name (default: pcrlock)");
  command->add_option("--out", options->out, "Write it to this file");
  command->callback([=] { tool->action = [=] { return ImportPcrlock(tool, *options); }; });
  command->footer(
      "Example:\n  vallum policy import-pcrlock /var/lib/pcrlock.d /usr/lib/pcrlock.d --pcr 4 "
      "--pcr 11 > gold.toml");
}

}  // namespace

void AddPolicyImportCommands(CLI::App* group, Tool* tool) {
  AddImportPcrlock(group, tool);
  AddImportWhitelist(group, tool);
}

}  // namespace vallum::cli
