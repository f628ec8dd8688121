// SPDX-License-Identifier: Apache-2.0
#include "controller/verdict_words.h"

#include <string>

namespace vallum::controller {

std::string VerdictWord(v1::BootVerdict verdict) {
  const std::string name = v1::BootVerdict_Name(verdict);
  return name.substr(name.find('_') + 1);
}

}  // namespace vallum::controller
