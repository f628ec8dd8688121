// SPDX-License-Identifier: Apache-2.0
#include "measure/event_log_builder.h"

#include "firmware/signature_list.h"
#include "measure/event_digest.h"
#include "measure/extend_log.h"

namespace vallum::measure {
namespace {

constexpr size_t kSha1Size = 20;

void Append(Bytes& out, ByteView bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

}  // namespace

EventLogBuilder::EventLogBuilder(std::vector<HashAlgorithm> banks, Bytes vendor_info)
    : crypto_agile_(true), banks_(std::move(banks)) {
  ByteWriter spec;
  spec.Raw(AsBytes("Spec ID Event03")).U8(0).U32Le(0).U8(0).U8(2).U8(0).U8(2);
  spec.U32Le(static_cast<uint32_t>(banks_.size()));
  for (const HashAlgorithm bank : banks_) {
    spec.U16Le(TpmAlgorithmId(bank)).U16Le(static_cast<uint16_t>(DigestSize(bank)));
  }
  spec.U8(static_cast<uint8_t>(vendor_info.size())).Raw(vendor_info);
  ByteWriter header;
  header.U32Le(0).U32Le(static_cast<uint32_t>(EventType::kNoAction)).Zeros(kSha1Size);
  header.U32Le(static_cast<uint32_t>(spec.size())).Raw(spec.bytes());
  out_ = std::move(header).Take();
}

EventLogBuilder::EventLogBuilder() : crypto_agile_(false), banks_({HashAlgorithm::kSha1}) {}

EventLogBuilder& EventLogBuilder::Add(uint32_t index, EventType type, ByteView data) {
  return AddIn(banks_, index, type, data, data);
}

EventLogBuilder& EventLogBuilder::Add(uint32_t index, EventType type, ByteView data,
                                      ByteView hashed) {
  return AddIn(banks_, index, type, data, hashed);
}

EventLogBuilder& EventLogBuilder::AddIn(const std::vector<HashAlgorithm>& banks, uint32_t index,
                                        EventType type, ByteView data, ByteView hashed) {
  ByteWriter event;
  event.U32Le(index).U32Le(static_cast<uint32_t>(type));
  if (crypto_agile_) {
    event.U32Le(static_cast<uint32_t>(banks.size()));
  }
  for (const HashAlgorithm bank : banks) {
    if (crypto_agile_) {
      event.U16Le(TpmAlgorithmId(bank));
    }
    event.Raw(Digest(bank, hashed));
  }
  event.U32Le(static_cast<uint32_t>(data.size())).Raw(data);
  Append(out_, event.bytes());
  return *this;
}

EventLogBuilder& EventLogBuilder::AddText(uint32_t index, EventType type, std::string_view text) {
  return Add(index, type, AsBytes(text));
}

EventLogBuilder& EventLogBuilder::AddSeparator(uint32_t index) {
  return Add(index, EventType::kSeparator, Bytes(4));
}

EventLogBuilder& EventLogBuilder::AddVariable(uint32_t index, std::string_view name,
                                              const firmware::Guid& vendor, ByteView value) {
  return Add(index, EventType::kVariableDriverConfig, EncodeVariableData(name, vendor, value));
}

EventLogBuilder& EventLogBuilder::AddLocality(uint8_t locality) {
  ByteWriter data;
  data.Raw(AsBytes("StartupLocality")).U8(0).U8(locality);
  return Add(0, EventType::kNoAction, data.bytes());
}

EventLogBuilder& EventLogBuilder::AddRaw(ByteView bytes) {
  Append(out_, bytes);
  return *this;
}

Bytes OneKey() {
  return EncodeSignatureList(firmware::MakeSignature(firmware::SignatureType::kX509,
                                                     firmware::kGlobalVariableGuid, Bytes(40)));
}

EventLogBuilder& AddSecureBootPolicy(EventLogBuilder& log, uint32_t index) {
  const Bytes on(1, std::byte{1});
  log.AddVariable(index, "SecureBoot", firmware::kGlobalVariableGuid, on);
  log.AddVariable(index, "PK", firmware::kGlobalVariableGuid, OneKey());
  log.AddVariable(index, "KEK", firmware::kGlobalVariableGuid, OneKey());
  log.AddVariable(index, "db", firmware::kSecurityDatabaseGuid, OneKey());
  log.AddVariable(index, "dbx", firmware::kSecurityDatabaseGuid, {});
  log.AddSeparator(index);
  return log.Add(index, EventType::kVariableAuthority,
                 EncodeVariableData("db", firmware::kSecurityDatabaseGuid, Bytes(56)));
}

}  // namespace vallum::measure
