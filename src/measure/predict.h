// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/digest.h"
#include "base/result.h"
#include "firmware/variable_store.h"
#include "measure/boot_chain.h"
#include "measure/prediction.h"

namespace vallum::measure {

// Predicts what a boot extends into PCR 4, 5, 7, 8, 9, 11, 12, 13 and 14 until its kernel runs, and
// into 0, 1, 2, 3 and 6 when the input says what platform it is, from what is on the disk and in
// the firmware alone; see docs/boot-measurement.md for the events, for the versions of programs
// that this is known of, and for what makes a PCR partial or unknown.
//   bank: any; a digest that the input lacks in it makes the PCR partial.
//   store: the variables as they are when the machine starts.
// Errors: kInvalidInput (an empty chain); kCorrupt (a key variable of the store does not parse).
Result<Prediction> PredictBoot(HashAlgorithm bank, const firmware::VariableStore& store,
                               const BootInput& input);

}  // namespace vallum::measure
