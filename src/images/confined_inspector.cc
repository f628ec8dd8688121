// SPDX-License-Identifier: Apache-2.0
#include "images/confined_inspector.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/result.h"
#include "images/confined_child.h"
#include "images/inspection.h"
#include "images/inspection_json.h"

namespace vallum::images {
namespace {

constexpr size_t kMaxReport = size_t{8} << 20U;

}  // namespace

std::string InspectorBesideThisProgram() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / "vallum-inspect";
}

Result<InspectedImage> ConfinedInspector::Inspect(int image, DeclaredFormat declared,
                                                  const Sha256Digest& digest,
                                                  const InspectionRequest& request) const {
  const std::string document = RequestToJson(request);
  struct stat before{};
  if (fstat(image, &before) != 0) return ErrnoError(errno, "fstat the image");
  const ConfinedCommand command{.program = options_.program,
                                .arguments = {"inspect", std::string(DeclaredFormatName(declared))},
                                .work = "inspection",
                                .image = image,
                                .request = document,
                                .timeout = options_.timeout,
                                .base = -1};
  std::string report;
  RETURN_IF_ERROR(RunConfined(command, [&](ByteView bytes) -> Result<void> {
    report.append(AsText(bytes));
    if (report.size() > kMaxReport) return InvalidInput("the inspector's report has no end");
    return Ok();
  }));
  ASSIGN_OR_RETURN(Inspection inspection, ReportFromJson(report));
  // What the child says about anything but the content is known here.
  if (inspection.format != declared ||
      inspection.file_size != static_cast<uint64_t>(before.st_size)) {
    return InvalidInput("the inspector's report is not about this image");
  }
  return InspectedImage(std::move(inspection), digest);
}

Result<Inspection> ConfinedInspector::InspectInstanceDisk(int overlay, int base,
                                                          DeclaredFormat base_format,
                                                          const InspectionRequest& request) const {
  const std::string document = RequestToJson(request);
  const ConfinedCommand command{.program = options_.program,
                                .arguments = {"boot", std::string(DeclaredFormatName(base_format))},
                                .work = "inspection",
                                .image = overlay,
                                .request = document,
                                .timeout = options_.timeout,
                                .base = base};
  std::string report;
  RETURN_IF_ERROR(RunConfined(command, [&](ByteView bytes) -> Result<void> {
    report.append(AsText(bytes));
    if (report.size() > kMaxReport) return InvalidInput("the inspector's report has no end");
    return Ok();
  }));
  return ReportFromJson(report);
}

Result<void> ConfinedInspector::InspectFront(ByteView front, uint64_t size,
                                             DeclaredFormat declared) const {
  const int file = memfd_create("vallum-front", MFD_CLOEXEC);
  if (file < 0) return ErrnoError(errno, "memfd_create for the beginning of an upload");
  const ssize_t written = write(file, front.data(), front.size());
  std::string report;
  Result<void> ran = Ok();
  if (written == static_cast<ssize_t>(front.size())) {
    const ConfinedCommand command{
        .program = options_.program,
        .arguments = {"front", std::string(DeclaredFormatName(declared)), std::to_string(size)},
        .work = "inspection",
        .image = file,
        .request = {},
        .timeout = options_.timeout,
        .base = -1};
    ran = RunConfined(command, [&](ByteView bytes) -> Result<void> {
      report.append(AsText(bytes));
      if (report.size() > kMaxReport) return InvalidInput("the inspector's report has no end");
      return Ok();
    });
  } else {
    ran = ErrnoError(errno, "write the beginning of an upload");
  }
  close(file);
  RETURN_IF_ERROR(ran);
  if (report.empty()) return Ok();
  const Result<Inspection> refused = ReportFromJson(report);
  return refused.has_value() ? Result<void>(InvalidInput("the inspector's report is no refusal"))
                             : Result<void>(refused.error());
}

}  // namespace vallum::images
