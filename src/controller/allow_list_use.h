// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <set>
#include <string>

#include "controller/view.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// The SHA-256, hex, of the allow list that a version's document names. Empty: none.
std::string AllowListOf(const v1::AttestationPolicyVersion& version);

// The SHA-256 of all that allow lists hold, or that policies judge or may judge by.
std::set<std::string> AllowListsInUse(const View& view);

// "version 3 of attestation policy gold": that judges, or may judge, by an allow list with this
// SHA-256. Empty: none.
std::string UserOfAllowList(const View& view, const std::string& digest);

}  // namespace vallum::controller
