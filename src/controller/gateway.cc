// SPDX-License-Identifier: Apache-2.0
#include "controller/gateway.h"

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "base/ids.h"
#include "base/secret_bytes.h"
#include "base/text.h"
#include "controller/gateway_console.h"
#include "controller/gateway_impl.h"

namespace vallum::controller {
namespace {

constexpr int kEnrollAttempts = 20;
constexpr size_t kMaxToken = 512;
constexpr size_t kChunk = size_t{1} << 20U;
constexpr int kMaxMessage = 4 << 20;
constexpr int kMaxStreamsOfAgent = 256;
constexpr std::chrono::seconds kStopGrace{1};

// Sends one blob, piece by piece. Deletes itself.
class BlobReactor final : public grpc::ServerWriteReactor<v1::BlobChunk> {
 public:
  BlobReactor(Gateway::Impl& gateway, store::OpenBlob blob, uint64_t offset)
      : gateway_(gateway), blob_(std::move(blob)), offset_(offset) {
    gateway_.live().Add();
  }
  void Begin() { Next(); }
  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::CANCELLED);
      return;
    }
    Next();
  }
  void OnDone() override {
    LiveCalls& live = gateway_.live();
    delete this;
    live.Remove();
  }

 private:
  void Next() {
    std::string& data = *chunk_.mutable_data();
    data.resize(kChunk);
    const ssize_t got =
        pread(blob_.fd.get(), data.data(), data.size(), static_cast<off_t>(offset_));
    if (got < 0) {
      Finish({grpc::StatusCode::UNAVAILABLE, "reading the image failed"});
      return;
    }
    if (got == 0) {
      Finish(grpc::Status::OK);
      return;
    }
    data.resize(static_cast<size_t>(got));
    offset_ += static_cast<uint64_t>(got);
    gateway_.parts().metrics.blob_bytes_sent_total.fetch_add(static_cast<uint64_t>(got));
    StartWrite(&chunk_);
  }

  Gateway::Impl& gateway_;
  store::OpenBlob blob_;
  uint64_t offset_;
  v1::BlobChunk chunk_;
};

Error NotAllowedToJoin() {
  return Denied("the join token is unknown, used or expired")
      .WithFix("make a new one with `vallum token create --role join`");
}

// An event that cannot be stored must not undo what it tells of.
void Tell(EventLog& events, EventLog::Entry entry) { static_cast<void>(events.Append(entry)); }

}  // namespace

grpc::Status ToGrpcStatus(const Error& error) {
  const auto code = [&] {
    switch (error.code()) {
      case ErrorCode::kInvalidInput:
        return grpc::StatusCode::INVALID_ARGUMENT;
      case ErrorCode::kNotFound:
        return grpc::StatusCode::NOT_FOUND;
      case ErrorCode::kConflict:
        return grpc::StatusCode::ALREADY_EXISTS;
      case ErrorCode::kDenied:
        return grpc::StatusCode::UNAUTHENTICATED;
      case ErrorCode::kUnavailable:
        return grpc::StatusCode::UNAVAILABLE;
      case ErrorCode::kCorrupt:
        return grpc::StatusCode::DATA_LOSS;
      case ErrorCode::kExhausted:
        return grpc::StatusCode::RESOURCE_EXHAUSTED;
      case ErrorCode::kInternal:
        return grpc::StatusCode::INTERNAL;
    }
    return grpc::StatusCode::INTERNAL;
  }();
  std::string text = error.Describe();
  if (!error.fix().empty()) {
    text += " (" + error.fix() + ")";
  }
  return {code, text};
}

grpc::Status ToRefusal(const Error& error) {
  const grpc::Status status = ToGrpcStatus(error);
  return error.code() == ErrorCode::kDenied
             ? grpc::Status(grpc::StatusCode::PERMISSION_DENIED, status.error_message())
             : status;
}

Result<void> Gateway::Impl::Start() {
  ASSIGN_OR_RETURN(const tls::Credentials credentials,
                   parts_.authority.IssueServer(options_.names));
  grpc::SslServerCredentialsOptions tls(GRPC_SSL_REQUEST_CLIENT_CERTIFICATE_AND_VERIFY);
  tls.pem_root_certs = parts_.authority.certificate_pem();
  tls.pem_key_cert_pairs.push_back(
      {.private_key = std::string(
           AsText(credentials.private_key_pem.Reveal(SecretAccess("serving TLS to agents")))),
       .cert_chain = credentials.certificate_pem});
  grpc::ServerBuilder builder;
  builder.AddListeningPort(options_.listen, grpc::SslServerCredentials(tls), &port_);
  builder.RegisterService(this);
  builder.SetMaxReceiveMessageSize(kMaxMessage);
  // Agents behind a NAT or a dead link are noticed within a minute.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Its session, transfers, consoles and calls; more at once is no agent of ours.
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxStreamsOfAgent);
  server_ = builder.BuildAndStart();
  if (server_ == nullptr || port_ == 0) {
    return Unavailable("cannot listen for agents on " + options_.listen)
        .WithFix("choose another address with --agent-listen, or end what listens there");
  }
  return Ok();
}

void Gateway::Impl::Stop() {
  {
    const std::lock_guard lock(mutex_);
    for (auto& [host, session] : sessions_) {
      session->Cancel();
    }
  }
  if (server_ != nullptr) {
    server_->Shutdown(std::chrono::system_clock::now() + kStopGrace);
    server_->Wait();
  }
  live_.WaitForNone();
  const std::lock_guard lock(mutex_);
  opening_.clear();
}

Result<std::string> Gateway::Impl::IdentifyHost(const grpc::ServerContextBase& context) const {
  const auto pems = context.auth_context()->FindPropertyValues("x509_pem_cert");
  if (pems.empty()) {
    return Denied("this call needs the agent's client certificate")
        .WithFix("join first, with a join token");
  }
  ASSIGN_OR_RETURN(const PeerIdentity peer, identities_.Read({pems[0].data(), pems[0].size()}));
  if (peer.organizational_unit != tls::kAgentUnit) {
    return Denied("the certificate is not an agent's");
  }
  const auto host = parts_.view.Get<v1::Host>(peer.common_name);
  if (host == nullptr) {
    return Denied("host \"" + Printable(peer.common_name) + "\" is not known, or was deleted")
        .WithFix("join again with a new join token");
  }
  if (host->status().agent_key_sha256() != peer.key_sha256) {
    return Denied("host \"" + peer.common_name + "\" has joined with another key since");
  }
  return peer.common_name;
}

grpc::ServerUnaryReactor* Gateway::Impl::Enroll(grpc::CallbackServerContext* context,
                                                const v1::EnrollRequest* request,
                                                v1::EnrollReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  Result<v1::EnrollReply> done = DoEnroll(*context, *request);
  if (done.has_value()) {
    *reply = *std::move(done);
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }
  parts_.metrics.enrolments_refused_total.fetch_add(1);
  // Anybody can be refused as often as they like: the log gets one line a minute, the metric
  // counts.
  if (pace_.Take("join"))
    Tell(parts_.events, {.kind = "host.join-refused",
                         .severity = "warning",
                         .object = "hosts/" + Printable(request->host_name(), 63),
                         .user = {},
                         .message = done.error().message(),
                         .tenant = {}});
  reactor->Finish(ToGrpcStatus(done.error()));
  return reactor;
}

Result<v1::EnrollReply> Gateway::Impl::DoEnroll(const grpc::ServerContextBase& context,
                                                const v1::EnrollRequest& request) {
  RETURN_IF_ERROR(ValidateName("host", request.host_name()));
  if (request.token().size() > kMaxToken) {
    return NotAllowedToJoin();
  }
  // A token, or a certificate of ours, comes first: nobody else gets a request looked at.
  if (request.token().empty()) {
    RETURN_IF_ERROR(IdentifyHost(context));
  } else {
    RETURN_IF_ERROR(parts_.tokens.FindJoin(request.token()));
  }
  Joining joining;
  joining.host = request.host_name();
  ASSIGN_OR_RETURN(joining.certificate_pem,
                   parts_.authority.IssueAgent(AsBytes(request.csr_der()), request.host_name()));
  ASSIGN_OR_RETURN(const PeerIdentity identity, ReadIdentity(joining.certificate_pem));
  joining.key_sha256 = identity.key_sha256;
  return request.token().empty() ? Renew(context, joining) : Join(request.token(), joining);
}

Result<v1::EnrollReply> Gateway::Impl::Renew(const grpc::ServerContextBase& context,
                                             const Joining& joining) {
  ASSIGN_OR_RETURN(const std::string host, IdentifyHost(context));
  const auto known = parts_.view.Get<v1::Host>(host);
  if (host != joining.host || known == nullptr ||
      known->status().agent_key_sha256() != joining.key_sha256) {
    return Denied("a certificate is renewed for the same host and key only")
        .WithFix("join again with a new join token");
  }
  v1::EnrollReply reply;
  reply.set_certificate_pem(joining.certificate_pem);
  reply.set_ca_pem(parts_.authority.certificate_pem());
  reply.set_pool(known->spec().pool());
  return reply;
}

namespace {

// The host that a join makes or keeps. Errors: kConflict (another machine has the name).
Result<v1::Host> JoinedHost(ResourceStore& resources, const std::string& name,
                            const std::string& key_sha256, const std::string& pool) {
  Result<v1::Host> current = resources.Get<v1::Host>(name);
  if (!current.has_value()) {
    if (current.error().code() != ErrorCode::kNotFound) {
      return current.error();
    }
    v1::Host host;
    host.mutable_metadata()->set_name(name);
    host.mutable_spec()->set_pool(pool);
    host.mutable_status()->set_state(v1::HOST_JOINING);
    host.mutable_status()->set_agent_key_sha256(key_sha256);
    resources.PrepareCreate(host);
    return host;
  }
  if (current->status().agent_key_sha256() != key_sha256) {
    return Conflict("host \"" + name + "\" exists already, with another key")
        .WithFix("choose another name, or delete the host first if this machine takes its place");
  }
  return current;
}

}  // namespace

Result<v1::EnrollReply> Gateway::Impl::Join(std::string_view secret, const Joining& joining) {
  for (int attempt = 0; attempt < kEnrollAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const v1::Token token, parts_.tokens.FindJoin(secret));
    const std::string pool = token.spec().pool().empty() ? "default" : token.spec().pool();
    ASSIGN_OR_RETURN(v1::Host host,
                     JoinedHost(parts_.resources, joining.host, joining.key_sha256, pool));
    v1::EnrollReply reply;
    reply.set_certificate_pem(joining.certificate_pem);
    reply.set_ca_pem(parts_.authority.certificate_pem());
    reply.set_pool(host.spec().pool());
    if (token.status().used()) {
      // The same agent asks again when the reply was lost; the token is spent for all others.
      if (host.metadata().revision() != 0 && token.status().used_by() == joining.host) {
        return reply;
      }
      return NotAllowedToJoin();
    }
    const std::string host_key = KeyOf(Kind::kHost, joining.host);
    const std::string token_key = KeyOf(Kind::kToken, token.metadata().name());
    store::Txn txn;
    txn.compares = {{.key = host_key, .mod_revision = host.metadata().revision()},
                    {.key = token_key, .mod_revision = token.metadata().revision()}};
    txn.writes = {store::Write::Put(host_key, EncodeResource(host)),
                  store::Write::Put(token_key, EncodeResource(Tokens::Spent(token, joining.host)))};
    ASSIGN_OR_RETURN(const store::TxnResult done, parts_.resources.raw().Commit(txn));
    RETURN_IF_ERROR(parts_.view.WaitFor(done.revision));
    if (done.succeeded) {
      parts_.metrics.enrolments_total.fetch_add(1);
      Tell(parts_.events, {.kind = "host.joined",
                           .severity = "info",
                           .object = "hosts/" + joining.host,
                           .user = token.metadata().name(),
                           .message = "joined pool " + host.spec().pool(),
                           .tenant = {}});
      return reply;
    }
  }
  return Unavailable("too many hosts join at once").WithFix("try again");
}

grpc::ServerBidiReactor<v1::AgentMessage, v1::ControllerMessage>* Gateway::Impl::Session(
    grpc::CallbackServerContext* context) {
  using Reactor = grpc::ServerBidiReactor<v1::AgentMessage, v1::ControllerMessage>;
  Result<std::string> host = IdentifyHost(*context);
  if (!host.has_value()) {
    return new Refusal<Reactor>(live_, ToGrpcStatus(host.error()));
  }
  auto* reactor = new SessionReactor(*this, *context, *std::move(host));
  reactor->Begin();
  return reactor;
}

Result<void> Gateway::Impl::MayFetch(const std::string& host, const std::string& sha256) const {
  Result<void> refusal = Denied("no instance of this host starts from that image");
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    if (instance->status().host() != host) {
      continue;
    }
    const auto image = parts_.view.Get<v1::Image>(instance->spec().image());
    const auto snapshot = parts_.view.Get<v1::Snapshot>(instance->spec().snapshot());
    const bool of_image = image != nullptr && image->status().sha256() == sha256;
    if (!of_image && (snapshot == nullptr || snapshot->status().disk().sha256() != sha256)) {
      continue;
    }
    refusal = CheckTrusted(host, *instance);
    if (refusal.has_value()) return refusal;
  }
  return refusal;
}

grpc::ServerWriteReactor<v1::BlobChunk>* Gateway::Impl::FetchBlob(
    grpc::CallbackServerContext* context, const v1::FetchBlobRequest* request) {
  using Reactor = grpc::ServerWriteReactor<v1::BlobChunk>;
  const Result<std::string> host = IdentifyHost(*context);
  if (!host.has_value()) {
    return new Refusal<Reactor>(live_, ToGrpcStatus(host.error()));
  }
  if (const auto may = MayFetch(*host, request->sha256()); !may.has_value()) {
    return new Refusal<Reactor>(live_, ToRefusal(may.error()));
  }
  Result<store::OpenBlob> blob = parts_.blobs.Open(request->sha256());
  if (!blob.has_value()) {
    return new Refusal<Reactor>(live_, ToGrpcStatus(blob.error()));
  }
  if (request->offset() < 0 || static_cast<uint64_t>(request->offset()) > blob->size.bytes()) {
    return new Refusal<Reactor>(
        live_, {grpc::StatusCode::INVALID_ARGUMENT, "the offset is outside the image"});
  }
  auto* reactor =
      new BlobReactor(*this, *std::move(blob), static_cast<uint64_t>(request->offset()));
  reactor->Begin();
  return reactor;
}

grpc::ServerBidiReactor<v1::ConsoleFrame, v1::ConsoleFrame>* Gateway::Impl::Console(
    grpc::CallbackServerContext* context) {
  using Reactor = grpc::ServerBidiReactor<v1::ConsoleFrame, v1::ConsoleFrame>;
  Result<std::string> host = IdentifyHost(*context);
  if (!host.has_value()) {
    return new Refusal<Reactor>(live_, ToGrpcStatus(host.error()));
  }
  auto* reactor = new ConsoleReactor(*this, *std::move(host));
  reactor->Begin();
  return reactor;
}

void Gateway::Impl::Register(const std::string& host, SessionReactor* session) {
  const std::lock_guard lock(mutex_);
  SessionReactor*& slot = sessions_[host];
  // An agent that dials again has given its old stream up, even if nobody has noticed yet.
  if (slot != nullptr) {
    slot->Cancel();
  } else {
    parts_.metrics.agent_sessions.fetch_add(1);
  }
  slot = session;
}

void Gateway::Impl::Unregister(const std::string& host, SessionReactor* session) {
  {
    const std::lock_guard lock(mutex_);
    const auto found = sessions_.find(host);
    if (found == sessions_.end() || found->second != session) {
      return;
    }
    sessions_.erase(found);
    parts_.metrics.agent_sessions.fetch_sub(1);
    FailQuotesOf(host);
  }
  parts_.listener.OnGone(host);
}

bool Gateway::Impl::WithSession(std::string_view host,
                                const std::function<void(SessionReactor&)>& action) {
  const std::lock_guard lock(mutex_);
  const auto found = sessions_.find(host);
  if (found == sessions_.end()) {
    return false;
  }
  action(*found->second);
  return true;
}

Result<std::shared_ptr<const v1::Instance>> Gateway::Impl::FindPlaced(
    std::string_view instance) const {
  auto found = parts_.view.Get<v1::Instance>(instance);
  if (found == nullptr) {
    return NotFound("instance \"" + Printable(instance) + "\" does not exist");
  }
  if (found->status().host().empty()) {
    return Conflict("instance \"" + found->metadata().name() + "\" is on no host yet")
        .WithFix("`vallum instance show " + found->metadata().name() + "` says why");
  }
  return found;
}

Result<std::shared_ptr<ConsolePipe>> Gateway::Impl::OpenConsole(std::string_view instance) {
  ASSIGN_OR_RETURN(const auto found, FindPlaced(instance));
  const std::string& host = found->status().host();
  auto link = std::make_shared<ConsoleLink>(host, parts_.metrics);
  const std::string session_id = NewUid();
  {
    const std::lock_guard lock(mutex_);
    // Those that nobody waits for any more.
    std::erase_if(opening_, [](const auto& item) { return item.second.use_count() == 1; });
    opening_[session_id] = link;
  }
  v1::ControllerMessage message;
  message.mutable_open_console()->set_session_id(session_id);
  message.mutable_open_console()->set_instance_uid(found->metadata().uid());
  const bool sent =
      WithSession(host, [&](SessionReactor& session) { session.Send(std::move(message)); });
  if (!sent) {
    const std::lock_guard lock(mutex_);
    opening_.erase(session_id);
    return Unavailable("host \"" + host + "\" is not connected").WithFix("try again later");
  }
  link->StartTimer(options_.console_timeout);
  return link;
}

std::shared_ptr<ConsoleLink> Gateway::Impl::TakeConsole(const std::string& session_id,
                                                        const std::string& host) {
  const std::lock_guard lock(mutex_);
  const auto found = opening_.find(session_id);
  if (found == opening_.end() || found->second->host() != host) {
    return nullptr;
  }
  std::shared_ptr<ConsoleLink> link = std::move(found->second);
  opening_.erase(found);
  return link;
}

Gateway::Gateway(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Gateway::~Gateway() { impl_->Stop(); }

Result<std::unique_ptr<Gateway>> Gateway::Start(const Options& options, const Parts& parts) {
  auto impl = std::make_unique<Impl>(options, parts);
  RETURN_IF_ERROR(impl->Start());
  return std::unique_ptr<Gateway>(new Gateway(std::move(impl)));
}

int Gateway::port() const { return impl_->port(); }

bool Gateway::Connected(std::string_view host) const {
  return impl_->WithSession(host, [](SessionReactor&) {});
}

void Gateway::SendDesired(std::string_view host, const v1::DesiredState& desired) {
  impl_->WithSession(host, [&](SessionReactor& session) { session.SendDesired(desired); });
}

void Gateway::SendInstance(std::string_view host, const v1::DesiredInstance& desired) {
  impl_->WithSession(host, [&](SessionReactor& session) { session.SendInstance(desired); });
}

bool Gateway::Send(std::string_view host, v1::ControllerMessage message) {
  return impl_->WithSession(host,
                            [&](SessionReactor& session) { session.Send(std::move(message)); });
}

bool Gateway::SendTakeSnapshot(std::string_view host, const v1::TakeSnapshot& request) {
  return impl_->WithSession(host, [&](SessionReactor& session) {
    v1::ControllerMessage message;
    *message.mutable_take_snapshot() = request;
    session.Send(std::move(message));
  });
}

void Gateway::CancelEvidence(const std::string& host) { impl_->CancelEvidence(host); }
void Gateway::Disconnect(std::string_view host) {
  impl_->WithSession(host, [](SessionReactor& session) { session.Cancel(); });
}

Result<std::shared_ptr<ConsolePipe>> Gateway::OpenConsole(std::string_view instance) {
  return impl_->OpenConsole(instance);
}

Result<v1::InstanceQuote> Gateway::Quote(std::string_view instance, ByteView nonce,
                                         std::string_view pcrs) {
  return impl_->Quote(instance, nonce, pcrs);
}

}  // namespace vallum::controller
