// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/units.h"
#include "http/message.h"

namespace vallum::http {

// Takes the body of one upload. Called on pool threads, one call at a time, and may block: the
// client is held back meanwhile. Destroyed without Finish when the upload broke off.
class UploadSink {
 public:
  virtual ~UploadSink() = default;
  // On an error the upload ends and the error is the answer.
  virtual Result<void> Write(ByteView chunk) = 0;
  // After the last byte.
  virtual Response Finish() = 0;
};

// Answers a request; runs on a pool thread and may block.
using Handler = std::function<Response(const Request&)>;
// Decides on an upload before its body is read: an answer (refusal), or where the body goes.
// Request::headers has content-length when the client gave one.
using UploadHandler =
    std::function<std::variant<Response, std::unique_ptr<UploadSink>>(const Request&)>;

inline constexpr ByteCount kDefaultBodyLimit = ByteCount::MiB(1);

struct Route {
  Method method = Method::kGet;
  std::string pattern;
  ByteCount body_limit = kDefaultBodyLimit;  // of a body that is kept in memory
  Handler handler;
  UploadHandler upload;  // instead of handler
};

// Finds the route of a request. Filled before the server starts, read only afterwards.
class Router {
 public:
  // pattern: "/v1/instances/{name}/start": literal segments and parameters that match one non-empty
  // segment each. A literal wins over a parameter. The same pattern twice is a bug.
  void Add(Method method, std::string pattern, Handler handler,
           ByteCount body_limit = kDefaultBodyLimit);
  void AddUpload(Method method, std::string pattern, UploadHandler handler);

  struct Match {
    const Route* route = nullptr;
    Values params;
  };
  // Finds the route; HEAD falls back on GET.
  // Errors: kNotFound (no such path; *allowed stays empty), kInvalidInput (bad escape);
  // kDenied with a non-empty *allowed: the path exists with these methods only (405).
  Result<Match> Find(Method method, std::string_view path, std::string* allowed) const;

  const std::vector<std::unique_ptr<Route>>& routes() const { return routes_; }

 private:
  void Insert(Route route);
  std::vector<std::unique_ptr<Route>> routes_;
  std::vector<std::vector<std::string>> segments_;  // of routes_, by index
};

}  // namespace vallum::http
