// SPDX-License-Identifier: Apache-2.0
// Each adds the commands of one subject; the values that options fill live as long as the app.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "cli/kinds.h"
#include "cli/tool.h"

namespace vallum::cli {

void AddResourceCommands(CLI::App* group, Tool* tool, const Kind& kind);  // list, show, ...
void AddPoolCommands(CLI::App* group, Tool* tool);
void AddHostCommands(CLI::App* group, Tool* tool);
void AddImageCommands(CLI::App* group, Tool* tool);
void AddPredictCommand(CLI::App* group, Tool* tool);
void AddFlavorCommands(CLI::App* group, Tool* tool);
void AddInstanceCommands(CLI::App* group, Tool* tool);
void AddWaitCommand(CLI::App* group, Tool* tool);   // instance wait
void AddBootCommands(CLI::App* group, Tool* tool);  // instance watch-boot, instance baseline
void AddQuoteCommand(CLI::App* group, Tool* tool);  // instance quote
void AddSnapshotCommands(CLI::App* group, Tool* tool);
void AddCloneCommand(CLI::App* group, Tool* tool);  // instance clone
void AddUnitCommands(CLI::App* group, Tool* tool);  // instance export, import
void AddTokenCommands(CLI::App* group, Tool* tool);
void AddKeySetCommands(CLI::App* group, Tool* tool);
void AddKeySetCompareCommands(CLI::App* group, Tool* tool);  // diff, export, verify, audit
void AddKeySetRolloutCommand(CLI::App* group, Tool* tool);
void AddRolloutCommands(CLI::App* group, Tool* tool);
void AddKeysOfInstanceCommands(CLI::App* group, Tool* tool);  // set-keyset, set-boot
void AddPolicyCommands(CLI::App* group, Tool* tool);
void AddPolicyImportCommands(CLI::App* group, Tool* tool);  // policy import-...
void AddHostTrustCommands(CLI::App* group, Tool* tool);     // approve, attest, evidence, move
void AddTpmAuthorityCommands(CLI::App* group, Tool* tool);
void AddAllowListCommands(CLI::App* group, Tool* tool);
void AddEventLogCommands(CLI::App* app, Tool* tool);
void AddAttestCommands(CLI::App* app, Tool* tool);
void AddPlatformCertificateCommand(CLI::App* group, Tool* tool);  // attest platform-certificate
void AddContextCommands(CLI::App* app, Tool* tool);
void AddScheduleCommands(CLI::App* app, Tool* tool);
void AddConsoleCommand(CLI::App* app, Tool* tool);
void AddHelpCommands(CLI::App* app, Tool* tool);  // version, completion, man

// "k=v" words as an object. Errors: kInvalidInput naming the option.
Result<Json> KeyValues(const std::vector<std::string>& words, const std::string& option);
// "/v1/instances/web1", encoded.
std::string ResourcePath(const Kind& kind, const std::string& name);
// Prints what a write answered: for people one line, else the document.
Result<void> ShowWritten(Tool* tool, const Kind& kind, const Json& answer, const std::string& line);
// Follows an operation if told to wait, else says that it was started.
enum class Follow { kReturn, kWait };
Result<void> FinishOperation(Tool* tool, const Json& answer, Follow follow,
                             const std::string& line);

// "new", "copy" as the API has them. Errors: kInvalidInput.
Result<std::string> TpmOriginOf(const std::string& word);
// What the choice means for the new instance, for people.
std::string TpmOriginWords(const std::string& origin, const std::string& source);
// Takes a snapshot that goes away by itself, and waits for it. Returns its name. Errors: the
// operation's.
Result<std::string> TakeTemporarySnapshot(Tool* tool, const std::string& instance,
                                          const std::string& wanted);

// Imports a file as an image and waits until it is ready, as `image import` does; a disk that is
// not qcow2 is converted to that. Errors: those of the upload and of the inspection.
Result<void> ImportImageFile(Tool* tool, const std::string& file, const std::string& name,
                             const std::string& format);

// Makes an allow list of that name, or gives the one there is another content. Errors: the
// server's.
Result<Json> WriteAllowList(Tool* tool, const std::string& name, const std::string& description,
                            int fd, uint64_t size);

// The human view of an instance, and of a host with its probes.
std::string DescribeInstance(const Json& instance, WallTime now);
// The lines of a verdict, from `measured`: its halves, the first difference, changes, reasons.
std::string DescribeVerdict(const Json& measured);
std::string DescribeHost(const Json& host, WallTime now);
// Who its TPM is, whether it is trusted, and why not: the reasons in order, with what to do.
std::string DescribeTrust(const Json& host, WallTime now);

// Options of `instance create` that also describe an instance to `schedule explain`.
struct InstanceOptions {
  std::string image, flavor, pool, host, boot_type, boot_mode, secure_boot, tpm, key_set;
  std::vector<std::string> networks, labels, properties, ssh_keys;
  std::string user_data, hostname;
  bool trusted = false;
  bool allow_untrusted = false;
  std::vector<std::string> near;
  std::vector<std::string> apart_from;
};
void AddInstanceOptions(CLI::App* command, InstanceOptions* options);
// The spec's JSON; reads the user-data and key files. Errors: kInvalidInput, those of the files.
Result<Json> InstanceSpec(const InstanceOptions& options);

// The scripts and pages made from the command tree.
std::string CompletionScript(const CLI::App& app, const std::string& shell);
std::string ManPage(const CLI::App& app);

}  // namespace vallum::cli
