// SPDX-License-Identifier: Apache-2.0
// Reading, replaying and judging a host's IMA log beside the hashing that a replay cannot do
// without, and an allow list of 100,000 paths.
//   ima_bench [log]   default: the 780 entries of $VALLUM_VECTORS/ima/hpe-ima_log.txt

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/digest.h"
#include "input.h"
#include "measure/bank_hasher.h"
#include "measure/ima_allow_list.h"
#include "measure/ima_assessment.h"
#include "measure/ima_log.h"
#include "measure/ima_replay.h"
#include "measure/ima_template_hash.h"
#include "median.h"

namespace {

namespace measure = vallum::measure;
using measure::ImaLog;
using vallum::Bytes;
using vallum::bench::InputPath;
using vallum::bench::ReadFile;

constexpr int kRounds = 400;
constexpr int kListRounds = 5;
constexpr size_t kPaths = 100'000;
constexpr double kTargetMs = 0.40;  // of the 0.6 ms that a host's whole verification may take
constexpr auto kBank = vallum::HashAlgorithm::kSha256;

template <typename Work>
double MedianMs(Work work) {
  return vallum::bench::MedianMs(kRounds, work);
}

ImaLog Parse(const Bytes& bytes) {
  auto log = ImaLog::Parse(bytes, measure::ImaTemplateHash::kDetect);
  CHECK(log.has_value());
  return *std::move(log);
}

// The entries of the log, and as many other paths as it takes.
std::string MakeList(const ImaLog& log) {
  std::string out;
  size_t lines = 0;
  for (const measure::ImaEntry& entry : log.entries()) {
    out += fmt::format("{}  {}\n", vallum::ToHex(entry.digest.bytes), entry.path);
    ++lines;
  }
  for (; lines < kPaths; ++lines) {
    const auto name =
        fmt::format("/usr/lib/modules/6.1.0-18-amd64/kernel/drivers/net/{}.ko", lines);
    out += fmt::format("{}  {}\n", vallum::ToHex(vallum::Sha256(vallum::AsBytes(name))), name);
  }
  return out;
}

measure::SharedImaAllowList Import(const std::string& text) {
  auto list = measure::ImportDigestList(text);
  CHECK(list.has_value());
  return *std::move(list);
}

// PCR 10 as the log leaves it, by OpenSSL, one hash after the other.
Bytes Hash(const ImaLog& log) {
  measure::BankHasher hasher(kBank, measure::HashBackend::kOpenSsl);
  Bytes value(vallum::DigestSize(kBank));
  for (const measure::ImaEntry& entry : log.entries()) {
    const measure::ImaHashedData data(log, entry);
    const Bytes digest = vallum::ToBytes(hasher.Hash(data.view()));
    hasher.Extend(value, digest);
  }
  return value;
}

void BenchList(const ImaLog& log) {
  const std::string text = MakeList(log);
  const double import =
      vallum::bench::MedianMs(kListRounds, [&] { CHECK(Import(text)->files().names() > 0); });
  const auto list = Import(text);
  // Paths in an order that caches do not foresee.
  std::vector<std::string> paths;
  for (size_t i = 0; i < kPaths; ++i) {
    paths.push_back(
        fmt::format("/usr/lib/modules/6.1.0-18-amd64/kernel/drivers/net/{}.ko", i * 7919 % kPaths));
  }
  const Bytes digest(vallum::DigestSize(kBank));
  const double lookups = vallum::bench::MedianMs(kListRounds, [&] {
    for (const std::string& path : paths) {
      CHECK(list->files().Find(path, digest) != measure::ImaListed::kListed);
    }
  });
  const auto copies = std::vector<measure::SharedImaAllowList>(1000, list);
  std::printf("\n%zu paths, %.1f MB of text\n", list->files().names(),
              static_cast<double>(text.size()) / 1e6);
  std::printf("import                        %.1f ms\n", import);
  std::printf("lookup                        %.0f ns\n", lookups * 1e6 / kPaths);
  std::printf("memory                        %.2f MB, once for %zu hosts\n",
              static_cast<double>(list->MemoryBytes()) / 1e6, copies.size());
}

}  // namespace

int main(int argc, char** argv) {
  const Bytes bytes = ReadFile(InputPath(argc, argv, "ima/hpe-ima_log.txt"));
  if (bytes.empty()) {
    std::printf("ima: skipped, VALLUM_VECTORS is absent and no log was named\n");
    return 0;
  }
  const ImaLog log = Parse(bytes);
  const measure::ImaPcrValue quoted{.bank = kBank, .value = Hash(log)};
  const auto start = measure::StartOfImaReplay(std::array{kBank});
  const auto list = Import(MakeList(log));
  const auto replay = [&](const ImaLog& each) {
    const auto result = measure::ReplayImaLog(each, start, std::array{quoted});
    CHECK(result.has_value() && result->Reached());
  };
  const auto assess = [&](const ImaLog& each) {
    const auto result = measure::AssessImaEntries(
        {.log = each, .proven = each.entries().size(), .list = *list}, {});
    CHECK(result.Accepted());
  };

  const double hashing = MedianMs([&] { CHECK(Hash(log) == quoted.value); });
  const double parse = MedianMs([&] { CHECK(!Parse(bytes).entries().empty()); });
  const double replaying = MedianMs([&] { replay(log); });
  const double hashes =
      MedianMs([&] { CHECK(measure::CheckTemplateHashes(log).agreeing + 1 > 0); });
  const double assessing = MedianMs([&] { assess(log); });
  const double all = MedianMs([&] {
    const ImaLog each = Parse(bytes);
    replay(each);
    assess(each);
  });

  std::printf("%zu entries, %zu bytes, median of %d\n", log.entries().size(), bytes.size(),
              kRounds);
  std::printf("hashing by OpenSSL (reference) %.4f ms\n", hashing);
  std::printf("parse                         %.4f ms\n", parse);
  std::printf("replay, one bank              %.4f ms\n", replaying);
  std::printf("assess against 100,000 paths  %.4f ms\n", assessing);
  std::printf("check template hashes         %.4f ms  (a remark, not needed for a verdict)\n",
              hashes);
  std::printf("parse, replay and assess      %.4f ms  (%.2f x hashing; target %.2f ms: %s)\n", all,
              all / hashing, kTargetMs, all <= kTargetMs ? "met" : "MISSED");
  BenchList(log);
  return 0;
}
