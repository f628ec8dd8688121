// SPDX-License-Identifier: Apache-2.0
#include "formats/luks2_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/text.h"
#include "formats/bounded_json.h"
#include "formats/luks.h"
#include "formats/luks_checks.h"
#include "formats/reader.h"

namespace vallum::formats {
namespace {

using Json = nlohmann::json;
using Type = Json::value_t;

constexpr uint32_t kMaxObjects = 32;  // of each kind, as cryptsetup
constexpr uint64_t kSector = 512;
constexpr uint32_t kMaxPriority = 2;

// Decimal digits and nothing else: "07", "+7" and " 7" are read differently by different readers.
std::optional<uint64_t> Decimal(std::string_view text) {
  if (text.empty() || (text.size() > 1 && text.front() == '0')) return std::nullopt;
  if (text.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// An object and the path that names it in errors.
class Object {
 public:
  Object(const Json& json, std::string path) : json_(&json), path_(std::move(path)) {}

  const Json& json() const { return *json_; }
  std::string PathOf(std::string_view name) const {
    return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
  }
  bool Has(const char* name) const { return json_->contains(name); }

  Result<Object> Member(const char* name) const {
    ASSIGN_OR_RETURN(const Json* value, Find(name, Type::object, "object"));
    return Object(*value, PathOf(name));
  }
  Result<std::string> Text(const char* name) const {
    ASSIGN_OR_RETURN(const Json* value, Find(name, Type::string, "text"));
    return value->get<std::string>();
  }
  Result<uint32_t> Number(const char* name) const {
    ASSIGN_OR_RETURN(const Json* value, Find(name, Type::number_unsigned, "number"));
    const auto number = value->get<uint64_t>();
    if (number > std::numeric_limits<uint32_t>::max()) {
      return LuksRefused(fmt::format("{} is {}, too large", PathOf(name), number));
    }
    return static_cast<uint32_t>(number);
  }
  // "Integers of 64 bits are stored as strings in decimal".
  Result<uint64_t> DecimalText(const char* name) const {
    ASSIGN_OR_RETURN(const std::string text, Text(name));
    const std::optional<uint64_t> value = Decimal(text);
    if (value.has_value()) return *value;
    return LuksRefused(
        fmt::format("{} is \"{}\", not a decimal number", PathOf(name), Printable(text, 40)));
  }
  Result<std::vector<std::string>> Texts(const char* name) const {
    ASSIGN_OR_RETURN(const Json* value, Find(name, Type::array, "array"));
    std::vector<std::string> texts;
    for (const Json& item : *value) {
      if (!item.is_string()) return LuksRefused(PathOf(name) + " holds something else than text");
      texts.push_back(item.get<std::string>());
    }
    return texts;
  }
  Result<void> RequireText(const char* name, std::string_view wanted) const {
    ASSIGN_OR_RETURN(const std::string text, Text(name));
    if (text == wanted) return Ok();
    return LuksRefused(
        fmt::format("{} is \"{}\", not {}", PathOf(name), Printable(text, 40), wanted));
  }
  Result<void> RequireBase64(const char* name) const {
    ASSIGN_OR_RETURN(const std::string text, Text(name));
    const Result<Bytes> decoded = FromBase64(text);
    if (decoded.has_value() && !decoded->empty()) return Ok();
    return LuksRefused(PathOf(name) + " is not base64");
  }

 private:
  Result<const Json*> Find(const char* name, Type type, std::string_view what) const {
    const auto found = json_->find(name);
    if (found == json_->end()) return LuksRefused(PathOf(name) + " is missing");
    if (found->type() != type) return LuksRefused(fmt::format("{} is no {}", PathOf(name), what));
    return &*found;
  }

  const Json* json_;
  std::string path_;
};

// The members of a section, whose names are numbers below kMaxObjects.
Result<std::map<uint32_t, Object>> Numbered(const Object& root, const char* section) {
  ASSIGN_OR_RETURN(const Object all, root.Member(section));
  std::map<uint32_t, Object> members;
  for (const auto& [name, value] : all.json().items()) {
    const std::optional<uint64_t> number = Decimal(name);
    if (!number.has_value() || *number >= kMaxObjects) {
      return LuksRefused(fmt::format("{} has the member \"{}\", not a number below {}", section,
                                     Printable(name, 40), kMaxObjects));
    }
    if (!value.is_object()) return LuksRefused(all.PathOf(name) + " is no object");
    members.emplace(static_cast<uint32_t>(*number), Object(value, all.PathOf(name)));
  }
  return members;
}

Error HalfReencrypted(const std::string& what) {
  return InvalidInput("LUKS: " + what + ": the image is half re-encrypted")
      .WithFix("finish it where it came from: cryptsetup reencrypt --resume-only <image>");
}

struct KeySlot {
  uint32_t key_size = 0;
  LuksKeySlot slot;
};
struct Segment {
  uint64_t offset = 0;
  uint64_t size = 0;
  bool dynamic = false;
  std::string cipher;
  uint32_t sector_size = 0;
};
struct Digest {
  std::vector<uint32_t> key_slots;
  std::vector<uint32_t> segments;
};

class Validator {
 public:
  Validator(uint64_t header_size, uint64_t file_size)
      : header_size_(header_size), file_size_(file_size) {}

  Result<Luks2Metadata> Validate(const Json& json) {
    const Object root(json, "");
    RETURN_IF_ERROR(ReadConfig(root));
    RETURN_IF_ERROR(ReadKeySlots(root));
    RETURN_IF_ERROR(ReadSegments(root));
    RETURN_IF_ERROR(ReadDigests(root));
    RETURN_IF_ERROR(CheckTokens(root));
    RETURN_IF_ERROR(CheckAreas());
    RETURN_IF_ERROR(CheckSegments());
    return Conclude();
  }

 private:
  Result<void> ReadConfig(const Object& root) {
    ASSIGN_OR_RETURN(const Object config, root.Member("config"));
    ASSIGN_OR_RETURN(const uint64_t json_size, config.DecimalText("json_size"));
    if (json_size != header_size_ - kLuks2BinaryHeaderBytes) {
      return LuksRefused(fmt::format("config.json_size is {}, the area has {} bytes", json_size,
                                     header_size_ - kLuks2BinaryHeaderBytes));
    }
    ASSIGN_OR_RETURN(const uint64_t keyslots_size, config.DecimalText("keyslots_size"));
    areas_begin_ = 2 * header_size_;
    if (keyslots_size % kLuks2BinaryHeaderBytes != 0 || keyslots_size > kLuks2MaxKeySlotsArea ||
        !IsInside(areas_begin_, keyslots_size, file_size_)) {
      return LuksRefused(
          fmt::format("config.keyslots_size is {}: not in whole blocks of 4096 bytes, or not in "
                      "the file of {} bytes",
                      keyslots_size, file_size_));
    }
    areas_end_ = areas_begin_ + keyslots_size;
    if (config.Has("flags")) {
      RETURN_IF_ERROR(config.Texts("flags"));
    }
    return config.Has("requirements") ? CheckRequirements(config) : Ok();
  }

  // "mandatory: a reader that does not know one of these must not use the device".
  static Result<void> CheckRequirements(const Object& config) {
    ASSIGN_OR_RETURN(const Object requirements, config.Member("requirements"));
    for (const auto& [name, value] : requirements.json().items()) {
      if (name != "mandatory") {
        return LuksRefused(fmt::format("config.requirements.{} is unknown", Printable(name, 40)));
      }
    }
    if (!requirements.Has("mandatory")) return Ok();
    ASSIGN_OR_RETURN(const std::vector<std::string> mandatory, requirements.Texts("mandatory"));
    for (const std::string& flag : mandatory) {
      if (flag.starts_with("online-reencrypt") || flag.starts_with("offline-reencrypt")) {
        return HalfReencrypted("config.requirements.mandatory has " + Printable(flag, 40));
      }
      return LuksRefused(fmt::format("config.requirements.mandatory has the unknown flag \"{}\"",
                                     Printable(flag, 40)));
    }
    return Ok();
  }

  static Result<LuksKdfCost> ReadKdf(const Object& slot) {
    ASSIGN_OR_RETURN(const Object kdf, slot.Member("kdf"));
    ASSIGN_OR_RETURN(const std::string type, kdf.Text("type"));
    RETURN_IF_ERROR(kdf.RequireBase64("salt"));
    LuksKdfCost cost;
    if (type == LuksKdfName(LuksKdf::kPbkdf2)) {
      ASSIGN_OR_RETURN(cost.hash, kdf.Text("hash"));
      ASSIGN_OR_RETURN(cost.iterations, kdf.Number("iterations"));
    } else if (type == LuksKdfName(LuksKdf::kArgon2i) || type == LuksKdfName(LuksKdf::kArgon2id)) {
      cost.kdf = type == "argon2i" ? LuksKdf::kArgon2i : LuksKdf::kArgon2id;
      ASSIGN_OR_RETURN(cost.iterations, kdf.Number("time"));
      ASSIGN_OR_RETURN(cost.memory_kib, kdf.Number("memory"));
      ASSIGN_OR_RETURN(cost.cpus, kdf.Number("cpus"));
    } else {
      return LuksRefused(
          fmt::format("{} is \"{}\", an unknown KDF", kdf.PathOf("type"), Printable(type, 40)));
    }
    RETURN_IF_ERROR(CheckLuksCost(cost, slot.PathOf("kdf")));
    return cost;
  }

  static Result<void> CheckAntiForensic(const Object& slot) {
    ASSIGN_OR_RETURN(const Object af, slot.Member("af"));
    RETURN_IF_ERROR(af.RequireText("type", "luks1"));
    ASSIGN_OR_RETURN(const uint32_t stripes, af.Number("stripes"));
    if (stripes != kLuksStripes) {
      return LuksRefused(
          fmt::format("{} is {}, not {}", af.PathOf("stripes"), stripes, kLuksStripes));
    }
    ASSIGN_OR_RETURN(const std::string hash, af.Text("hash"));
    return CheckLuksHash(hash, af.PathOf("hash"));
  }

  static Result<void> ReadArea(const Object& slot, KeySlot& out) {
    ASSIGN_OR_RETURN(const Object area, slot.Member("area"));
    RETURN_IF_ERROR(area.RequireText("type", "raw"));
    ASSIGN_OR_RETURN(const std::string cipher, area.Text("encryption"));
    ASSIGN_OR_RETURN(const uint32_t key_size, area.Number("key_size"));
    RETURN_IF_ERROR(CheckLuksCipher(cipher, key_size, area.PathOf("encryption")));
    ASSIGN_OR_RETURN(out.slot.area_offset, area.DecimalText("offset"));
    ASSIGN_OR_RETURN(out.slot.area_size, area.DecimalText("size"));
    if (out.key_size == 0 || out.slot.area_size < uint64_t{out.key_size} * kLuksStripes) {
      return LuksRefused(fmt::format("{} is {}: a key of {} bytes in {} stripes does not fit",
                                     area.PathOf("size"), out.slot.area_size, out.key_size,
                                     kLuksStripes));
    }
    return Ok();
  }

  Result<void> ReadKeySlots(const Object& root) {
    ASSIGN_OR_RETURN(const auto members, Numbered(root, "keyslots"));
    for (const auto& [number, member] : members) {
      ASSIGN_OR_RETURN(const std::string type, member.Text("type"));
      if (type == "reencrypt") return HalfReencrypted(member.PathOf("type") + " is reencrypt");
      RETURN_IF_ERROR(member.RequireText("type", "luks2"));
      KeySlot slot;
      slot.slot.number = number;
      ASSIGN_OR_RETURN(slot.key_size, member.Number("key_size"));
      RETURN_IF_ERROR(CheckAntiForensic(member));
      RETURN_IF_ERROR(ReadArea(member, slot));
      ASSIGN_OR_RETURN(slot.slot.cost, ReadKdf(member));
      if (member.Has("priority")) {
        ASSIGN_OR_RETURN(const uint32_t priority, member.Number("priority"));
        if (priority > kMaxPriority) {
          return LuksRefused(fmt::format("{} is {}", member.PathOf("priority"), priority));
        }
      }
      key_slots_.emplace(number, std::move(slot));
    }
    return Ok();
  }

  static Result<void> CheckSegmentKind(const Object& member) {
    ASSIGN_OR_RETURN(const std::string type, member.Text("type"));
    if (type == "linear") {
      return HalfReencrypted(member.PathOf("type") + " is linear, not encrypted");
    }
    if (type != "crypt") {
      return LuksRefused(fmt::format("{} is \"{}\", an unknown segment", member.PathOf("type"),
                                     Printable(type, 40)));
    }
    if (member.Has("integrity")) {
      return LuksRefused(member.PathOf("integrity") +
                         ": segments with integrity tags are not accepted");
    }
    if (!member.Has("flags")) return Ok();
    ASSIGN_OR_RETURN(const std::vector<std::string> flags, member.Texts("flags"));
    return flags.empty() ? Ok() : Result<void>(HalfReencrypted(member.PathOf("flags") + " is set"));
  }

  Result<Segment> ReadSegment(const Object& member) {
    RETURN_IF_ERROR(CheckSegmentKind(member));
    Segment s;
    ASSIGN_OR_RETURN(s.offset, member.DecimalText("offset"));
    ASSIGN_OR_RETURN(s.cipher, member.Text("encryption"));
    ASSIGN_OR_RETURN(s.sector_size, member.Number("sector_size"));
    if (s.sector_size != 512 && s.sector_size != 1024 && s.sector_size != 2048 &&
        s.sector_size != 4096) {
      return LuksRefused(fmt::format("{} is {}", member.PathOf("sector_size"), s.sector_size));
    }
    ASSIGN_OR_RETURN(const uint64_t tweak, member.DecimalText("iv_tweak"));
    if (tweak != 0) {
      facts_.push_back(fmt::format("{} is {}: sectors are not counted from 0",
                                   member.PathOf("iv_tweak"), tweak));
    }
    ASSIGN_OR_RETURN(const std::string size, member.Text("size"));
    s.dynamic = size == "dynamic";
    if (s.dynamic) {
      s.size = s.offset < file_size_ ? file_size_ - s.offset : 0;
    } else {
      ASSIGN_OR_RETURN(s.size, member.DecimalText("size"));
    }
    if (s.size == 0 || !IsInside(s.offset, s.size, file_size_)) {
      return LuksRefused(
          fmt::format("truncated: {} ({} bytes from offset {}) is past the end of the file, {}",
                      member.PathOf("size"), size, s.offset, file_size_));
    }
    if (s.offset % kSector != 0 || s.size % s.sector_size != 0) {
      return LuksRefused(fmt::format("{}: {} bytes from offset {} are not whole sectors of {}",
                                     member.PathOf("size"), s.size, s.offset, s.sector_size));
    }
    return s;
  }

  Result<void> ReadSegments(const Object& root) {
    ASSIGN_OR_RETURN(const auto members, Numbered(root, "segments"));
    for (const auto& [number, member] : members) {
      ASSIGN_OR_RETURN(Segment segment, ReadSegment(member));
      segments_.emplace(number, std::move(segment));
    }
    return segments_.empty() ? Result<void>(LuksRefused("segments is empty")) : Ok();
  }

  // The numbers that an array of texts refers to, each once and each of an object that is there.
  static Result<std::vector<uint32_t>> References(const Object& from, const char* name,
                                                  const auto& objects) {
    ASSIGN_OR_RETURN(const std::vector<std::string> texts, from.Texts(name));
    std::vector<uint32_t> numbers;
    for (const std::string& text : texts) {
      const std::optional<uint64_t> number = Decimal(text);
      if (!number.has_value() || *number >= kMaxObjects ||
          !objects.contains(static_cast<uint32_t>(*number))) {
        return LuksRefused(fmt::format("{} refers to \"{}\", which is not there", from.PathOf(name),
                                       Printable(text, 40)));
      }
      if (std::ranges::find(numbers, *number) != numbers.end()) {
        return LuksRefused(fmt::format("{} refers to {} twice", from.PathOf(name), *number));
      }
      numbers.push_back(static_cast<uint32_t>(*number));
    }
    return numbers;
  }

  Result<void> ReadDigests(const Object& root) {
    ASSIGN_OR_RETURN(const auto members, Numbered(root, "digests"));
    for (const auto& [number, member] : members) {
      RETURN_IF_ERROR(member.RequireText("type", "pbkdf2"));
      ASSIGN_OR_RETURN(const std::string hash, member.Text("hash"));
      RETURN_IF_ERROR(CheckLuksHash(hash, member.PathOf("hash")));
      ASSIGN_OR_RETURN(const uint32_t iterations, member.Number("iterations"));
      RETURN_IF_ERROR(CheckLuksDigestIterations(iterations, member.PathOf("iterations")));
      RETURN_IF_ERROR(member.RequireBase64("salt"));
      RETURN_IF_ERROR(member.RequireBase64("digest"));
      Digest digest;
      ASSIGN_OR_RETURN(digest.key_slots, References(member, "keyslots", key_slots_));
      ASSIGN_OR_RETURN(digest.segments, References(member, "segments", segments_));
      digests_.push_back(std::move(digest));
    }
    return Ok();
  }

  Result<void> CheckTokens(const Object& root) {
    ASSIGN_OR_RETURN(const auto members, Numbered(root, "tokens"));
    for (const auto& [number, member] : members) {
      ASSIGN_OR_RETURN(const std::string type, member.Text("type"));
      RETURN_IF_ERROR(References(member, "keyslots", key_slots_));
      facts_.push_back(fmt::format("token {} of type {}", number, Printable(type, 40)));
    }
    return Ok();
  }

  Result<void> CheckAreas() const {
    for (const auto& [number, key_slot] : key_slots_) {
      const LuksKeySlot& slot = key_slot.slot;
      if (slot.area_offset < areas_begin_ || slot.area_offset > areas_end_ ||
          slot.area_size > areas_end_ - slot.area_offset) {
        return LuksRefused(
            fmt::format("keyslots.{}.area ({} bytes from offset {}) is not inside the area of key "
                        "slots, bytes {} to {}",
                        number, slot.area_size, slot.area_offset, areas_begin_, areas_end_));
      }
      for (const auto& [other_number, other] : key_slots_) {
        if (other_number < number &&
            slot.area_offset < other.slot.area_offset + other.slot.area_size &&
            other.slot.area_offset < slot.area_offset + slot.area_size) {
          return LuksRefused(
              fmt::format("keyslots.{}.area overlaps that of slot {}", number, other_number));
        }
      }
    }
    return Ok();
  }

  Result<void> CheckSegments() const {
    uint64_t end = areas_end_;
    for (const auto& [number, segment] : segments_) {
      if (segment.offset < end) {
        return LuksRefused(
            fmt::format("segments.{} from offset {} overlaps what is before offset {} (headers, "
                        "key slots or another segment)",
                        number, segment.offset, end));
      }
      end = segment.offset + segment.size;
      if (segment.dynamic && number != segments_.rbegin()->first) {
        return LuksRefused(
            fmt::format("segments.{}.size is dynamic, but it is not the last", number));
      }
      const Segment& first = segments_.begin()->second;
      if (segment.cipher != first.cipher || segment.sector_size != first.sector_size) {
        return HalfReencrypted(fmt::format("segments.{} is not encrypted as the first", number));
      }
    }
    return Ok();
  }

  // The one digest that verifies the key of all segments.
  Result<const Digest*> PayloadDigest() const {
    const Digest* found = nullptr;
    for (const Digest& digest : digests_) {
      if (digest.segments.empty()) continue;
      if (found != nullptr) return HalfReencrypted("segments have several digests");
      found = &digest;
    }
    if (found == nullptr || found->segments.size() != segments_.size()) {
      return LuksRefused("digests: a segment has no digest");
    }
    for (const Digest& digest : digests_) {
      if (&digest == found) continue;
      for (const uint32_t number : digest.key_slots) {
        if (std::ranges::find(found->key_slots, number) != found->key_slots.end()) {
          return LuksRefused(fmt::format("digests: key slot {} has several", number));
        }
      }
    }
    return found;
  }

  Result<Luks2Metadata> Conclude() {
    ASSIGN_OR_RETURN(const Digest* digest, PayloadDigest());
    if (digest->key_slots.empty()) return LuksRefused("no key slot is active: nothing can open it");
    const Segment& first = segments_.begin()->second;
    const uint32_t key_size = key_slots_.at(digest->key_slots.front()).key_size;
    RETURN_IF_ERROR(CheckLuksCipher(first.cipher, key_size, "segments: encryption"));
    Luks2Metadata out{.cipher = first.cipher,
                      .key_bits = key_size * 8,
                      .sector_size = first.sector_size,
                      .payload_offset = first.offset,
                      .payload_size = 0,
                      .key_slots = {},
                      .facts = std::move(facts_)};
    for (const auto& [number, segment] : segments_) out.payload_size += segment.size;
    for (const auto& [number, key_slot] : key_slots_) {
      if (std::ranges::find(digest->key_slots, number) == digest->key_slots.end()) {
        out.facts.push_back(fmt::format("key slot {} does not open the data (unbound)", number));
        continue;
      }
      if (key_slot.key_size != key_size) {
        return LuksRefused(fmt::format("keyslots.{}.key_size is {}, another slot's is {}", number,
                                       key_slot.key_size, key_size));
      }
      out.key_slots.push_back(key_slot.slot);
    }
    return out;
  }

  uint64_t header_size_;
  uint64_t file_size_;
  uint64_t areas_begin_ = 0;
  uint64_t areas_end_ = 0;
  std::map<uint32_t, KeySlot> key_slots_;
  std::map<uint32_t, Segment> segments_;
  std::vector<Digest> digests_;
  std::vector<std::string> facts_;
};

}  // namespace

Result<Luks2Metadata> ParseLuks2Metadata(std::string_view json, uint64_t header_size,
                                         uint64_t file_size) {
  const Result<Json> parsed = ParseBoundedJson(
      json, JsonLimits{.depth = kLuks2JsonMaxDepth, .values = kLuks2JsonMaxValues});
  if (!parsed.has_value()) return LuksRefused(parsed.error().message());
  if (!parsed->is_object()) return LuksRefused("the JSON area holds no object");
  return Validator(header_size, file_size).Validate(*parsed);
}

}  // namespace vallum::formats
