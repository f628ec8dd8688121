// SPDX-License-Identifier: Apache-2.0
#include "measure/sha_instructions.h"

#ifdef __x86_64__

#include <cpuid.h>
#include <immintrin.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <utility>

// Each function that holds an instruction says so, since the rest is built for any x86-64.
#define VALLUM_SHA __attribute__((target("sha,sse4.1"), always_inline)) static inline

namespace vallum::measure {
namespace {

constexpr size_t kBlock = 64;
constexpr size_t kLengthSize = 8;

// Four of SHA-256's words in the order of its arithmetic: big-endian in memory.
VALLUM_SHA __m128i LoadWords(const std::byte* at) {
  const __m128i order = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)), order);
}

// The bytes of a register from the last to the first: four big-endian words of memory, the first of
// them in the highest place, and back.
VALLUM_SHA __m128i Reversed(__m128i bytes) {
  return _mm_shuffle_epi8(bytes, _mm_set_epi64x(0x0001020304050607, 0x08090a0b0c0d0e0f));
}

struct Sha256 {
  static constexpr size_t kDigestSize = 32;
  static constexpr size_t kSteps = 16;  // of four rounds

  // As the instructions want it: words A B E F and C D G H, the first in the highest place.
  struct State {
    __m128i abef;
    __m128i cdgh;
  };
  // What is under way for one block.
  struct Work {
    State state;
    __m128i words[4];
  };

  alignas(16) static constexpr std::array<uint32_t, 64> kConstants = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
      0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
      0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
      0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
      0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
      0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
      0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
      0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
      0xc67178f2};

  static State Start() {
    return {
        .abef = _mm_set_epi32(0x6a09e667, static_cast<int>(0xbb67ae85), 0x510e527f,
                              static_cast<int>(0x9b05688c)),
        .cdgh = _mm_set_epi32(0x3c6ef372, static_cast<int>(0xa54ff53a), 0x1f83d9ab, 0x5be0cd19)};
  }

  VALLUM_SHA void Begin(Work& work, const State& state, const std::byte* block) {
    work.state = state;
    for (size_t i = 0; i < std::size(work.words); ++i) work.words[i] = LoadWords(block + 16 * i);
  }

  template <size_t kStep>
  VALLUM_SHA void Step(Work& work) {
    __m128i& oldest = work.words[kStep % 4];
    const __m128i& newest = work.words[(kStep + 3) % 4];
    const auto* const constants = reinterpret_cast<const __m128i*>(&kConstants[4 * kStep]);
    const __m128i sums = _mm_add_epi32(oldest, _mm_load_si128(constants));
    State& state = work.state;
    state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, sums);
    state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_shuffle_epi32(sums, 0x0e));
    if constexpr (kStep + 4 < kSteps) {
      const __m128i sevenths = _mm_alignr_epi8(newest, work.words[(kStep + 2) % 4], 4);
      const __m128i begun = _mm_sha256msg1_epu32(oldest, work.words[(kStep + 1) % 4]);
      oldest = _mm_sha256msg2_epu32(_mm_add_epi32(begun, sevenths), newest);
    }
  }

  VALLUM_SHA void End(const Work& work, State& state) {
    state.abef = _mm_add_epi32(state.abef, work.state.abef);
    state.cdgh = _mm_add_epi32(state.cdgh, work.state.cdgh);
  }

  VALLUM_SHA void Store(const State& state, std::byte* out) {
    const __m128i abcd = _mm_unpackhi_epi64(state.cdgh, state.abef);
    const __m128i efgh = _mm_unpacklo_epi64(state.cdgh, state.abef);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), Reversed(abcd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), Reversed(efgh));
  }
};

struct Sha1 {
  static constexpr size_t kDigestSize = 20;
  static constexpr size_t kSteps = 20;

  struct State {
    __m128i abcd;  // A in the highest place
    __m128i e;     // in the highest place, over zeros
  };
  struct Work {
    State state;
    __m128i words[4];
  };

  static State Start() {
    return {.abcd = _mm_set_epi32(0x67452301, static_cast<int>(0xefcdab89),
                                  static_cast<int>(0x98badcfe), 0x10325476),
            .e = _mm_set_epi32(static_cast<int>(0xc3d2e1f0), 0, 0, 0)};
  }

  // The words of SHA-1 stand in their registers with the first in the highest place.
  VALLUM_SHA void Begin(Work& work, const State& state, const std::byte* block) {
    work.state = state;
    for (size_t i = 0; i < std::size(work.words); ++i) {
      const auto* const at = reinterpret_cast<const __m128i*>(block + 16 * i);
      work.words[i] = Reversed(_mm_loadu_si128(at));
    }
  }

  // work.state.e: E itself before the first step, from then on the A of four rounds ago.
  template <size_t kStep>
  VALLUM_SHA void Step(Work& work) {
    __m128i& oldest = work.words[kStep % 4];
    const __m128i& newest = work.words[(kStep + 3) % 4];
    State& state = work.state;
    const __m128i sums =
        kStep == 0 ? _mm_add_epi32(state.e, oldest) : _mm_sha1nexte_epu32(state.e, oldest);
    state.e = state.abcd;
    state.abcd = _mm_sha1rnds4_epu32(state.abcd, sums, kStep / 5);
    if constexpr (kStep + 4 < kSteps) {
      const __m128i begun = _mm_sha1msg1_epu32(oldest, work.words[(kStep + 1) % 4]);
      oldest = _mm_sha1msg2_epu32(_mm_xor_si128(begun, work.words[(kStep + 2) % 4]), newest);
    }
  }

  VALLUM_SHA void End(const Work& work, State& state) {
    state.e = _mm_sha1nexte_epu32(work.state.e, state.e);
    state.abcd = _mm_add_epi32(state.abcd, work.state.abcd);
  }

  VALLUM_SHA void Store(const State& state, std::byte* out) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), Reversed(state.abcd));
    const auto e = static_cast<uint32_t>(_mm_extract_epi32(state.e, 3));
    const uint32_t big = __builtin_bswap32(e);
    std::memcpy(out + 16, &big, sizeof big);
  }
};

template <typename Hash, size_t... kStep>
VALLUM_SHA void AllSteps(std::index_sequence<kStep...> /*steps*/, typename Hash::Work& work) {
  (Hash::template Step<kStep>(work), ...);
}

template <typename Hash, size_t... kStep>
VALLUM_SHA void AllSteps(std::index_sequence<kStep...> /*steps*/, typename Hash::Work& first,
                         typename Hash::Work& second) {
  ((Hash::template Step<kStep>(first), Hash::template Step<kStep>(second)), ...);
}

// An input block by block, the last of them with the padding that the standard puts after it.
class Blocks {
 public:
  void Begin(ByteView input) {
    const size_t rest = input.size() % kBlock;
    input_ = input.data();
    whole_ = input.size() / kBlock;
    count_ = whole_ + (rest + 1 + kLengthSize <= kBlock ? 1 : 2);
    at_ = 0;
    padded_.fill(std::byte{0});
    if (rest > 0) std::memcpy(padded_.data(), input_ + whole_ * kBlock, rest);
    padded_[rest] = std::byte{0x80};
    const uint64_t bits = __builtin_bswap64(uint64_t{input.size()} * 8);
    std::memcpy(padded_.data() + (count_ - whole_) * kBlock - kLengthSize, &bits, sizeof bits);
  }

  bool Done() const { return at_ == count_; }

  const std::byte* Next() {
    const size_t at = at_++;
    return at < whole_ ? input_ + at * kBlock : padded_.data() + (at - whole_) * kBlock;
  }

 private:
  const std::byte* input_ = nullptr;
  size_t whole_ = 0;
  size_t count_ = 0;
  size_t at_ = 0;
  std::array<std::byte, 2 * kBlock> padded_;
};

// The inputs that no lane has taken yet, and where their digests go.
struct Queue {
  std::span<const ByteView> inputs;
  std::byte* out;
};

template <typename Hash>
struct Lane {
  bool busy = false;
  Blocks blocks;
  typename Hash::State state;
  std::byte* out = nullptr;
};

// Writes the digest of an input that is done, and takes the next one.
template <typename Hash>
VALLUM_SHA void Feed(Lane<Hash>& lane, Queue& queue) {
  if (lane.busy && !lane.blocks.Done()) return;
  if (lane.busy) Hash::Store(lane.state, lane.out);
  lane.busy = !queue.inputs.empty();
  if (!lane.busy) return;
  lane.blocks.Begin(queue.inputs.front());
  lane.state = Hash::Start();
  lane.out = queue.out;
  queue.inputs = queue.inputs.subspan(1);
  queue.out += Hash::kDigestSize;
}

template <typename Hash>
VALLUM_SHA void AdvanceOne(Lane<Hash>& lane) {
  typename Hash::Work work;
  Hash::Begin(work, lane.state, lane.blocks.Next());
  AllSteps<Hash>(std::make_index_sequence<Hash::kSteps>(), work);
  Hash::End(work, lane.state);
}

template <typename Hash>
VALLUM_SHA void AdvanceBoth(Lane<Hash>& first, Lane<Hash>& second) {
  typename Hash::Work one;
  typename Hash::Work other;
  Hash::Begin(one, first.state, first.blocks.Next());
  Hash::Begin(other, second.state, second.blocks.Next());
  AllSteps<Hash>(std::make_index_sequence<Hash::kSteps>(), one, other);
  Hash::End(one, first.state);
  Hash::End(other, second.state);
}

template <typename Hash>
__attribute__((target("sha,sse4.1"))) void HashEach(Queue queue) {
  Lane<Hash> first;
  Lane<Hash> second;
  Feed(first, queue);
  Feed(second, queue);
  while (first.busy || second.busy) {
    if (first.busy && second.busy) {
      AdvanceBoth(first, second);
    } else {
      AdvanceOne(first.busy ? first : second);
    }
    Feed(first, queue);
    Feed(second, queue);
  }
}

bool ReadCpuId() {
  constexpr unsigned kSha = 1U << 29U;    // leaf 7, EBX
  constexpr unsigned kSsse3 = 1U << 9U;   // leaf 1, ECX
  constexpr unsigned kSse41 = 1U << 19U;  // leaf 1, ECX
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool sse = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & kSsse3) != 0 && (c & kSse41) != 0;
  return sse && __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & kSha) != 0;
}

}  // namespace

bool HasShaInstructions() {
  static const bool kHas = ReadCpuId();
  return kHas;
}

void Sha1Each(std::span<const ByteView> inputs, std::byte* out) {
  HashEach<Sha1>({.inputs = inputs, .out = out});
}

void Sha256Each(std::span<const ByteView> inputs, std::byte* out) {
  HashEach<Sha256>({.inputs = inputs, .out = out});
}

}  // namespace vallum::measure

#else

#include "base/check.h"

namespace vallum::measure {

bool HasShaInstructions() { return false; }
void Sha1Each(std::span<const ByteView> /*inputs*/, std::byte* /*out*/) { CHECK(false); }
void Sha256Each(std::span<const ByteView> /*inputs*/, std::byte* /*out*/) { CHECK(false); }

}  // namespace vallum::measure

#endif
