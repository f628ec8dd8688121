// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace vallum::vm {

// What cloud-init's NoCloud data source is told.
struct SeedSpec {
  std::string instance_id;
  std::string hostname;
  std::string user_data;              // as given; empty: made from ssh_keys
  std::vector<std::string> ssh_keys;  // one authorized_keys line each
  std::string network_config;         // version 2 YAML; empty: not written
};

// Makes the seed: an ISO 9660 image labelled "cidata" with meta-data, user-data and, when given,
// network-config. The same spec gives the same bytes.
// Errors: kInvalidInput (a key or hostname with control characters, more than 1 MiB of data).
// Pure; thread-safe.
Result<Bytes> MakeNoCloudSeed(const SeedSpec& spec);

}  // namespace vallum::vm
