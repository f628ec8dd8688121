// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"

#include <cerrno>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace vallum {

std::string_view ErrorCodeName(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidInput:
      return "invalid_input";
    case ErrorCode::kNotFound:
      return "not_found";
    case ErrorCode::kConflict:
      return "conflict";
    case ErrorCode::kDenied:
      return "denied";
    case ErrorCode::kUnavailable:
      return "unavailable";
    case ErrorCode::kCorrupt:
      return "corrupt";
    case ErrorCode::kExhausted:
      return "exhausted";
    case ErrorCode::kInternal:
      return "internal";
  }
  return "internal";
}

std::optional<ErrorCode> ErrorCodeFromName(std::string_view name) {
  for (const ErrorCode code : {ErrorCode::kInvalidInput, ErrorCode::kNotFound, ErrorCode::kConflict,
                               ErrorCode::kDenied, ErrorCode::kUnavailable, ErrorCode::kCorrupt,
                               ErrorCode::kExhausted, ErrorCode::kInternal}) {
    if (ErrorCodeName(code) == name) return code;
  }
  return std::nullopt;
}

Error::Error(ErrorCode code, std::string message, const char* file, int line)
    : code_(code), message_(std::move(message)), file_(file), line_(line) {}

Error&& Error::WithFix(std::string fix) && {
  fix_ = std::move(fix);
  return std::move(*this);
}

Error&& Error::Context(std::string line) && {
  context_.push_back(std::move(line));
  return std::move(*this);
}

std::string Error::Describe() const {
  std::string out;
  for (auto it = context_.rbegin(); it != context_.rend(); ++it) {
    out += *it;
    out += ": ";
  }
  return out + message_;
}

std::string Error::DebugString() const {
  return std::string(ErrorCodeName(code_)) + ": " + Describe() + " (" + file_ + ":" +
         std::to_string(line_) + ")";
}

Error InvalidInput(std::string message, const char* file, int line) {
  return {ErrorCode::kInvalidInput, std::move(message), file, line};
}
Error NotFound(std::string message, const char* file, int line) {
  return {ErrorCode::kNotFound, std::move(message), file, line};
}
Error Conflict(std::string message, const char* file, int line) {
  return {ErrorCode::kConflict, std::move(message), file, line};
}
Error Denied(std::string message, const char* file, int line) {
  return {ErrorCode::kDenied, std::move(message), file, line};
}
Error Unavailable(std::string message, const char* file, int line) {
  return {ErrorCode::kUnavailable, std::move(message), file, line};
}
Error Corrupt(std::string message, const char* file, int line) {
  return {ErrorCode::kCorrupt, std::move(message), file, line};
}
Error Exhausted(std::string message, const char* file, int line) {
  return {ErrorCode::kExhausted, std::move(message), file, line};
}
Error Internal(std::string message, const char* file, int line) {
  return {ErrorCode::kInternal, std::move(message), file, line};
}

namespace {

ErrorCode CodeOfErrno(int value) {
  switch (value) {
    case ENOENT:
      return ErrorCode::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return ErrorCode::kDenied;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return ErrorCode::kExhausted;
    case EEXIST:
    case EBUSY:
      return ErrorCode::kConflict;
    case EAGAIN:
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case ETIMEDOUT:
      return ErrorCode::kUnavailable;
    default:
      return ErrorCode::kInternal;
  }
}

}  // namespace

Error ErrnoError(int errno_value, std::string_view what, const char* file, int line) {
  return {CodeOfErrno(errno_value),
          std::string(what) + ": " + std::generic_category().message(errno_value), file, line};
}

}  // namespace vallum
