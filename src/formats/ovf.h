// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

// docs/formats/ova.md mirrors these constants.
namespace vallum::formats {

inline constexpr size_t kOvfMaxBytes = 1U << 20U;
inline constexpr size_t kOvfMaxDepth = 32;
inline constexpr size_t kOvfMaxElements = 20000;
inline constexpr size_t kOvfMaxText = 4096;  // of one element that is read
inline constexpr size_t kOvfMaxFiles = 256;  // and disks
inline constexpr size_t kOvfMaxNotes = 32;
inline constexpr uint64_t kOvfMaxCapacity = uint64_t{64} << 40U;
inline constexpr uint64_t kOvfMaxCpus = 4096;
inline constexpr uint64_t kOvfMaxMemory = uint64_t{64} << 40U;

struct OvfFile {
  std::string id;
  std::string href;              // a name in the package: see IsPackageName
  std::optional<uint64_t> size;  // bytes
  std::string compression;       // "gzip" or empty; what it means is up to the caller
};

struct OvfDisk {
  std::string id;
  std::string file_id;    // of an OvfFile; empty: an empty disk
  std::string href;       // of that file; empty with file_id
  uint64_t capacity = 0;  // bytes
  std::string format;     // URI
};

enum class OvfFirmware { kUnspecified, kBios, kEfi };

// Of the elements that are ours: what Vallum keeps beside what OVF knows.
inline constexpr const char* kOvfVallumNamespace = "urn:vallum:ovf:1";
struct OvfVallum {
  std::string key_set;  // name; empty: nothing of all this is there
  uint64_t key_set_version = 0;
  std::string key_set_sha256;   // hex
  std::string key_set_href;     // its content; each href: a file of the package, or empty
  std::string variables_href;   // UEFI variable store
  std::string variable_origin;  // what its host had noted on its making
  std::string tpm_model;        // "tpm-crb", ...
  std::string tpm_href;         // the vTPM's state, sealed under a passphrase
};

// What an OVF descriptor says of one virtual machine.
struct OvfEnvelope {
  std::vector<OvfFile> files;
  std::vector<OvfDisk> disks;
  std::string name;  // of the virtual machine; empty if it has none
  OvfFirmware firmware = OvfFirmware::kUnspecified;
  std::optional<bool> secure_boot;  // nothing: it does not say
  bool vtpm = false;
  uint64_t cpus = 0;             // 0: it does not say
  uint64_t memory = 0;           // bytes; 0: it does not say
  bool trusted_service = false;  // oVirt's TrustedService
  OvfVallum vallum;
  std::vector<std::string> not_understood;  // devices that nothing is made of, in words
};

// Whether a name can only mean a file beside the descriptor: printable ASCII, relative, no
// backslash, colon, percent sign or query, no empty, "." or ".." part.
bool IsPackageName(std::string_view name);

// Parses an OVF 1.x or 2.x envelope. Document types and entities are refused, namespaces are
// honoured, unknown elements are skipped.
//   xml: the descriptor; untrusted.
// Errors: kInvalidInput (naming the line: not XML, no Envelope, a DTD, limits, several virtual
// machines, an href that is not in the package, parentRef, chunked files, units), kCorrupt (an id
// twice, a reference to nothing).
// Source: DSP0243 1.1 and 2.1; VMware's extensions (vmw:Config, vmw:ExtraConfig); oVirt's BiosType
// and TrustedService; ours (docs/formats/ova.md).
Result<OvfEnvelope> ParseOvf(ByteView xml);

}  // namespace vallum::formats
