// SPDX-License-Identifier: Apache-2.0
#include "controller/deletion.h"

#include <string>

#include "base/error.h"

namespace vallum::controller {
namespace {

constexpr int kDeleteAttempts = 10;

}  // namespace

Result<store::Revision> DeleteUnused(ResourceStore& resources, const View& view, Kind kind,
                                     const std::string& name, store::Revision if_match) {
  for (int attempt = 0; attempt < kDeleteAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const store::ReadResult used,
                     resources.raw().Read({.range = store::KeyRange::Single(UseKey(kind, name))}));
    RETURN_IF_ERROR(view.WaitFor(used.revision));
    ASSIGN_OR_RETURN(const auto current, resources.GetAny(kind, name));
    const store::Revision revision = MetadataOf(*current).revision();
    if (if_match != 0 && if_match != revision) {
      return Conflict(std::string(KindName(kind)) + " " + name + " was changed by someone else")
          .WithFix("read it again");
    }
    RETURN_IF_ERROR(CheckUnused(view, kind, *current));
    store::Txn txn;
    const store::Revision use = used.items.empty() ? 0 : used.items.front().mod_revision;
    txn.compares = {{.key = KeyOf(kind, name), .mod_revision = revision},
                    {.key = UseKey(kind, name), .mod_revision = use}};
    txn.writes = {store::Write::Delete(KeyOf(kind, name)),
                  store::Write::Delete(UseKey(kind, name))};
    ASSIGN_OR_RETURN(const store::TxnResult done, resources.raw().Commit(txn));
    if (done.succeeded) return done.revision;
  }
  return Conflict(std::string(KindName(kind)) + " " + name + " changes too often")
      .WithFix("try again");
}

}  // namespace vallum::controller
