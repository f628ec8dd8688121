// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <ostream>
#include <thread>

#include "base/text.h"
#include "base/units.h"
#include "cli/commands.h"
#include "images/fd_reader.h"
#include "images/inspection.h"

namespace vallum::cli {
namespace {

constexpr int kUploadAttempts = 5;
constexpr std::chrono::seconds kRetryPause{1};

class File {
 public:
  static Result<File> Open(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ErrnoError(errno, "open " + path);
    File file(fd);
    struct stat info = {};
    if (::fstat(fd, &info) != 0) return ErrnoError(errno, "stat " + path);
    if (!S_ISREG(info.st_mode)) return InvalidInput(Printable(path) + " is no regular file");
    file.size_ = static_cast<uint64_t>(info.st_size);
    return file;
  }
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(File&& other) noexcept : fd_(std::exchange(other.fd_, -1)), size_(other.size_) {}
  File& operator=(File&&) = delete;
  int fd() const { return fd_; }
  uint64_t size() const { return size_; }

 private:
  explicit File(int fd) : fd_(fd) {}
  int fd_;
  uint64_t size_ = 0;
};

struct ImportOptions {
  std::string file, name, format, description;
  std::vector<std::string> properties, labels;
  bool wait = false;
};
struct InspectOptions {
  std::string file, format;
};

Result<std::string> FormatOf(const std::string& given, const std::string& file) {
  if (!given.empty()) return given;
  if (file.ends_with(".qcow2")) return std::string("qcow2");
  return InvalidInput("the format of " + Printable(file) + " is not declared")
      .WithFix("give --disk-format qcow2, gpt (a raw bootable disk) or raw");
}

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
Result<Json> UploadOnce(Tool* tool, const std::string& path, const File& file, uint64_t offset) {
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

Result<Json> Upload(Tool* tool, const std::string& path, const File& file, Json image) {
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
  ASSIGN_OR_RETURN(const std::string format, FormatOf(options.format, options.file));
  ASSIGN_OR_RETURN(const File file, File::Open(options.file));
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
  const Json facts = At(*uploaded, "status.facts");
  for (const Json& fact : facts) {
    if (fact.is_string()) tool->out() << "  " << Printable(fact.get<std::string>(), 400) << "\n";
  }
  return Ok();
}

Result<void> InspectFile(Tool* tool, const InspectOptions& options) {
  ASSIGN_OR_RETURN(const std::string name, FormatOf(options.format, options.file));
  ASSIGN_OR_RETURN(const images::DeclaredFormat format, images::ParseDeclaredFormat(name));
  ASSIGN_OR_RETURN(const File file, File::Open(options.file));
  ASSIGN_OR_RETURN(const images::FdReader reader, images::FdReader::Open(file.fd()));
  ASSIGN_OR_RETURN(const images::Inspection found, images::Inspect(reader, format));
  Json report = {{"format", images::DeclaredFormatName(found.format)},
                 {"content", images::ContentFormatName(found.content)},
                 {"fileSizeBytes", found.file_size},
                 {"virtualSizeBytes", found.virtual_size},
                 {"bootable", found.bootable},
                 {"facts", found.facts}};
  report["bootBinaries"] = Json::array();
  for (const images::BootBinary& binary : found.boot_binaries) {
    report["bootBinaries"].push_back({{"path", binary.path},
                                      {"authenticodeSha256", binary.authenticode_sha256},
                                      {"signer", binary.signer}});
  }
  static const std::vector<Column> kColumns = {{"FORMAT", "format"},
                                               {"CONTENT", "content"},
                                               {"DISK", "virtualSizeBytes", Style::kBytes},
                                               {"BOOTABLE", "bootable", Style::kBool}};
  RETURN_IF_ERROR(tool->Show(kColumns, {report}, report));
  if (!tool->ForPeople()) return Ok();
  for (const std::string& fact : found.facts) tool->out() << "  " << Printable(fact, 400) << "\n";
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
                     "qcow2, gpt or raw (default for *.qcow2: qcow2)");
  import->add_option("--property", options->properties,
                     "Such as os_secure_boot=required; repeatable");
  import->add_option("--description", options->description, "For people");
  import->add_option("--label", options->labels, "key=value; repeatable");
  import->add_flag("--wait", options->wait, "Return when it is inspected");
  import->callback([=] { tool->action = [=] { return Import(tool, *options); }; });
  auto inspect_options = std::make_shared<InspectOptions>();
  CLI::App* inspect = group->add_subcommand("inspect", "Inspect a file here, without a server");
  inspect->add_option("FILE", inspect_options->file, "Disk image")->required();
  inspect->add_option("--disk-format", inspect_options->format, "qcow2, gpt or raw");
  inspect->callback([=] { tool->action = [=] { return InspectFile(tool, *inspect_options); }; });
}

}  // namespace vallum::cli
