// SPDX-License-Identifier: Apache-2.0
#include "controller/gateway_console.h"

#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/text.h"
#include "controller/gateway_impl.h"

namespace vallum::controller {
namespace {

constexpr size_t kFrame = size_t{32} * 1024;

}  // namespace

// Handlers that are due, to be called once the lock is let go.
struct ConsoleLink::Wakeup {
  ReadHandler read;
  std::string data;
  std::string reason;
  std::function<void()> writable;

  void Run() {
    if (read && !data.empty()) {
      read(ToBytes(AsBytes(data)));
    } else if (read) {
      read(Unavailable("the console has ended: " + reason).WithFix("open it again"));
    }
    if (writable) {
      writable();
    }
  }
};

ConsoleLink::ConsoleLink(std::string host, Metrics& metrics)
    : host_(std::move(host)), metrics_(metrics) {
  metrics_.consoles.fetch_add(1);
}

ConsoleLink::~ConsoleLink() { metrics_.consoles.fetch_sub(1); }

void ConsoleLink::StartTimer(std::chrono::seconds timeout) {
  timer_.Set(std::chrono::system_clock::now() + timeout, [weak = weak_from_this()](bool fired) {
    const std::shared_ptr<ConsoleLink> link = weak.lock();
    if (!fired || link == nullptr) {
      return;
    }
    {
      const std::lock_guard lock(link->mutex_);
      if (link->opened_) {
        return;
      }
    }
    link->End("the host's agent did not open it in time");
  });
}

Result<void> ConsoleLink::Write(ByteView data) {
  const std::lock_guard lock(mutex_);
  if (ended_) {
    return Unavailable("the console has ended: " + end_reason_).WithFix("open it again");
  }
  if (for_guest_.size() + data.size() > kConsoleBufferLimit) {
    return Exhausted("the guest does not read its console fast enough");
  }
  for_guest_ += AsText(data);
  Pump();
  return Ok();
}

void ConsoleLink::WhenWritable(std::function<void()> handler) {
  Wakeup wakeup;
  {
    const std::lock_guard lock(mutex_);
    writable_handler_ = std::move(handler);
    wakeup = Due();
  }
  wakeup.Run();
}

void ConsoleLink::Read(ReadHandler handler) {
  Wakeup wakeup;
  {
    const std::lock_guard lock(mutex_);
    read_handler_ = std::move(handler);
    wakeup = Due();
    Pump();
  }
  wakeup.Run();
}

void ConsoleLink::Close() { End("it was closed"); }

void ConsoleLink::End(const std::string& reason) {
  Wakeup wakeup;
  {
    const std::lock_guard lock(mutex_);
    EndLocked(reason);
    wakeup = Due();
  }
  wakeup.Run();
}

void ConsoleLink::Attach(ConsoleReactor* reactor) {
  const std::lock_guard lock(mutex_);
  opened_ = true;
  reactor_ = reactor;
  Pump();
}

void ConsoleLink::OnFrame(const v1::ConsoleFrame& frame) {
  Wakeup wakeup;
  {
    const std::lock_guard lock(mutex_);
    reading_ = false;
    from_guest_ += frame.data();
    if (!frame.error().empty()) {
      EndLocked(Printable(frame.error()));
    }
    wakeup = Due();
    Pump();
  }
  wakeup.Run();
}

void ConsoleLink::OnReadEnd() {
  Wakeup wakeup;
  {
    const std::lock_guard lock(mutex_);
    reading_ = false;
    EndLocked("the host's agent closed it");
    wakeup = Due();
  }
  wakeup.Run();
}

void ConsoleLink::OnWritten() {
  Wakeup wakeup;
  {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    Pump();
    wakeup = Due();
  }
  wakeup.Run();
}

void ConsoleLink::OnDone() {
  Wakeup wakeup;
  {
    const std::lock_guard lock(mutex_);
    finished_ = true;
    reactor_ = nullptr;
    EndLocked("the host's agent closed it");
    wakeup = Due();
  }
  wakeup.Run();
}

void ConsoleLink::EndLocked(const std::string& reason) {
  if (!ended_) {
    ended_ = true;
    end_reason_ = reason;
  }
  Pump();
}

// Starts what can be started on the agent's stream.
void ConsoleLink::Pump() {
  if (reactor_ == nullptr || finished_) {
    return;
  }
  if (ended_) {
    if (!writing_) {
      finished_ = true;
      reactor_->Finish(grpc::Status::OK);
    }
    return;
  }
  if (!writing_ && !for_guest_.empty()) {
    writing_ = true;
    reactor_->Put(for_guest_.substr(0, kFrame));
    for_guest_.erase(0, kFrame);
  }
  // The agent is not read from while the client does not read: its end then waits, too.
  if (!reading_ && from_guest_.size() < kConsoleBufferLimit) {
    reading_ = true;
    reactor_->ReadOn();
  }
}

ConsoleLink::Wakeup ConsoleLink::Due() {
  Wakeup wakeup;
  if (read_handler_ && (ended_ || !from_guest_.empty())) {
    wakeup.read = std::exchange(read_handler_, nullptr);
    wakeup.data = std::exchange(from_guest_, {});
    wakeup.reason = end_reason_;
  }
  if (writable_handler_ && (ended_ || for_guest_.size() < kConsoleBufferLimit / 2)) {
    wakeup.writable = std::exchange(writable_handler_, nullptr);
  }
  return wakeup;
}

ConsoleReactor::ConsoleReactor(Gateway::Impl& gateway, std::string host)
    : gateway_(gateway), host_(std::move(host)) {
  gateway_.live().Add();
}

void ConsoleReactor::Put(std::string data) {
  outgoing_.set_data(std::move(data));
  StartWrite(&outgoing_);
}

void ConsoleReactor::OnReadDone(bool ok) {
  if (link_ != nullptr) {
    if (ok) {
      link_->OnFrame(incoming_);
    } else {
      link_->OnReadEnd();
    }
    return;
  }
  if (!ok) {
    Finish({grpc::StatusCode::CANCELLED, "the console was never named"});
    return;
  }
  link_ = gateway_.TakeConsole(incoming_.session_id(), host_);
  if (link_ == nullptr) {
    Finish({grpc::StatusCode::NOT_FOUND, "nobody waits for this console"});
    return;
  }
  // The first frame may hold bytes already, or why the console cannot be had. The link has no
  // stream yet, so that nothing reads into incoming_ meanwhile.
  link_->OnFrame(incoming_);
  link_->Attach(this);
}

void ConsoleReactor::OnWriteDone(bool /*ok*/) {
  // A failed write ends the stream, which the read under way reports.
  link_->OnWritten();
}

void ConsoleReactor::OnDone() {
  if (link_ != nullptr) {
    link_->OnDone();
  }
  LiveCalls& live = gateway_.live();
  delete this;
  live.Remove();
}

}  // namespace vallum::controller
