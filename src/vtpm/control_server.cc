// SPDX-License-Identifier: Apache-2.0
#include "vtpm/control_server.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace vallum::vtpm {

void ControlServer::AddPollItems(std::vector<pollfd>& items) {
  polled_.clear();
  const bool full = clients_.size() >= kMaxClients;
  items.push_back({full ? -1 : listener_.get(), POLLIN, 0});
  for (const auto& [id, client] : clients_) {
    // Without POLLIN poll still reports that a client has hung up.
    const int events = (client.output.empty() ? 0 : POLLOUT) | (client.busy() ? 0 : POLLIN);
    items.push_back({client.fd.get(), static_cast<short>(events), 0});
    polled_.push_back(id);
  }
}

void ControlServer::HandlePoll(std::span<const pollfd> items, Time now) {
  for (size_t i = 0; i < polled_.size(); ++i) {
    const short events = items[i + 1].revents;
    Client& client = clients_.at(polled_[i]);
    if ((events & POLLOUT) != 0) {
      Flush(client);
    }
    if ((events & POLLIN) != 0) {
      Read(client);
    } else if ((events & (POLLHUP | POLLERR | POLLNVAL)) != 0) {
      client.gone = true;
    }
    Serve(polled_[i], client, now);
  }
  if ((items[0].revents & POLLIN) != 0) {
    Accept();
  }
  DropGone();
}

void ControlServer::Accept() {
  UniqueFd fd(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd.valid()) {
    clients_[next_id_++].fd = std::move(fd);
  }
}

void ControlServer::Read(Client& client) {
  char buffer[kMaxRequestLine];
  const ssize_t count = recv(client.fd.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
  if (count > 0) {
    client.input.append(buffer, static_cast<size_t>(count));
  } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
    client.gone = true;
  }
}

void ControlServer::Serve(ClientId id, Client& client, Time now) {
  while (!client.gone && !client.busy()) {
    const size_t end = client.input.find('\n');
    if (end == std::string::npos) {
      if (client.input.size() > kMaxRequestLine) {
        client.gone = true;
      }
      return;
    }
    const std::string line = client.input.substr(0, end);
    client.input.erase(0, end + 1);
    Handle(id, client, line, now);
    Flush(client);
  }
}

void ControlServer::Handle(ClientId id, Client& client, const std::string& line, Time now) {
  const auto request = ParseRequest(line);
  if (!request.has_value()) {
    client.output = FormatError(request.error());
  } else if (const auto* records = std::get_if<RecordsRequest>(&*request)) {
    RecordBatch batch = backend_.RecordsSince(records->since);
    if (batch.records.empty() && records->wait.count() > 0) {
      client.awaits_records_after = records->since;
      client.deadline = now + records->wait;
    } else {
      client.output = FormatRecords(batch);
    }
  } else if (const auto* pcrs = std::get_if<PcrsRequest>(&*request)) {
    client.awaits_reply = true;
    backend_.ReadPcrs(id, *pcrs);
  } else if (const auto* quote = std::get_if<QuoteRequest>(&*request)) {
    client.awaits_reply = true;
    backend_.MakeQuote(id, *quote);
  } else if (const auto* certificate = std::get_if<CertificateRequest>(&*request)) {
    client.awaits_reply = true;
    backend_.PutCertificate(id, *certificate);
  } else if (std::holds_alternative<IdentityRequest>(*request)) {
    const auto identity = backend_.Identity();
    client.output =
        identity.has_value() ? FormatIdentity(*identity) : FormatError(identity.error());
  } else if (std::holds_alternative<StatusRequest>(*request)) {
    client.output = FormatStatus(backend_.Status());
  } else {
    client.output = FormatDone();
    backend_.Stop();
  }
}

void ControlServer::Flush(Client& client) {
  while (!client.output.empty()) {
    const ssize_t count = send(client.fd.get(), client.output.data(), client.output.size(),
                               MSG_NOSIGNAL | MSG_DONTWAIT);
    if (count < 0) {
      client.gone = errno != EAGAIN && errno != EINTR;
      return;
    }
    client.output.erase(0, static_cast<size_t>(count));
  }
}

std::optional<ControlServer::Time> ControlServer::NextDeadline() const {
  std::optional<Time> next;
  for (const auto& [id, client] : clients_) {
    if (client.awaits_records_after.has_value()) {
      next = next.has_value() ? std::min(*next, client.deadline) : client.deadline;
    }
  }
  return next;
}

void ControlServer::HandleTime(Time now) {
  for (auto& [id, client] : clients_) {
    if (client.awaits_records_after.has_value() && client.deadline <= now) {
      client.output = FormatRecords(backend_.RecordsSince(*client.awaits_records_after));
      client.awaits_records_after.reset();
      Flush(client);
    }
  }
  DropGone();
}

void ControlServer::HandleNewRecords() {
  for (auto& [id, client] : clients_) {
    if (!client.awaits_records_after.has_value()) {
      continue;
    }
    const RecordBatch batch = backend_.RecordsSince(*client.awaits_records_after);
    if (!batch.records.empty()) {
      client.awaits_records_after.reset();
      client.output = FormatRecords(batch);
      Flush(client);
    }
  }
  DropGone();
}

void ControlServer::Reply(ClientId id, std::string line) {
  const auto found = clients_.find(id);
  if (found != clients_.end() && found->second.awaits_reply) {
    found->second.awaits_reply = false;
    found->second.output = std::move(line);
    Flush(found->second);
  }
}

void ControlServer::DropGone() {
  std::erase_if(clients_, [](const auto& entry) { return entry.second.gone; });
}

}  // namespace vallum::vtpm
