// SPDX-License-Identifier: Apache-2.0
#include "formats/luks_test_support.h"

#include <nlohmann/json.hpp>

namespace vallum::formats::testing {

nlohmann::json ValidLuks2Metadata() {
  return nlohmann::json::parse(R"({
    "keyslots": {
      "0": {"type": "luks2", "key_size": 32, "priority": 1,
            "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
            "area": {"type": "raw", "offset": "32768", "size": "131072",
                     "encryption": "aes-xts-plain64", "key_size": 32},
            "kdf": {"type": "pbkdf2", "hash": "sha256", "iterations": 1000, "salt": "AAECAw=="}},
      "1": {"type": "luks2", "key_size": 32,
            "af": {"type": "luks1", "stripes": 4000, "hash": "sha256"},
            "area": {"type": "raw", "offset": "163840", "size": "131072",
                     "encryption": "aes-xts-plain64", "key_size": 64},
            "kdf": {"type": "argon2id", "time": 4, "memory": 1048576, "cpus": 4,
                    "salt": "AAECAw=="}}},
    "tokens": {"0": {"type": "luks2-keyring", "keyslots": ["1"], "key_description": "x"}},
    "segments": {"0": {"type": "crypt", "offset": "294912", "size": "dynamic", "iv_tweak": "0",
                       "encryption": "aes-xts-plain64", "sector_size": 512}},
    "digests": {"0": {"type": "pbkdf2", "keyslots": ["0", "1"], "segments": ["0"],
                      "hash": "sha256", "iterations": 1000, "salt": "AAECAw==",
                      "digest": "AAECAw=="}},
    "config": {"json_size": "12288", "keyslots_size": "262144"}})");
}

}  // namespace vallum::formats::testing
