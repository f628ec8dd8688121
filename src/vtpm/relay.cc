// SPDX-License-Identifier: Apache-2.0
#include "vtpm/relay.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "vtpm/control_message.h"
#include "vtpm/provision.h"
#include "vtpm/tpm_command.h"

namespace vallum::vtpm {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kJobTimeout{5'000};
constexpr milliseconds kEndTimeout{3'000};
constexpr size_t kMaxJobs = 64;
constexpr ClientId kNobody = 0;

// Positions in the list that is polled; the control server's items follow.
enum Item : size_t {
  kStopItem,
  kListenerItem,
  kQemuControlItem,
  kQemuDataItem,
  kSwtpmControlItem,
  kSwtpmDataItem,
  kSwtpmProcessItem,
  kItemCount
};

constexpr short kGoneEvents = POLLHUP | POLLERR | POLLNVAL;

}  // namespace

Relay::Relay(UniqueFd qemu_listener, UniqueFd control_listener, UniqueFd stop_fd, Swtpm& swtpm,
             RecordFile& record)
    : qemu_listener_(std::move(qemu_listener)),
      stop_fd_(std::move(stop_fd)),
      swtpm_(swtpm),
      record_(record),
      server_(std::move(control_listener), *this),
      swtpm_control_(Channel::Borrow(swtpm.control_fd())),
      swtpm_data_(Channel::Borrow(swtpm.data_fd())) {}

RelayEnd Relay::Run(milliseconds connect_timeout) {
  const Time connect_deadline = std::chrono::steady_clock::now() + connect_timeout;
  while (!end_.has_value()) {
    PollOnce(connect_deadline);
  }
  qemu_control_.Close();
  qemu_data_.Close();
  return *end_;
}

int Relay::PollTimeout(Time connect_deadline) const {
  std::optional<Time> next = server_.NextDeadline();
  const auto earlier = [&next](Time time) {
    next = next.has_value() ? std::min(*next, time) : time;
  };
  if (qemu_listener_.valid()) {
    earlier(connect_deadline);
  }
  if (!jobs_.empty()) {
    earlier(jobs_.front().deadline);
  }
  if (held_until_.has_value()) {
    earlier(*held_until_);
  }
  if (!next.has_value()) {
    return -1;
  }
  const auto left =
      std::chrono::ceil<milliseconds>(*next - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 60'000));
}

void Relay::PollOnce(Time connect_deadline) {
  poll_items_.clear();
  poll_items_.push_back({stop_fd_.get(), POLLIN, 0});
  poll_items_.push_back({qemu_listener_.get(), POLLIN, 0});
  poll_items_.push_back(qemu_control_.PollItem());
  poll_items_.push_back(qemu_data_.PollItem());
  poll_items_.push_back(swtpm_control_.PollItem());
  poll_items_.push_back(swtpm_data_.PollItem());
  poll_items_.push_back({swtpm_.pidfd(), POLLIN, 0});
  server_.AddPollItems(poll_items_);
  const int timeout = PollTimeout(connect_deadline);
  if (poll(poll_items_.data(), poll_items_.size(), timeout) < 0) {
    if (errno != EINTR) {
      End(EndCause::kTpmLost, std::string("poll failed: ") + ErrnoError(errno, "").message());
    }
    return;
  }
  HandlePoll(poll_items_);
  const Time now = std::chrono::steady_clock::now();
  server_.HandlePoll(std::span(poll_items_).subspan(kItemCount), now);
  if (held_until_.has_value() && now >= *held_until_) {
    held_until_.reset();
  }
  Pump();
  ExpireJobs(now);
  server_.HandleTime(now);
  if (std::exchange(new_records_, false)) {
    server_.HandleNewRecords();
  }
  if (qemu_listener_.valid() && now >= connect_deadline) {
    End(EndCause::kNoQemu, "QEMU did not connect in time");
  }
}

void Relay::HandlePoll(const std::vector<pollfd>& items) {
  // swtpm's last words come before its end.
  OnSwtpmData(items[kSwtpmDataItem].revents);
  OnSwtpmControl(items[kSwtpmControlItem].revents);
  OnQemuControl(items[kQemuControlItem].revents);
  OnQemuData(items[kQemuDataItem].revents);
  if (items[kSwtpmProcessItem].revents != 0) {
    OnTpmLost("swtpm ended by itself");
  }
  if ((items[kListenerItem].revents & POLLIN) != 0) {
    AcceptQemu();
  }
  if (items[kStopItem].revents != 0) {
    End(EndCause::kStopped, "stopped by a signal");
  }
}

void Relay::AcceptQemu() {
  UniqueFd fd(accept4(qemu_listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.valid()) {
    qemu_control_ = Channel(std::move(fd));
    // A second connection is refused by the kernel from here on.
    qemu_listener_.Reset();
  }
}

void Relay::OnQemuControl(short events) {
  if ((events & POLLOUT) != 0) {
    qemu_control_.Flush();
  }
  if ((events & (POLLIN | kGoneEvents)) != 0 && qemu_control_.Read() == ReadOutcome::kClosed) {
    End(EndCause::kQemuGone, "QEMU closed its connection");
  }
}

void Relay::OnQemuData(short events) {
  if ((events & POLLOUT) != 0) {
    qemu_data_.Flush();
  }
  if ((events & (POLLIN | kGoneEvents)) != 0 && qemu_data_.Read() == ReadOutcome::kClosed) {
    End(EndCause::kQemuGone, "QEMU closed its data channel");
  }
}

void Relay::OnSwtpmControl(short events) {
  if ((events & POLLOUT) != 0) {
    swtpm_control_.Flush();
  }
  if ((events & (POLLIN | kGoneEvents)) == 0) {
    return;
  }
  const ReadOutcome outcome = swtpm_control_.Read();
  if (control_busy_.has_value()) {
    const auto size = ControlResponseSize(*control_busy_, swtpm_control_.received());
    const size_t received = swtpm_control_.received().size();
    if (!size.has_value() || (size->has_value() && **size < received)) {
      End(EndCause::kTpmLost, "swtpm sent a control message that cannot be read");
    } else if (size->has_value() && received > 0 && received == **size) {
      const Bytes response = swtpm_control_.TakeAll();
      Append(tracker_.OnControl(control_request_, response));
      qemu_control_.Send(response);
      if (std::exchange(control_busy_, std::nullopt) == ControlCommand::kShutdown &&
          ControlResult(response).value_or(~0U) == kControlSuccess) {
        End(EndCause::kQemuGone, "QEMU shut the TPM down");
      }
    }
  }
  if (!end_.has_value() && outcome == ReadOutcome::kClosed) {
    End(EndCause::kTpmLost, "swtpm closed its control channel");
  } else if (!end_.has_value() && !control_busy_.has_value() &&
             !swtpm_control_.received().empty()) {
    End(EndCause::kTpmLost, "swtpm sent a control message that nobody asked for");
  }
}

void Relay::OnSwtpmData(short events) {
  if ((events & POLLOUT) != 0) {
    swtpm_data_.Flush();
  }
  if ((events & (POLLIN | kGoneEvents)) == 0) {
    return;
  }
  const ReadOutcome outcome = swtpm_data_.Read();
  const ByteView received = swtpm_data_.received();
  if (data_busy_ == Busy::kGuestUnframed && !received.empty()) {
    FinishUnframed();
  } else if (!received.empty()) {
    const auto size = TpmMessageSize(received);
    if (data_busy_ == Busy::kNot || !size.has_value() ||
        (size->has_value() && **size < received.size())) {
      End(EndCause::kTpmLost, "swtpm sent what is no answer to the command before");
      return;
    }
    if (*size == received.size()) {
      FinishCommand(swtpm_data_.TakeAll());
    }
  }
  if (outcome == ReadOutcome::kClosed) {
    OnTpmLost("swtpm closed its data channel");
  }
}

void Relay::OnTpmLost(const std::string& reason) {
  if (control_busy_.has_value()) {
    // It may have ended because QEMU told it to: its answer, sent before, explains it.
    OnSwtpmControl(POLLIN);
  }
  End(EndCause::kTpmLost, reason);
}

void Relay::FinishUnframed() {
  // swtpm understands a prefix that sets the locality, and keeps it. Only QEMU may set it: a guest
  // that keeps locality 3 over a reset would begin the next boot with another PCR 0.
  const auto restored = swtpm_.Control(MakeControlSetLocality(tracker_.locality()), kEndTimeout);
  if (!restored.has_value()) {
    End(EndCause::kTpmLost, restored.error().message());
    return;
  }
  // Nobody can say where this answer ends; swtpm writes each at once.
  qemu_data_.Send(swtpm_data_.TakeAll());
  data_busy_ = Busy::kNot;
}

void Relay::FinishCommand(const Bytes& response) {
  switch (std::exchange(data_busy_, Busy::kNot)) {
    case Busy::kGuest:
      FinishGuestCommand(response);
      break;
    case Busy::kHost:
      FinishJob(response);
      break;
    case Busy::kHostBanks:
      tracker_.OnBanks(response);
      break;
    case Busy::kNot:
    case Busy::kGuestUnframed:
      break;
  }
}

void Relay::FinishGuestCommand(const Bytes& response) {
  // Recorded first: whatever the guest has seen is in the record, even if this process dies now.
  Append(tracker_.OnCommand(guest_command_, response));
  qemu_data_.Send(response);
  ++guest_commands_;
}

Bytes Relay::HostJob::Next() const {
  return std::visit([](const auto& steps) { return steps.Next(); }, work);
}

std::optional<std::string> Relay::HostJob::OnResponse(ByteView response) {
  if (auto* maker = std::get_if<QuoteMaker>(&work)) {
    const auto quote = maker->OnResponse(response);
    if (!quote.has_value()) {
      return std::nullopt;
    }
    return quote->has_value() ? FormatQuote(**quote) : FormatError(quote->error());
  }
  const auto values = std::get<PcrReader>(work).OnResponse(response);
  if (!values.has_value()) {
    return FormatError(values.error());
  }
  return values->has_value() ? std::optional(FormatPcrs(**values)) : std::nullopt;
}

void Relay::FinishJob(const Bytes& response) {
  HostJob& job = jobs_.front();
  auto line = job.OnResponse(response);
  if (!line.has_value()) {
    // The job is one: no command of the guest comes between its parts.
    data_busy_ = Busy::kHost;
    swtpm_data_.Send(job.Next());
    return;
  }
  server_.Reply(job.client, *std::move(line));
  jobs_.pop_front();
}

void Relay::Pump() {
  while (!end_.has_value() &&
         (PumpCertificate() || PumpControl() || PumpBanks() || PumpData() || PumpJobs())) {
  }
}

bool Relay::PumpControl() {
  if (control_busy_.has_value()) {
    return false;
  }
  const ByteView received = qemu_control_.received();
  const auto size = ControlRequestSize(received);
  if (!size.has_value()) {
    End(EndCause::kProtocol, "QEMU sent a control message that is too large");
    return false;
  }
  if (!size->has_value() || **size > received.size() || received.empty()) {
    return false;
  }
  const ControlCommand command = ControlCommandOf(received).value_or(ControlCommand::kGetConfig);
  // One after the other, so that the order in the record is the order in the TPM. Only the request
  // to cancel the guest's command overtakes that command.
  const bool overtakes = command == ControlCommand::kCancelTpmCommand && data_busy_ == Busy::kGuest;
  if (data_busy_ != Busy::kNot && !overtakes) {
    return false;
  }
  if (command == ControlCommand::kInit && held_until_.has_value()) {
    return false;
  }
  if (command == ControlCommand::kInit || command == ControlCommand::kSetStateBlob) {
    untouched_ = false;
    held_until_.reset();
  }
  Bytes request = qemu_control_.Take(**size);
  if (command == ControlCommand::kSetDataFd) {
    TakeDataDescriptor();
    return true;
  }
  if (command == ControlCommand::kShutdown) {
    ShutDownBeforeQemuDoes();
  }
  SendControl(std::move(request), command);
  return true;
}

void Relay::SendControl(Bytes request, ControlCommand command) {
  control_busy_ = command;
  control_request_ = std::move(request);
  swtpm_control_.Send(control_request_);
}

// swtpm has had its end of a socket pair from the start; QEMU's end of its own pair stays here.
void Relay::TakeDataDescriptor() {
  UniqueFd fd = qemu_control_.TakeDescriptor();
  if (!fd.valid() || qemu_data_.open()) {
    qemu_control_.Send(MakeControlResult(kControlIoError));
    return;
  }
  qemu_data_ = Channel(std::move(fd));
  qemu_control_.Send(MakeControlResult(kControlSuccess));
}

// Newer swtpms do the same: without it the TPM takes the end for an attempt to guess passwords.
void Relay::ShutDownBeforeQemuDoes() {
  if (!tracker_.needs_shutdown()) {
    return;
  }
  const Bytes command = MakeShutdown(measure::StartupType::kClear);
  const auto response = swtpm_.Command(command, kEndTimeout);
  if (response.has_value()) {
    Append(tracker_.OnCommand(command, *response));
  }
}

bool Relay::PumpBanks() {
  if (!tracker_.needs_banks() || data_busy_ != Busy::kNot || control_busy_.has_value() ||
      tracker_.hashing()) {
    return false;
  }
  data_busy_ = Busy::kHostBanks;
  swtpm_data_.Send(MakeGetPcrBanks());
  return true;
}

bool Relay::PumpData() {
  if (data_busy_ != Busy::kNot || control_busy_.has_value() || qemu_data_.received().empty()) {
    return false;
  }
  const auto size = TpmMessageSize(qemu_data_.received());
  if (!size.has_value()) {
    guest_command_ = qemu_data_.TakeAll();
    data_busy_ = Busy::kGuestUnframed;
    Append(tracker_.OnUnframed());
  } else if (!size->has_value() || **size > qemu_data_.received().size()) {
    return false;
  } else {
    guest_command_ = qemu_data_.Take(**size);
    data_busy_ = Busy::kGuest;
  }
  swtpm_data_.Send(guest_command_);
  return true;
}

bool Relay::PumpJobs() {
  if (jobs_.empty() || data_busy_ != Busy::kNot || control_busy_.has_value() ||
      tracker_.hashing()) {
    return false;
  }
  if (tracker_.state() != TpmState::kStarted) {
    server_.Reply(jobs_.front().client,
                  FormatError(Unavailable("the TPM is not started: firmware has not run yet")));
    jobs_.pop_front();
    return true;
  }
  data_busy_ = Busy::kHost;
  swtpm_data_.Send(jobs_.front().Next());
  return true;
}

void Relay::ExpireJobs(Time now) {
  const std::string line = FormatError(Unavailable("the TPM was busy for too long"));
  for (HostJob& job : jobs_) {
    if (job.deadline <= now) {
      server_.Reply(std::exchange(job.client, kNobody), line);
      job.deadline = Time::max();
    }
  }
  // One that is under way stays until its answer has come.
  const auto waiting = jobs_.begin() + (data_busy_ == Busy::kHost ? 1 : 0);
  jobs_.erase(std::remove_if(waiting, jobs_.end(),
                             [](const HostJob& job) { return job.client == kNobody; }),
              jobs_.end());
}

void Relay::Append(std::vector<measure::RecordBody> bodies) {
  for (measure::RecordBody& body : bodies) {
    record_.Append(std::move(body));
    new_records_ = true;
  }
}

void Relay::End(EndCause cause, std::string reason) {
  // The first cause is the cause; what follows from it is not.
  if (!end_.has_value()) {
    end_ = RelayEnd{cause, std::move(reason)};
  }
}

std::string Relay::EndTpm() {
  if (data_busy_ != Busy::kNot && data_busy_ != Busy::kGuestUnframed) {
    const auto response = swtpm_.AwaitResponse(swtpm_data_.TakeAll(), kEndTimeout);
    if (response.has_value() && std::exchange(data_busy_, Busy::kNot) == Busy::kGuest) {
      Append(tracker_.OnCommand(guest_command_, *response));
    }
  }
  if (data_busy_ == Busy::kNot) {
    ShutDownBeforeQemuDoes();
  }
  return swtpm_.End(kEndTimeout);
}

VtpmStatus Relay::Status() const {
  return {.tpm = tracker_.state(),
          .qemu_connected = qemu_control_.open(),
          .pid = getpid(),
          .swtpm_pid = swtpm_.pid(),
          .first_sequence = record_.log().first_sequence(),
          .last_sequence = record_.log().last_sequence(),
          .guest_commands = guest_commands_,
          .record_error = record_.error()};
}

RecordBatch Relay::RecordsSince(uint64_t sequence) const {
  const auto newer = record_.log().Since(sequence);
  const auto some = newer.first(std::min(newer.size(), ControlClient::kMaxBatch));
  return {
      {some.begin(), some.end()}, record_.log().first_sequence(), record_.log().last_sequence()};
}

void Relay::AddJob(ClientId client, std::variant<PcrReader, QuoteMaker> work) {
  // A client has one request at a time; so many can only be of clients that have gone.
  if (jobs_.size() >= kMaxJobs) {
    server_.Reply(client, FormatError(Exhausted("too many requests to the TPM")));
    return;
  }
  jobs_.push_back({client, std::move(work), std::chrono::steady_clock::now() + kJobTimeout});
}

void Relay::ReadPcrs(ClientId client, const PcrsRequest& request) {
  AddJob(client, PcrReader(request));
}

void Relay::MakeQuote(ClientId client, const QuoteRequest& request) {
  if (!identity_.has_value()) {
    server_.Reply(client, FormatError(identity_.error()));
    return;
  }
  AddJob(client, QuoteMaker(request, identity_->ak_public));
}

void Relay::AwaitCertificate(milliseconds limit) {
  if (identity_.has_value() && identity_->certificate.empty()) {
    held_until_ = std::chrono::steady_clock::now() + limit;
  }
}

void Relay::PutCertificate(ClientId client, const CertificateRequest& request) {
  certificates_.push_back({client, request.der});
}

bool Relay::PumpCertificate() {
  if (certificates_.empty() || control_busy_.has_value() || data_busy_ != Busy::kNot) {
    return false;
  }
  const CertificateJob job = std::move(certificates_.front());
  certificates_.pop_front();
  const auto written = job.der.empty() ? Ok() : WriteCertificate(job.der);
  held_until_.reset();
  server_.Reply(job.client, written.has_value() ? FormatDone() : FormatError(written.error()));
  return true;
}

Result<void> Relay::WriteCertificate(ByteView der) {
  RETURN_IF_ERROR(identity_);
  if (std::ranges::equal(identity_->certificate, der)) {
    return Ok();
  }
  if (!untouched_) {
    return Conflict("the guest's machine uses its TPM already")
        .WithFix("give the certificate at the next start");
  }
  RETURN_IF_ERROR(swtpm_.PowerOn(kEndTimeout));
  const auto stored = StoreCertificate(swtpm_, der, kEndTimeout);
  RETURN_IF_ERROR(swtpm_.PowerOff(kEndTimeout));
  if (stored.has_value()) {
    identity_->certificate = ToBytes(der);
  }
  return stored;
}

}  // namespace vallum::vtpm
