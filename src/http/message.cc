// SPDX-License-Identifier: Apache-2.0
#include "http/message.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace vallum::http {
namespace {

constexpr size_t kMaxQueryParameters = 64;
constexpr size_t kMaxProblemBytes = 64 * 1024;

bool SameName(std::string_view a, std::string_view b) {
  return a.size() == b.size() && ToLower(a) == ToLower(b);
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string StringMember(const nlohmann::json& object, const char* name) {
  const auto it = object.find(name);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

}  // namespace

std::string_view MethodName(Method method) {
  switch (method) {
    case Method::kGet:
      return "GET";
    case Method::kHead:
      return "HEAD";
    case Method::kPost:
      return "POST";
    case Method::kPut:
      return "PUT";
    case Method::kPatch:
      return "PATCH";
    case Method::kDelete:
      return "DELETE";
  }
  return "GET";
}

std::optional<std::string> Headers::Get(std::string_view name) const {
  for (const auto& [key, value] : items_) {
    if (SameName(key, name)) return value;
  }
  return std::nullopt;
}

void Headers::Set(std::string_view name, std::string_view value) {
  Remove(name);
  Add(name, value);
}

void Headers::Add(std::string_view name, std::string_view value) {
  items_.emplace_back(name, value);
}

void Headers::Remove(std::string_view name) {
  std::erase_if(items_, [&](const auto& item) { return SameName(item.first, name); });
}

std::optional<std::string> Request::Param(std::string_view name) const {
  const auto it = params.find(name);
  if (it == params.end()) return std::nullopt;
  return it->second;
}

std::optional<std::string> Request::Query(std::string_view name) const {
  const auto it = query.find(name);
  if (it == query.end()) return std::nullopt;
  return it->second;
}

Response Response::Json(int status, std::string body) {
  Response response;
  response.status = status;
  response.headers.Set("Content-Type", "application/json");
  response.body = std::move(body);
  return response;
}

Response Response::Text(int status, std::string body) {
  Response response;
  response.status = status;
  response.headers.Set("Content-Type", "text/plain; charset=utf-8");
  response.body = std::move(body);
  return response;
}

Response Response::Events(std::function<void(std::shared_ptr<EventStream>)> start) {
  Response response;
  response.events = std::move(start);
  return response;
}

Response Response::Upgrade(std::function<void(std::shared_ptr<WebSocket>)> start) {
  Response response;
  response.status = 101;
  response.web_socket = std::move(start);
  return response;
}

int StatusOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidInput:
      return 400;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kConflict:
      return 409;
    case ErrorCode::kDenied:
      return 403;
    case ErrorCode::kUnavailable:
      return 503;
    case ErrorCode::kCorrupt:
      return 500;
    case ErrorCode::kExhausted:
      return 507;
    case ErrorCode::kInternal:
      return 500;
  }
  return 500;
}

std::string_view StatusTitle(int status) {
  switch (status) {
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 412:
      return "Precondition Failed";
    case 413:
      return "Payload Too Large";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 507:
      return "Insufficient Storage";
    default:
      return "Error";
  }
}

ErrorCode CodeOf(int status) {
  switch (status) {
    case 401:
    case 403:
      return ErrorCode::kDenied;
    case 404:
    case 410:
      return ErrorCode::kNotFound;
    case 409:
    case 412:
      return ErrorCode::kConflict;
    case 413:
    case 429:
    case 507:
      return ErrorCode::kExhausted;
    case 408:
    case 502:
    case 503:
    case 504:
      return ErrorCode::kUnavailable;
    default:
      return status >= 400 && status < 500 ? ErrorCode::kInvalidInput : ErrorCode::kInternal;
  }
}

Response ProblemResponse(const Error& error) {
  return ProblemResponse(StatusOf(error.code()), error);
}

Response ProblemResponse(int status, const Error& error) {
  const std::string code(ErrorCodeName(error.code()));
  const nlohmann::ordered_json problem = {{"type", "urn:vallum:problem:" + code},
                                          {"title", StatusTitle(status)},
                                          {"status", status},
                                          {"code", code},
                                          {"detail", error.Describe()},
                                          {"fix", error.fix()}};
  Response response;
  response.status = status;
  response.headers.Set("Content-Type", "application/problem+json");
  // Details may quote bytes of a request that are no UTF-8.
  response.body = problem.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  return response;
}

Error ErrorFromProblem(int status, std::string_view body) {
  const nlohmann::json problem =
      nlohmann::json::parse(body.substr(0, kMaxProblemBytes), nullptr, false);
  if (!problem.is_object()) {
    return Error(CodeOf(status), "the server answered " + std::to_string(status) + " " +
                                     std::string(StatusTitle(status)));
  }
  const ErrorCode code = ErrorCodeFromName(StringMember(problem, "code")).value_or(CodeOf(status));
  std::string detail = StringMember(problem, "detail");
  if (detail.empty()) detail = StringMember(problem, "title");
  return Error(code, std::move(detail)).WithFix(StringMember(problem, "fix"));
}

std::string PercentEncode(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      out.push_back(c);
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out.push_back('%');
      out.push_back(kDigits[byte >> 4U]);
      out.push_back(kDigits[byte & 15U]);
    }
  }
  return out;
}

Result<std::string> PercentDecode(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '%') {
      const int high = i + 2 < text.size() ? HexDigit(text[i + 1]) : -1;
      const int low = i + 2 < text.size() ? HexDigit(text[i + 2]) : -1;
      if (high < 0 || low < 0)
        return InvalidInput("bad percent escape in '" + Printable(text) + "'");
      c = static_cast<char>(high * 16 + low);
      i += 2;
    }
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      return InvalidInput("control character in '" + Printable(text) + "'");
    }
    out.push_back(c);
  }
  return out;
}

Result<Values> ParseQuery(std::string_view query) {
  Values values;
  size_t begin = 0;
  size_t count = 0;
  while (begin <= query.size() && !query.empty()) {
    const size_t end = std::min(query.find('&', begin), query.size());
    const std::string_view part = query.substr(begin, end - begin);
    begin = end + 1;
    if (part.empty()) continue;
    if (++count > kMaxQueryParameters) return InvalidInput("more than 64 query parameters");
    const size_t equals = part.find('=');
    ASSIGN_OR_RETURN(std::string name, PercentDecode(part.substr(0, equals)));
    std::string value;
    if (equals != std::string_view::npos) {
      std::string raw(part.substr(equals + 1));
      std::replace(raw.begin(), raw.end(), '+', ' ');
      ASSIGN_OR_RETURN(value, PercentDecode(raw));
    }
    if (!values.emplace(name, std::move(value)).second) {
      return InvalidInput("query parameter '" + Printable(name) + "' is given twice");
    }
  }
  return values;
}

}  // namespace vallum::http
