// SPDX-License-Identifier: Apache-2.0
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <mutex>
#include <utility>

#include "base/text.h"
#include "http/core.h"

namespace vallum::http {
namespace {

using std::chrono::steady_clock;

// What the handler's end and the network's end share.
class EventState {
 public:
  EventState(size_t limit, std::function<void()> wake) : limit_(limit), wake_(std::move(wake)) {}

  bool Send(std::string text) {
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex_);
      if (closed_ || closing_) return false;
      if (queue_.size() + text.size() <= limit_) {
        queue_ += text;
        wake_();
        return true;
      }
      queue_.clear();
      callback = MarkClosed();
      wake_();
    }
    if (callback) callback();
    return false;
  }

  void Close() {
    const std::lock_guard lock(mutex_);
    if (closed_ || closing_) return;
    closing_ = true;
    wake_();
  }

  // By the network's end: nothing more can be sent.
  void NetworkClosed() {
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex_);
      callback = MarkClosed();
      wake_ = [] {};
    }
    if (callback) callback();
  }

  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_ || closing_;
  }

  void OnClosed(std::function<void()> callback) {
    {
      const std::lock_guard lock(mutex_);
      if (!closed_) {
        on_closed_ = std::move(callback);
        return;
      }
    }
    callback();
  }

  bool broken() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }

  // Takes what is to be written; *end: nothing follows.
  std::string Take(bool* end) {
    const std::lock_guard lock(mutex_);
    *end = closed_ || closing_;
    return std::exchange(queue_, {});
  }

 private:
  std::function<void()> MarkClosed() {
    if (closed_) return nullptr;
    closed_ = true;
    return std::exchange(on_closed_, nullptr);
  }

  const size_t limit_;
  mutable std::mutex mutex_;
  std::function<void()> wake_;
  std::string queue_;
  bool closed_ = false;
  bool closing_ = false;
  std::function<void()> on_closed_;
};

class EventHandle final : public EventStream {
 public:
  explicit EventHandle(std::shared_ptr<EventState> state) : state_(std::move(state)) {}
  ~EventHandle() override { state_->Close(); }

  bool Send(const ServerEvent& event) override {
    std::string text;
    if (!event.id.empty()) text += "id: " + event.id + "\n";
    if (!event.event.empty()) text += "event: " + event.event + "\n";
    for (const std::string& line : Split(event.data, '\n')) text += "data: " + line + "\n";
    text += "\n";
    return state_->Send(std::move(text));
  }
  void Close() override { state_->Close(); }
  bool closed() const override { return state_->closed(); }
  void OnClosed(std::function<void()> callback) override { state_->OnClosed(std::move(callback)); }

 private:
  std::shared_ptr<EventState> state_;
};

// The network's end. The body ends with the connection (no length, no chunks); an event that was
// cut off has no empty line and is dropped by every reader. I/O thread only.
class EventSession final : public Connection, public std::enable_shared_from_this<EventSession> {
 public:
  EventSession(Core* core, Stream stream, std::unique_ptr<Registry::Ticket> ticket,
               std::string head)
      : core_(core),
        ticket_(std::move(ticket)),
        stream_(std::move(stream)),
        timer_(core->io),
        writing_text_(std::move(head)) {}

  ~EventSession() override {
    if (state_ != nullptr) state_->NetworkClosed();
  }

  std::shared_ptr<EventState> Start() {
    ticket_->Assign(weak_from_this());
    state_ = std::make_shared<EventState>(core_->limits().event_queue.bytes(),
                                          [core = core_, weak = weak_from_this()] {
                                            asio::post(core->io, [weak] {
                                              if (const auto self = weak.lock()) self->Pump();
                                            });
                                          });
    beast::get_lowest_layer(stream_).expires_never();
    WatchPeer();
    Tick();
    Write();
    return state_;
  }

  void Drain() override { state_->Close(); }
  void Abort() override { End(); }

 private:
  // The client has nothing to say on this connection: whatever arrives, mostly its end, ends it.
  void WatchPeer() {
    stream_.async_read_some(
        asio::buffer(ignored_),
        [self = shared_from_this()](beast::error_code, size_t) { self->End(); });
  }

  void Tick() {
    timer_.expires_after(std::min(core_->limits().heartbeat, core_->limits().write_timeout));
    timer_.async_wait([weak = weak_from_this()](beast::error_code error) {
      const auto self = weak.lock();
      if (error || self == nullptr || self->ended_) return;
      const auto now = steady_clock::now();
      if (self->writing_ && now - self->write_start_ >= self->core_->limits().write_timeout) {
        self->End();
        return;
      }
      if (!self->writing_ && now - self->write_start_ >= self->core_->limits().heartbeat) {
        self->writing_text_ = ":\n\n";
        self->Write();
      }
      self->Tick();
    });
  }

  void Pump() {
    if (ended_) return;
    if (state_->broken()) {
      End();
      return;
    }
    if (writing_) return;
    bool end = false;
    writing_text_ = state_->Take(&end);
    if (!writing_text_.empty()) {
      Write();
    } else if (end) {
      End();
    }
  }

  void Write() {
    writing_ = true;
    write_start_ = steady_clock::now();
    asio::async_write(stream_, asio::buffer(writing_text_),
                      [self = shared_from_this()](beast::error_code error, size_t) {
                        self->writing_ = false;
                        if (error) {
                          self->End();
                        } else {
                          self->Pump();
                        }
                      });
  }

  void End() {
    if (std::exchange(ended_, true)) return;
    timer_.cancel();
    beast::get_lowest_layer(stream_).close();
    state_->NetworkClosed();
  }

  Core* core_;
  std::unique_ptr<Registry::Ticket> ticket_;
  Stream stream_;
  asio::steady_timer timer_;
  std::shared_ptr<EventState> state_;
  std::string writing_text_;
  char ignored_[1] = {};
  bool writing_ = false;
  bool ended_ = false;
  steady_clock::time_point write_start_;
};

}  // namespace

void ServeEvents(Core* core, Stream stream, std::unique_ptr<Registry::Ticket> ticket,
                 std::string head, const Response& response) {
  const auto session =
      std::make_shared<EventSession>(core, std::move(stream), std::move(ticket), std::move(head));
  const auto handle = std::make_shared<EventHandle>(session->Start());
  if (core->draining) session->Drain();
  // If the pool is stopped, the handle goes away here and ends the stream.
  core->pool.SubmitNext([start = response.events, handle] { start(handle); });
}

}  // namespace vallum::http
