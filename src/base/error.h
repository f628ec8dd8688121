// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace vallum {

// What the caller can do about an error. Closed on purpose: domain reasons are enums of their own.
enum class ErrorCode {
  kInvalidInput,  // the request or the data is wrong; change it
  kNotFound,      // the named thing does not exist
  kConflict,      // it changed meanwhile, or exists already; read again
  kDenied,        // the caller may not do this
  kUnavailable,   // try again later
  kCorrupt,       // stored data contradicts itself
  kExhausted,     // a limit or a quota is reached
  kInternal,      // a bug in Vallum
};

// "invalid_input", "not_found", ...: the `code` member of problem+json and of log lines.
std::string_view ErrorCodeName(ErrorCode code);
// Back again; nothing for a name that no code has.
std::optional<ErrorCode> ErrorCodeFromName(std::string_view name);

// An error: what the caller can do (code), what happened (message), what to do about it (fix, may
// be empty), where it was made, and one context line for each layer that passed it on.
class Error {
 public:
  Error(ErrorCode code, std::string message, const char* file = __builtin_FILE(),
        int line = __builtin_LINE());

  ErrorCode code() const { return code_; }
  const std::string& message() const { return message_; }
  const std::string& fix() const { return fix_; }

  // Sets the sentence that tells the user what to do.
  Error&& WithFix(std::string fix) &&;
  // Adds a line that says what was being done; the outermost is added last.
  Error&& Context(std::string line) &&;

  // "while importing x: while reading y: message", for people.
  std::string Describe() const;
  // Describe() with the code and the place in the source, for logs.
  std::string DebugString() const;

 private:
  ErrorCode code_;
  std::string message_;
  std::string fix_;
  std::vector<std::string> context_;
  const char* file_;
  int line_;
};

// Each takes the place of the caller; see ErrorCode for when to use which.
Error InvalidInput(std::string message, const char* file = __builtin_FILE(),
                   int line = __builtin_LINE());
Error NotFound(std::string message, const char* file = __builtin_FILE(),
               int line = __builtin_LINE());
Error Conflict(std::string message, const char* file = __builtin_FILE(),
               int line = __builtin_LINE());
Error Denied(std::string message, const char* file = __builtin_FILE(), int line = __builtin_LINE());
Error Unavailable(std::string message, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE());
Error Corrupt(std::string message, const char* file = __builtin_FILE(),
              int line = __builtin_LINE());
Error Exhausted(std::string message, const char* file = __builtin_FILE(),
                int line = __builtin_LINE());
Error Internal(std::string message, const char* file = __builtin_FILE(),
               int line = __builtin_LINE());

// Makes an error from an errno value: ENOENT is kNotFound, EACCES and EPERM kDenied, ENOSPC and
// EMFILE kExhausted, EEXIST kConflict, EAGAIN and ECONNREFUSED kUnavailable, the rest kInternal.
//   what: the call and its object, such as "open /var/lib/x".
Error ErrnoError(int errno_value, std::string_view what, const char* file = __builtin_FILE(),
                 int line = __builtin_LINE());

}  // namespace vallum
