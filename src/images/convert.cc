// SPDX-License-Identifier: Apache-2.0
#include "images/convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/byte_sink.h"
#include "formats/qcow2.h"
#include "formats/qcow2_disk.h"
#include "formats/qcow2_writer.h"
#include "formats/raw_writer.h"
#include "formats/reader.h"
#include "images/container.h"
#include "images/inspection.h"

namespace vallum::images {
namespace {

// Begun ones count.
uint64_t Gib(uint64_t bytes) { return (bytes >> 30U) + 1; }

// A writer that chose for itself at least as finely which clusters to keep is trusted; above all
// those that compress, where looking twice costs the most.
formats::ZeroClusters ZeroesOf(const OpenedDisk& disk) {
  const bool fine = disk.cluster_size != 0 && disk.cluster_size <= formats::kQcow2WriterCluster;
  return fine ? formats::ZeroClusters::kTrustSource : formats::ZeroClusters::kFind;
}

}  // namespace

std::string_view StoreFormatName(StoreFormat format) {
  switch (format) {
    case StoreFormat::kQcow2:
      return "qcow2";
    case StoreFormat::kRaw:
      return "raw";
  }
  return "unknown";
}

Result<StoreFormat> ParseStoreFormat(std::string_view name) {
  for (const StoreFormat format : {StoreFormat::kQcow2, StoreFormat::kRaw}) {
    if (name == StoreFormatName(format)) return format;
  }
  return InvalidInput("\"" + Printable(name, 40) + "\" is no format of the store")
      .WithFix("the store keeps qcow2 and raw");
}

std::chrono::seconds ConvertTimeout(uint64_t virtual_size) {
  return kConvertTimeout +
         kConvertTimeoutPerGib * static_cast<std::chrono::seconds::rep>(Gib(virtual_size));
}

unsigned ConvertCpuSeconds(uint64_t virtual_size) {
  const uint64_t seconds = kConvertCpuSeconds + kConvertCpuSecondsPerGib * Gib(virtual_size);
  return static_cast<unsigned>(std::min<uint64_t>(seconds, std::numeric_limits<unsigned>::max()));
}

uint64_t MaxConvertedSize(StoreFormat target, uint64_t virtual_size) {
  return target == StoreFormat::kRaw ? virtual_size : formats::MaxQcow2FileSize(virtual_size);
}

Result<void> ConvertImage(const formats::RandomAccessReader& image, DeclaredFormat format,
                          StoreFormat target, uint64_t virtual_size,
                          const std::function<Result<void>(uint64_t)>& announce,
                          formats::ByteSink& out) {
  ASSIGN_OR_RETURN(const OpenedDisk opened, OpenDisk(image, format));
  const formats::RandomAccessReader& disk = *opened.disk;
  if (disk.size() != virtual_size) {
    return InvalidInput(fmt::format("the disk has {} bytes, but {} when it was inspected",
                                    disk.size(), virtual_size))
        .WithFix("import the image again");
  }
  switch (target) {
    case StoreFormat::kRaw:
      RETURN_IF_ERROR(announce(disk.size()));
      return formats::WriteRaw(disk, out);
    case StoreFormat::kQcow2: {
      ASSIGN_OR_RETURN(const formats::Qcow2Plan plan,
                       formats::Qcow2Plan::Make(disk, ZeroesOf(opened)));
      RETURN_IF_ERROR(announce(plan.file_size()));
      return plan.Write(disk, out);
    }
  }
  return Internal("unknown format of the store");
}

Result<void> FlattenOverlay(const formats::RandomAccessReader& overlay,
                            const formats::RandomAccessReader& base, DeclaredFormat base_format,
                            uint64_t virtual_size,
                            const std::function<Result<void>(uint64_t)>& announce,
                            formats::ByteSink& out) {
  ASSIGN_OR_RETURN_CONTEXT(const OpenedDisk below, OpenDisk(base, base_format),
                           "the image below the disk");
  ASSIGN_OR_RETURN(const formats::Qcow2Header header, formats::ParseQcow2Header(overlay));
  RETURN_IF_ERROR(formats::ValidateQcow2(header, overlay.size()));
  RETURN_IF_ERROR(formats::CheckQcow2Tables(overlay, header));
  if (header.virtual_size != virtual_size) {
    return InvalidInput(fmt::format("the instance's disk has {} bytes, {} were expected",
                                    header.virtual_size, virtual_size));
  }
  ASSIGN_OR_RETURN(const formats::Qcow2Disk disk,
                   formats::Qcow2Disk::Over(*below.disk, overlay, header));
  ASSIGN_OR_RETURN(const formats::Qcow2Plan plan, formats::Qcow2Plan::Make(disk, ZeroesOf(below)));
  RETURN_IF_ERROR(announce(plan.file_size()));
  return plan.Write(disk, out);
}

}  // namespace vallum::images
