// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <mutex>
#include <string>
#include <utility>

#include "controller/gateway_impl.h"
#include "controller/report_limits.h"

namespace vallum::controller {

void LiveCalls::Add() {
  const std::lock_guard lock(mutex_);
  ++live_;
}

void LiveCalls::Remove() {
  const std::lock_guard lock(mutex_);
  --live_;
  none_.notify_all();
}

void LiveCalls::WaitForNone() {
  std::unique_lock lock(mutex_);
  none_.wait(lock, [&] { return live_ == 0; });
}

SessionReactor::SessionReactor(Gateway::Impl& gateway, grpc::CallbackServerContext& context,
                               std::string host)
    : gateway_(gateway), context_(context), host_(std::move(host)) {
  gateway_.live().Add();
}

void SessionReactor::Begin() { StartRead(&incoming_); }

void SessionReactor::OnReadDone(bool ok) {
  if (!ok) {
    const std::lock_guard lock(mutex_);
    read_ended_ = true;
    FinishIfIdle();
    return;
  }
  if (!greeted_ && !incoming_.has_hello()) {
    const std::lock_guard lock(mutex_);
    status_ = {grpc::StatusCode::INVALID_ARGUMENT, "the first message must be Hello"};
    read_ended_ = true;
    FinishIfIdle();
    return;
  }
  if (const auto handled = Handle(); !handled.has_value()) {
    Refuse(handled.error());
    return;
  }
  StartRead(&incoming_);
}

// An agent dials again at once: the log gets one line a minute of each host.
void SessionReactor::Refuse(const Error& why) {
  if (gateway_.pace().Take("message " + host_)) {
    // The session ends, told or not.
    static_cast<void>(gateway_.parts().events.Append({.kind = "host.message-refused",
                                                      .severity = "warning",
                                                      .object = "hosts/" + host_,
                                                      .user = {},
                                                      .message = why.message(),
                                                      .tenant = {}}));
  }
  const std::lock_guard lock(mutex_);
  status_ = ToGrpcStatus(why);
  read_ended_ = true;
  FinishIfIdle();
}

Result<void> SessionReactor::Handle() {
  AgentListener& listener = gateway_.parts().listener;
  switch (incoming_.message_case()) {
    case v1::AgentMessage::kHello: {
      if (greeted_) {
        break;
      }
      RETURN_IF_ERROR(CheckHello(incoming_.hello()));
      greeted_ = true;
      boot_id_ = incoming_.hello().boot_id();
      v1::ControllerMessage welcome;
      welcome.mutable_welcome()->set_heartbeat_seconds(
          static_cast<int32_t>(gateway_.options().heartbeat.count()));
      welcome.mutable_welcome()->set_attested(gateway_.parts().trust.Attests(host_));
      Send(std::move(welcome));
      gateway_.Register(host_, this);
      listener.OnHello(host_, std::move(*incoming_.mutable_hello()));
      break;
    }
    case v1::AgentMessage::kReport:
      gateway_.parts().metrics.agent_reports_total.fetch_add(1);
      listener.OnReport(host_, std::move(*incoming_.mutable_report()));
      break;
    case v1::AgentMessage::kHeartbeat:
      listener.OnHeartbeat(host_, incoming_.heartbeat());
      break;
    case v1::AgentMessage::kCapabilities:
      RETURN_IF_ERROR(CheckCapabilities(incoming_.capabilities()));
      listener.OnCapabilities(host_, std::move(*incoming_.mutable_capabilities()));
      break;
    case v1::AgentMessage::kEvidence:
      listener.OnEvidence(host_, std::move(*incoming_.mutable_evidence()));
      break;
    case v1::AgentMessage::kLeaseWanted:
      gateway_.parts().trust.OnLeaseWanted(host_);
      break;
    case v1::AgentMessage::MESSAGE_NOT_SET:
      break;  // a newer agent's message: it tells an older controller nothing
  }
  return Ok();
}

void SessionReactor::Send(v1::ControllerMessage message) {
  const std::lock_guard lock(mutex_);
  if (read_ended_ || finished_) {
    return;
  }
  if (outgoing_.size() >= kMaxWaiting) {
    context_.TryCancel();
    return;
  }
  outgoing_.push_back(std::move(message));
  if (!writing_) {
    writing_ = true;
    StartWrite(&outgoing_.front());
  }
}

void SessionReactor::SendDesired(const v1::DesiredState& desired) {
  {
    const std::lock_guard lock(mutex_);
    last_sent_.clear();
    for (const v1::DesiredInstance& instance : desired.instances()) {
      last_sent_[instance.uid()] = Sha256(AsBytes(instance.SerializeAsString()));
    }
  }
  v1::ControllerMessage message;
  *message.mutable_desired() = desired;
  Send(std::move(message));
}

void SessionReactor::SendInstance(const v1::DesiredInstance& desired) {
  {
    const std::lock_guard lock(mutex_);
    const Sha256Digest digest = Sha256(AsBytes(desired.SerializeAsString()));
    const auto [last, added] = last_sent_.try_emplace(desired.uid(), digest);
    if (!added && last->second == digest) {
      return;
    }
    last->second = digest;
  }
  v1::ControllerMessage message;
  *message.mutable_instance() = desired;
  Send(std::move(message));
}

void SessionReactor::OnWriteDone(bool ok) {
  const std::lock_guard lock(mutex_);
  outgoing_.pop_front();
  if (ok && !read_ended_ && !outgoing_.empty()) {
    StartWrite(&outgoing_.front());
    return;
  }
  writing_ = false;
  FinishIfIdle();
}

void SessionReactor::FinishIfIdle() {
  if (read_ended_ && !writing_ && !finished_) {
    finished_ = true;
    Finish(status_);
  }
}

void SessionReactor::OnDone() {
  if (greeted_) {
    gateway_.Unregister(host_, this);
  }
  LiveCalls& live = gateway_.live();
  delete this;
  live.Remove();
}

}  // namespace vallum::controller
