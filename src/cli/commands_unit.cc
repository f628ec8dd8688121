// SPDX-License-Identifier: Apache-2.0
// instance export and import: disk, variable store and vTPM as one OVA.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "base/secret_bytes.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/kinds.h"
#include "cli/local_image.h"
#include "cli/output.h"
#include "cli/tool.h"
#include "formats/ovf_writer.h"
#include "formats/tar_writer.h"
#include "images/ova_json.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

constexpr uint64_t kReadAtOnce = uint64_t{8} << 20U;
constexpr uint64_t kMaxSmallPart = (uint64_t{2} << 20U) + 4096;
constexpr size_t kMaxPassphraseFile = 4096;
constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

std::string Base64(ByteView bytes) {
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t word = 0;
    const size_t count = std::min<size_t>(3, bytes.size() - i);
    for (size_t k = 0; k < 3; ++k) {
      word = word << 8U | (k < count ? std::to_integer<uint32_t>(bytes[i + k]) : 0U);
    }
    for (size_t k = 0; k < 4; ++k) {
      out += k <= count ? kAlphabet[word >> (18 - 6 * k) & 63U] : '=';
    }
  }
  return out;
}

Result<Bytes> FromBase64(std::string_view text) {
  Bytes out;
  uint32_t word = 0;
  unsigned bits = 0;
  for (const char c : text) {
    if (c == '=') break;
    const char* const at = std::find(kAlphabet, kAlphabet + 64, c);
    if (at == kAlphabet + 64) return Internal("the server's bytes are no base64");
    word = word << 6U | static_cast<uint32_t>(at - kAlphabet);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      out.push_back(static_cast<std::byte>(word >> bits & 0xffU));
    }
  }
  return out;
}

struct ExportOptions {
  std::string name, file, tpm = "new", passphrase_file;
};
struct ImportOptions {
  std::string file, name, pool, tpm = "new", passphrase_file, flavor;
  bool allow_untrusted = false;
  bool stopped = false;
  bool wait = true;
};

// The first line of the file.
Result<std::string> Passphrase(const std::string& file, const std::string& tpm) {
  if (tpm != "TPM_ORIGIN_COPY") return std::string();
  if (file.empty()) {
    return InvalidInput("--tpm copy without --passphrase-file")
        .WithFix(
            "a vTPM's secrets leave only under a passphrase: write one into a file of mode "
            "0600");
  }
  ASSIGN_OR_RETURN(const SecretBytes content, tls::ReadSecretFile(file, kMaxPassphraseFile));
  const std::string_view text =
      AsText(content.Reveal(SecretAccess("sending the passphrase to the controller")));
  return std::string(text.substr(0, text.find('\n')));
}

// A file that appears under its name only when it is whole.
class OutputFile {
 public:
  static Result<std::unique_ptr<OutputFile>> Create(const std::string& path) {
    const std::string part = path + ".part";
    const int fd = open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return ErrnoError(errno, "create " + part);
    return std::unique_ptr<OutputFile>(new OutputFile(fd, path, part));
  }
  ~OutputFile() {
    if (fd_ < 0) return;
    close(fd_);
    unlink(part_.c_str());
  }
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  Result<void> Write(ByteView bytes) {
    while (!bytes.empty()) {
      const ssize_t written = write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return ErrnoError(errno, "write " + part_);
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
    return Ok();
  }
  Result<void> Commit() {
    if (fsync(fd_) != 0 || rename(part_.c_str(), path_.c_str()) != 0) {
      return ErrnoError(errno, "finish " + path_);
    }
    close(std::exchange(fd_, -1));
    return Ok();
  }

 private:
  OutputFile(int fd, std::string path, std::string part)
      : fd_(fd), path_(std::move(path)), part_(std::move(part)) {}
  int fd_;
  const std::string path_;
  const std::string part_;
};

Result<std::string> GetBytes(Tool* tool, const std::string& target) {
  ASSIGN_OR_RETURN(http::Client* const client, tool->Connect());
  ASSIGN_OR_RETURN(
      http::Response response,
      client->Send({.method = http::Method::kGet, .target = target, .headers = {}, .body = {}}));
  if (response.status >= 400) return http::ErrorFromProblem(response.status, response.body);
  return std::move(response.body);
}

// A small file of the package.
struct SmallFile {
  std::string name;
  Bytes content;
};

// The version of a key set whose content has this digest, with its content. Null: there is none.
Json FindVersion(const Json& key_set, const std::string& sha256) {
  for (Json version : At(key_set, "status.versions")) {
    if (sha256.empty() || TextAt(version, "sha256") != sha256) continue;
    // The newest one's is in the spec.
    const bool newest = NumberAt(version, "version") == NumberAt(key_set, "status.version");
    if (newest) version["content"] = At(key_set, "spec.content");
    return version;
  }
  return nullptr;
}

// What the descriptor says of the machine, and the files beside the disk.
struct Package {
  formats::OvfExport machine;
  std::vector<SmallFile> files;
  std::string disk_sha256;
};

void AddFile(Package& package, std::string& href, const std::string& name, Bytes content) {
  href = name;
  package.machine.files.push_back(
      {.id = {}, .href = name, .size = content.size(), .compression = {}});
  package.files.push_back({.name = name, .content = std::move(content)});
}

Result<void> AddKeySet(Tool* tool, const Json& status, const std::string& stem, Package& package) {
  formats::OvfVallum& ours = package.machine.vallum;
  ours.key_set = TextAt(status, "instanceSpec.keySet");
  ours.key_set_version = static_cast<uint64_t>(NumberAt(status, "instanceSpec.keySetVersion"));
  ours.key_set_sha256 = TextAt(status, "keySetSha256");
  if (ours.key_set_sha256 == "-") ours.key_set_sha256.clear();
  if (ours.key_set.empty() || ours.key_set == "-") {
    ours.key_set = package.machine.secure_boot ? "microsoft" : "none";
  }
  const Result<Json> found =
      tool->Call(http::Method::kGet, "/v1/keysets/" + http::PercentEncode(ours.key_set));
  if (!found.has_value()) {
    return found.error().code() == ErrorCode::kNotFound ? Ok() : Result<void>(found.error());
  }
  const Json version = FindVersion(*found, ours.key_set_sha256);
  const Json content = At(version, "content");
  if (!content.is_object()) return Ok();
  AddFile(package, ours.key_set_href, stem + "-keys.json", ToBytes(AsBytes(content.dump(2))));
  return Ok();
}

Result<Package> Describe(Tool* tool, const ExportOptions& options, const std::string& origin,
                         const Json& snapshot, const std::string& passphrase) {
  const Json status = At(snapshot, "status");
  const std::string path = ResourcePath(KindOf("snapshot"), TextAt(snapshot, "metadata.name"));
  Package package;
  formats::OvfExport& machine = package.machine;
  machine.name = options.name;
  const bool efi = TextAt(status, "boot.type") == "BOOT_TYPE_UEFI";
  machine.firmware = efi ? formats::OvfFirmware::kEfi : formats::OvfFirmware::kBios;
  machine.secure_boot = TextAt(status, "boot.mode") == "BOOT_MODE_SECURE";
  machine.trusted_service = TextAt(status, "instanceSpec.trustedService") == "true";
  machine.cpus = static_cast<uint64_t>(NumberAt(status, "instanceSpec.vcpus"));
  machine.memory = static_cast<uint64_t>(NumberAt(status, "instanceSpec.memoryBytes"));
  machine.disk = {.id = {},
                  .href = options.name + "-disk.qcow2",
                  .size = static_cast<uint64_t>(NumberAt(status, "disk.sizeBytes")),
                  .compression = {}};
  machine.disk_capacity = static_cast<uint64_t>(NumberAt(status, "diskVirtualSizeBytes"));
  package.disk_sha256 = TextAt(status, "disk.sha256");
  if (efi) {
    RETURN_IF_ERROR(AddKeySet(tool, status, options.name, package));
  }
  if (At(status, "variables").is_object()) {
    ASSIGN_OR_RETURN(const std::string variables, GetBytes(tool, path + "/content/variables"));
    AddFile(package, machine.vallum.variables_href, options.name + "-vars.fd",
            ToBytes(AsBytes(variables)));
    machine.vallum.variable_origin = TextAt(status, "variableOrigin");
  }
  const std::string model = TextAt(status, "instanceSpec.tpmModel");
  machine.vtpm = At(status, "tpm").is_object();
  if (machine.vtpm) machine.vallum.tpm_model = model;
  if (machine.vtpm && origin == "TPM_ORIGIN_COPY") {
    ASSIGN_OR_RETURN(const Json sealed,
                     tool->Call(http::Method::kPost, path + "/tpm", {{"passphrase", passphrase}}));
    ASSIGN_OR_RETURN(Bytes state, FromBase64(TextAt(sealed, "sealed")));
    AddFile(package, machine.vallum.tpm_href, options.name + "-tpm.sealed", std::move(state));
  }
  return package;
}

Result<void> WriteMember(OutputFile& out, const std::string& name, ByteView content) {
  ASSIGN_OR_RETURN(const Bytes header, formats::MakeTarHeader(name, content.size()));
  RETURN_IF_ERROR(out.Write(header));
  RETURN_IF_ERROR(out.Write(content));
  return out.Write(Bytes(formats::TarPadding(content.size())));
}

Result<void> WriteDisk(Tool* tool, OutputFile& out, const std::string& path,
                       const Package& package) {
  const uint64_t size = package.machine.disk.size.value_or(0);
  ASSIGN_OR_RETURN(const Bytes header, formats::MakeTarHeader(package.machine.disk.href, size));
  RETURN_IF_ERROR(out.Write(header));
  Hasher hasher(HashAlgorithm::kSha256);
  for (uint64_t done = 0; done < size;) {
    ASSIGN_OR_RETURN(const std::string bytes,
                     GetBytes(tool, path + "/content/disk?offset=" + std::to_string(done) +
                                        "&length=" + std::to_string(kReadAtOnce)));
    if (bytes.empty() || bytes.size() > size - done) {
      return Unavailable("the server sent another amount than the disk has").WithFix("try again");
    }
    hasher.Update(AsBytes(bytes));
    RETURN_IF_ERROR(out.Write(AsBytes(bytes)));
    done += bytes.size();
    tool->Progress("export: " + std::to_string(done * 100 / size) + "% of the disk");
  }
  tool->EndProgress();
  // The manifest in front of it says so already.
  if (ToHex(hasher.Finish()) != package.disk_sha256) {
    return Corrupt("the disk that came has not the snapshot's digest").WithFix("export it again");
  }
  return out.Write(Bytes(formats::TarPadding(size)));
}

Result<void> WriteOva(Tool* tool, const ExportOptions& options, const std::string& path,
                      const Package& package) {
  ASSIGN_OR_RETURN(const std::string ovf, formats::WriteOvf(package.machine));
  std::string manifest = "SHA256(" + options.name + ".ovf)= " + ToHex(Sha256(AsBytes(ovf))) + "\n" +
                         "SHA256(" + package.machine.disk.href + ")= " + package.disk_sha256 + "\n";
  for (const SmallFile& file : package.files) {
    manifest += "SHA256(" + file.name + ")= " + ToHex(Sha256(file.content)) + "\n";
  }
  ASSIGN_OR_RETURN(const auto out, OutputFile::Create(options.file));
  RETURN_IF_ERROR(WriteMember(*out, options.name + ".ovf", AsBytes(ovf)));
  RETURN_IF_ERROR(WriteMember(*out, options.name + ".mf", AsBytes(manifest)));
  RETURN_IF_ERROR(WriteDisk(tool, *out, path, package));
  for (const SmallFile& file : package.files) {
    RETURN_IF_ERROR(WriteMember(*out, file.name, file.content));
  }
  RETURN_IF_ERROR(out->Write(Bytes(formats::kTarEnd)));
  return out->Commit();
}

Result<void> Export(Tool* tool, const ExportOptions& options) {
  ASSIGN_OR_RETURN(const std::string origin, TpmOriginOf(options.tpm));
  ASSIGN_OR_RETURN(const std::string passphrase, Passphrase(options.passphrase_file, origin));
  ASSIGN_OR_RETURN(const std::string name,
                   TakeTemporarySnapshot(tool, options.name, "export-" + options.name));
  const std::string path = ResourcePath(KindOf("snapshot"), name);
  bool has_vtpm = false;
  const Result<void> written = [&]() -> Result<void> {
    ASSIGN_OR_RETURN(const Json snapshot, tool->Call(http::Method::kGet, path));
    ASSIGN_OR_RETURN(const Package package, Describe(tool, options, origin, snapshot, passphrase));
    has_vtpm = package.machine.vtpm;
    return WriteOva(tool, options, path, package);
  }();
  static_cast<void>(tool->Call(http::Method::kDelete, path));
  RETURN_IF_ERROR(written);
  tool->out() << "instance " << Printable(options.name) << " exported to "
              << Printable(options.file) << "\n";
  if (!has_vtpm || !tool->ForPeople()) return Ok();
  tool->out() << (origin == "TPM_ORIGIN_COPY"
                      ? "it holds the vTPM's secrets under the passphrase: whoever has both can be "
                        "this machine\n"
                      : "no secret of its vTPM left: an import gets a new one, and keys sealed to "
                        "the old one (LUKS, BitLocker) ask for their recovery key\n");
  return Ok();
}

// ---- import ----

// Reads a member whose name the descriptor gave, and compares it with the manifest.
Result<Bytes> ReadMember(const LocalImage& file, const Json& ova, const std::string& name) {
  for (const Json& member : At(ova, "members")) {
    if (TextAt(member, "name") != name) continue;
    const auto size = static_cast<uint64_t>(NumberAt(member, "size"));
    const auto offset = NumberAt(member, "offset");
    if (size > kMaxSmallPart) return InvalidInput(Printable(name) + " is larger than 2 MiB");
    Bytes content(size);
    if (pread(file.fd(), content.data(), size, offset) != static_cast<ssize_t>(size)) {
      return InvalidInput(Printable(name) + " cannot be read from the OVA");
    }
    for (const Json& entry : At(ova, "manifest")) {
      if (TextAt(entry, "file") != name) continue;
      if (TextAt(entry, "algorithm") == "sha256" &&
          TextAt(entry, "digest") == ToHex(Sha256(content))) {
        return content;
      }
      return Corrupt("the digest of " + Printable(name) + " is not that of the manifest")
          .WithFix("copy the OVA again from where it was made");
    }
    return InvalidInput("the manifest does not name " + Printable(name))
        .WithFix("export the machine again");
  }
  return InvalidInput("the OVA has no file " + Printable(name));
}

// The key set of the OVA: one that is here already, or else made of its content.
Result<void> TakeKeySet(Tool* tool, const ImportOptions& options, const LocalImage& file,
                        const Json& ova, Json& spec) {
  const std::string wanted = TextAt(ova, "vallum.keySet");
  const std::string sha256 = TextAt(ova, "vallum.keySetSha256");
  if (wanted.empty() || wanted == "none" || sha256.empty()) return Ok();
  ASSIGN_OR_RETURN(const Json all, tool->CallList("keysets", ""));
  for (const Json& key_set : At(all, "items")) {
    const Json version = FindVersion(key_set, sha256);
    if (!version.is_object()) continue;
    spec["keySet"] = TextAt(key_set, "metadata.name");
    spec["keySetVersion"] = NumberAt(version, "version");
    tool->out() << "key set: " << Printable(TextAt(key_set, "metadata.name")) << " version "
                << NumberAt(version, "version") << ", which has the same keys\n";
    return Ok();
  }
  const std::string href = TextAt(ova, "vallum.keySetHref");
  if (href.empty()) {
    tool->out() << "key set: " << Printable(wanted)
                << " is not here and not in the OVA: the default one is used\n";
    return Ok();
  }
  ASSIGN_OR_RETURN(const Bytes text, ReadMember(file, ova, href));
  const Json content = Json::parse(AsText(text), nullptr, false);
  if (!content.is_object()) return InvalidInput(Printable(href) + " is no key set");
  const std::string name = options.name.substr(0, 58) + "-keys";
  const Json body = {
      {"metadata", {{"name", name}}},
      {"spec",
       {{"description", "came with " + options.name + ", was " + wanted}, {"content", content}}}};
  RETURN_IF_ERROR(tool->Call(http::Method::kPost, "/v1/keysets", body));
  spec["keySet"] = name;
  tool->out() << "key set: made as " << Printable(name) << " version 1, from the OVA's "
              << Printable(wanted) << "\n";
  return Ok();
}

Result<Json> SpecOf(Tool* tool, const ImportOptions& options, const LocalImage& file,
                    const Json& ova) {
  Json spec = Json::object();
  const bool efi = TextAt(ova, "firmware") == "efi";
  const bool secure = TextAt(ova, "secureBoot") == "true";
  spec["boot"] = {{"type", efi ? "BOOT_TYPE_UEFI" : "BOOT_TYPE_BIOS"},
                  {"mode", secure && efi ? "BOOT_MODE_SECURE" : "BOOT_MODE_LEGACY"}};
  const std::string model = TextAt(ova, "vallum.tpmModel");
  const bool vtpm = TextAt(ova, "vtpm") == "true";
  spec["tpmModel"] = !vtpm && !(secure && efi) ? "none" : model == "tpm-tis" ? model : "tpm-crb";
  if (secure && efi && !vtpm) {
    tool->out() << "vTPM: the OVA asks for none; with Secure Boot the instance gets one, which "
                   "measures its boot\n";
  }
  spec["vcpus"] = std::max<int64_t>(NumberAt(ova, "cpus"), 1);
  const int64_t memory = NumberAt(ova, "memory");
  if (memory == 0 && options.flavor.empty()) {
    return InvalidInput("the OVA does not say how much memory the machine has")
        .WithFix("name a size with --flavor");
  }
  spec["memoryBytes"] = std::to_string(memory);
  if (TextAt(ova, "trustedService") == "true") spec["trustedService"] = true;
  if (efi) {
    RETURN_IF_ERROR(TakeKeySet(tool, options, file, ova, spec));
  }
  return spec;
}

// Refused before anything is uploaded.
Result<void> CheckTrusted(Tool* tool, const ImportOptions& options, const Json& ova) {
  if (TextAt(ova, "trustedService") != "true" || options.allow_untrusted) return Ok();
  const std::string pool = options.pool.empty() ? "default" : options.pool;
  ASSIGN_OR_RETURN(const Json found,
                   tool->Call(http::Method::kGet, ResourcePath(KindOf("pool"), pool)));
  if (TextAt(found, "spec.trustedService") == "true") return Ok();
  return Conflict("the OVA is of a trusted machine (TrustedService), and pool " + pool +
                  " is not trusted")
      .WithFix(
          "import it into a pool with trusted_service, or say --allow-untrusted, which is "
          "recorded");
}

Result<void> CreateFromSnapshot(Tool* tool, const ImportOptions& options,
                                const std::string& snapshot, const std::string& origin) {
  Json spec = {{"snapshot", snapshot},
               {"tpmOrigin", origin},
               {"pool", options.pool.empty() ? "default" : options.pool},
               {"power", options.stopped ? "POWER_STOPPED" : "POWER_RUNNING"}};
  if (!options.flavor.empty()) spec["flavor"] = options.flavor;
  if (options.allow_untrusted) spec["allowUntrusted"] = true;
  const Json body = {{"metadata", {{"name", options.name}}}, {"spec", spec}};
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kPost, "/v1/instances", body));
  return FinishOperation(tool, answer, Follow::kWait, "import " + options.name);
}

Result<void> Import(Tool* tool, const ImportOptions& options) {
  ASSIGN_OR_RETURN(const std::string origin, TpmOriginOf(options.tpm));
  ASSIGN_OR_RETURN(const std::string passphrase, Passphrase(options.passphrase_file, origin));
  ASSIGN_OR_RETURN(const LocalImage file, LocalImage::Open(options.file));
  ASSIGN_OR_RETURN(const std::string document,
                   images::DescribeOva(tool->environment().inspector, file.fd()));
  const Json ova = Json::parse(document, nullptr, false);
  const std::string tpm_href = TextAt(ova, "vallum.tpmHref");
  if (origin == "TPM_ORIGIN_COPY" && tpm_href.empty()) {
    return InvalidInput("--tpm copy, but the OVA holds no vTPM state")
        .WithFix("export the machine with --tpm copy, or import it with --tpm new");
  }
  RETURN_IF_ERROR(CheckTrusted(tool, options, ova));
  for (const Json& note : At(ova, "notUnderstood")) {
    if (note.is_string())
      tool->out() << "note: " << Printable(note.get<std::string>(), 200) << "\n";
  }
  Json request = {{"name", options.name.substr(0, 56) + "-import"}, {"temporary", true}};
  const std::string variables = TextAt(ova, "vallum.variablesHref");
  if (!variables.empty()) {
    ASSIGN_OR_RETURN(const Bytes content, ReadMember(file, ova, variables));
    request["variables"] = Base64(content);
    request["variableOrigin"] = TextAt(ova, "vallum.variableOrigin");
  }
  if (origin == "TPM_ORIGIN_COPY") {
    ASSIGN_OR_RETURN(const Bytes sealed, ReadMember(file, ova, tpm_href));
    request["tpm"] = Base64(sealed);
    request["passphrase"] = passphrase;
  }
  ASSIGN_OR_RETURN(request["spec"], SpecOf(tool, options, file, ova));
  const std::string image = options.name.substr(0, 58) + "-disk";
  request["image"] = image;
  RETURN_IF_ERROR(ImportImageFile(tool, options.file, image, "ova"));
  ASSIGN_OR_RETURN(const Json snapshot,
                   tool->Call(http::Method::kPost, "/v1/snapshots/import", request));
  return CreateFromSnapshot(tool, options, TextAt(snapshot, "metadata.name"), origin);
}

void AddImport(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<ImportOptions>();
  CLI::App* command = group->add_subcommand(
      "import", "Make an instance of an OVA: firmware, Secure Boot, keys, vTPM and disk");
  command->add_option("FILE", options->file, "The OVA")->required();
  command->add_option("NAME", options->name, "Name of the instance")->required();
  command->add_option("--pool", options->pool, "Pool of hosts (default: default)");
  command->add_option("--flavor", options->flavor, "Size (default: the OVA's)");
  command->add_option("--tpm", options->tpm,
                      "new (default), or copy: the vTPM that it was exported with");
  command->add_option("--passphrase-file", options->passphrase_file,
                      "With --tpm copy: file with the passphrase (mode 0600)");
  command->add_flag("--allow-untrusted", options->allow_untrusted,
                    "A trusted machine may go into a pool that is not; recorded");
  command->add_flag("--stopped", options->stopped, "Do not start it");
  command->add_flag("--wait", options->wait, "Return when it is made; it always does");
  command->callback([=] { tool->action = [=] { return Import(tool, *options); }; });
}

}  // namespace

void AddUnitCommands(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<ExportOptions>();
  CLI::App* command = group->add_subcommand(
      "export", "Write a stopped one to an OVA: firmware, Secure Boot, keys, vTPM and disk");
  command->add_option("NAME", options->name, "The stopped instance")->required();
  command->add_option("-o,--file", options->file, "The OVA to write")->required();
  command->add_option("--tpm", options->tpm,
                      "new (default): no secret of its vTPM leaves. copy: its identity and "
                      "secrets, sealed under a passphrase");
  command->add_option("--passphrase-file", options->passphrase_file,
                      "With --tpm copy: file with the passphrase (mode 0600)");
  command->callback([=] { tool->action = [=] { return Export(tool, *options); }; });
  AddImport(group, tool);
}

}  // namespace vallum::cli
