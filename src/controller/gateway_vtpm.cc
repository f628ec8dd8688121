// SPDX-License-Identifier: Apache-2.0
// The part of the gateway about instances' vTPMs: their certificates and their quotes.
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "base/digest.h"
#include "base/ids.h"
#include "base/text.h"
#include "controller/gateway_impl.h"
#include "controller/instance_origin.h"
#include "controller/problem.h"

namespace vallum::controller {
namespace {

// Each holds a thread of the REST server's pool, of which there are four.
constexpr size_t kMaxQuotes = 2;
// Of instances that are gone: how many endorsement keys are remembered beside those of the others.
constexpr size_t kKeysKept = 64;

}  // namespace

grpc::ServerUnaryReactor* Gateway::Impl::IssueVtpmCertificate(
    grpc::CallbackServerContext* context, const v1::IssueVtpmCertificateRequest* request,
    v1::IssueVtpmCertificateReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const Result<std::string> host = IdentifyHost(*context);
  if (!host.has_value()) {
    reactor->Finish(ToGrpcStatus(host.error()));
    return reactor;
  }
  if (const auto may = CheckTrusted(*host, request->instance_uid()); !may.has_value()) {
    reactor->Finish(ToRefusal(may.error()));
    return reactor;
  }
  auto certificate = DoIssueVtpm(*host, *request);
  if (certificate.has_value()) {
    reply->set_certificate_pem(*std::move(certificate));
  }
  reactor->Finish(certificate.has_value() ? grpc::Status::OK : ToGrpcStatus(certificate.error()));
  return reactor;
}

Gateway::Impl::KeyNews Gateway::Impl::NewsOf(const std::string& uid, const std::string& key) {
  const std::lock_guard lock(mutex_);
  const auto told = told_keys_.find(uid);
  if (told == told_keys_.end()) return KeyNews::kFirst;
  return told->second == key ? KeyNews::kNone : KeyNews::kAnother;
}

void Gateway::Impl::NoteTold(const std::string& uid, const std::string& key) {
  const auto instances = parts_.view.All<v1::Instance>();
  const std::lock_guard lock(mutex_);
  told_keys_[uid] = key;
  if (told_keys_.size() <= 2 * instances.size() + kKeysKept) return;
  std::set<std::string_view> here;
  for (const auto& instance : instances) here.insert(instance->metadata().uid());
  std::erase_if(told_keys_, [&](const auto& told) { return !here.contains(told.first); });
}

Result<std::string> Gateway::Impl::DoIssueVtpm(const std::string& host,
                                               const v1::IssueVtpmCertificateRequest& request) {
  for (const auto& instance : parts_.view.All<v1::Instance>()) {
    const std::string& uid = instance->metadata().uid();
    if (uid != request.instance_uid() || instance->status().host() != host) continue;
    const std::string& name = instance->metadata().name();
    const std::string key = ToHex(Sha256(AsBytes(request.ek_public_der())));
    // A host shows each instance's key once as a rule: one that shows others without end must not
    // push everything else out of the log.
    const KeyNews news = NewsOf(uid, key);
    const bool paced = news == KeyNews::kAnother && !pace_.Take("vtpm " + host);
    if (HasImportedTpm(parts_.view, instance->spec())) {
      // A certificate says that these keys are this instance's and nobody else's.
      const std::string words =
          "the state of the vTPM was imported: who else has its keys is not known, and none of "
          "them is certified";
      if (news != KeyNews::kNone && !paced) {
        RETURN_IF_ERROR(parts_.events.Append({.kind = "instance.vtpm-not-certified",
                                              .severity = "warning",
                                              .object = "instances/" + name,
                                              .user = "hosts/" + host,
                                              .message = words,
                                              .tenant = instance->metadata().tenant()}));
        NoteTold(uid, key);
      }
      return Conflict(words).WithFix(
          "import with --tpm new to have a vTPM that can be vouched for");
    }
    if (paced) {
      return Exhausted("another endorsement key of instance " + name + " than before: host " +
                       host + " may show one such key a minute")
          .WithFix("try again in a minute");
    }
    ASSIGN_OR_RETURN(std::string certificate,
                     parts_.authority.IssueVtpm(AsBytes(request.ek_public_der()), name, uid));
    if (news == KeyNews::kNone) return certificate;
    // One that cannot be told of is not issued: the log says which keys the CA has vouched for.
    RETURN_IF_ERROR(
        parts_.events.Append({.kind = "instance.vtpm-certified",
                              .severity = "info",
                              .object = "instances/" + name,
                              .user = "hosts/" + host,
                              .message = "the CA certified the endorsement key with SHA-256 " + key,
                              .tenant = instance->metadata().tenant()}));
    NoteTold(uid, key);
    return certificate;
  }
  return Denied("instance " + Printable(request.instance_uid(), 64) + " is not on host \"" + host +
                "\"");
}

grpc::ServerUnaryReactor* Gateway::Impl::AnswerQuote(grpc::CallbackServerContext* context,
                                                     const v1::QuoteAnswer* request,
                                                     v1::QuoteAnswerReply* /*reply*/) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  const auto taken = TakeQuote(*context, *request);
  reactor->Finish(taken.has_value() ? grpc::Status::OK : ToGrpcStatus(taken.error()));
  return reactor;
}

Result<void> Gateway::Impl::TakeQuote(const grpc::ServerContextBase& context,
                                      const v1::QuoteAnswer& answer) {
  ASSIGN_OR_RETURN(const std::string host, IdentifyHost(context));
  const std::lock_guard lock(mutex_);
  const auto found = quotes_.find(answer.request_id());
  if (found == quotes_.end() || found->second.host != host) {
    return NotFound("nobody waits for this quote");
  }
  found->second.answer.set_value(answer.has_quote() ? Result<v1::InstanceQuote>(answer.quote())
                                                    : FromProblem(answer.problem()));
  quotes_.erase(found);
  return Ok();
}

void Gateway::Impl::FailQuotesOf(const std::string& host) {
  for (auto item = quotes_.begin(); item != quotes_.end();) {
    if (item->second.host != host) {
      ++item;
      continue;
    }
    item->second.answer.set_value(
        Unavailable("host \"" + host + "\" went away").WithFix("try again later"));
    item = quotes_.erase(item);
  }
}

Result<std::future<Result<v1::InstanceQuote>>> Gateway::Impl::AwaitQuote(
    const std::string& request_id, const v1::Instance& instance) {
  const std::lock_guard lock(mutex_);
  const std::string& uid = instance.metadata().uid();
  for (const auto& [id, pending] : quotes_) {
    if (pending.instance_uid != uid) continue;
    return Exhausted("a quote of instance \"" + instance.metadata().name() +
                     "\" is being made already")
        .WithFix("try again in a moment");
  }
  if (quotes_.size() >= kMaxQuotes) {
    return Exhausted(std::to_string(kMaxQuotes) + " quotes are being made already")
        .WithFix("try again in a moment");
  }
  PendingQuote& pending = quotes_[request_id];
  pending.host = instance.status().host();
  pending.instance_uid = uid;
  return pending.answer.get_future();
}

Result<v1::InstanceQuote> Gateway::Impl::Quote(std::string_view instance, ByteView nonce,
                                               std::string_view pcrs) {
  ASSIGN_OR_RETURN(const auto found, FindPlaced(instance));
  const std::string& host = found->status().host();
  const std::string request_id = NewUid();
  ASSIGN_OR_RETURN(auto answer, AwaitQuote(request_id, *found));
  v1::ControllerMessage message;
  v1::MakeQuote& wanted = *message.mutable_make_quote();
  wanted.set_request_id(request_id);
  wanted.set_instance_uid(found->metadata().uid());
  wanted.set_nonce(nonce.data(), nonce.size());
  wanted.set_pcrs(std::string(pcrs));
  const bool sent =
      WithSession(host, [&](SessionReactor& session) { session.Send(std::move(message)); });
  if (sent && answer.wait_for(options_.quote_timeout) == std::future_status::ready) {
    ASSIGN_OR_RETURN(v1::InstanceQuote quote, answer.get());
    quote.set_instance(found->metadata().name());
    quote.set_uid(found->metadata().uid());
    quote.set_nonce(ToHex(nonce));
    return quote;
  }
  const std::lock_guard lock(mutex_);
  quotes_.erase(request_id);
  return sent ? Unavailable("the agent of host \"" + host + "\" did not answer in time")
                    .WithFix("try again; an agent of an older version makes no quotes")
              : Unavailable("host \"" + host + "\" is not connected").WithFix("try again later");
}

}  // namespace vallum::controller
