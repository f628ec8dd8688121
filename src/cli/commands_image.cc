// SPDX-License-Identifier: Apache-2.0

#include <algorithm>
#include <memory>
#include <ostream>
#include <thread>

#include "base/digest.h"
#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"
#include "cli/image_report.h"
#include "cli/local_image.h"
#include "images/inspection.h"
#include "images/inspection_json.h"
#include "images/installed_key_sets.h"

namespace vallum::cli {
namespace {

constexpr int kUploadAttempts = 5;
constexpr std::chrono::seconds kRetryPause{1};

struct ImportOptions {
  std::string file, name, format, store_format, description;
  std::vector<std::string> properties, labels;
  bool wait = false;
};
struct InspectOptions {
  std::string file, format;
  std::vector<std::string> key_sets;
};

std::string Bar(uint64_t done, uint64_t total) {
  const uint64_t percent = total == 0 ? 100 : done * 100 / total;
  const size_t filled = static_cast<size_t>(percent / 5);
  return "[" + std::string(filled, '#') + std::string(20 - filled, ' ') + "] " +
         std::to_string(percent) + "% of " + FormatByteCount(ByteCount::Bytes(total));
}

Result<Json> CreateOrResume(Tool* tool, const ImportOptions& options, const std::string& format,
                            uint64_t size) {
  const Kind& kind = KindOf("image");
  ASSIGN_OR_RETURN(const Json labels, KeyValues(options.labels, "--label"));
  ASSIGN_OR_RETURN(const Json properties, KeyValues(options.properties, "--property"));
  const Json body = {{"metadata", {{"name", options.name}, {"labels", labels}}},
                     {"spec",
                      {{"diskFormat", format},
                       {"description", options.description},
                       {"properties", properties},
                       {"storeFormat", options.store_format},
                       {"expectedSizeBytes", std::to_string(size)}}}};
  Result<Json> created = tool->Call(http::Method::kPost, "/v1/images", body);
  if (created.has_value() || created.error().code() != ErrorCode::kConflict) return created;
  // It exists: an upload that broke off is gone on with, if it is of this very file.
  ASSIGN_OR_RETURN(Json image, tool->Call(http::Method::kGet, ResourcePath(kind, options.name)));
  const std::string state = TextAt(image, "status.state");
  const bool unfinished = state == "IMAGE_PENDING" || state == "IMAGE_IMPORTING";
  if (!unfinished || NumberAt(image, "spec.expectedSizeBytes") != static_cast<int64_t>(size)) {
    return created;
  }
  return image;
}

// One attempt, from where the server is. Returns the image.
Result<Json> UploadOnce(Tool* tool, const std::string& path, const LocalImage& file,
                        uint64_t offset) {
  ASSIGN_OR_RETURN(http::Client* const client, tool->Connect());
  http::ClientRequest request{.method = http::Method::kPut,
                              .target = path + "/content?offset=" + std::to_string(offset) +
                                        "&total=" + std::to_string(file.size()),
                              .headers = {},
                              .body = {}};
  request.headers.Set("Content-Type", "application/octet-stream");
  const http::UploadSource source{
      .fd = file.fd(), .offset = offset, .length = file.size() - offset};
  ASSIGN_OR_RETURN(const http::Response response,
                   client->Upload(request, source, [&](uint64_t sent) {
                     tool->Progress("upload " + Bar(offset + sent, file.size()));
                   }));
  if (response.status >= 400) return http::ErrorFromProblem(response.status, response.body);
  Json image = Json::parse(response.body, nullptr, false);
  if (!image.is_object()) return Internal("the server's answer is no JSON");
  return image;
}

Result<Json> Upload(Tool* tool, const std::string& path, const LocalImage& file, Json image) {
  for (int attempt = 1;; ++attempt) {
    const auto offset = static_cast<uint64_t>(NumberAt(image, "status.receivedBytes"));
    if (offset > file.size()) {
      return Conflict("the server has more bytes of this image than the file holds")
          .WithFix("delete the image and import it again");
    }
    Result<Json> done = UploadOnce(tool, path, file, offset);
    if (done.has_value() || done.error().code() != ErrorCode::kUnavailable ||
        attempt == kUploadAttempts) {
      return done;
    }
    std::this_thread::sleep_for(kRetryPause * attempt);
    Result<Json> again = tool->Call(http::Method::kGet, path);
    if (again.has_value()) image = *std::move(again);
  }
}

Result<Json> WaitReady(Tool* tool, const std::string& path, Json image) {
  const MonotonicTime end = tool->environment().clock->Monotonic() + tool->timeout();
  while (TextAt(image, "status.state") == "IMAGE_IMPORTING") {
    tool->Progress("the server inspects the image");
    if (tool->environment().clock->Monotonic() >= end) {
      return Unavailable("the image is not ready in time; the import goes on");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(250));
    ASSIGN_OR_RETURN(image, tool->Call(http::Method::kGet, path));
  }
  return image;
}

Result<void> Import(Tool* tool, const ImportOptions& options) {
  ASSIGN_OR_RETURN(const LocalImage file, LocalImage::Open(options.file));
  ASSIGN_OR_RETURN(const std::string format, file.FormatOf(options.format));
  ASSIGN_OR_RETURN(Json image, CreateOrResume(tool, options, format, file.size()));
  const std::string path = ResourcePath(KindOf("image"), options.name);
  Result<Json> uploaded = Upload(tool, path, file, std::move(image));
  if (uploaded.has_value() && options.wait) uploaded = WaitReady(tool, path, *std::move(uploaded));
  tool->EndProgress();
  if (!uploaded.has_value()) return std::move(uploaded).error();
  RETURN_IF_ERROR(ShowWritten(
      tool, KindOf("image"), *uploaded,
      "image " + options.name + " imported: " + FriendlyEnum(TextAt(*uploaded, "status.state"))));
  if (!tool->ForPeople()) return Ok();
  for (const Json& fact : At(*uploaded, "status.facts")) {
    if (fact.is_string()) tool->out() << "  " << Printable(fact.get<std::string>(), 400) << "\n";
  }
  for (const Json& report : At(*uploaded, "status.bootReports")) {
    tool->out() << DescribeBootReport(report);
  }
  return Ok();
}

}  // namespace

Result<void> ImportImageFile(Tool* tool, const std::string& file, const std::string& name,
                             const std::string& format) {
  ImportOptions options;
  options.file = file;
  options.name = name;
  options.format = format;
  options.store_format = "qcow2";
  options.wait = true;
  return Import(tool, options);
}

namespace {

// The sets that were named, or every one that is installed here.
Result<std::vector<firmware::KeySet>> KeySetsFor(Tool* tool,
                                                 const std::vector<std::string>& names) {
  images::InstalledKeySets installed = images::FindInstalledKeySets();
  if (names.empty()) {
    if (installed.sets.empty())
      for (const std::string& missing : installed.missing)
        tool->err() << "warning: " << missing << "\n";
    return std::move(installed.sets);
  }
  std::vector<firmware::KeySet> out;
  for (const std::string& name : names) {
    const auto found = std::ranges::find(installed.sets, name, &firmware::KeySet::name);
    if (found != installed.sets.end()) {
      out.push_back(*found);
      continue;
    }
    Result<firmware::KeySet> keys = images::ReadKeySetFile(name);
    if (!keys.has_value()) {
      return std::move(keys).error().Context("--key-set " + Printable(name) +
                                             " is no installed key set (microsoft, debian)");
    }
    out.push_back(*std::move(keys));
  }
  return out;
}

Result<void> InspectFile(Tool* tool, const InspectOptions& options) {
  ASSIGN_OR_RETURN(const LocalImage file, LocalImage::Open(options.file));
  images::InspectionRequest request;
  ASSIGN_OR_RETURN(request.key_sets, KeySetsFor(tool, options.key_sets));
  ASSIGN_OR_RETURN(const images::InspectedImage inspected,
                   file.Inspect(tool->environment().inspector, options.format, request));
  const images::Inspection& found = inspected.inspection();
  Json report = Json::parse(images::InspectionToJson(found));
  report["sha256"] = ToHex(inspected.digest());
  static const std::vector<Column> kColumns = {{"FORMAT", "format"},
                                               {"SUBFORMAT", "subformat"},
                                               {"CONTENT", "contentFormat"},
                                               {"DISK", "virtualSize", Style::kBytes},
                                               {"BOOTABLE", "bootable", Style::kBool}};
  RETURN_IF_ERROR(tool->Show(kColumns, {report}, report));
  if (!tool->ForPeople()) return Ok();
  for (const std::string& fact : found.facts) tool->out() << "  " << Printable(fact, 400) << "\n";
  for (const Json& each : report["reports"]) tool->out() << DescribeBootReport(each);
  return Ok();
}

}  // namespace

void AddImageCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<ImportOptions>();
  CLI::App* import =
      group->add_subcommand("import", "Upload a file; goes on where an earlier try broke off");
  import->add_option("FILE", options->file, "Disk image")->required();
  import->add_option("--name", options->name, "Name of the image")->required();
  import->add_option("--disk-format", options->format,
                     "qcow2, vmdk, vhd, vhdx, vdi, iso, gpt, mbr, raw, luks, ova, kernel or initrd "
                     "(default: what the content is)");
  import->add_option("--store-format", options->store_format,
                     "Keep the disk as qcow2 or raw (default: as it is if instances can start from "
                     "it, else qcow2)");
  import->add_option("--property", options->properties,
                     "Such as os_secure_boot=required; repeatable");
  import->add_option("--description", options->description, "For people");
  import->add_option("--label", options->labels, "key=value; repeatable");
  import->add_flag("--wait", options->wait, "Return when it is inspected");
  import->callback([=] { tool->action = [=] { return Import(tool, *options); }; });
  auto inspect_options = std::make_shared<InspectOptions>();
  CLI::App* inspect = group->add_subcommand("inspect", "Inspect a file here, without a server");
  inspect->add_option("FILE", inspect_options->file, "Disk image")->required();
  inspect->add_option("--disk-format", inspect_options->format,
                      "What it is declared as (default: what the content is)");
  inspect->add_option(
      "--key-set", inspect_options->key_sets,
      "microsoft, debian, or a file: OVMF variables (.fd), certificates (PEM, DER), a "
      "key set in JSON; repeatable (default: all that are installed)");
  inspect->callback([=] { tool->action = [=] { return InspectFile(tool, *inspect_options); }; });
  AddPredictCommand(group, tool);
}

}  // namespace vallum::cli
