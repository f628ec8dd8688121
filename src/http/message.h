// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace vallum::http {

class EventStream;
class WebSocket;

enum class Method { kGet, kHead, kPost, kPut, kPatch, kDelete };
std::string_view MethodName(Method method);

// Header fields in order of arrival; names compare without case. A value.
class Headers {
 public:
  // The first field of that name.
  std::optional<std::string> Get(std::string_view name) const;
  // Replaces every field of that name.
  void Set(std::string_view name, std::string_view value);
  void Add(std::string_view name, std::string_view value);
  void Remove(std::string_view name);
  const std::vector<std::pair<std::string, std::string>>& items() const { return items_; }

 private:
  std::vector<std::pair<std::string, std::string>> items_;
};

using Values = std::map<std::string, std::string, std::less<>>;

// Where a request comes from.
struct Peer {
  std::string address;  // "127.0.0.1", "::1"
  uint16_t port = 0;
};

// A request as handlers see it. All text is untrusted; path parameters and query are
// percent-decoded, free of control characters, and a query parameter occurs once.
struct Request {
  Method method = Method::kGet;
  std::string path;  // as sent, without the query
  Values params;     // "{name}" of the route's pattern
  Values query;
  Headers headers;
  std::string body;  // empty for uploads
  Peer peer;

  std::optional<std::string> Param(std::string_view name) const;
  std::optional<std::string> Query(std::string_view name) const;
};

// What a handler answers. If `events` or `web_socket` is set, status and body are not used: the
// server sends the header of the stream and then calls it, on a pool thread, with the open stream;
// it hands the stream on and returns.
struct Response {
  int status = 200;
  Headers headers;
  std::string body;
  std::function<void(std::shared_ptr<EventStream>)> events;
  std::function<void(std::shared_ptr<WebSocket>)> web_socket;

  static Response Json(int status, std::string body);
  static Response Text(int status, std::string body);
  static Response Events(std::function<void(std::shared_ptr<EventStream>)> start);
  static Response Upgrade(std::function<void(std::shared_ptr<WebSocket>)> start);
};

// The HTTP status of an error code: the one place of this mapping.
int StatusOf(ErrorCode code);
// What RFC 9110 calls a status: "Not Found".
std::string_view StatusTitle(int status);
// The error code that stands for a status of 400 and up.
ErrorCode CodeOf(int status);

// RFC 9457: {"type","title","status","code","detail","fix"} as application/problem+json.
Response ProblemResponse(const Error& error);
// The same with a status that no error code stands for, such as 405 or 413.
Response ProblemResponse(int status, const Error& error);
// Reads a problem document back; any other body gives an error made from the status alone.
//   body: untrusted; at most the first 64 KiB are looked at.
Error ErrorFromProblem(int status, std::string_view body);

// Percent-encodes everything but RFC 3986 unreserved characters.
std::string PercentEncode(std::string_view text);
// Errors: kInvalidInput (bad escape, control character in the result).
Result<std::string> PercentDecode(std::string_view text);
// "a=b&c=d". Errors: kInvalidInput (bad escape, a name given twice, more than 64 parameters).
Result<Values> ParseQuery(std::string_view query);

}  // namespace vallum::http
