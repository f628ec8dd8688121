// SPDX-License-Identifier: Apache-2.0
// `attest platform-certificate`: what a platform's maker says of it, and whether to believe that.
#include <chrono>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "attest/ek_certificate.h"
#include "attest/platform_certificate.h"
#include "attest/platform_verification.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/text.h"
#include "cli/commands.h"
#include "cli/local_image.h"

namespace vallum::cli {
namespace {

using attest::PlatformCertificate;
using attest::PlatformCertificateVerdict;

constexpr int kNotBelieved = 10;

struct PlatformOptions {
  std::string file, ek;
  std::vector<std::string> issuers, intermediates;
  bool accept_sha1 = false;
};

std::string Date(PlatformCertificate::Time time) {
  return FormatTime(std::chrono::time_point_cast<WallTime::duration>(time));
}

std::string VersionText(const attest::SpecificationVersion& version) {
  return std::to_string(version.major) + "." + std::to_string(version.minor) + " revision " +
         std::to_string(version.revision);
}

const char* ReplaceableName(attest::FieldReplaceable replaceable) {
  switch (replaceable) {
    case attest::FieldReplaceable::kUnsaid:
      return "";
    case attest::FieldReplaceable::kNo:
      return "no";
    case attest::FieldReplaceable::kYes:
      return "yes";
  }
  return "";
}

std::vector<Json> ComponentRows(const PlatformCertificate& certificate) {
  std::vector<Json> rows;
  for (const attest::PlatformComponent& each : certificate.components) {
    Json addresses = Json::array();
    for (const attest::ComponentAddress& address : each.addresses) {
      addresses.push_back({{"type", address.type}, {"value", address.value}});
    }
    rows.push_back({{"classRegistry", each.class_registry},
                    {"class", ToHex(each.class_value)},
                    {"manufacturer", each.manufacturer},
                    {"manufacturerId", each.manufacturer_id},
                    {"model", each.model},
                    {"serial", each.serial},
                    {"revision", each.revision},
                    {"fieldReplaceable", ReplaceableName(each.replaceable)},
                    {"addresses", std::move(addresses)},
                    {"change", attest::PlatformChangeName(each.change)}});
  }
  return rows;
}

Json SpecificationJson(const PlatformCertificate& certificate) {
  Json out = Json::object();
  if (certificate.specification.has_value()) {
    out["platform"] = VersionText(certificate.specification->version);
    out["platformClass"] = ToHex(certificate.specification->platform_class);
  }
  if (certificate.credential_specification.has_value()) {
    out["certificate"] = VersionText(*certificate.credential_specification);
  }
  return out;
}

Json CertificateJson(const PlatformCertificate& certificate) {
  Json properties = Json::array();
  for (const attest::PlatformProperty& each : certificate.properties) {
    properties.push_back({{"name", each.name},
                          {"value", each.value},
                          {"change", attest::PlatformChangeName(each.change)}});
  }
  return {{"kind", attest::PlatformCertificateKindName(certificate.Kind())},
          {"credentialType", certificate.credential_type},
          {"manufacturer", certificate.manufacturer},
          {"manufacturerId", certificate.manufacturer_id},
          {"model", certificate.model},
          {"version", certificate.version},
          {"platformSerial", certificate.platform_serial},
          {"holder",
           {{"issuer", certificate.holder_issuer.text}, {"serial", certificate.holder_serial}}},
          {"issuer", certificate.issuer.text},
          {"serial", certificate.serial},
          {"signatureAlgorithm", certificate.signature_algorithm},
          {"notBefore", Date(certificate.not_before)},
          {"notAfter", Date(certificate.not_after)},
          {"specifications", SpecificationJson(certificate)},
          {"components", ComponentRows(certificate)},
          {"componentsUri", certificate.components_uri},
          {"properties", std::move(properties)},
          {"propertiesUri", certificate.properties_uri},
          {"configurationUri", certificate.configuration_uri},
          {"unreadAttributes", certificate.unread_attributes}};
}

Json VerdictJson(const PlatformCertificateVerdict& verdict) {
  Json reasons = Json::array();
  for (const attest::PlatformCertificateFinding& each : verdict.rejections) {
    reasons.push_back({{"id", attest::PlatformCertificateReasonName(each.reason)},
                       {"what", each.what},
                       {"expected", each.expected},
                       {"actual", each.actual}});
  }
  return {{"verdict", verdict.Accepted() ? "believed" : "refused"},
          {"chain", verdict.chain},
          {"reasons", std::move(reasons)}};
}

// Errors: of the files; kInvalidInput (a certificate in them cannot be read, or there is none).
Result<std::vector<attest::TpmCertificate>> ReadCertificates(
    const std::vector<std::string>& files) {
  std::vector<attest::TpmCertificate> out;
  for (const std::string& file : files) {
    ASSIGN_OR_RETURN(const Bytes bytes, ReadInputFile(file, attest::kMaxCertificateBundle));
    attest::CertificateBundle bundle = attest::ReadCertificateBundle(bytes);
    if (!bundle.problems.empty() || bundle.certificates.empty()) {
      return InvalidInput(Printable(file) + ": " +
                          (bundle.problems.empty() ? "no certificate" : bundle.problems.front()))
          .WithFix("give X.509 certificates, in PEM or DER");
    }
    for (attest::TpmCertificate& each : bundle.certificates) out.push_back(std::move(each));
  }
  return out;
}

Result<PlatformCertificateVerdict> Verify(Tool* tool, const PlatformOptions& options,
                                          const PlatformCertificate& certificate) {
  ASSIGN_OR_RETURN(const auto ek, ReadCertificates({options.ek}));
  ASSIGN_OR_RETURN(auto roots, ReadCertificates(options.issuers));
  ASSIGN_OR_RETURN(auto intermediates, ReadCertificates(options.intermediates));
  const attest::EkTrust trust(std::move(roots), std::move(intermediates));
  return attest::VerifyPlatformCertificate(
      certificate, ek.front(), trust, std::chrono::floor<std::chrono::seconds>(tool->now()),
      options.accept_sha1 ? attest::Sha1Policy::kAccepted : attest::Sha1Policy::kRefused);
}

void PrintCertificate(std::ostream& out, const PlatformCertificate& certificate) {
  out << "platform:  " << certificate.manufacturer << " " << certificate.model << ", version "
      << certificate.version;
  if (!certificate.platform_serial.empty()) out << ", serial " << certificate.platform_serial;
  out << "\nkind:      " << attest::PlatformCertificateKindName(certificate.Kind());
  if (certificate.specification.has_value()) {
    out << ", TCG platform specification " << VersionText(certificate.specification->version)
        << ", class " << ToHex(certificate.specification->platform_class);
  }
  out << "\nholder:    the EK certificate " << certificate.holder_serial << " of \""
      << certificate.holder_issuer.text << "\"\nissuer:    \"" << certificate.issuer.text
      << "\", serial " << certificate.serial << ", " << certificate.signature_algorithm
      << "\nvalid:     " << Date(certificate.not_before) << " to " << Date(certificate.not_after)
      << "\n";
  for (const attest::PlatformProperty& each : certificate.properties) {
    out << "property:  " << each.name << " = " << each.value << "\n";
  }
  for (const std::string& each : certificate.unread_attributes) {
    out << "unread:    attribute " << each << "\n";
  }
}

void PrintVerdict(std::ostream& out, const PlatformCertificateVerdict& verdict) {
  out << "\nverdict: "
      << (verdict.Accepted() ? "believed, by " + Join(verdict.chain, " <- ") : "refused") << "\n";
  for (const attest::PlatformCertificateFinding& each : verdict.rejections) {
    out << attest::PlatformCertificateReasonName(each.reason) << ": " << each.what << ": "
        << each.actual;
    if (!each.expected.empty()) out << "; expected " << each.expected;
    out << "\n";
  }
}

Result<void> ShowPlatform(Tool* tool, const PlatformOptions& options) {
  if (options.ek.empty() != options.issuers.empty()) {
    return InvalidInput("one of --ek and --issuer is given: neither says anything alone")
        .WithFix("give both to have the certificate verified, or none to see what it says");
  }
  ASSIGN_OR_RETURN(const Bytes file, ReadInputFile(options.file, attest::kMaxCertificateBundle));
  ASSIGN_OR_RETURN_CONTEXT(const PlatformCertificate certificate,
                           attest::ReadPlatformCertificate(file), Printable(options.file));
  Json report = CertificateJson(certificate);
  std::optional<PlatformCertificateVerdict> verdict;
  if (!options.ek.empty()) {
    ASSIGN_OR_RETURN(verdict, Verify(tool, options, certificate));
    report["verification"] = VerdictJson(*verdict);
    if (!verdict->Accepted()) tool->exit_code = kNotBelieved;
  }
  static const std::vector<Column> kColumns = {
      {"CLASS", "class"},   {"MANUFACTURER", "manufacturer"}, {"MODEL", "model"},
      {"SERIAL", "serial"}, {"REVISION", "revision"},         {"REPLACEABLE", "fieldReplaceable"},
      {"CHANGE", "change"}};
  if (tool->ForPeople()) PrintCertificate(tool->out(), certificate);
  if (!tool->ForPeople() || !certificate.components.empty()) {
    RETURN_IF_ERROR(tool->Show(kColumns, ComponentRows(certificate), report));
  }
  if (!tool->ForPeople()) return Ok();
  if (verdict.has_value()) {
    PrintVerdict(tool->out(), *verdict);
  } else {
    tool->out() << "\nnot verified: give --ek and --issuer\n";
  }
  return Ok();
}

}  // namespace

void AddPlatformCertificateCommand(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<PlatformOptions>();
  CLI::App* command = group->add_subcommand(
      "platform-certificate",
      "What a TCG platform certificate says; whether it is this EK's: exit code 0 if so, else 10");
  command->add_option("FILE", options->file, "The attribute certificate, DER or PEM")->required();
  command->add_option("--ek", options->ek, "The certificate of the TPM's endorsement key");
  command->add_option("--issuer", options->issuers,
                      "Certificates of issuers of platform certificates that you trust");
  command->add_option("--intermediate", options->intermediates,
                      "Certificates between the signer and a trusted issuer");
  command->add_flag("--accept-sha1", options->accept_sha1, "Accept signatures over SHA-1");
  command->footer(
      "Example:\n  vallum attest platform-certificate platform.crt --ek ek.pem --issuer maker.pem");
  command->callback([=] { tool->action = [=] { return ShowPlatform(tool, *options); }; });
}

}  // namespace vallum::cli
