// SPDX-License-Identifier: Apache-2.0
#include "images/confined_converter.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "images/confined_child.h"
#include "images/conversion_messages.h"
#include "images/convert.h"
#include "images/inspection.h"

namespace vallum::images {
namespace {

constexpr size_t kMaxMessages = size_t{64} << 10U;
constexpr size_t kMaxEarly = size_t{8} << 20U;  // output before its size was told

// What a child has said and written so far; nothing of it is trusted.
class Conversion {
 public:
  Conversion(uint64_t limit, const ConfinedConverter::Write& write,
             const ConfinedConverter::Progress& progress)
      : limit_(limit), write_(write), progress_(progress) {}

  Result<void> TakeOutput(ByteView bytes) {
    if (bytes.size() > limit_ - received_) return WrongSize(received_ + bytes.size());
    received_ += bytes.size();
    RETURN_IF_ERROR(write_(bytes));
    // The announcement comes through another pipe and may be read a little later.
    if (progress_) progress_(received_, announced_.value_or(limit_));
    return Ok();
  }

  Result<void> TakeMessages(ByteView bytes) {
    messages_.append(AsText(bytes));
    if (messages_.size() > kMaxMessages)
      return InvalidInput("the converter's messages have no end");
    for (size_t end = 0; (end = messages_.find('\n')) != std::string::npos;) {
      const std::string line = messages_.substr(0, end);
      messages_.erase(0, end + 1);
      ASSIGN_OR_RETURN(announced_, ConversionMessageFromJson(line));
      if (*announced_ > limit_) return WrongSize(*announced_);
    }
    return Ok();
  }

  const std::optional<uint64_t>& announced() const { return announced_; }

  Result<void> CheckComplete() const {
    return announced_ == received_ ? Ok() : WrongSize(received_);
  }

 private:
  Error WrongSize(uint64_t bytes) const {
    return InvalidInput(fmt::format("the conversion gave {} bytes where {} {} are right, so the "
                                    "image is refused",
                                    bytes, announced_.has_value() ? "" : "at most",
                                    announced_.value_or(limit_)))
        .WithFix("make a new image of it: qemu-img convert -O qcow2");
  }

  const uint64_t limit_;
  const ConfinedConverter::Write& write_;
  const ConfinedConverter::Progress& progress_;
  uint64_t received_ = 0;
  std::optional<uint64_t> announced_;
  std::string messages_;
};

}  // namespace

Result<void> ConfinedConverter::Convert(int image, const InspectedImage& proof, StoreFormat target,
                                        const Write& write, const Progress& progress) const {
  struct stat now{};
  if (fstat(image, &now) != 0) return ErrnoError(errno, "fstat the image");
  if (static_cast<uint64_t>(now.st_size) != proof.size()) {
    return Corrupt(fmt::format("the image changed since it was inspected: it had {} bytes, now {}",
                               proof.size(), now.st_size))
        .WithFix("import the image again");
  }
  const Inspection& inspected = proof.inspection();
  const ConfinedCommand command{
      .program = options_.program,
      .arguments = {"convert", std::string(DeclaredFormatName(inspected.format)),
                    std::string(StoreFormatName(target)), std::to_string(inspected.virtual_size)},
      .work = "conversion",
      .image = image,
      .request = {},
      .timeout = options_.timeout.value_or(ConvertTimeout(inspected.virtual_size)),
      .base = -1};
  Conversion conversion(MaxConvertedSize(target, inspected.virtual_size), write, progress);
  RETURN_IF_ERROR(RunConfined(
      command, [&](ByteView bytes) { return conversion.TakeOutput(bytes); },
      [&](ByteView bytes) { return conversion.TakeMessages(bytes); }));
  return conversion.CheckComplete();
}

Result<void> ConfinedConverter::Flatten(int overlay, int base, DeclaredFormat base_format,
                                        uint64_t virtual_size,
                                        const std::function<Result<void>(uint64_t)>& announce,
                                        const Write& write, const Progress& progress) const {
  const ConfinedCommand command{
      .program = options_.program,
      .arguments = {"flatten", std::string(DeclaredFormatName(base_format)),
                    std::to_string(virtual_size)},
      .work = "conversion",
      .image = overlay,
      .request = {},
      .timeout = options_.timeout.value_or(ConvertTimeout(virtual_size)),
      .base = base};
  // The size comes through a pipe of its own, so the first bytes may be here before it.
  Bytes early;
  bool announced = false;
  const Write held = [&](ByteView bytes) -> Result<void> {
    if (announced) return write(bytes);
    early.insert(early.end(), bytes.begin(), bytes.end());
    return early.size() <= kMaxEarly ? Ok() : Result<void>(Internal("no size was announced"));
  };
  Conversion conversion(MaxConvertedSize(StoreFormat::kQcow2, virtual_size), held, progress);
  const auto release = [&]() -> Result<void> {
    if (announced || !conversion.announced().has_value()) return Ok();
    announced = true;
    RETURN_IF_ERROR(announce(*conversion.announced()));
    return early.empty() ? Ok() : write(std::exchange(early, {}));
  };
  const TakeBytes take_messages = [&](ByteView bytes) -> Result<void> {
    RETURN_IF_ERROR(conversion.TakeMessages(bytes));
    return release();
  };
  RETURN_IF_ERROR(RunConfined(
      command, [&](ByteView bytes) { return conversion.TakeOutput(bytes); }, take_messages));
  return conversion.CheckComplete();
}

}  // namespace vallum::images
