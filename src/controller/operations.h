// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/result.h"
#include "controller/resource_store.h"
#include "controller/view.h"

namespace vallum::controller {

// How a long piece of work is doing, as a resource. Thread-safe; writes block on the store.
class Operations {
 public:
  explicit Operations(ResourceStore& resources) : resources_(resources) {}

  struct Target {
    Kind kind = Kind::kInstance;
    std::string name;
    std::string uid = {};
    int64_t generation = 0;
    std::string tenant = {};
  };
  // A running operation that is not stored yet, for a Txn that also changes the target.
  //   kind: "instance.create", ...; user: Principal::name.
  v1::Operation Make(std::string_view kind, const Target& target, std::string_view user) const;
  // Make() and store. Errors: the store's.
  Result<v1::Operation> Create(std::string_view kind, const Target& target, std::string_view user);
  // Nothing happens to an operation that has ended. Errors: kNotFound, and the store's.
  Result<void> Progress(std::string_view name, int percent, std::string_view message);
  Result<void> Finish(std::string_view name, std::string_view message);
  Result<void> Fail(std::string_view name, const Error& error);
  // Deletes operations that ended longer ago than `age`. Returns how many.
  Result<int> CollectGarbage(const View& view, std::chrono::seconds age);

 private:
  ResourceStore& resources_;
};

}  // namespace vallum::controller
