// SPDX-License-Identifier: Apache-2.0
#include "agent/boot_monitor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <condition_variable>
#include <string_view>
#include <utility>

#include "agent/messages.h"
#include "agent/test_support.h"
#include "base/digest.h"
#include "vtpm/control_protocol.h"
#include "vtpm/unique_fd.h"

namespace vallum::agent {
namespace {

using testing::HasSubstr;

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr std::chrono::seconds kPatience{20};

// Stands where the test puts it.
class TestClock final : public Clock {
 public:
  WallTime Now() const override { return WallTime(std::chrono::seconds(now_.load())); }
  MonotonicTime Monotonic() const override { return SystemClock().Monotonic(); }
  std::atomic<int64_t> now_ = 1'000;
};

// A vTPM's control socket over a record that the test writes. One client at a time.
class FakeVtpm {
 public:
  explicit FakeVtpm(const std::string& path) {
    listener_ = vtpm::UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(listener_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_.get(), 4), 0);
    thread_ = std::jthread([this](const std::stop_token& stop) { Serve(stop); });
  }
  void Record(int64_t second, measure::RecordBody body) {
    const std::lock_guard lock(mutex_);
    log_.Append(WallTime(std::chrono::seconds(second)), std::move(body));
  }
  void Reset(int64_t second) {
    Record(second, measure::TpmReset{});
    Record(second, measure::TpmStartup{measure::StartupType::kClear, 0});
    Record(second, measure::PcrExtend{PcrIndex::Of<4>(), kBank, Digest(kBank, AsBytes("shim"))});
  }

 private:
  static bool Readable(const vtpm::UniqueFd& fd) {
    pollfd item{fd.get(), POLLIN, 0};
    return poll(&item, 1, 20) > 0;
  }
  void Serve(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      if (!Readable(listener_)) continue;
      const vtpm::UniqueFd client(accept(listener_.get(), nullptr, nullptr));
      std::string line;
      while (!stop.stop_requested()) {
        if (!Readable(client)) continue;
        char c = 0;
        if (read(client.get(), &c, 1) != 1) break;
        if (c != '\n') {
          line += c;
          continue;
        }
        const std::string reply = Answer(line);
        line.clear();
        if (write(client.get(), reply.data(), reply.size()) < 0) break;
      }
    }
  }
  std::string Answer(const std::string& line) {
    const auto request = vtpm::ParseRequest(line);
    if (!request) return vtpm::FormatError(request.error());
    const std::lock_guard lock(mutex_);
    if (const auto* records = std::get_if<vtpm::RecordsRequest>(&*request)) {
      const auto since = log_.Since(records->since);
      return vtpm::FormatRecords(
          {{since.begin(), since.end()}, log_.first_sequence(), log_.last_sequence()});
    }
    std::map<PcrIndex, Bytes> values;
    const measure::PcrReplay replay = log_.Replay(kBank);
    for (uint32_t i = 0; i < PcrIndex::kCount; ++i) {
      values[*PcrIndex::Create(i)] = replay.values[i];
    }
    return vtpm::FormatPcrs(values);
  }

  std::mutex mutex_;
  measure::ExtendLog log_;
  vtpm::UniqueFd listener_;
  std::jthread thread_;
};

class BootMonitorTest : public testing::Test {
 protected:
  BootMonitorTest() {
    options_.control_socket = (dir_.path() / "vtpm").string();
    options_.variables_path = (dir_.path() / "vars.fd").string();
    options_.evidence_path = dir_.path() / "evidence";
    options_.started_at = WallTime(std::chrono::seconds(1'000));
    options_.forecast = [this] {
      const std::lock_guard lock(mutex_);
      ++forecasts_;
      changed_.notify_all();
      return BootForecast();
    };
  }
  void Start() {
    monitor_.emplace(options_, clock_,
                     BootMonitor::Callbacks{[this](const v1::BootMeasured& measured) {
                                              const std::lock_guard lock(mutex_);
                                              measured_ = measured;
                                              changed_.notify_all();
                                            },
                                            [this](const v1::BootEvidence& evidence) {
                                              const std::lock_guard lock(mutex_);
                                              evidence_ = evidence;
                                              changed_.notify_all();
                                            }},
                     first_.get_future());
  }
  bool WaitFor(const std::function<bool()>& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, condition);
  }

  const TempDir dir_;
  TestClock clock_;
  FakeVtpm vtpm_{(dir_.path() / "vtpm").string()};
  BootMonitorOptions options_;
  std::promise<BootForecast> first_;
  std::mutex mutex_;
  int forecasts_ = 0;
  std::condition_variable changed_;
  v1::BootMeasured measured_;
  v1::BootEvidence evidence_;
  std::optional<BootMonitor> monitor_;
};

TEST_F(BootMonitorTest, ForecastOfALaterBootIsNotMadeFromADiskThatItsSystemMayHaveWritten) {
  Start();
  vtpm_.Reset(1'000);
  vtpm_.Reset(1'010);
  ASSERT_TRUE(WaitFor([this] { return evidence_.tpm_resets() == 2; }));
  clock_.now_ = 1'060;
  first_.set_value(BootForecast());
  ASSERT_TRUE(WaitFor([this] { return !evidence_.prediction_problem().empty(); }));
  EXPECT_THAT(evidence_.prediction_problem(), HasSubstr("when this boot began"));
  const std::lock_guard lock(mutex_);
  EXPECT_EQ(forecasts_, 0);
}

TEST_F(BootMonitorTest, ForecastOfALaterBootIsMadeWhileItsFirmwareRuns) {
  Start();
  vtpm_.Reset(1'000);
  vtpm_.Reset(1'010);
  ASSERT_TRUE(WaitFor([this] { return evidence_.tpm_resets() == 2; }));
  clock_.now_ = 1'010;
  BootForecast stale;
  stale.problem = "of the boot before";
  first_.set_value(stale);
  EXPECT_TRUE(WaitFor([this] { return forecasts_ == 1; }));
}

TEST_F(BootMonitorTest, WordAndEvidenceSayWhichBootTheyAreOf) {
  Start();
  vtpm_.Reset(900);    // of an earlier run
  vtpm_.Reset(1'000);  // records 4 to 6
  ASSERT_TRUE(WaitFor([this] { return !evidence_.events().empty(); }));
  ASSERT_TRUE(WaitFor([this] { return measured_.tpm_resets() == 1; }));
  EXPECT_EQ(evidence_.boot_sequence(), 4);
  EXPECT_EQ(measured_.boot_sequence(), 4);
  EXPECT_EQ(FromTimestamp(evidence_.run_started_at()), options_.started_at);
  EXPECT_EQ(FromTimestamp(measured_.run_started_at()), options_.started_at);
}

TEST_F(BootMonitorTest, VerdictOfAnotherBootIsNotKept) {
  options_.previous.set_verdict(v1::BOOT_VERIFIED);
  options_.previous.set_tpm_resets(1);
  options_.previous.set_boot_sequence(1);
  *options_.previous.mutable_run_started_at() = ToTimestamp(WallTime(std::chrono::seconds(900)));
  Start();
  vtpm_.Reset(900);
  vtpm_.Reset(1'000);
  ASSERT_TRUE(WaitFor([this] { return measured_.boot_sequence() == 4; }));
  EXPECT_EQ(measured_.verdict(), v1::BOOT_PENDING);
}

}  // namespace
}  // namespace vallum::agent
