// SPDX-License-Identifier: Apache-2.0
#include "vm/seed.h"

#include <archive.h>
#include <archive_entry.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string_view>

#include "base/text.h"

namespace vallum::vm {
namespace {

constexpr size_t kMaxSeedText = size_t{1} << 20U;
// A fixed date in the image: the same seed has the same digest, whenever it is made.
constexpr time_t kSeedTime = 1'700'000'000;

struct ArchiveWriterDeleter {
  void operator()(archive* writer) const { archive_write_free(writer); }
};
using ArchiveWriter = std::unique_ptr<archive, ArchiveWriterDeleter>;
struct EntryDeleter {
  void operator()(archive_entry* entry) const { archive_entry_free(entry); }
};

bool HasControlCharacters(std::string_view text) {
  return std::ranges::any_of(text, [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte < 0x20 || byte == 0x7f;
  });
}

// A YAML double-quoted scalar; YAML 1.2 section 7.3.1. Control characters are refused before.
std::string Quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
    }
    out += c;
  }
  return out + "\"";
}

std::string KeyList(const std::vector<std::string>& keys, std::string_view name) {
  if (keys.empty()) {
    return "";
  }
  std::string out = std::string(name) + ":\n";
  for (const std::string& key : keys) {
    out += "  - " + Quote(key) + "\n";
  }
  return out;
}

std::string MakeMetaData(const SeedSpec& spec) {
  std::string out = "instance-id: " + Quote(spec.instance_id) + "\n";
  if (!spec.hostname.empty()) {
    out += "local-hostname: " + Quote(spec.hostname) + "\n";
  }
  // User data given by the user is not edited; cloud-init takes the keys from here as well.
  return out + (spec.user_data.empty() ? "" : KeyList(spec.ssh_keys, "public-keys"));
}

std::string MakeUserData(const SeedSpec& spec) {
  if (!spec.user_data.empty()) {
    return spec.user_data;
  }
  return "#cloud-config\n" + KeyList(spec.ssh_keys, "ssh_authorized_keys");
}

Result<void> CheckSeed(const SeedSpec& spec) {
  if (spec.instance_id.empty() || HasControlCharacters(spec.instance_id)) {
    return InvalidInput("seed: instance id \"" + Printable(spec.instance_id) + "\" is unusable");
  }
  if (HasControlCharacters(spec.hostname)) {
    return InvalidInput("seed: hostname \"" + Printable(spec.hostname) +
                        "\" has control characters");
  }
  size_t total = spec.user_data.size() + spec.network_config.size();
  for (const std::string& key : spec.ssh_keys) {
    if (key.empty() || HasControlCharacters(key)) {
      return InvalidInput("seed: ssh key \"" + Printable(key, 60) +
                          "\" is not one authorized_keys line")
          .WithFix("give the content of one .pub file per key, without the line end");
    }
    total += key.size();
  }
  if (total > kMaxSeedText) {
    return InvalidInput("seed: user data and keys of " + std::to_string(total) +
                        " bytes exceed 1 MiB");
  }
  return Ok();
}

using Entry = std::unique_ptr<archive_entry, EntryDeleter>;

la_ssize_t AppendToBytes(archive* /*writer*/, void* target, const void* data, size_t size) {
  auto* out = static_cast<Bytes*>(target);
  const auto* begin = static_cast<const std::byte*>(data);
  out->insert(out->end(), begin, begin + size);
  return static_cast<la_ssize_t>(size);
}

Error ArchiveError(archive* writer) {
  const char* words = archive_error_string(writer);
  return Internal(std::string("seed: libarchive: ") + (words == nullptr ? "failed" : words));
}

Entry MakeEntry(const char* name, unsigned type, unsigned permissions) {
  Entry entry(archive_entry_new());
  archive_entry_set_pathname(entry.get(), name);
  archive_entry_set_filetype(entry.get(), type);
  archive_entry_set_perm(entry.get(), permissions);
  archive_entry_set_mtime(entry.get(), kSeedTime, 0);
  archive_entry_set_atime(entry.get(), kSeedTime, 0);
  archive_entry_set_ctime(entry.get(), kSeedTime, 0);
  archive_entry_set_birthtime(entry.get(), kSeedTime, 0);
  return entry;
}

Result<void> AddFile(archive* writer, const char* name, std::string_view content) {
  const Entry entry = MakeEntry(name, AE_IFREG, 0400);
  archive_entry_set_size(entry.get(), static_cast<la_int64_t>(content.size()));
  if (archive_write_header(writer, entry.get()) != ARCHIVE_OK ||
      archive_write_data(writer, content.data(), content.size()) !=
          static_cast<la_ssize_t>(content.size())) {
    return ArchiveError(writer);
  }
  return Ok();
}

constexpr size_t kSector = 2048;
constexpr std::array<std::byte, 7> kRecordDate = {  // kSeedTime, ECMA-119 9.1.5
    std::byte{123}, std::byte{11}, std::byte{14}, std::byte{22},
    std::byte{13},  std::byte{20}, std::byte{0}};

void PutDate(Bytes& iso, size_t at) {
  if (at + kRecordDate.size() <= iso.size()) {
    std::ranges::copy(kRecordDate, iso.begin() + static_cast<ptrdiff_t>(at));
  }
}

size_t ByteAt(const Bytes& iso, size_t at) {
  return at < iso.size() ? std::to_integer<size_t>(iso[at]) : 0;
}

// Sets the dates of one directory record: its own, and those of Rock Ridge's TF entries behind its
// name. Returns the record's length.
size_t FixRecord(Bytes& iso, size_t at) {
  const size_t length = ByteAt(iso, at);
  PutDate(iso, at + 18);
  const size_t end = at + length;
  size_t entry = at + 33 + (ByteAt(iso, at + 32) | 1U);  // the name is padded to an even offset
  while (entry + 5 < end && ByteAt(iso, entry + 2) >= 4) {
    const size_t entry_end = entry + ByteAt(iso, entry + 2);
    if (AsText(ByteView(iso).subspan(entry, 2)) == "TF") {
      for (size_t date = entry + 5; date + kRecordDate.size() <= entry_end; date += 7) {
        PutDate(iso, date);
      }
    }
    entry = entry_end;
  }
  return length;
}

// The dates of the volumes and of the root directory come from the clock in libarchive; this sets
// them to ours, so that a seed depends on its spec alone. The label is set in lower case, as
// NoCloud documents it. Layout: ECMA-119 8.4 (primary) and 8.5 (supplementary volume), 9.1.
void MakeReproducible(Bytes& iso) {
  constexpr std::string_view kVolumeDate = "2023111422132000";  // and a zero time zone byte
  for (size_t at = 16 * kSector; at + 2 * kSector <= iso.size(); at += kSector) {
    const size_t type = ByteAt(iso, at);
    if (type == 1) {
      std::ranges::copy(AsBytes("cidata"), iso.begin() + static_cast<ptrdiff_t>(at + 40));
    } else if (type != 2) {
      // The end of the descriptors; libarchive notes the date and its version behind it.
      const auto note = iso.begin() + static_cast<ptrdiff_t>(at + kSector);
      std::fill(note, std::min(note + kSector, iso.end()), std::byte{0});
      return;
    }
    for (const size_t field :
         {size_t{813}, size_t{830}, size_t{864}}) {  // made, changed, effective
      std::ranges::copy(AsBytes(kVolumeDate), iso.begin() + static_cast<ptrdiff_t>(at + field));
      iso[at + field + 16] = std::byte{0};
    }
    PutDate(iso, at + 156 + 18);  // the root's record in the descriptor
    size_t root = 0;
    for (size_t i = 0; i < 4; ++i) {
      root |= ByteAt(iso, at + 156 + 2 + i) << (8 * i);
    }
    const size_t self = root * kSector;
    FixRecord(iso, self + FixRecord(iso, self));  // "." and ".."
  }
}

}  // namespace

Result<Bytes> MakeNoCloudSeed(const SeedSpec& spec) {
  RETURN_IF_ERROR(CheckSeed(spec));
  Bytes iso;
  const ArchiveWriter writer(archive_write_new());
  if (archive_write_set_format_iso9660(writer.get()) != ARCHIVE_OK ||
      archive_write_set_options(writer.get(),
                                "iso9660:volume-id=cidata,iso9660:application-id=VALLUM,iso9660:"
                                "rockridge=useful,iso9660:joliet") != ARCHIVE_OK ||
      archive_write_set_bytes_in_last_block(writer.get(), 1) != ARCHIVE_OK ||
      archive_write_open(writer.get(), &iso, nullptr, AppendToBytes, nullptr) != ARCHIVE_OK) {
    return ArchiveError(writer.get());
  }
  RETURN_IF_ERROR(AddFile(writer.get(), "meta-data", MakeMetaData(spec)));
  RETURN_IF_ERROR(AddFile(writer.get(), "user-data", MakeUserData(spec)));
  if (!spec.network_config.empty()) {
    RETURN_IF_ERROR(AddFile(writer.get(), "network-config", spec.network_config));
  }
  if (archive_write_close(writer.get()) != ARCHIVE_OK) {
    return ArchiveError(writer.get());
  }
  MakeReproducible(iso);
  return iso;
}

}  // namespace vallum::vm
