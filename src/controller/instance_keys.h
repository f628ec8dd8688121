// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "base/result.h"
#include "controller/view.h"
#include "firmware/key_set.h"
#include "vallum/v1/resources.pb.h"

// Which keys the firmware of an instance holds.
namespace vallum::controller {

// Chooses key set and version of an instance that is created or changed, and writes them into its
// spec: what spec.key_set names (one that the instance's tenant may see), else "microsoft" with
// SECURE and "none" with LEGACY; spec.key_set_version, or the newest for 0. With BIOS there is
// none.
//   boot: resolved.
// Errors: kNotFound (no such key set or version, also as os_secure_boot_signature), kInvalidInput
// (BIOS with a key set, SECURE with one that has no platform key, LEGACY with one that has).
Result<void> ResolveKeySet(const View& view, const v1::BootRequested& boot, v1::Instance& instance);

// Whether a spec names no key set, or one that the tenant may see in a version that there is.
// Errors: kNotFound, kInvalidInput (a version without a key set).
Result<void> CheckKeySet(const View& view, const std::string& tenant, const v1::InstanceSpec& spec);

// What the variable store of the instance shall hold: its key set, and in db also what
// os_secure_boot_signature says. An instance without a key set: nothing.
// Errors: kNotFound (the key set or its version is gone).
Result<v1::KeySetContent> ContentFor(const View& view, const v1::Instance& instance);
// The same as firmware reads it; named as the key set. Errors: as above, those of ParseContent.
Result<firmware::KeySet> KeysFor(const View& view, const v1::Instance& instance);

// Whether firmware with some keys starts an image.
struct PreflightVerdict {
  bool starts = true;
  std::string reason;  // why not
};
// Judges the boot chain of an image. Errors: it cannot be judged.
using Preflight =
    std::function<Result<PreflightVerdict>(const v1::Image&, const firmware::KeySet&)>;

// Why the image would not start with the keys of the instance, in words; empty: it would, or
// nothing is verified. What cannot be judged does not start.
//   judge: asked when no report of the image is about these keys.
std::string WhyUnbootable(const View& view, const v1::Instance& instance, const Preflight& judge);

}  // namespace vallum::controller
