// SPDX-License-Identifier: Apache-2.0
#include "vtpm/control_protocol.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "base/text.h"
#include "measure/pcr_selection.h"
#include "vtpm/key_command.h"
#include "vtpm/tpm_command.h"

namespace vallum::vtpm {
namespace {

using Json = nlohmann::json;

std::string ToLine(const Json& json) {
  // Texts may hold what a guest or a file system made up: replace what is no UTF-8.
  return json.dump(-1, ' ', true, Json::error_handler_t::replace) + "\n";
}

Result<Json> ParseObject(std::string_view line) {
  Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return InvalidInput("not one JSON object on a line");
  }
  return json;
}

// The accessors below never throw: the type is asked before the value.
std::optional<uint64_t> NumberOf(const Json& object, const char* name) {
  const auto it = object.find(name);
  if (it == object.end() || !it->is_number_unsigned()) {
    return std::nullopt;
  }
  return it->get<uint64_t>();
}

std::optional<std::string> TextOf(const Json& object, const char* name) {
  const auto it = object.find(name);
  if (it == object.end() || !it->is_string()) {
    return std::nullopt;
  }
  return it->get<std::string>();
}

Error BadField(const char* name) {
  return InvalidInput(std::string("field '") + name + "' is missing or has a value out of range");
}

Result<ControlRequest> ParseRecordsRequest(const Json& json) {
  const auto since = NumberOf(json, "since");
  if (!since.has_value()) {
    return BadField("since");
  }
  const uint64_t wait = NumberOf(json, "wait_ms").value_or(0);
  if (wait > static_cast<uint64_t>(ControlClient::kMaxWait.count())) {
    return BadField("wait_ms");
  }
  return ControlRequest(RecordsRequest{*since, std::chrono::milliseconds(wait)});
}

Result<ControlRequest> ParsePcrsRequest(const Json& json) {
  ASSIGN_OR_RETURN(const HashAlgorithm bank,
                   measure::ParseBankName(TextOf(json, "bank").value_or("")));
  PcrsRequest request{bank, {}};
  const auto pcrs = json.find("pcrs");
  if (pcrs == json.end() || !pcrs->is_array() || pcrs->empty() || pcrs->size() > PcrIndex::kCount) {
    return BadField("pcrs");
  }
  std::set<PcrIndex> seen;
  for (const Json& item : *pcrs) {
    if (!item.is_number_unsigned() || item.get<uint64_t>() >= PcrIndex::kCount) {
      return BadField("pcrs");
    }
    ASSIGN_OR_RETURN(const PcrIndex pcr, PcrIndex::Create(item.get<uint32_t>()));
    if (!seen.insert(pcr).second) {
      return BadField("pcrs");
    }
    request.pcrs.push_back(pcr);
  }
  return ControlRequest(std::move(request));
}

Result<Bytes> BytesOf(const Json& json, const char* name, size_t limit) {
  const auto text = TextOf(json, name);
  auto bytes = text.has_value() && text->size() <= 2 * limit ? FromHex(*text)
                                                             : Result<Bytes>(BadField(name));
  return bytes.has_value() ? bytes : BadField(name);
}

Result<ControlRequest> ParseQuoteRequest(const Json& json) {
  QuoteRequest request;
  ASSIGN_OR_RETURN(request.nonce, BytesOf(json, "nonce", QuoteRequest::kMaxNonce));
  ASSIGN_OR_RETURN(request.selections,
                   measure::ParsePcrSelections(TextOf(json, "pcrs").value_or("")));
  return ControlRequest(std::move(request));
}

Json PcrObject(const std::map<PcrIndex, Bytes>& values) {
  Json pcrs = Json::object();
  for (const auto& [pcr, value] : values) {
    pcrs[std::to_string(pcr.value())] = ToHex(value);
  }
  return pcrs;
}

// The object of a reply that reports success.
Result<Json> ParseReply(std::string_view line) {
  auto json = ParseObject(line);
  if (!json.has_value()) {
    return Corrupt("the reply is " + json.error().message());
  }
  const auto ok = json->find("ok");
  if (ok == json->end() || !ok->is_boolean()) {
    return Corrupt("the reply does not say whether it is one of success");
  }
  if (ok->get<bool>()) {
    return json;
  }
  const std::string code_name = TextOf(*json, "code").value_or("");
  const std::string message = Printable(TextOf(*json, "error").value_or("no reason given"), 500);
  return Error(ErrorCodeFromName(code_name).value_or(ErrorCode::kInternal), message)
      .WithFix(Printable(TextOf(*json, "fix").value_or(""), 500));
}

Error BadReply(const char* name) {
  return Corrupt(std::string("the reply's field '") + name + "' is missing or malformed");
}

Result<Bytes> ReplyBytes(const Json& json, const char* name) {
  auto bytes = BytesOf(json, name, kMaxTpmMessage);
  return bytes.has_value() ? bytes : BadReply(name);
}

Result<std::map<PcrIndex, Bytes>> ParsePcrObject(const Json& pcrs) {
  if (!pcrs.is_object()) {
    return BadReply("pcrs");
  }
  std::map<PcrIndex, Bytes> values;
  for (uint32_t i = 0; i < PcrIndex::kCount; ++i) {
    const auto text = TextOf(pcrs, std::to_string(i).c_str());
    if (!text.has_value()) {
      continue;
    }
    ASSIGN_OR_RETURN(const PcrIndex pcr, PcrIndex::Create(i));
    auto value = FromHex(*text);
    if (!value.has_value()) {
      return BadReply("pcrs");
    }
    values[pcr] = *std::move(value);
  }
  return values;
}

}  // namespace

std::string_view TpmStateName(TpmState state) {
  switch (state) {
    case TpmState::kOff:
      return "off";
    case TpmState::kReset:
      return "reset";
    case TpmState::kStarted:
      return "started";
  }
  return "off";
}

std::string FormatRequest(const ControlRequest& request) {
  Json json;
  if (std::holds_alternative<StatusRequest>(request)) {
    json = {{"op", "status"}};
  } else if (const auto* records = std::get_if<RecordsRequest>(&request)) {
    json = {{"op", "records"}, {"since", records->since}};
    json["wait_ms"] = static_cast<uint64_t>(records->wait.count());
  } else if (const auto* pcrs = std::get_if<PcrsRequest>(&request)) {
    json = {{"op", "pcrs"}, {"bank", HashAlgorithmName(pcrs->bank)}, {"pcrs", Json::array()}};
    for (const PcrIndex pcr : pcrs->pcrs) {
      json["pcrs"].push_back(pcr.value());
    }
  } else if (std::holds_alternative<IdentityRequest>(request)) {
    json = {{"op", "identity"}};
  } else if (const auto* quote = std::get_if<QuoteRequest>(&request)) {
    json = {{"op", "quote"},
            {"nonce", ToHex(quote->nonce)},
            {"pcrs", measure::FormatPcrSelections(quote->selections)}};
  } else if (const auto* certificate = std::get_if<CertificateRequest>(&request)) {
    json = {{"op", "certificate"}, {"der", ToHex(certificate->der)}};
  } else {
    json = {{"op", "stop"}};
  }
  return ToLine(json);
}

Result<ControlRequest> ParseRequest(std::string_view line) {
  ASSIGN_OR_RETURN(const Json json, ParseObject(line));
  const std::string op = TextOf(json, "op").value_or("");
  if (op == "status") {
    return ControlRequest(StatusRequest{});
  }
  if (op == "records") {
    return ParseRecordsRequest(json);
  }
  if (op == "pcrs") {
    return ParsePcrsRequest(json);
  }
  if (op == "identity") {
    return ControlRequest(IdentityRequest{});
  }
  if (op == "quote") {
    return ParseQuoteRequest(json);
  }
  if (op == "certificate") {
    ASSIGN_OR_RETURN(Bytes der, BytesOf(json, "der", kMaxCertificate));
    return ControlRequest(CertificateRequest{std::move(der)});
  }
  if (op == "stop") {
    return ControlRequest(StopRequest{});
  }
  return InvalidInput("unknown op '" + Printable(op, 40) + "'");
}

std::string FormatError(const Error& error) {
  return ToLine({{"ok", false},
                 {"code", ErrorCodeName(error.code())},
                 {"error", error.Describe()},
                 {"fix", error.fix()}});
}

std::string FormatStatus(const VtpmStatus& status) {
  return ToLine({{"ok", true},
                 {"tpm", TpmStateName(status.tpm)},
                 {"qemu_connected", status.qemu_connected},
                 {"pid", static_cast<uint64_t>(status.pid)},
                 {"swtpm_pid", static_cast<uint64_t>(status.swtpm_pid)},
                 {"first_sequence", status.first_sequence},
                 {"last_sequence", status.last_sequence},
                 {"guest_commands", status.guest_commands},
                 {"record_error", status.record_error}});
}

std::string FormatRecords(const RecordBatch& batch) {
  Json records = Json::array();
  for (const measure::ExtendRecord& record : batch.records) {
    std::string line = measure::FormatRecord(record);
    line.pop_back();
    records.push_back(std::move(line));
  }
  return ToLine({{"ok", true},
                 {"first_sequence", batch.first_sequence},
                 {"last_sequence", batch.last_sequence},
                 {"records", std::move(records)}});
}

std::string FormatPcrs(const std::map<PcrIndex, Bytes>& values) {
  return ToLine({{"ok", true}, {"pcrs", PcrObject(values)}});
}

std::string FormatIdentity(const VtpmIdentity& identity) {
  return ToLine({{"ok", true},
                 {"ek_public", ToHex(identity.ek_public)},
                 {"ak_public", ToHex(identity.ak_public)},
                 {"certificate", ToHex(identity.certificate)}});
}

std::string FormatQuote(const Quote& quote) {
  Json values = Json::array();
  for (const auto& bank : quote.values) {
    values.push_back(PcrObject(bank));
  }
  return ToLine({{"ok", true},
                 {"quoted", ToHex(quote.quoted)},
                 {"signature", ToHex(quote.signature)},
                 {"ak_public", ToHex(quote.ak_public)},
                 {"values", std::move(values)}});
}

std::string FormatDone() { return ToLine({{"ok", true}}); }

Result<VtpmStatus> ParseStatusReply(std::string_view line) {
  ASSIGN_OR_RETURN(const Json json, ParseReply(line));
  VtpmStatus status;
  const std::string tpm = TextOf(json, "tpm").value_or("");
  const TpmState states[] = {TpmState::kOff, TpmState::kReset, TpmState::kStarted};
  const auto* state = std::ranges::find(states, tpm, TpmStateName);
  if (state == std::end(states)) {
    return BadReply("tpm");
  }
  status.tpm = *state;
  const auto connected = json.find("qemu_connected");
  if (connected == json.end() || !connected->is_boolean()) {
    return BadReply("qemu_connected");
  }
  status.qemu_connected = connected->get<bool>();
  const auto pid = NumberOf(json, "pid");
  const auto swtpm_pid = NumberOf(json, "swtpm_pid");
  if (!pid.has_value() || *pid > INT32_MAX || !swtpm_pid.has_value() || *swtpm_pid > INT32_MAX) {
    return BadReply("pid");
  }
  status.pid = static_cast<pid_t>(*pid);
  status.swtpm_pid = static_cast<pid_t>(*swtpm_pid);
  status.first_sequence = NumberOf(json, "first_sequence").value_or(0);
  status.last_sequence = NumberOf(json, "last_sequence").value_or(0);
  status.guest_commands = NumberOf(json, "guest_commands").value_or(0);
  status.record_error = TextOf(json, "record_error").value_or("");
  return status;
}

Result<RecordBatch> ParseRecordsReply(std::string_view line) {
  ASSIGN_OR_RETURN(const Json json, ParseReply(line));
  const auto first = NumberOf(json, "first_sequence");
  const auto last = NumberOf(json, "last_sequence");
  const auto records = json.find("records");
  if (!first.has_value() || !last.has_value() || records == json.end() || !records->is_array() ||
      records->size() > ControlClient::kMaxBatch) {
    return BadReply("records");
  }
  RecordBatch batch{{}, *first, *last};
  for (const Json& item : *records) {
    if (!item.is_string()) {
      return BadReply("records");
    }
    ASSIGN_OR_RETURN(measure::ExtendRecord record,
                     measure::ParseRecord(item.get_ref<const std::string&>()));
    batch.records.push_back(std::move(record));
  }
  return batch;
}

Result<std::map<PcrIndex, Bytes>> ParsePcrsReply(std::string_view line) {
  ASSIGN_OR_RETURN(const Json json, ParseReply(line));
  const auto pcrs = json.find("pcrs");
  return pcrs == json.end() ? Result<std::map<PcrIndex, Bytes>>(BadReply("pcrs"))
                            : ParsePcrObject(*pcrs);
}

Result<VtpmIdentity> ParseIdentityReply(std::string_view line) {
  ASSIGN_OR_RETURN(const Json json, ParseReply(line));
  VtpmIdentity identity;
  ASSIGN_OR_RETURN(identity.ek_public, ReplyBytes(json, "ek_public"));
  ASSIGN_OR_RETURN(identity.ak_public, ReplyBytes(json, "ak_public"));
  ASSIGN_OR_RETURN(identity.certificate, ReplyBytes(json, "certificate"));
  return identity;
}

Result<Quote> ParseQuoteReply(std::string_view line) {
  ASSIGN_OR_RETURN(const Json json, ParseReply(line));
  Quote quote;
  ASSIGN_OR_RETURN(quote.quoted, ReplyBytes(json, "quoted"));
  ASSIGN_OR_RETURN(quote.signature, ReplyBytes(json, "signature"));
  ASSIGN_OR_RETURN(quote.ak_public, ReplyBytes(json, "ak_public"));
  const auto values = json.find("values");
  if (values == json.end() || !values->is_array() || values->size() > QuoteRequest::kMaxBanks) {
    return BadReply("values");
  }
  for (const Json& bank : *values) {
    ASSIGN_OR_RETURN(auto read, ParsePcrObject(bank));
    quote.values.push_back(std::move(read));
  }
  return quote;
}

Result<void> ParseDoneReply(std::string_view line) {
  RETURN_IF_ERROR(ParseReply(line));
  return Ok();
}

}  // namespace vallum::vtpm
