// SPDX-License-Identifier: Apache-2.0
#include "agent/identity.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "agent/gateway.h"
#include "agent/state_files.h"
#include "base/bytes.h"
#include "base/ids.h"
#include "base/text.h"
#include "tls/certificate.h"

namespace vallum::agent {
namespace {

constexpr ByteCount kIdentityLimit = ByteCount::KiB(256);
constexpr const char* kRejoin =
    "make a new join token with `vallum token create --role join` and start vallum-agent once with "
    "--join-token-file";

std::filesystem::path Directory(const std::filesystem::path& state_dir) {
  return state_dir / "identity";
}

Error Damaged(const std::filesystem::path& path, const std::string& what) {
  return Corrupt("the agent's identity " + path.string() + " cannot be used: " + what)
      .WithFix(kRejoin);
}

Result<Identity> ParseIdentity(const std::filesystem::path& path, ByteView content) {
  const auto json = nlohmann::json::parse(AsText(content), nullptr, false);
  if (!json.is_object()) {
    return Damaged(path, "it is not a JSON object");
  }
  Identity identity;
  const std::pair<const char*, std::string*> members[] = {
      {"host", &identity.host},
      {"endpoint", &identity.endpoint},
      {"pool", &identity.pool},
      {"certificate", &identity.certificate_pem},
      {"ca", &identity.ca_pem}};
  for (const auto& [name, target] : members) {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_string()) {
      return Damaged(path, std::string("its member '") + name + "' is missing");
    }
    *target = found->get<std::string>();
  }
  return identity;
}

// A key that does not belong to the certificate would only show as a failed handshake later.
Result<void> CheckKeyPair(const std::filesystem::path& path, const Identity& identity) {
  const std::string_view key = AsText(
      identity.private_key_pem.Reveal(SecretAccess("checking that key and certificate match")));
  if (!KeyMatchesCertificate(key, identity.certificate_pem)) {
    return Damaged(path, "agent.key does not belong to its certificate");
  }
  return Ok();
}

Result<void> CheckSubject(const std::filesystem::path& path, const Identity& identity) {
  auto info = tls::InspectPem(identity.certificate_pem);
  if (!info) {
    return Damaged(path, "its certificate does not parse: " + info.error().message());
  }
  if (info->common_name != identity.host) {
    return Damaged(path, "its certificate names '" + Printable(info->common_name, 70) +
                             "', not this host's name '" + identity.host + "'");
  }
  return Ok();
}

Result<void> Store(const std::filesystem::path& state_dir, const Identity& identity) {
  const std::filesystem::path directory = Directory(state_dir);
  RETURN_IF_ERROR(MakeDirectory(directory, 0700));
  const nlohmann::json json = {{"host", identity.host},
                               {"endpoint", identity.endpoint},
                               {"pool", identity.pool},
                               {"certificate", identity.certificate_pem},
                               {"ca", identity.ca_pem}};
  // The key first: a crash in between leaves a pair that LoadIdentity refuses with the way out.
  RETURN_IF_ERROR(WriteFileAtomically(
      directory / "agent.key",
      identity.private_key_pem.Reveal(SecretAccess("storing the agent's own key")), 0600));
  const std::string text = json.dump(2) + "\n";
  return WriteFileAtomically(directory / "identity.json", AsBytes(text), 0600);
}

// A key is stored before it is certified: when the answer is lost, the same key asks again.
Result<tls::KeyAndCsr> KeepOrMakeKey(const std::filesystem::path& state_dir,
                                     const std::string& host) {
  const std::filesystem::path path = Directory(state_dir) / "agent.key";
  auto stored = ReadWholeFile(path, kIdentityLimit);
  if (!stored && stored.error().code() != ErrorCode::kNotFound) {
    return std::move(stored).error();
  }
  if (stored) {
    SecretBytes key = SecretBytes::TakeAndWipe(*stored);
    if (auto csr = tls::MakeCsrOfKey(host, key); csr) {
      return tls::KeyAndCsr{.private_key_pem = std::move(key), .csr_der = *std::move(csr)};
    }
  }
  ASSIGN_OR_RETURN(tls::KeyAndCsr fresh, tls::MakeKeyAndCsr(host));
  RETURN_IF_ERROR(MakeDirectory(state_dir, 0711));
  RETURN_IF_ERROR(MakeDirectory(path.parent_path(), 0700));
  RETURN_IF_ERROR(WriteFileAtomically(
      path, fresh.private_key_pem.Reveal(SecretAccess("storing the agent's own key")), 0600));
  return fresh;
}

// Stores what the controller issued, if it can be used.
Result<Identity> Accept(const std::filesystem::path& state_dir, Identity identity,
                        const Clock& clock) {
  const std::filesystem::path path = Directory(state_dir) / "identity.json";
  RETURN_IF_ERROR(CheckSubject(path, identity)).context("reading the controller's answer");
  RETURN_IF_ERROR(CheckKeyPair(path, identity)).context("reading the controller's answer");
  if (const IdentityHealth health = CheckIdentity(identity, clock.Now()); !health.valid) {
    return InvalidInput("the controller issued a certificate that cannot be used: " + health.detail)
        .WithFix("compare the clocks of this host and the controller");
  }
  RETURN_IF_ERROR(Store(state_dir, identity));
  return identity;
}

}  // namespace

Result<Identity> LoadIdentity(const std::filesystem::path& state_dir, const std::string& host) {
  const std::filesystem::path path = Directory(state_dir) / "identity.json";
  auto content = ReadWholeFile(path, kIdentityLimit);
  if (!content && content.error().code() == ErrorCode::kNotFound) {
    return NotFound("this host has not joined a controller: " + path.string() + " does not exist")
        .WithFix(kRejoin);
  }
  if (!content) {
    return std::move(content).error();
  }
  ASSIGN_OR_RETURN(Identity identity, ParseIdentity(path, *content));
  if (identity.host != host) {
    return Damaged(path, "it belongs to host '" + Printable(identity.host, 70) +
                             "', and this agent was started as '" + host + "'");
  }
  auto key = ReadWholeFile(Directory(state_dir) / "agent.key", kIdentityLimit);
  if (!key) {
    return Damaged(path, "its key is not readable: " + key.error().message());
  }
  identity.private_key_pem = SecretBytes::TakeAndWipe(*key);
  RETURN_IF_ERROR(CheckSubject(path, identity));
  RETURN_IF_ERROR(CheckKeyPair(path, identity));
  return identity;
}

IdentityHealth CheckIdentity(const Identity& identity, WallTime now) {
  IdentityHealth health;
  const auto info = tls::InspectPem(identity.certificate_pem);
  if (!info) {
    health.detail = "certificate does not parse: " + info.error().message();
    return health;
  }
  const std::string until = FormatTime(info->not_after);
  if (now >= info->not_after) {
    health.detail = "certificate of " + identity.host + " expired at " + until + "; " + kRejoin;
    return health;
  }
  if (auto chain =
          tls::VerifyChain(identity.certificate_pem, identity.ca_pem, tls::Purpose::kClient, now);
      !chain) {
    health.detail =
        "certificate of " + identity.host + " is not usable: " + chain.error().message();
    return health;
  }
  health.valid = true;
  health.renew_soon = tls::NeedsRenewal(*info, now);
  health.detail = "certificate of " + identity.host + " is valid until " + until;
  if (health.renew_soon) {
    health.detail +=
        std::string("; it is renewed when the controller is reached; else, ") + kRejoin;
  }
  return health;
}

Result<Identity> Enrol(const std::filesystem::path& state_dir, const std::string& host,
                       const JoinToken& token, const Clock& clock) {
  RETURN_IF_ERROR(ValidateName("host", host));
  ASSIGN_OR_RETURN(tls::KeyAndCsr request, KeepOrMakeKey(state_dir, host));
  ASSIGN_OR_RETURN(const v1::EnrollReply reply, CallEnroll(token, host, request.csr_der));
  Identity identity;
  identity.host = host;
  identity.endpoint = token.endpoint;
  identity.pool = reply.pool();
  identity.certificate_pem = reply.certificate_pem();
  // The CA that the token pinned, not the one of the reply: the token is what a person carried.
  identity.ca_pem = token.ca_pem;
  identity.private_key_pem = std::move(request.private_key_pem);
  return Accept(state_dir, std::move(identity), clock);
}

Result<Identity> Renew(const std::filesystem::path& state_dir, const Identity& current,
                       const std::shared_ptr<grpc::Channel>& channel, const Clock& clock) {
  ASSIGN_OR_RETURN(const Bytes csr, tls::MakeCsrOfKey(current.host, current.private_key_pem));
  ASSIGN_OR_RETURN(const v1::EnrollReply reply, CallRenew(channel, current.host, csr));
  Identity renewed;
  renewed.host = current.host;
  renewed.endpoint = current.endpoint;
  renewed.pool = reply.pool().empty() ? current.pool : reply.pool();
  renewed.certificate_pem = reply.certificate_pem();
  renewed.ca_pem = current.ca_pem;
  renewed.private_key_pem =
      SecretBytes(current.private_key_pem.Reveal(SecretAccess("keeping the key of a renewal")));
  return Accept(state_dir, std::move(renewed), clock);
}

}  // namespace vallum::agent
