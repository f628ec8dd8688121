// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "controller/controller.h"
#include "controller/fake_agent.h"
#include "firmware/key_set.h"
#include "store/blob_store.h"
#include "store/sqlite_store.h"
#include "tls/authority.h"

namespace vallum::controller {

// Real time, plus what the test has added; a test may also set the clock on the wall.
class ShiftedClock final : public Clock {
 public:
  WallTime Now() const override { return real_.Now() + shift_.load() + wall_.load(); }
  MonotonicTime Monotonic() const override { return real_.Monotonic() + shift_.load(); }
  void Advance(std::chrono::seconds by) { shift_.store(shift_.load() + by); }
  void SetWall(std::chrono::seconds by) { wall_.store(by); }

 private:
  SystemClock real_;
  std::atomic<std::chrono::seconds> shift_{std::chrono::seconds(0)};
  std::atomic<std::chrono::seconds> wall_{std::chrono::seconds(0)};
};

// A directory of its own, removed at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// A whole controller on SQLite, with a real gateway on a free port.
class Rig {
 public:
  Rig();
  ~Rig();
  void Start();
  void Stop();  // everything but the files goes
  Controller& controller() { return *controller_; }
  store::BlobStore& blobs() { return *blobs_; }
  // What the next Start() finds on its machine: at first "microsoft", with the rig's own CA in PK,
  // KEK and db.
  std::vector<firmware::KeySet>& key_sets() { return key_sets_; }
  // Of the next Start().
  Attestor::Options& attestor() { return attestor_; }
  ShiftedClock& clock() { return clock_; }
  const std::filesystem::path& dir() const { return dir_.path(); }

  std::string JoinSecret(const std::string& name);
  std::unique_ptr<FakeAgent> NewAgent(const std::string& host);
  // Joined and connected.
  std::unique_ptr<FakeAgent> ConnectedAgent(const std::string& host, int64_t gib = 64);
  void MakeReadyImage(const std::string& name, const std::string& secure_boot = "");
  InstanceService::Accepted Create(const std::string& name, const std::string& flavor = "small");
  // Created, sent to the agent, and reported by it as running.
  v1::DesiredInstance RunningInstance(FakeAgent& agent, const std::string& name);

  // Waits until the condition on the view holds; false after half a minute.
  bool Await(const std::function<bool(const View&)>& condition);
  bool AwaitPhase(const std::string& instance, v1::InstancePhase phase);
  bool AwaitOperation(const std::string& name, v1::OperationState state);
  v1::Operation Operation(const std::string& name);

 private:
  ShiftedClock clock_;
  TempDir dir_;
  std::vector<firmware::KeySet> key_sets_;
  Attestor::Options attestor_;
  std::unique_ptr<store::SqliteStore> store_;
  std::unique_ptr<store::BlobStore> blobs_;
  std::unique_ptr<tls::CertificateAuthority> authority_;
  std::unique_ptr<Controller> controller_;
};

// The pre-flight of a controller that finds nothing wrong with any image.
inline const Preflight kStartsAll = [](const v1::Image& /*image*/,
                                       const firmware::KeySet& /*keys*/) {
  return Result<PreflightVerdict>(PreflightVerdict{});
};
inline const Principal kTester{.name = "tester", .role = v1::ROLE_ADMIN, .tenant = {}};

}  // namespace vallum::controller
