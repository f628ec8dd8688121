// SPDX-License-Identifier: Apache-2.0
#include "formats/bounded_json.h"

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/result.h"
#include "base/text.h"

namespace vallum::formats {
namespace {

using Json = nlohmann::json;

// Counts and keeps nothing but the names of the objects that are open. Its functions are named as
// the library wants them; false ends the parse.
class Limiter final : public Json::json_sax_t {
 public:
  explicit Limiter(JsonLimits limits) : limits_(limits) {}
  const std::string& reason() const { return reason_; }

  bool null() override { return Value(); }
  bool boolean(bool /*value*/) override { return Value(); }
  bool number_integer(number_integer_t /*value*/) override { return Value(); }
  bool number_unsigned(number_unsigned_t /*value*/) override { return Value(); }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { return Value(); }
  bool string(string_t& /*value*/) override { return Value(); }
  bool binary(binary_t& /*value*/) override { return Value(); }
  bool start_object(size_t /*elements*/) override { return Open(); }
  bool start_array(size_t /*elements*/) override { return Open(); }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (names_.back().insert(name).second) return true;
    return Fail(fmt::format("the name \"{}\" occurs twice in an object", Printable(name, 40)));
  }
  bool parse_error(size_t position, const std::string& /*token*/,
                   const Json::exception& /*error*/) override {
    return Fail(fmt::format("it is not valid at byte {}", position));
  }

 private:
  bool Fail(std::string reason) {
    reason_ = std::move(reason);
    return false;
  }
  bool Value() {
    if (++values_ <= limits_.values) return true;
    return Fail(fmt::format("it has more than {} values", limits_.values));
  }
  bool Open() {
    names_.emplace_back();
    if (names_.size() > limits_.depth) {
      return Fail(fmt::format("it is nested deeper than {} levels", limits_.depth));
    }
    return Value();
  }
  bool Close() {
    names_.pop_back();
    return true;
  }

  JsonLimits limits_;
  size_t values_ = 0;
  std::vector<std::set<std::string>> names_;
  std::string reason_;
};

}  // namespace

Result<Json> ParseBoundedJson(std::string_view text, JsonLimits limits) {
  Limiter limiter(limits);
  if (!Json::sax_parse(text, &limiter)) return InvalidInput("JSON: " + limiter.reason());
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

}  // namespace vallum::formats
