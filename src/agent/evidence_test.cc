// SPDX-License-Identifier: Apache-2.0
// Evidence with a TPM and a controller that are made up.
#include <gtest/gtest.h>

#include <condition_variable>
#include <fstream>
#include <map>
#include <mutex>

#include "agent/evidence_desk.h"
#include "agent/ima_list.h"
#include "agent/test_support.h"
#include "measure/evidence_nonce.h"
#include "measure/ima_log_builder.h"

namespace vallum::agent {
namespace {

constexpr std::chrono::seconds kPatience{20};
constexpr const char* kBoot = "boot-1";
constexpr uint32_t kResets = 7;

std::string Nonce(char content) { return std::string(20, content); }
Bytes NonceBytes(char content) { return ToBytes(AsBytes(Nonce(content))); }

// What all TPMs of a test have in common.
struct TpmLog {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Bytes> qualifying;  // of each quote that was begun
  int released = 1000;            // so many quotes may end
  int opened = 0;
  std::optional<Error> open_error;
  std::optional<Error> quote_error;
  tpm::KeyOrigin origin = tpm::KeyOrigin::kKept;

  bool WaitForQuotes(size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kPatience, [&] { return qualifying.size() >= count; });
  }
  void Release(int count) {
    const std::lock_guard lock(mutex);
    released = count;
    changed.notify_all();
  }
};

// Slow when it is to be.
class FakeTpm final : public tpm::HostTpm {
 public:
  explicit FakeTpm(TpmLog& log) : log_(log) { identity_.ak_name = ToBytes(AsBytes("ak")); }
  const tpm::TpmIdentity& identity() const override { return identity_; }
  Result<SecretBytes> ActivateCredential(ByteView id_object, ByteView) override {
    if (AsText(id_object) != "good") {
      return Denied("not made for these keys");
    }
    return SecretBytes(AsBytes("secret"));
  }
  Result<tpm::Quote> MakeQuote(ByteView qualifying,
                               const std::vector<measure::BankSelection>& selections) override {
    std::unique_lock lock(log_.mutex);
    log_.qualifying.push_back(ToBytes(qualifying));
    const auto number = static_cast<int>(log_.qualifying.size());
    log_.changed.notify_all();
    log_.changed.wait_for(lock, kPatience, [&] { return log_.released >= number; });
    if (log_.quote_error) {
      return *std::exchange(log_.quote_error, std::nullopt);
    }
    tpm::Quote quote;
    quote.quoted = ToBytes(AsBytes("quote " + std::to_string(number)));
    quote.reset_count = kResets;
    for (const auto& selection : selections) {
      quote.values.emplace_back(selection.pcrs.size(), Bytes(DigestSize(selection.bank)));
    }
    return quote;
  }

 private:
  TpmLog& log_;
  tpm::TpmIdentity identity_;
};

class FakeLink final : public TrustLink {
 public:
  Result<v1::TpmChallenge> BeginBinding(const v1::TpmIdentity&, const std::stop_token&) override {
    const std::lock_guard lock(mutex_);
    v1::TpmChallenge challenge;
    challenge.set_credential_blob(challenges_++ < bad_challenges ? "bad" : "good");
    return challenge;
  }
  Result<v1::TpmBinding> FinishBinding(const v1::TpmProof& proof, const std::stop_token&) override {
    const std::lock_guard lock(mutex_);
    ++bindings_;
    changed_.notify_all();
    v1::TpmBinding binding;
    binding.set_accepted(proof.secret() == "secret");
    return binding;
  }
  Result<void> Submit(const Produce& produce, const std::stop_token&) override {
    std::vector<v1::EvidenceChunk> chunks;
    const auto made = produce([&chunks](const v1::EvidenceChunk& chunk) {
      chunks.push_back(chunk);
      return true;
    });
    const std::lock_guard lock(mutex_);
    if (made && !chunks.empty()) {
      answers_[chunks.front().header().request_id()] = chunks;
      changed_.notify_all();
    }
    if (deny) {
      deny = false;
      return Denied("this host's TPM is not bound");
    }
    return made;
  }
  std::vector<v1::EvidenceChunk> Answer(const std::string& id) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [&] { return answers_.contains(id); });
    return answers_[id];
  }
  bool WaitForBindings(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return bindings_ >= count; });
  }
  int bindings() {
    const std::lock_guard lock(mutex_);
    return bindings_;
  }
  bool deny = false;       // set before the desk is there
  int bad_challenges = 0;  // so many at first

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::string, std::vector<v1::EvidenceChunk>> answers_;
  int challenges_ = 0;
  int bindings_ = 0;
};

class EvidenceTest : public testing::Test {
 protected:
  EvidenceTest() { std::filesystem::create_directories(dir_.path() / "identity"); }

  std::unique_ptr<EvidenceDesk> Desk() {
    EvidenceDeskOptions options;
    options.state_dir = dir_.path();
    options.root = dir_.path() / "root";
    options.boot_id = kBoot;
    options.open = [this](const std::optional<tpm::KeyBlobs>&,
                          const std::stop_token&) -> Result<tpm::OpenedTpm> {
      const std::lock_guard lock(log_.mutex);
      ++log_.opened;
      if (log_.open_error) {
        return *log_.open_error;
      }
      tpm::OpenedTpm opened;
      opened.tpm = std::make_unique<FakeTpm>(log_);
      opened.origin = std::exchange(log_.origin, tpm::KeyOrigin::kKept);
      return opened;
    };
    options.on_key = [](const Bytes&) {};
    options.inform = [](const std::string&) {};
    options.warn = [](const std::string&) {};
    return std::make_unique<EvidenceDesk>(std::move(options), link_);
  }
  v1::RequestEvidence Request(const std::string& id, char nonce,
                              const std::string& pcrs = "sha256:0,7") const {
    v1::RequestEvidence request;
    request.set_request_id(id);
    request.set_nonce(Nonce(nonce));
    request.set_pcrs(pcrs);
    request.set_known_reset_count(kResets);
    request.set_ima_from(-1);
    request.set_known_boot_id(kBoot);
    return request;
  }
  void Write(const std::string& path, ByteView content) const {
    const auto whole = dir_.path() / "root" / path;
    std::filesystem::create_directories(whole.parent_path());
    std::ofstream(whole, std::ios::binary) << AsText(content);
  }
  void WriteImaList(ByteView content) const {
    Write("sys/kernel/security/ima/binary_runtime_measurements", content);
  }
  // The answer to one request, on a desk of its own.
  std::vector<v1::EvidenceChunk> Ask(const v1::RequestEvidence& request) {
    const auto desk = Desk();
    desk->Ask(request);
    return link_.Answer(request.request_id());
  }
  static std::string ImaOf(const std::vector<v1::EvidenceChunk>& chunks) {
    std::string list;
    for (const auto& chunk : chunks) {
      list += chunk.ima_list();
    }
    return list;
  }

  const TempDir dir_;
  TpmLog log_;
  FakeLink link_;
};

std::string ProblemOf(const std::vector<v1::EvidenceChunk>& chunks) {
  return chunks.empty() ? "" : chunks.back().problem().detail();
}

TEST_F(EvidenceTest, RequestsThatWaitAreAnsweredByOneQuote) {
  log_.Release(0);
  const auto desk = Desk();
  desk->Ask(Request("1", 'a'));
  ASSERT_TRUE(log_.WaitForQuotes(1));
  desk->Ask(Request("2", 'b'));
  desk->Ask(Request("3", 'c'));
  desk->Ask(Request("4", 'd'));
  log_.Release(1000);
  const auto first = link_.Answer("1");
  const auto second = link_.Answer("2");
  const auto fourth = link_.Answer("4");
  ASSERT_FALSE(first.empty() || second.empty() || fourth.empty());
  ASSERT_EQ(log_.qualifying.size(), 2U) << "four requests, two quotes";
  EXPECT_EQ(log_.qualifying[0], NonceBytes('a'));
  EXPECT_EQ(log_.qualifying[1],
            measure::EvidenceNonce(std::vector{NonceBytes('b'), NonceBytes('c'), NonceBytes('d')})
                .value());
  EXPECT_EQ(second.front().header().quoted(), fourth.front().header().quoted());
  ASSERT_EQ(fourth.front().header().nonces_size(), 3);
  EXPECT_EQ(fourth.front().header().nonces(0), Nonce('b'));
  EXPECT_EQ(first.front().header().nonces_size(), 1);
}

TEST_F(EvidenceTest, RequestForOtherPcrsGetsAQuoteOfItsOwn) {
  log_.Release(0);
  const auto desk = Desk();
  desk->Ask(Request("1", 'a'));
  ASSERT_TRUE(log_.WaitForQuotes(1));
  desk->Ask(Request("2", 'b'));
  desk->Ask(Request("3", 'c', "sha256:10"));
  desk->Ask(Request("4", 'd'));
  log_.Release(1000);
  const auto third = link_.Answer("3");
  ASSERT_FALSE(third.empty());
  EXPECT_EQ(third.front().header().nonces_size(), 1);
  EXPECT_EQ(third.front().header().banks(0).pcrs(0), 10U);
  EXPECT_EQ(link_.Answer("4").front().header().nonces_size(), 2);
}

TEST_F(EvidenceTest, NonceThatIsNoneSpoilsNoOthersQuote) {
  log_.Release(0);
  const auto desk = Desk();
  desk->Ask(Request("1", 'a'));
  ASSERT_TRUE(log_.WaitForQuotes(1));
  auto bad = Request("2", 'b');
  bad.set_nonce("short");
  desk->Ask(bad);
  desk->Ask(Request("3", 'c'));
  log_.Release(1000);
  EXPECT_NE(ProblemOf(link_.Answer("2")).find("nonce"), std::string::npos);
  EXPECT_EQ(link_.Answer("3").front().header().nonces_size(), 1);
}

TEST_F(EvidenceTest, HostWithoutTpmSaysSo) {
  log_.open_error = NotFound("this host has no /dev/tpmrm0");
  const auto answer = Ask(Request("1", 'a'));
  ASSERT_EQ(answer.size(), 2U);
  EXPECT_EQ(answer.front().header().request_id(), "1");
  EXPECT_NE(ProblemOf(answer).find("no /dev/tpmrm0"), std::string::npos);
  EXPECT_EQ(answer.back().problem().code(), "not_found");
}

TEST_F(EvidenceTest, TpmThatFailedIsOpenedAnew) {
  log_.quote_error = Unavailable("the TPM did not answer within 120 seconds");
  const auto desk = Desk();
  desk->Ask(Request("1", 'a'));
  EXPECT_NE(ProblemOf(link_.Answer("1")).find("did not answer"), std::string::npos);
  desk->Ask(Request("2", 'b'));
  EXPECT_EQ(ProblemOf(link_.Answer("2")), "");
  EXPECT_EQ(log_.opened, 2);
}

TEST_F(EvidenceTest, BindsOnceHoweverOftenItIsAsked) {
  const auto desk = Desk();
  desk->Bind();
  ASSERT_TRUE(link_.WaitForBindings(1));
  desk->Ask(Request("1", 'a'));
  link_.Answer("1");
  desk->Bind();
  desk->Ask(Request("2", 'b'));
  link_.Answer("2");
  EXPECT_EQ(link_.bindings(), 1);
}

TEST_F(EvidenceTest, BindingIsTriedAgainAfterAWrongCredential) {
  link_.bad_challenges = 1;
  const auto desk = Desk();
  desk->Bind();
  EXPECT_TRUE(link_.WaitForBindings(1));
}

TEST_F(EvidenceTest, KeyThatWasMadeAnewIsBoundAgainBeforeItSigns) {
  const auto desk = Desk();
  desk->Bind();
  ASSERT_TRUE(link_.WaitForBindings(1));
  {
    const std::lock_guard lock(log_.mutex);
    log_.origin = tpm::KeyOrigin::kRemade;
    log_.quote_error = Unavailable("gone");
  }
  desk->Ask(Request("1", 'a'));
  link_.Answer("1");
  desk->Ask(Request("2", 'b'));
  EXPECT_EQ(link_.Answer("2").size(), 1U);
  EXPECT_EQ(link_.bindings(), 2);
}

TEST_F(EvidenceTest, KeyThatTheControllerHasNotTakenYetSignsNothing) {
  link_.bad_challenges = 1000;
  const auto desk = Desk();
  desk->Bind();
  desk->Ask(Request("1", 'a'));
  EXPECT_NE(ProblemOf(link_.Answer("1")).find("has not taken this host's attestation key"),
            std::string::npos);
  EXPECT_TRUE(log_.qualifying.empty());
}

TEST_F(EvidenceTest, ControllerThatDoesNotKnowTheTpmGetsItsBinding) {
  link_.deny = true;
  const auto desk = Desk();
  desk->Ask(Request("1", 'a'));
  EXPECT_TRUE(link_.WaitForBindings(1));
}

TEST_F(EvidenceTest, EventLogIsSentOnlyWhenTheTpmWasReset) {
  const std::string log(3U << 20U, 'e');
  Write("sys/kernel/security/tpm0/binary_bios_measurements", AsBytes(log));
  EXPECT_EQ(Ask(Request("1", 'a')).size(), 1U);
  auto request = Request("2", 'a');
  request.set_known_reset_count(kResets - 1);
  const auto answer = Ask(request);
  ASSERT_EQ(answer.size(), 4U) << "a header and three pieces";
  EXPECT_EQ(answer[0].header().event_log_size(), 3 << 20);
  EXPECT_EQ(answer[1].event_log() + answer[2].event_log() + answer[3].event_log(), log);
}

TEST_F(EvidenceTest, EventLogIsSentWhenItIsAskedFor) {
  Write("sys/kernel/security/tpm0/binary_bios_measurements", AsBytes("log"));
  auto request = Request("1", 'a');
  request.set_event_log(true);
  EXPECT_EQ(Ask(request).size(), 2U);
}

TEST_F(EvidenceTest, HostWithoutEventLogSaysWhy) {
  auto request = Request("1", 'a');
  request.set_event_log(true);
  const auto answer = Ask(request);
  ASSERT_EQ(answer.size(), 1U);
  EXPECT_FALSE(answer[0].header().event_log_detail().empty());
}

TEST_F(EvidenceTest, OnlyNewImaEntriesAreSent) {
  measure::ImaLogBuilder known;
  known.AddFile("/bin/a", "a").AddLegacy("/bin/b", Bytes(20)).AddViolation("/var/log/x");
  measure::ImaLogBuilder fresh;
  fresh.AddFile("/bin/c", "c").AddFile("/bin/d", "d");
  WriteImaList(measure::Concatenate({known.bytes(), fresh.bytes()}));
  auto request = Request("1", 'a');
  request.set_ima_from(3);
  const auto answer = Ask(request);
  ASSERT_FALSE(answer.empty());
  EXPECT_EQ(answer[0].header().ima_from(), 3);
  EXPECT_EQ(answer[0].header().ima_entries(), 2);
  EXPECT_EQ(ImaOf(answer), AsText(fresh.bytes()));
}

TEST_F(EvidenceTest, WholeImaListIsSentAfterAnotherBoot) {
  measure::ImaLogBuilder list;
  list.AddFile("/bin/a", "a").AddFile("/bin/b", "b");
  WriteImaList(list.bytes());
  auto request = Request("1", 'a');
  request.set_ima_from(1);
  request.set_known_boot_id("another");
  const auto answer = Ask(request);
  ASSERT_FALSE(answer.empty());
  EXPECT_EQ(answer[0].header().ima_from(), 0);
  EXPECT_EQ(answer[0].header().boot_id(), kBoot);
  EXPECT_EQ(ImaOf(answer), AsText(list.bytes()));
}

TEST_F(EvidenceTest, ShorterImaListThanKnownIsSentWhole) {
  measure::ImaLogBuilder list;
  list.AddFile("/bin/a", "a");
  WriteImaList(list.bytes());
  auto request = Request("1", 'a');
  request.set_ima_from(5);
  const auto answer = Ask(request);
  ASSERT_FALSE(answer.empty());
  EXPECT_EQ(answer[0].header().ima_from(), 0);
  EXPECT_EQ(answer[0].header().ima_entries(), 1);
}

TEST_F(EvidenceTest, NothingNewInTheImaListIsNoEntries) {
  measure::ImaLogBuilder list;
  list.AddFile("/bin/a", "a");
  WriteImaList(list.bytes());
  auto request = Request("1", 'a');
  request.set_ima_from(1);
  const auto answer = Ask(request);
  ASSERT_EQ(answer.size(), 1U);
  EXPECT_EQ(answer[0].header().ima_entries(), 0);
  EXPECT_EQ(answer[0].header().ima_detail(), "");
}

TEST_F(EvidenceTest, HostWithoutImaListSaysWhy) {
  auto request = Request("1", 'a');
  request.set_ima_from(0);
  const auto answer = Ask(request);
  ASSERT_EQ(answer.size(), 1U);
  EXPECT_FALSE(answer[0].header().ima_detail().empty());
}

TEST_F(EvidenceTest, ImaListThatEndsInAnEntryIsAProblem) {
  measure::ImaLogBuilder list;
  list.AddFile("/bin/a", "a");
  WriteImaList(ByteView(list.bytes()).first(list.bytes().size() - 1));
  auto request = Request("1", 'a');
  request.set_ima_from(0);
  EXPECT_NE(ProblemOf(Ask(request)).find("in the middle of entry 0"), std::string::npos);
}

TEST_F(EvidenceTest, HugeImaEntryIsRefusedBeforeItIsRead) {
  ByteWriter list;
  list.U32Le(10).Zeros(20).U32Le(6).Raw(AsBytes("ima-ng")).U32Le(0x7fffffff);
  WriteImaList(list.bytes());
  auto request = Request("1", 'a');
  request.set_ima_from(0);
  EXPECT_NE(ProblemOf(Ask(request)).find("2147483647"), std::string::npos);
}

TEST_F(EvidenceTest, LongImaListComesInPieces) {
  measure::ImaLogBuilder list;
  for (int i = 0; i < 20000; ++i) {
    list.AddFile("/usr/share/some/longer/path/number/" + std::to_string(i), "x");
  }
  WriteImaList(list.bytes());
  ASSERT_GT(list.bytes().size(), 2 * kImaPiece);
  auto request = Request("1", 'a');
  request.set_ima_from(0);
  const auto answer = Ask(request);
  for (const auto& chunk : answer) {
    EXPECT_LE(chunk.ima_list().size(), kImaPiece);
  }
  EXPECT_EQ(ImaOf(answer), AsText(list.bytes()));
  EXPECT_EQ(answer.at(0).header().ima_entries(), 20000);
}

}  // namespace
}  // namespace vallum::agent
