// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>
#include <span>
#include <utility>

#include "base/text.h"
#include "measure/ima_log_ascii.h"

namespace vallum::measure {
namespace {

constexpr size_t kSha1Size = 20;
constexpr size_t kLengthSize = 4;
constexpr size_t kMd5Size = 16;
// The kernel keeps a bit of a long for each PCR that a rule may name (ima_policy.c); what is
// beyond the TPM's is extended nowhere.
constexpr uint32_t kPcrLimit = 64;
constexpr size_t kUsualEntrySize = 80;
constexpr std::array<size_t, 4> kHashSizes = {20, 32, 48, 64};

// A cursor without words for what fails: a log has thousands of fields.
class Reader {
 public:
  explicit Reader(ByteView data) : data_(data) {}

  std::optional<ByteView> Take(size_t count) {
    if (count > data_.size()) {
      return std::nullopt;
    }
    const ByteView out = data_.first(count);
    data_ = data_.subspan(count);
    return out;
  }
  std::optional<uint32_t> TakeU32() {
    const auto bytes = Take(kLengthSize);
    if (!bytes.has_value()) {
      return std::nullopt;
    }
    static_assert(std::endian::native == std::endian::little);
    uint32_t value = 0;
    std::memcpy(&value, bytes->data(), kLengthSize);
    return value;
  }
  // A length and as many bytes.
  std::optional<ByteView> TakeField() {
    Reader ahead = *this;
    const auto size = ahead.TakeU32();
    const auto out = size.has_value() ? ahead.Take(*size) : std::nullopt;
    if (out.has_value()) {
      *this = ahead;
    }
    return out;
  }
  ByteView rest() const { return data_; }

 private:
  ByteView data_;
};

bool IsDigest(ImaField field) {
  return field == ImaField::kDigest || field == ImaField::kDigestNg ||
         field == ImaField::kDigestNgv2;
}

bool IsText(ImaField field) {
  return field == ImaField::kName || field == ImaField::kNameNg || field == ImaField::kXattrNames;
}

bool AllZero(ByteView bytes) {
  return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
}

Result<std::string_view> ReadText(ByteView field) {
  if (field.empty() || field.back() != std::byte{0}) {
    return Corrupt("a name that does not end with zero");
  }
  const std::string_view text = AsText(field.first(field.size() - 1));
  if (text.find('\0') != std::string_view::npos) {
    return Corrupt("a name with a zero in it");
  }
  if (text.size() > kMaxImaPath) {
    return Exhausted(fmt::format("a name of {} bytes; {} are accepted", text.size(), kMaxImaPath));
  }
  return text;
}

Result<void> CheckOther(ImaField field, ByteView data) {
  constexpr size_t kIdSize = 4;
  constexpr size_t kModeSize = 2;
  if (field == ImaField::kModsigDigest && !data.empty()) {
    RETURN_IF_ERROR(ParseImaDigest(field, data));
  } else if (IsText(field) && !data.empty()) {
    RETURN_IF_ERROR(ReadText(data));
  } else if ((field == ImaField::kUid || field == ImaField::kGid) && data.size() != kIdSize) {
    return Corrupt(fmt::format("an owner of {} bytes", data.size()));
  } else if (field == ImaField::kMode && data.size() != kModeSize) {
    return Corrupt(fmt::format("a mode of {} bytes", data.size()));
  }
  return Ok();
}

// "ima": the digest, and the name without a zero. Only the text form says which digests are MD5.
Result<void> ReadLegacyData(ImaEntry& entry) {
  for (const size_t digest_size : {kSha1Size, kMd5Size}) {
    Reader reader(entry.template_data);
    const auto digest = reader.Take(digest_size);
    const auto name = reader.TakeField();
    if (!digest.has_value() || !name.has_value() || !reader.rest().empty()) {
      continue;
    }
    ASSIGN_OR_RETURN(entry.digest, ParseImaDigest(ImaField::kDigest, *digest));
    entry.path = AsText(*name);
    if (name->size() >= kImaLegacyNameSize || entry.path.find('\0') != std::string_view::npos) {
      return Corrupt("a name of more than 255 bytes, or with a zero in it");
    }
    return Ok();
  }
  return Corrupt("its data are not a digest and a name");
}

// Checks that template data is what its format says, and fills in digest and path.
Result<void> ReadTemplateData(const ImaFormat& format, ImaEntry& entry) {
  if (format.is_ima) {
    return ReadLegacyData(entry);
  }
  Reader reader(entry.template_data);
  bool has_name = false;
  bool has_digest = false;
  for (const ImaField field : format.fields) {
    const auto data = reader.TakeField();
    if (!data.has_value()) {
      return Corrupt("a field goes past the end of the template data");
    }
    if (IsDigest(field) && !has_digest) {
      ASSIGN_OR_RETURN(entry.digest, ParseImaDigest(field, *data));
      has_digest = true;
    } else if ((field == ImaField::kName || field == ImaField::kNameNg) && !has_name) {
      ASSIGN_OR_RETURN(entry.path, ReadText(*data));
      has_name = true;
    } else {
      RETURN_IF_ERROR(CheckOther(field, *data));
    }
  }
  if (!reader.rest().empty()) {
    return Corrupt(fmt::format("{} bytes after its last field", reader.rest().size()));
  }
  return Ok();
}

}  // namespace

// Reads one log from front to back.
class ImaLogParser {
 public:
  explicit ImaLogParser(ByteView log) : log_(log) { out_.formats_ = BuiltinImaFormats(); }

  Result<ImaLog> Run(ImaTemplateHash template_hash) && {
    if (log_.size() > kMaxImaLogSize) {
      return Exhausted(
          fmt::format("a log of {} bytes; {} are accepted", log_.size(), kMaxImaLogSize));
    }
    if (log_.empty()) {
      return std::move(out_);
    }
    // A PCR's number in four bytes has a zero among them, text has none.
    const ByteView begin = log_.first(std::min(log_.size(), kLengthSize));
    out_.form_ =
        std::ranges::count(begin, std::byte{0}) > 0 ? ImaLogForm::kBinary : ImaLogForm::kAscii;
    RETURN_IF_ERROR(SetHashSize(template_hash));
    out_.entries_.reserve(std::min(log_.size() / kUsualEntrySize, kMaxImaEntries) + 1);
    RETURN_IF_ERROR(out_.form_ == ImaLogForm::kBinary ? ReadBinary() : ReadAscii());
    out_.tail_size_ = log_.size() - out_.size_;
    if (out_.entries_.empty()) {
      return NoLog("it has no whole entry");
    }
    return std::move(out_);
  }

 private:
  static Error NoLog(const std::string& why) {
    return InvalidInput("not a log of IMA: " + why)
        .WithFix("give it binary_runtime_measurements or ascii_runtime_measurements");
  }

  Error AtEntry(const Error& error) const {
    if (out_.entries_.empty()) {
      return NoLog(error.message());
    }
    return Error(error.code(), fmt::format("entry {} at offset {}: {}", out_.entries_.size(),
                                           out_.size_, error.message()));
  }

  Result<void> SetHashSize(ImaTemplateHash template_hash) {
    switch (template_hash) {
      case ImaTemplateHash::kDetect:
        break;
      case ImaTemplateHash::kSha1:
        out_.template_hash_size_ = kHashSizes[0];
        return Ok();
      case ImaTemplateHash::kSha256:
        out_.template_hash_size_ = kHashSizes[1];
        return Ok();
      case ImaTemplateHash::kSha384:
        out_.template_hash_size_ = kHashSizes[2];
        return Ok();
      case ImaTemplateHash::kSha512:
        out_.template_hash_size_ = kHashSizes[3];
        return Ok();
    }
    if (out_.form_ == ImaLogForm::kAscii) {
      return Ok();  // the first line says it
    }
    // The size after which the name of a template stands.
    for (const size_t size : kHashSizes) {
      Reader reader(log_);
      const bool header = reader.Take(kLengthSize + size).has_value();
      const auto name = header ? reader.TakeField() : std::nullopt;
      if (name.has_value() && name->size() <= kMaxImaFormatName &&
          ImaFormatFromName(AsText(*name)).has_value()) {
        out_.template_hash_size_ = size;
        return Ok();
      }
    }
    return NoLog("no template's name stands after its first bytes");
  }

  // Most entries have the template of the one before.
  Result<uint16_t> FormatOf(std::string_view name) {
    if (!out_.entries_.empty()) {
      const uint16_t last = out_.entries_.back().format;
      if (out_.formats_[last].name == name) {
        return last;
      }
    }
    auto found = std::ranges::find(out_.formats_, name, &ImaFormat::name);
    if (found == out_.formats_.end()) {
      if (out_.formats_.size() == kMaxImaFormats) {
        return Exhausted(fmt::format("more than {} templates", kMaxImaFormats));
      }
      ASSIGN_OR_RETURN(ImaFormat format, ImaFormatFromName(name));
      found = out_.formats_.insert(out_.formats_.end(), std::move(format));
    }
    return static_cast<uint16_t>(found - out_.formats_.begin());
  }

  Result<void> Keep(ImaEntry& entry, size_t end) {
    if (out_.entries_.size() == kMaxImaEntries) {
      return Exhausted(fmt::format("more than {} entries", kMaxImaEntries));
    }
    if (entry.template_data.size() > kMaxImaTemplateData) {
      return Exhausted(fmt::format("template data of {} bytes; {} are accepted",
                                   entry.template_data.size(), kMaxImaTemplateData));
    }
    RETURN_IF_ERROR(ReadTemplateData(out_.formats_[entry.format], entry));
    entry.violation = AllZero(entry.template_hash);
    out_.entries_.push_back(entry);
    out_.size_ = end;
    return Ok();
  }

  // One entry; false when the log ends within it.
  Result<bool> ReadBinaryEntry() {
    Reader reader(log_.subspan(out_.size_));
    ImaEntry entry;
    const auto pcr = reader.TakeU32();
    if (!pcr.has_value()) {
      return false;
    }
    if (*pcr >= kPcrLimit) {
      return Corrupt(fmt::format("PCR {}", *pcr));
    }
    entry.pcr = *pcr;
    const auto hash = reader.Take(out_.template_hash_size_);
    const auto name_size = hash.has_value() ? reader.TakeU32() : std::nullopt;
    if (!name_size.has_value()) {
      return false;
    }
    if (*name_size == 0 || *name_size > kMaxImaFormatName) {
      return Corrupt(fmt::format("a template's name of {} bytes", *name_size));
    }
    const auto name = reader.Take(*name_size);
    if (!name.has_value()) {
      return false;
    }
    entry.template_hash = *hash;
    ASSIGN_OR_RETURN(entry.format, FormatOf(AsText(*name)));
    ASSIGN_OR_RETURN(const auto data,
                     out_.FormatOf(entry).is_ima ? TakeLegacyData(reader) : TakeData(reader));
    if (!data.has_value()) {
      return false;
    }
    entry.template_data = *data;
    RETURN_IF_ERROR(Keep(entry, log_.size() - reader.rest().size()));
    return true;
  }

  static Result<std::optional<ByteView>> TakeData(Reader& reader) {
    const auto size = reader.TakeU32();
    if (size.has_value() && *size > kMaxImaTemplateData) {
      return Corrupt(fmt::format("template data of {} bytes", *size));
    }
    return size.has_value() ? reader.Take(*size) : std::nullopt;
  }

  static Result<std::optional<ByteView>> TakeLegacyData(Reader& reader) {
    Reader ahead = reader;
    const bool digest = ahead.Take(kSha1Size).has_value();
    const auto size = digest ? ahead.TakeU32() : std::nullopt;
    if (size.has_value() && *size >= kImaLegacyNameSize) {
      return Corrupt(fmt::format("a name of {} bytes", *size));
    }
    return size.has_value() ? reader.Take(kSha1Size + kLengthSize + *size) : std::nullopt;
  }

  Result<void> ReadBinary() {
    while (out_.size_ < log_.size()) {
      const auto entry = ReadBinaryEntry();
      if (!entry.has_value()) {
        return AtEntry(entry.error());
      }
      if (!*entry) {
        break;
      }
    }
    return Ok();
  }

  Result<void> ReadAscii() {
    ImaTextEncoder encoder(log_.size());
    while (out_.size_ < log_.size()) {
      const std::string_view rest = AsText(log_.subspan(out_.size_));
      const size_t newline = rest.find('\n');
      const bool last = newline == std::string_view::npos;
      if (newline == 0) {  // whoever copied the list left it
        ++out_.size_;
        continue;
      }
      const auto entry = ReadLine(encoder, rest.substr(0, newline), last);
      if (!entry.has_value()) {
        if (last && !out_.entries_.empty()) {
          break;  // cut off within its last line
        }
        return AtEntry(entry.error());
      }
    }
    out_.encoded_ = std::move(encoder).Take();
    return Ok();
  }

  Result<void> ReadLine(ImaTextEncoder& encoder, std::string_view line, bool last) {
    ASSIGN_OR_RETURN(const ImaTextLine text, SplitImaLine(line));
    if (text.pcr >= kPcrLimit) {
      return Corrupt(fmt::format("PCR {}", text.pcr));
    }
    ImaEntry entry;
    entry.pcr = text.pcr;
    ASSIGN_OR_RETURN(entry.template_hash, encoder.EncodeHash(text.template_hash));
    if (out_.template_hash_size_ == 0 &&
        std::ranges::count(kHashSizes, entry.template_hash.size()) == 1) {
      out_.template_hash_size_ = entry.template_hash.size();
    }
    // Nothing is as long as no hash, and as zero as a violation.
    if (entry.template_hash.empty() || entry.template_hash.size() != out_.template_hash_size_) {
      return Corrupt(fmt::format("a template hash of {} bytes", entry.template_hash.size()));
    }
    ASSIGN_OR_RETURN(entry.format, FormatOf(text.format));
    ASSIGN_OR_RETURN(entry.template_data,
                     encoder.EncodeData(out_.FormatOf(entry), text.fields,
                                        last ? ImaLineEnd::kMissing : ImaLineEnd::kNewline));
    return Keep(entry, out_.size_ + line.size() + (last ? 0 : 1));
  }

  ByteView log_;
  ImaLog out_;
};

Result<ImaLog> ImaLog::Parse(ByteView log, ImaTemplateHash template_hash) {
  return ImaLogParser(log).Run(template_hash);
}

ByteView ImaLog::FieldOf(const ImaEntry& entry, ImaField field) const {
  const ImaFormat& format = FormatOf(entry);
  if (format.is_ima) {
    return field == ImaField::kDigest ? entry.digest.bytes
           : field == ImaField::kName ? AsBytes(entry.path)
                                      : ByteView();
  }
  Reader reader(entry.template_data);
  for (const ImaField each : format.fields) {
    const auto data = reader.TakeField();
    if (each == field) {
      return data.value_or(ByteView());
    }
  }
  return {};
}

}  // namespace vallum::measure
