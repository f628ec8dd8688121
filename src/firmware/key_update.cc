// SPDX-License-Identifier: Apache-2.0
#include "firmware/key_update.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "firmware/guid.h"
#include "firmware/sbat.h"

namespace vallum::firmware {
namespace {

Result<KeyUpdate> FromSbatLevel(ByteView file) {
  ASSIGN_OR_RETURN(const SbatLevel level, ParseSbatLevel(AsText(file)));
  KeyUpdate update;
  update.sbat_level = std::string(AsText(file));
  update.description =
      fmt::format("SBAT level {} with {} components", level.datestamp, level.revocations.size());
  return update;
}

Result<KeyUpdate> FromAuthFile(AuthFile auth) {
  KeyUpdate update;
  update.dbx = auth.signatures;
  update.description =
      fmt::format("dbx update of {} with {} entries", auth.time.ToString(), update.dbx.size());
  update.auth = std::move(auth);
  return update;
}

}  // namespace

Result<KeyUpdate> ParseKeyUpdate(ByteView file) {
  if (AsText(file).starts_with("sbat,")) return FromSbatLevel(file);
  Result<AuthFile> auth = ParseAuthFile(file);
  Result<KeyUpdate> update = InvalidInput("no update");
  if (auth.has_value()) {
    update = FromAuthFile(*std::move(auth));
  } else if (const auto lists = ParseSignatureLists(file); lists.has_value()) {
    update = KeyUpdate{.description = fmt::format("{} entries for dbx, not signed", lists->size()),
                       .dbx = *lists,
                       .sbat_level = {},
                       .auth = {}};
  } else {
    return InvalidInput("this is no update of dbx and no SBAT level: " + auth.error().Describe())
        .WithFix("give a dbx update (.auth, signature lists) or an SBAT level in CSV");
  }
  if (update->dbx.empty()) return InvalidInput("the update has no entries");
  return update;
}

KeySet ApplyKeyUpdate(const KeySet& keys, const KeyUpdate& update) {
  KeySet out = keys;
  for (const Signature& entry : update.dbx) {
    const bool known = std::ranges::any_of(out.dbx, [&](const Signature& have) {
      return have.type_guid == entry.type_guid && have.data == entry.data;
    });
    if (!known) out.dbx.push_back(entry);
  }
  if (update.sbat_level.empty()) return out;
  const Result<SbatLevel> before = ParseSbatLevel(keys.sbat_level);
  const Result<SbatLevel> after = ParseSbatLevel(update.sbat_level);
  if (!before.has_value() || (after.has_value() && after->datestamp > before->datestamp)) {
    out.sbat_level = update.sbat_level;
  }
  return out;
}

std::string DescribeUpdateSigner(const KeySet& keys, const KeyUpdate& update) {
  if (!update.auth.has_value()) return {};
  const Result<Signature> signer =
      VerifyAuthFile(*update.auth,
                     {.name = "dbx",
                      .vendor = kSecurityDatabaseGuid,
                      .attributes = kKeyVariableAttributes | kAppendWrite},
                     keys);
  if (signer.has_value()) return "signed by " + DescribeSignature(*signer);
  return "firmware with key set " + keys.name + " would refuse it: " + signer.error().Describe();
}

}  // namespace vallum::firmware
