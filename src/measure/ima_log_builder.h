// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "measure/ima_log.h"
#include "measure/ima_replay.h"

// Of tests alone.
namespace vallum::measure {

// A length and the data.
Bytes ImaFieldBytes(ByteView data);
Bytes ImaFieldBytes(std::string_view text);
// "sha256:", zero, digest, for d-ng and its like; prefix "ima:sha256" for d-ngv2.
Bytes ImaDigestField(std::string_view prefix, ByteView digest);
// With its closing zero.
Bytes ImaNameField(std::string_view name);
Bytes Concatenate(const std::vector<Bytes>& parts);

// Writes a binary log as the kernel does.
class ImaLogBuilder {
 public:
  explicit ImaLogBuilder(HashAlgorithm template_hash = HashAlgorithm::kSha1)
      : template_hash_(template_hash) {}

  // An entry of ima-ng for a file whose content is the given one.
  ImaLogBuilder& AddFile(std::string_view path, std::string_view content);
  // Fields one after the other, each with its length.
  ImaLogBuilder& Add(std::string_view format, ByteView data, uint32_t pcr = kImaPcr);
  // The template "ima": hashed otherwise than written.
  ImaLogBuilder& AddLegacy(std::string_view path, ByteView sha1);
  ImaLogBuilder& AddViolation(std::string_view path);
  ImaLogBuilder& Raw(ByteView bytes);

  const Bytes& bytes() const { return out_.bytes(); }
  // PCR 10 after all of it.
  ImaPcrValue Pcr(HashAlgorithm bank) const;

 private:
  void Header(uint32_t pcr, ByteView hash, std::string_view format);

  HashAlgorithm template_hash_;
  ByteWriter out_;
  std::vector<Bytes> hashed_;  // empty for a violation
};

// The same log as ascii_runtime_measurements has it.
std::string ImaLogToText(const ImaLog& log);

}  // namespace vallum::measure
