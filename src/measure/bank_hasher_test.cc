// SPDX-License-Identifier: Apache-2.0
#include "measure/bank_hasher.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/digest.h"
#include "measure/sha_instructions.h"

namespace vallum::measure {
namespace {

// All that a digest can hang on: the length, and bytes that differ from one place to the next.
Bytes MakeInput(size_t size) {
  Bytes out(size);
  for (size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(i * 131 + size + (i >> 8U));
  return out;
}

struct Case {
  HashAlgorithm bank;
  HashBackend backend;
};

class BankHasherTest : public testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const bool small = bank() == HashAlgorithm::kSha1 || bank() == HashAlgorithm::kSha256;
    if (GetParam().backend == HashBackend::kFastest && small && !HasShaInstructions()) {
      GTEST_SKIP() << "this processor has no instructions for SHA";
    }
  }

  HashAlgorithm bank() const { return GetParam().bank; }

  // The digests of inputs of these sizes, hashed together, are those of each alone.
  void CheckEach(const std::vector<size_t>& sizes) {
    std::vector<Bytes> inputs;
    for (const size_t size : sizes) inputs.push_back(MakeInput(size));
    const std::vector<ByteView> views(inputs.begin(), inputs.end());
    const size_t digest_size = DigestSize(bank());
    Bytes out(sizes.size() * digest_size);
    hasher_.HashEach(views, out);
    for (size_t i = 0; i < sizes.size(); ++i) {
      EXPECT_EQ(ToHex(ByteView(out).subspan(i * digest_size, digest_size)),
                ToHex(Digest(bank(), inputs[i])))
          << "input " << i << " of " << sizes[i] << " bytes";
    }
  }

  BankHasher hasher_{GetParam().bank, GetParam().backend};
};

// Up to three blocks and their padding, where every length is a case of its own.
TEST_P(BankHasherTest, HashesInputsOfEachLength) {
  std::vector<size_t> sizes;
  for (size_t size = 0; size <= 200; ++size) sizes.push_back(size);
  CheckEach(sizes);
}

TEST_P(BankHasherTest, HashesLongAndShortInputsTogether) {
  CheckEach({100'000, 0, 1, 64, 5000, 3, 70'001, 55, 56, 119, 120});
  CheckEach({0, 100'000});
  CheckEach({100'000, 0});
}

TEST_P(BankHasherTest, HashesOneInputAndNone) {
  CheckEach({77});
  CheckEach({});
}

TEST_P(BankHasherTest, HashesTwoPiecesAsOneInput) {
  const Bytes whole = MakeInput(150);
  const ByteView view(whole);
  EXPECT_EQ(ToHex(hasher_.Hash(view.first(70), view.subspan(70))), ToHex(Digest(bank(), whole)));
}

TEST_P(BankHasherTest, ExtendIsTheDigestOfValueAndDigest) {
  const size_t size = DigestSize(bank());
  Bytes value(size);
  for (size_t i = 0; i < 100; ++i) {
    const Bytes digest = Digest(bank(), MakeInput(i));
    Bytes both = value;
    both.insert(both.end(), digest.begin(), digest.end());
    hasher_.Extend(value, digest);
    ASSERT_EQ(ToHex(value), ToHex(Digest(bank(), both))) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(All, BankHasherTest,
                         testing::Values(Case{HashAlgorithm::kSha1, HashBackend::kFastest},
                                         Case{HashAlgorithm::kSha1, HashBackend::kOpenSsl},
                                         Case{HashAlgorithm::kSha256, HashBackend::kFastest},
                                         Case{HashAlgorithm::kSha256, HashBackend::kOpenSsl},
                                         Case{HashAlgorithm::kSha384, HashBackend::kFastest},
                                         Case{HashAlgorithm::kSha512, HashBackend::kFastest}),
                         [](const auto& tested) {
                           return std::string(HashAlgorithmName(tested.param.bank)) +
                                  (tested.param.backend == HashBackend::kFastest ? "Fastest"
                                                                                 : "OpenSsl");
                         });

}  // namespace
}  // namespace vallum::measure
