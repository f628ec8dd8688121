// SPDX-License-Identifier: Apache-2.0
#include "attest/oat_trust.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "formats/bounded_json.h"

namespace vallum::attest {
namespace {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

constexpr formats::JsonLimits kLimits = {.depth = 4, .values = kMaxPolledHosts + 64};

Result<std::string> HostName(const Json& value) {
  if (!value.is_string()) return InvalidInput("hosts: a name is no text");
  const auto& name = value.get_ref<const std::string&>();
  if (name.empty() || name.size() > kMaxPolledName) {
    return InvalidInput("hosts: a name has 1 to " + std::to_string(kMaxPolledName) + " bytes");
  }
  return name;
}

std::string Dump(const OrderedJson& json) {
  return json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

}  // namespace

std::string_view OatTrustLevel(HostVerdictKind kind) {
  switch (kind) {
    case HostVerdictKind::kTrusted:
      return "trusted";
    case HostVerdictKind::kUntrusted:
      return "untrusted";
    case HostVerdictKind::kUnknown:
    case HostVerdictKind::kStale:
      return "unknown";
  }
  return "unknown";
}

std::string FormatOatTime(WallTime time) {
  std::string out = FormatTime(time);
  out.pop_back();  // 'Z'
  return out + "+0000";
}

Result<std::vector<std::string>> ParsePollHosts(std::string_view body) {
  ASSIGN_OR_RETURN(const Json json, formats::ParseBoundedJson(body, kLimits));
  if (!json.is_object() || !json.contains("hosts")) {
    return InvalidInput("the body has no hosts").WithFix(R"(send {"hosts": ["NAME", ...]})");
  }
  const Json& hosts = json["hosts"];
  std::vector<std::string> out;
  if (hosts.is_string()) {
    ASSIGN_OR_RETURN(out.emplace_back(), HostName(hosts));
    return out;
  }
  if (!hosts.is_array()) return InvalidInput("hosts is neither a name nor a list of names");
  if (hosts.size() > kMaxPolledHosts) {
    return Exhausted("more than " + std::to_string(kMaxPolledHosts) + " hosts in one question");
  }
  for (const Json& each : hosts) {
    ASSIGN_OR_RETURN(out.emplace_back(), HostName(each));
  }
  return out;
}

std::string FormatPollHosts(std::span<const OatHost> hosts) {
  OrderedJson list = OrderedJson::array();
  for (const OatHost& host : hosts) {
    list.push_back({{"host_name", host.name},
                    {"trust_lvl", OatTrustLevel(host.kind)},
                    {"vtime", FormatOatTime(host.verified.value_or(WallTime{}))}});
  }
  return Dump({{"hosts", std::move(list)}});
}

std::string FormatOatHostTrust(const OatHost& host) {
  const bool trusted = host.kind == HostVerdictKind::kTrusted;
  return Dump({{"hostname", host.name},
               {"trust", {{"bios", trusted}, {"vmm", trusted}, {"location", false}}}});
}

}  // namespace vallum::attest
