// SPDX-License-Identifier: Apache-2.0
// vallum-inspect reads an untrusted image behind descriptor 3. Started by ConfinedInspector and
// ConfinedConverter; confines itself before it reads.
//
//   inspect FORMAT: a report goes to standard output. Descriptor 4 is a request, maybe empty.
//
//   boot FORMAT: an instance's disk, a qcow2 overlay over the image of that format behind
//   descriptor 6. A report goes to standard output. Descriptor 4 is a request.
//
//   front FORMAT SIZE: the image is the beginning of one of that size (0: not known). A report goes
//   to standard output if it is refused already.
//
//   convert FORMAT qcow2|raw VIRTUAL_SIZE: the converted image goes to standard output; its size,
//   or why it is refused, to descriptor 5.
//
//   ova: what the descriptor of an OVA says and where its files are goes to standard output, or why
//   it is refused to descriptor 5.
//
//   flatten FORMAT VIRTUAL_SIZE: the same for a disk that was laid over an image of that format,
//   which is descriptor 6; the output is a qcow2.

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "formats/byte_sink.h"
#include "formats/ova.h"
#include "images/confine.h"
#include "images/confined_child.h"
#include "images/conversion_messages.h"
#include "images/convert.h"
#include "images/fd_reader.h"
#include "images/front_inspection.h"
#include "images/inspection.h"
#include "images/inspection_json.h"
#include "images/inspection_request.h"
#include "images/ova_json.h"

namespace vallum::images {
namespace {

// Not stdio: it would fstat its descriptor.
class FdSink final : public formats::ByteSink {
 public:
  explicit FdSink(int fd) : fd_(fd) {}
  Result<void> Write(ByteView bytes) override {
    while (!bytes.empty()) {
      const ssize_t written = write(fd_, bytes.data(), bytes.size());
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return ErrnoError(errno, fmt::format("write to descriptor {}", fd_));
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
    return Ok();
  }

 private:
  int fd_;
};

// Comes from the program that started this one.
Result<std::string> ReadRequest() {
  std::string text;
  std::array<char, 65536> buffer{};
  while (true) {
    const ssize_t got = read(kRequestDescriptor, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoError(errno, "read the request");
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(got));
    if (text.size() > kMaxRequestBytes) return Exhausted("the request is too large");
  }
}

Result<uint64_t> ParseSize(std::string_view text) {
  uint64_t size = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), size);
  if (error != std::errc() || end != text.end()) return InvalidInput("no size of an image");
  return size;
}

// Whatever OpenSSL opens or starts when it is first used, it does now: without configuration, and
// with the digest that inspection needs.
void PrepareCryptography() {
  OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, nullptr);
  static_cast<void>(Sha256(AsBytes("")));
}

Result<Inspection> InspectCommand(std::string_view format) {
  ASSIGN_OR_RETURN(const DeclaredFormat declared, ParseDeclaredFormat(format));
  ASSIGN_OR_RETURN(const FdReader image, FdReader::Open(kImageDescriptor));
  ASSIGN_OR_RETURN(const std::string request, ReadRequest());
  PrepareCryptography();
  constexpr std::array kOutputs = {STDOUT_FILENO};
  RETURN_IF_ERROR(ConfineSelf({.image = kImageDescriptor, .outputs = kOutputs}));
  ASSIGN_OR_RETURN(const InspectionRequest wanted, RequestFromJson(request));
  return Inspect(image, declared, wanted);
}

Result<Inspection> BootCommand(std::string_view base_format) {
  ASSIGN_OR_RETURN(const DeclaredFormat format, ParseDeclaredFormat(base_format));
  ASSIGN_OR_RETURN(const FdReader overlay, FdReader::Open(kImageDescriptor));
  ASSIGN_OR_RETURN(const FdReader base, FdReader::Open(kBaseDescriptor));
  ASSIGN_OR_RETURN(const std::string request, ReadRequest());
  PrepareCryptography();
  constexpr std::array kOutputs = {STDOUT_FILENO};
  RETURN_IF_ERROR(
      ConfineSelf({.image = kImageDescriptor, .outputs = kOutputs, .base = kBaseDescriptor}));
  ASSIGN_OR_RETURN(const InspectionRequest wanted, RequestFromJson(request));
  return InspectInstanceDisk(overlay, base, format, wanted);
}

Result<void> FrontCommand(std::string_view format, std::string_view size_text) {
  ASSIGN_OR_RETURN(const DeclaredFormat declared, ParseDeclaredFormat(format));
  ASSIGN_OR_RETURN(const uint64_t size, ParseSize(size_text));
  ASSIGN_OR_RETURN(const FdReader front, FdReader::Open(kImageDescriptor));
  constexpr std::array kOutputs = {STDOUT_FILENO};
  RETURN_IF_ERROR(ConfineSelf({.image = kImageDescriptor, .outputs = kOutputs}));
  return InspectFront(front, size, declared);
}

Result<void> ConvertCommand(std::string_view format, std::string_view target,
                            std::string_view size) {
  ASSIGN_OR_RETURN(const DeclaredFormat declared, ParseDeclaredFormat(format));
  ASSIGN_OR_RETURN(const StoreFormat store, ParseStoreFormat(target));
  ASSIGN_OR_RETURN(const uint64_t virtual_size, ParseSize(size));
  ASSIGN_OR_RETURN(const FdReader image, FdReader::Open(kImageDescriptor));
  PrepareCryptography();  // an OVA's manifest
  constexpr std::array kOutputs = {STDOUT_FILENO, kMessagesDescriptor};
  RETURN_IF_ERROR(ConfineSelf({.image = kImageDescriptor,
                               .outputs = kOutputs,
                               .cpu_seconds = ConvertCpuSeconds(virtual_size)}));
  FdSink messages(kMessagesDescriptor);
  FdSink out(STDOUT_FILENO);
  return ConvertImage(
      image, declared, store, virtual_size,
      [&](uint64_t bytes) { return messages.Write(AsBytes(ConversionMessageToJson(bytes))); }, out);
}

Result<void> FlattenCommand(std::string_view format, std::string_view size) {
  ASSIGN_OR_RETURN(const DeclaredFormat declared, ParseDeclaredFormat(format));
  ASSIGN_OR_RETURN(const uint64_t virtual_size, ParseSize(size));
  ASSIGN_OR_RETURN(const FdReader overlay, FdReader::Open(kImageDescriptor));
  ASSIGN_OR_RETURN(const FdReader base, FdReader::Open(kBaseDescriptor));
  constexpr std::array kOutputs = {STDOUT_FILENO, kMessagesDescriptor};
  RETURN_IF_ERROR(ConfineSelf({.image = kImageDescriptor,
                               .outputs = kOutputs,
                               .cpu_seconds = ConvertCpuSeconds(virtual_size),
                               .base = kBaseDescriptor}));
  FdSink messages(kMessagesDescriptor);
  FdSink out(STDOUT_FILENO);
  return FlattenOverlay(
      overlay, base, declared, virtual_size,
      [&](uint64_t bytes) { return messages.Write(AsBytes(ConversionMessageToJson(bytes))); }, out);
}

Result<void> OvaCommand() {
  ASSIGN_OR_RETURN(const FdReader image, FdReader::Open(kImageDescriptor));
  PrepareCryptography();
  constexpr std::array kOutputs = {STDOUT_FILENO, kMessagesDescriptor};
  RETURN_IF_ERROR(ConfineSelf({.image = kImageDescriptor, .outputs = kOutputs}));
  ASSIGN_OR_RETURN(const formats::OvaImage ova, formats::ParseOva(image));
  return FdSink(STDOUT_FILENO).Write(AsBytes(OvaToJson(ova)));
}

// A refusal that was told is a success of this program.
Result<void> Run(std::span<char*> args) {
  if (args.size() == 3 && args[1] == std::string_view("inspect")) {
    return FdSink(STDOUT_FILENO).Write(AsBytes(ReportToJson(InspectCommand(args[2]))));
  }
  if (args.size() == 3 && args[1] == std::string_view("boot")) {
    return FdSink(STDOUT_FILENO).Write(AsBytes(ReportToJson(BootCommand(args[2]))));
  }
  if (args.size() == 4 && args[1] == std::string_view("front")) {
    const Result<void> judged = FrontCommand(args[2], args[3]);
    if (judged.has_value()) return Ok();
    return FdSink(STDOUT_FILENO).Write(AsBytes(ReportToJson(judged.error())));
  }
  if (args.size() == 5 && args[1] == std::string_view("convert")) {
    const Result<void> result = ConvertCommand(args[2], args[3], args[4]);
    if (result.has_value()) return Ok();
    return FdSink(kMessagesDescriptor).Write(AsBytes(ConversionMessageToJson(result.error())));
  }
  if (args.size() == 4 && args[1] == std::string_view("flatten")) {
    const Result<void> result = FlattenCommand(args[2], args[3]);
    if (result.has_value()) return Ok();
    return FdSink(kMessagesDescriptor).Write(AsBytes(ConversionMessageToJson(result.error())));
  }
  if (args.size() == 2 && args[1] == std::string_view("ova")) {
    const Result<void> result = OvaCommand();
    if (result.has_value()) return Ok();
    return FdSink(kMessagesDescriptor).Write(AsBytes(ConversionMessageToJson(result.error())));
  }
  std::fputs(
      "usage: vallum-inspect inspect FORMAT 3<IMAGE 4<REQUEST\n"
      "       vallum-inspect boot FORMAT 3<OVERLAY 4<REQUEST 6<BASE\n"
      "       vallum-inspect front FORMAT SIZE 3<BEGINNING\n"
      "       vallum-inspect convert FORMAT qcow2|raw VIRTUAL_SIZE 3<IMAGE 5>MESSAGES\n"
      "       vallum-inspect ova 3<IMAGE 5>MESSAGES\n"
      "       vallum-inspect flatten FORMAT VIRTUAL_SIZE 3<OVERLAY 6<IMAGE 5>MESSAGES\n",
      stderr);
  return InvalidInput("usage");
}

}  // namespace
}  // namespace vallum::images

int main(int argc, char** argv) {
  const auto result = vallum::images::Run(std::span(argv, static_cast<size_t>(argc)));
  // _exit: there is nothing to clean up, and exit handlers might need forbidden calls.
  _exit(result.has_value() ? 0 : 1);
}
