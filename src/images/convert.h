// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string_view>

#include "base/result.h"
#include "formats/byte_sink.h"
#include "formats/reader.h"
#include "images/inspection.h"

namespace vallum::images {

// What the store keeps and instances start from.
enum class StoreFormat { kQcow2, kRaw };

std::string_view StoreFormatName(StoreFormat format);
// "qcow2", "raw". Errors: kInvalidInput.
Result<StoreFormat> ParseStoreFormat(std::string_view name);

// What a conversion may take: a part that every one may, and a part for each GiB of the disk.
inline constexpr std::chrono::seconds kConvertTimeout{60};
inline constexpr std::chrono::seconds kConvertTimeoutPerGib{60};
inline constexpr unsigned kConvertCpuSeconds = 10;
inline constexpr unsigned kConvertCpuSecondsPerGib = 20;

//   virtual_size: bytes.
std::chrono::seconds ConvertTimeout(uint64_t virtual_size);
unsigned ConvertCpuSeconds(uint64_t virtual_size);
// The most that a conversion writes, bytes.
uint64_t MaxConvertedSize(StoreFormat target, uint64_t virtual_size);

// Writes the guest's disk inside an image in another format, from front to back. Pure.
//   image: untrusted; checked again as inspection does.
//   virtual_size: what inspection found.
//   announce: is told the size of the output, exactly, before its first byte.
// Errors: kInvalidInput (refused; the disk has another size; a size that the target cannot have),
// those of the image, announce and out.
Result<void> ConvertImage(const formats::RandomAccessReader& image, DeclaredFormat format,
                          StoreFormat target, uint64_t virtual_size,
                          const std::function<Result<void>(uint64_t)>& announce,
                          formats::ByteSink& out);

// Writes what a guest sees on a disk that was laid over an image (an overlay of ours, which names
// no backing file) as a qcow2 that stands alone. Pure.
//   overlay, base: untrusted; checked as inspection does.
//   virtual_size: of the overlay, as its owner knows it.
// Errors: as ConvertImage; also kInvalidInput (the overlay is none of ours).
Result<void> FlattenOverlay(const formats::RandomAccessReader& overlay,
                            const formats::RandomAccessReader& base, DeclaredFormat base_format,
                            uint64_t virtual_size,
                            const std::function<Result<void>(uint64_t)>& announce,
                            formats::ByteSink& out);

}  // namespace vallum::images
