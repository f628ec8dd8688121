// SPDX-License-Identifier: Apache-2.0
// Test support: makes event logs as firmware writes them.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "firmware/guid.h"
#include "measure/event_type.h"

namespace vallum::measure {

class EventLogBuilder {
 public:
  // A crypto-agile log, begun with its Spec ID event.
  explicit EventLogBuilder(std::vector<HashAlgorithm> banks, Bytes vendor_info = {});
  // A log of TCG_PCClientPCREvents.
  EventLogBuilder();

  // An event whose digests are of its own data, or of `hashed`.
  EventLogBuilder& Add(uint32_t index, EventType type, ByteView data);
  EventLogBuilder& Add(uint32_t index, EventType type, ByteView data, ByteView hashed);
  // An event with digests in these banks only.
  EventLogBuilder& AddIn(const std::vector<HashAlgorithm>& banks, uint32_t index, EventType type,
                         ByteView data, ByteView hashed);
  EventLogBuilder& AddText(uint32_t index, EventType type, std::string_view text);
  EventLogBuilder& AddSeparator(uint32_t index);
  EventLogBuilder& AddVariable(uint32_t index, std::string_view name, const firmware::Guid& vendor,
                               ByteView value);
  EventLogBuilder& AddLocality(uint8_t locality);
  EventLogBuilder& AddRaw(ByteView bytes);

  const Bytes& bytes() const { return out_; }

 private:
  bool crypto_agile_;
  std::vector<HashAlgorithm> banks_;
  Bytes out_;
};

// The policy part of a boot with Secure Boot on, up to a used authority: PCR 7.
EventLogBuilder& AddSecureBootPolicy(EventLogBuilder& log, uint32_t index = 7);
// PK, KEK, db or dbx with one certificate-like entry.
Bytes OneKey();

}  // namespace vallum::measure
