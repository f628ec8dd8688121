// SPDX-License-Identifier: Apache-2.0
#include "measure/pcr_selection.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <system_error>
#include <utility>

#include "base/text.h"
#include "measure/extend_log.h"

namespace vallum::measure {
namespace {

Result<PcrIndex> ParsePcr(const std::string& text) {
  uint32_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || stopped != end || number >= PcrIndex::kCount) {
    return InvalidInput("'" + Printable(text, 40) + "' is no PCR")
        .WithFix("name PCRs by numbers from 0 to 23");
  }
  return PcrIndex::Create(number);
}

Result<BankSelection> ParseBankSelection(const std::string& text) {
  const size_t colon = text.find(':');
  if (colon == std::string::npos) {
    return InvalidInput("'" + Printable(text, 80) + "' is no PCR selection")
        .WithFix("write bank:number,number,... such as sha256:0,1,7");
  }
  BankSelection selection;
  ASSIGN_OR_RETURN(selection.bank, ParseBankName(text.substr(0, colon)));
  std::set<PcrIndex> seen;
  for (const std::string& item : Split(text.substr(colon + 1), ',')) {
    ASSIGN_OR_RETURN(const PcrIndex pcr, ParsePcr(item));
    if (!seen.insert(pcr).second) {
      return InvalidInput("PCR " + std::to_string(pcr.value()) + " is selected twice");
    }
  }
  selection.pcrs.assign(seen.begin(), seen.end());
  return selection;
}

}  // namespace

Result<std::vector<BankSelection>> ParsePcrSelections(std::string_view text) {
  std::vector<BankSelection> selections;
  for (const std::string& part : Split(text, '+')) {
    ASSIGN_OR_RETURN(BankSelection selection, ParseBankSelection(part));
    if (std::ranges::find(selections, selection.bank, &BankSelection::bank) != selections.end()) {
      return InvalidInput("bank " + std::string(HashAlgorithmName(selection.bank)) +
                          " is selected twice");
    }
    selections.push_back(std::move(selection));
  }
  return selections;
}

std::string FormatPcrSelections(const std::vector<BankSelection>& selections) {
  std::string text;
  for (const BankSelection& selection : selections) {
    text += (text.empty() ? "" : "+") + std::string(HashAlgorithmName(selection.bank));
    char separator = ':';
    for (const PcrIndex pcr : selection.pcrs) {
      text += separator + std::to_string(pcr.value());
      separator = ',';
    }
  }
  return text;
}

}  // namespace vallum::measure
