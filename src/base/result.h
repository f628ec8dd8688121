// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

#include "base/error.h"

namespace vallum {

// A value or an Error. Derives from tl::expected only to be [[nodiscard]], which Debian's is not.
template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
  Result() = default;
  Result(Error error)
      : tl::expected<T, Error>(tl::unexpect, std::move(error)) {
  }  // NOLINT(google-explicit-constructor): `return InvalidInput(...)`
};

template <>
class [[nodiscard]] Result<void> : public tl::expected<void, Error> {
 public:
  using tl::expected<void, Error>::expected;
  Result() = default;
  Result(Error error)
      : tl::expected<void, Error>(tl::unexpect, std::move(error)) {
  }  // NOLINT(google-explicit-constructor): see above
};

inline Result<void> Ok() { return {}; }

namespace internal {

// Carries an error out of RETURN_IF_ERROR and ASSIGN_OR_RETURN, with an optional context line.
class ErrorReturn {
 public:
  explicit ErrorReturn(Error error) : error_(std::move(error)) {}
  ErrorReturn&& context(std::string line) && {
    static_cast<void>(std::move(error_).Context(std::move(line)));  // adds in place
    return std::move(*this);
  }
  template <typename T>
  operator Result<T>() && {  // NOLINT(google-explicit-constructor): used as `return
                             // ErrorReturn(...)`
    return Result<T>(std::move(error_));
  }

 private:
  Error error_;
};

}  // namespace internal
}  // namespace vallum

#define VALLUM_CONCAT_INNER(a, b) a##b
#define VALLUM_CONCAT(a, b) VALLUM_CONCAT_INNER(a, b)

// Returns the error of a Result<...> from the enclosing function; may be followed by
// .context("while ...").
#define RETURN_IF_ERROR(expr)                                     \
  if (auto&& vallum_result = (expr); vallum_result.has_value()) { \
  } else /* NOLINT */                                             \
    return ::vallum::internal::ErrorReturn(std::move(vallum_result).error())

// Declares `decl` with the value of a Result<...>, or returns its error.
#define ASSIGN_OR_RETURN(decl, expr) \
  VALLUM_ASSIGN_OR_RETURN(VALLUM_CONCAT(vallum_result_, __LINE__), decl, expr, )

// The same, adding a line that says what was being done: ASSIGN_OR_RETURN_CONTEXT(auto x, Read(f),
// "reading " + f).
#define ASSIGN_OR_RETURN_CONTEXT(decl, expr, line) \
  VALLUM_ASSIGN_OR_RETURN(VALLUM_CONCAT(vallum_result_, __LINE__), decl, expr, .context(line))

#define VALLUM_ASSIGN_OR_RETURN(result, decl, expr, suffix)                   \
  auto result = (expr);                                                       \
  if (!result.has_value()) {                                                  \
    return ::vallum::internal::ErrorReturn(std::move(result).error()) suffix; \
  }                                                                           \
  decl = *std::move(result)
