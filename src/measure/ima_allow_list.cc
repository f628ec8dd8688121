// SPDX-License-Identifier: Apache-2.0
#include "measure/ima_allow_list.h"

#include <fmt/format.h>
#include <re2/re2.h>
#include <re2/set.h>

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace vallum::measure {
namespace {

constexpr int64_t kAutomatonBytes = int64_t{8} << 20U;

RE2::Options ExcludeOptions() {
  RE2::Options options;
  options.set_log_errors(false);
  // Paths are bytes, of whatever encoding.
  options.set_encoding(RE2::Options::EncodingLatin1);
  options.set_max_mem(kAutomatonBytes);
  options.set_never_capture(true);
  return options;
}

}  // namespace

// One automaton for all of them: a path is read once, however many excludes there are.
class ImaExcludes {
 public:
  ImaExcludes() : automaton_(ExcludeOptions(), RE2::ANCHOR_START) {}

  Result<void> Add(std::string_view pattern) {
    std::string error;
    if (automaton_.Add(re2::StringPiece(pattern.data(), pattern.size()), &error) < 0) {
      return InvalidInput(fmt::format("the exclude '{}': {}", Printable(pattern), Printable(error)))
          .WithFix("write it without back references and look-around");
    }
    ++count_;
    return Ok();
  }
  // To be called once, after the last Add().
  bool Compile() { return count_ == 0 || automaton_.Compile(); }
  size_t count() const { return count_; }
  // An automaton that grows too large says no, so that the path is judged by its digest.
  bool Match(std::string_view path) const {
    return count_ > 0 && automaton_.Match(re2::StringPiece(path.data(), path.size()), nullptr);
  }

 private:
  size_t count_ = 0;
  RE2::Set automaton_;
};

ImaAllowList::ImaAllowList() = default;
ImaAllowList::~ImaAllowList() = default;

bool ImaAllowList::IsExcluded(std::string_view path) const { return excludes_->Match(path); }

size_t ImaAllowList::exclude_count() const { return excludes_->count(); }

bool ImaAllowList::IgnoresKeyring(std::string_view name) const {
  return std::ranges::any_of(
      ignored_keyrings_, [name](const std::string& each) { return each == "*" || each == name; });
}

size_t ImaAllowList::MemoryBytes() const {
  return sizeof *this + files_.MemoryBytes() + keyrings_.MemoryBytes() + buffers_.MemoryBytes();
}

ImaAllowListBuilder::ImaAllowListBuilder() : excludes_(std::make_unique<ImaExcludes>()) {}
ImaAllowListBuilder::~ImaAllowListBuilder() = default;

Result<void> ImaAllowListBuilder::AddKey(ByteView key) {
  RETURN_IF_ERROR(keys_.Add(key)).context("reading a key that signs files");
  return Ok();
}

Result<void> ImaAllowListBuilder::AddExclude(std::string_view pattern) {
  if (pattern.empty() || pattern.size() > kMaxExcludeBytes) {
    return InvalidInput(fmt::format("an exclude of {} bytes; 1 to {} are accepted", pattern.size(),
                                    kMaxExcludeBytes));
  }
  if (excludes_->count() == kMaxExcludes) {
    return Exhausted(fmt::format("more than {} excludes", kMaxExcludes));
  }
  return excludes_->Add(pattern);
}

Result<void> ImaAllowListBuilder::IgnoreKeyring(std::string_view name) {
  if (ignored_keyrings_.size() == kMaxIgnoredKeyrings || name.size() > kMaxImaPath) {
    return Exhausted(fmt::format("more than {} ignored keyrings", kMaxIgnoredKeyrings));
  }
  ignored_keyrings_.emplace_back(name);
  return Ok();
}

Result<SharedImaAllowList> ImaAllowListBuilder::Build() && {
  if (!excludes_->Compile()) {
    return InvalidInput("the excludes together are too large")
        .WithFix("write fewer of them, or simpler ones");
  }
  std::shared_ptr<ImaAllowList> out(new ImaAllowList());
  out->files_ = std::move(files_).Build();
  out->keyrings_ = std::move(keyrings_).Build();
  out->buffers_ = std::move(buffers_).Build();
  out->keys_ = std::move(keys_);
  out->excludes_ = std::move(excludes_);
  out->ignored_keyrings_ = std::move(ignored_keyrings_);
  out->log_hash_ = log_hash_;
  return SharedImaAllowList(std::move(out));
}

}  // namespace vallum::measure
