// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "firmware/key_set.h"
#include "images/boot_prediction.h"

namespace vallum::images {

inline constexpr size_t kMaxRequestKeySets = 16;

// What an inspection is asked beside what the image is.
struct InspectionRequest {
  std::vector<firmware::KeySet> key_sets;  // the boot chain is judged under each; see preflight.h
  std::optional<PredictionRequest> prediction;  // of the PCRs of a boot
};

// One JSON object, for a process of its own.
std::string RequestToJson(const InspectionRequest& request);
// The inverse; no text at all is an empty request.
// Errors: kInvalidInput (not what RequestToJson writes), kExhausted (too many key sets).
Result<InspectionRequest> RequestFromJson(std::string_view json);

}  // namespace vallum::images
