// SPDX-License-Identifier: Apache-2.0
#include "controller/rest_query.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/result.h"
#include "base/text.h"
#include "controller/resource_kind.h"
#include "http/message.h"

namespace vallum::controller {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

const FieldDescriptor* FindField(const Descriptor& type, const std::string& name) {
  const FieldDescriptor* field = type.FindFieldByName(name);
  return field != nullptr ? field : type.FindFieldByCamelcaseName(name);
}

// Checks that a path ends at a single scalar field.
Result<void> CheckPath(const Descriptor& type, const std::string& path) {
  const auto invalid = [&](std::string_view why) {
    return InvalidInput("fields: \"" + Printable(path, 80) + "\" " + std::string(why))
        .WithFix("name a scalar field by its path, such as status.phase");
  };
  const Descriptor* at = &type;
  for (const std::string& part : Split(path, '.')) {
    if (at == nullptr) return invalid("goes through a field that has no fields");
    const FieldDescriptor* field = FindField(*at, part);
    if (field == nullptr) return invalid("is no field of " + at->name());
    if (field->is_repeated()) return invalid("goes through a list");
    at = field->message_type();
  }
  if (at != nullptr) return invalid("is not a scalar");
  return Ok();
}

std::string FieldText(const Message& message, const FieldDescriptor& field) {
  const auto* reflection = message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_ENUM:
      return reflection->GetEnum(message, &field)->name();
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->GetBool(message, &field) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_INT32:
      return std::to_string(reflection->GetInt32(message, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return std::to_string(reflection->GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_UINT32:
      return std::to_string(reflection->GetUInt32(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return std::to_string(reflection->GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return std::to_string(reflection->GetDouble(message, &field));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return std::to_string(reflection->GetFloat(message, &field));
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->GetString(message, &field);
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return {};
  }
  return {};
}

bool FieldEquals(const Message& resource, const std::string& path, const std::string& wanted) {
  const Message* at = &resource;
  const std::vector<std::string> parts = Split(path, '.');
  for (size_t i = 0; i < parts.size(); ++i) {
    const FieldDescriptor* field = FindField(*at->GetDescriptor(), parts[i]);
    if (field == nullptr) return false;
    if (i + 1 < parts.size()) {
      at = &at->GetReflection()->GetMessage(*at, field);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
      return ToLower(FieldText(*at, *field)) == ToLower(wanted);
    } else {
      return FieldText(*at, *field) == wanted;
    }
  }
  return false;
}

Result<int64_t> ParseNumber(std::string_view name, std::string_view text, int64_t low,
                            int64_t high) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  if (parsed.ec != std::errc() || parsed.ptr != end || value < low || value > high) {
    return InvalidInput(std::string(name) + "=" + Printable(text, 40) + " is not a number from " +
                        std::to_string(low) + " to " + std::to_string(high));
  }
  return value;
}

// "a=b,c=d". A value may hold '=', not ','.
Result<std::vector<std::pair<std::string, std::string>>> ParsePairs(std::string_view name,
                                                                    std::string_view text) {
  std::vector<std::pair<std::string, std::string>> out;
  if (text.empty()) return out;
  for (const std::string& pair : Split(text, ',')) {
    const size_t equals = pair.find('=');
    if (equals == std::string::npos || equals == 0) {
      return InvalidInput(std::string(name) + ": \"" + Printable(pair, 80) + "\" is not key=value");
    }
    out.emplace_back(pair.substr(0, equals), pair.substr(equals + 1));
  }
  return out;
}

Result<void> ParseOne(const std::string& name, const std::string& value, const Descriptor& type,
                      ListQuery& out) {
  if (name == "limit") {
    ASSIGN_OR_RETURN(const int64_t limit, ParseNumber(name, value, 1, ListQuery::kMaxLimit));
    out.limit = static_cast<size_t>(limit);
  } else if (name == "page") {
    const Result<Bytes> token = FromBase64(value);
    if (!token.has_value() || token->size() > 64) {
      return InvalidInput("page is not a token of an earlier answer")
          .WithFix("use its nextPage, or leave page out");
    }
    out.after = AsText(*token);
  } else if (name == "labels") {
    ASSIGN_OR_RETURN(out.selector.labels, ParsePairs(name, value));
  } else if (name == "fields") {
    ASSIGN_OR_RETURN(out.selector.fields, ParsePairs(name, value));
    for (const auto& [path, text] : out.selector.fields) RETURN_IF_ERROR(CheckPath(type, path));
  } else if (name == "watch") {
    ASSIGN_OR_RETURN(out.watch, ParseNumber(name, value, 0, INT64_MAX));
  } else {
    return InvalidInput("unknown query parameter \"" + Printable(name, 40) + "\"")
        .WithFix("lists take limit, page, labels, fields and watch");
  }
  return Ok();
}

}  // namespace

Result<ListQuery> ParseListQuery(const http::Values& query, const Descriptor& type) {
  ListQuery out;
  for (const auto& [name, value] : query) RETURN_IF_ERROR(ParseOne(name, value, type, out));
  return out;
}

Result<uint64_t> ParseUnsigned(const http::Request& request, std::string_view name,
                               uint64_t fallback) {
  const std::optional<std::string> text = request.Query(name);
  if (!text.has_value()) return fallback;
  ASSIGN_OR_RETURN(const int64_t value, ParseNumber(name, *text, 0, INT64_MAX));
  return static_cast<uint64_t>(value);
}

std::string PageToken(std::string_view last_name) { return ToBase64Url(AsBytes(last_name)); }

bool Matches(const Selector& selector, const Message& resource) {
  if (!selector.labels.empty()) {
    const auto& labels = MetadataOf(resource).labels();
    for (const auto& [key, value] : selector.labels) {
      const auto it = labels.find(key);
      if (it == labels.end() || it->second != value) return false;
    }
  }
  for (const auto& [path, value] : selector.fields) {
    if (!FieldEquals(resource, path, value)) return false;
  }
  return true;
}

Result<int64_t> ParseIfMatch(const http::Headers& headers) {
  const std::optional<std::string> header = headers.Get("if-match");
  if (!header.has_value() || Trim(*header) == "*") return 0;
  std::string_view text = Trim(*header);
  const auto invalid = [&] {
    return InvalidInput("If-Match: " + Printable(*header, 60) + " is not one ETag of ours")
        .WithFix("send the ETag of your last read, such as \"42\", in double quotes");
  };
  if (text.size() < 3 || text.front() != '"' || text.back() != '"') return invalid();
  text = text.substr(1, text.size() - 2);
  const Result<int64_t> revision = ParseNumber("If-Match", text, 1, INT64_MAX);
  if (!revision.has_value()) return invalid();
  return *revision;
}

}  // namespace vallum::controller
