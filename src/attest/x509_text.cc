// SPDX-License-Identifier: Apache-2.0
#include "attest/x509_text.h"

#include <fmt/format.h>
#include <openssl/err.h>

#include <algorithm>

#include "attest/openssl.h"
#include "base/check.h"
#include "base/text.h"

namespace vallum::attest {
namespace {

constexpr size_t kMaxNameText = 1024;

}  // namespace

std::string NameText(const X509_NAME* name) {
  const BioPtr out(BIO_new(BIO_s_mem()));
  CHECK(out != nullptr);
  if (X509_NAME_print_ex(out.get(), name, 0, XN_FLAG_RFC2253) < 0) {
    ERR_clear_error();
    return "";
  }
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  if (size <= 0) {
    return "";
  }
  return Printable(std::string_view(data, static_cast<size_t>(size)), kMaxNameText);
}

std::string TimeText(std::chrono::sys_seconds time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", static_cast<int>(date.year()),
                     static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                     clock.hours().count(), clock.minutes().count(), clock.seconds().count());
}

Result<std::string> SerialText(const ASN1_INTEGER* serial) {
  const BignumPtr number(ASN1_INTEGER_to_BN(serial, nullptr));
  char* text = number == nullptr ? nullptr : BN_bn2hex(number.get());
  if (text == nullptr) {
    ERR_clear_error();
    return InvalidInput("the certificate has an unreadable serial number");
  }
  std::string hex = ToLower(text);
  OPENSSL_free(text);
  const bool negative = hex.starts_with('-');
  hex.erase(0, negative ? 1 : 0);
  hex.erase(0, std::min(hex.find_first_not_of('0'), hex.size() - 1));
  return (negative ? "-" : "") + hex;
}

}  // namespace vallum::attest
