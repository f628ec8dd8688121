// SPDX-License-Identifier: Apache-2.0
#include "tls/authority.h"

#include <openssl/core_names.h>
#include <openssl/err.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/ids.h"
#include "base/text.h"
#include "tls/file.h"
#include "tls/openssl.h"
#include "tls/signing.h"

namespace vallum::tls {

struct CertificateAuthority::State {
  const Clock* clock;
  KeyPtr key;
  CertPtr certificate;
  std::string certificate_pem;
};

namespace {

constexpr size_t kMaxCsrBytes = 16 * 1024;
// Peers' clocks may be behind ours.
constexpr std::chrono::minutes kBackdate{5};

// TCG EK Credential Profile, sections 3.1 and 3.2: what the emulated TPM says that it is, as
// swtpm_setup has it, and tcg-at-tpmManufacturer, -tpmModel, -tpmVersion.
struct TpmAttribute {
  const char* oid;
  const char* value;
};
constexpr TpmAttribute kTpmAttributes[] = {
    {"2.23.133.2.1", "id:00001014"}, {"2.23.133.2.2", "swtpm"}, {"2.23.133.2.3", "id:20191023"}};
constexpr const char* kEkCertificateUse = "2.23.133.8.1";
// SubjectDirectoryAttributes with tcg-at-tpmSpecification: family "2.0", level 0, revision 164.
constexpr const char* kTpmSpecification =
    "DER:30:19:30:17:06:05:67:81:05:02:10:31:0e:30:0c:0c:03:32:2e:30:02:01:00:02:02:00:a4";

// What distinguishes one kind of certificate from another.
struct Profile {
  std::string common_name;
  std::string unit;
  std::chrono::hours validity;
  const char* basic_constraints;
  const char* key_usage;
  const char* extended_key_usage;  // null: none
  std::string alternative_names;   // empty: none; checked by the caller
  std::string serial_number;       // of the subject; empty: none
};

Result<void> AddName(X509_NAME* name, int nid, const std::string& text) {
  if (text.empty()) return Ok();
  if (X509_NAME_add_entry_by_NID(name, nid, MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(text.data()),
                                 static_cast<int>(text.size()), -1, 0) != 1) {
    return OpenSslError("set a certificate's subject");
  }
  return Ok();
}

Result<void> AddExtension(X509* certificate, X509* issuer, int nid, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
  const bool added = extension != nullptr && X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  if (!added) return OpenSslError("add a certificate extension");
  return Ok();
}

Result<void> SetSerial(X509* certificate) {
  // RFC 5280, 4.1.2.2: positive, at most 20 octets; 16 random ones cannot be guessed.
  Bytes random = RandomBytes(16);
  random[0] = (random[0] & std::byte{0x7f}) | std::byte{0x40};
  ASN1_INTEGER* serial = X509_get_serialNumber(certificate);
  if (ASN1_STRING_set(serial, random.data(), static_cast<int>(random.size())) != 1) {
    return OpenSslError("set a certificate's serial number");
  }
  return Ok();
}

Result<void> SetTimes(X509* certificate, WallTime now, std::chrono::hours validity) {
  const time_t begin = std::chrono::system_clock::to_time_t(now - kBackdate);
  const time_t end = std::chrono::system_clock::to_time_t(now + validity);
  if (ASN1_TIME_set(X509_getm_notBefore(certificate), begin) == nullptr ||
      ASN1_TIME_set(X509_getm_notAfter(certificate), end) == nullptr) {
    return OpenSslError("set a certificate's dates");
  }
  return Ok();
}

Result<void> AddExtensions(X509* certificate, X509* issuer, const Profile& profile) {
  RETURN_IF_ERROR(
      AddExtension(certificate, issuer, NID_basic_constraints, profile.basic_constraints));
  RETURN_IF_ERROR(AddExtension(certificate, issuer, NID_key_usage, profile.key_usage));
  RETURN_IF_ERROR(AddExtension(certificate, issuer, NID_subject_key_identifier, "hash"));
  RETURN_IF_ERROR(AddExtension(certificate, issuer, NID_authority_key_identifier, "keyid"));
  if (profile.extended_key_usage != nullptr) {
    RETURN_IF_ERROR(
        AddExtension(certificate, issuer, NID_ext_key_usage, profile.extended_key_usage));
  }
  if (!profile.alternative_names.empty()) {
    RETURN_IF_ERROR(
        AddExtension(certificate, issuer, NID_subject_alt_name, profile.alternative_names.c_str()));
  }
  return Ok();
}

// The TPM's attributes as a directory name among the alternative names.
Result<void> AddTpmAttributes(X509* certificate) {
  const NamePtr attributes(X509_NAME_new());
  for (const TpmAttribute& attribute : kTpmAttributes) {
    ASN1_OBJECT* type = OBJ_txt2obj(attribute.oid, 1);
    const auto* value = reinterpret_cast<const unsigned char*>(attribute.value);
    const bool added = type != nullptr && attributes != nullptr &&
                       X509_NAME_add_entry_by_OBJ(attributes.get(), type, V_ASN1_UTF8STRING, value,
                                                  -1, -1, 0) == 1;
    ASN1_OBJECT_free(type);
    if (!added) return OpenSslError("name a TPM's maker");
  }
  const NamesPtr names(GENERAL_NAMES_new());
  GENERAL_NAME* name = GENERAL_NAME_new();
  X509_NAME* copy = X509_NAME_dup(attributes.get());
  if (names == nullptr || name == nullptr || copy == nullptr ||
      sk_GENERAL_NAME_push(names.get(), name) == 0) {
    GENERAL_NAME_free(name);
    X509_NAME_free(copy);
    return OpenSslError("name a TPM's maker");
  }
  GENERAL_NAME_set0_value(name, GEN_DIRNAME, copy);
  if (X509_add1_ext_i2d(certificate, NID_subject_alt_name, names.get(), 0, X509V3_ADD_DEFAULT) !=
      1) {
    return OpenSslError("add a certificate extension");
  }
  return AddExtension(certificate, certificate, NID_subject_directory_attributes,
                      kTpmSpecification);
}

Result<KeyPtr> ParseEndorsementKey(ByteView key_der) {
  constexpr size_t kP256Size = 91;
  const auto* begin = reinterpret_cast<const unsigned char*>(key_der.data());
  const unsigned char* end = begin;
  KeyPtr key(key_der.size() == kP256Size
                 ? d2i_PUBKEY(nullptr, &end, static_cast<long>(key_der.size()))
                 : nullptr);
  ERR_clear_error();
  char group[32] = {};
  size_t size = 0;
  if (key == nullptr || end != begin + kP256Size || EVP_PKEY_is_a(key.get(), "EC") != 1 ||
      EVP_PKEY_get_group_name(key.get(), group, sizeof group, &size) != 1 ||
      std::string_view(group) != "prime256v1") {
    return InvalidInput("the vTPM's endorsement key is not an EC P-256 key");
  }
  return key;
}

// issuer: null for a certificate that signs itself with the issuer key.
Result<CertPtr> Issue(const Profile& profile, EVP_PKEY* subject_key, X509* issuer,
                      EVP_PKEY* issuer_key, WallTime now) {
  CertPtr certificate(X509_new());
  if (certificate == nullptr || X509_set_version(certificate.get(), X509_VERSION_3) != 1) {
    return OpenSslError("allocate a certificate");
  }
  RETURN_IF_ERROR(SetSerial(certificate.get()));
  RETURN_IF_ERROR(SetTimes(certificate.get(), now, profile.validity));
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  RETURN_IF_ERROR(AddName(subject, NID_organizationalUnitName, profile.unit));
  RETURN_IF_ERROR(AddName(subject, NID_commonName, profile.common_name));
  RETURN_IF_ERROR(AddName(subject, NID_serialNumber, profile.serial_number));
  X509* signer = issuer != nullptr ? issuer : certificate.get();
  if (X509_set_issuer_name(certificate.get(), X509_get_subject_name(signer)) != 1 ||
      X509_set_pubkey(certificate.get(), subject_key) != 1) {
    return OpenSslError("fill a certificate");
  }
  RETURN_IF_ERROR(AddExtensions(certificate.get(), signer, profile));
  if (profile.extended_key_usage == kEkCertificateUse) {
    RETURN_IF_ERROR(AddTpmAttributes(certificate.get()));
  }
  if (X509_sign(certificate.get(), issuer_key, EVP_sha256()) == 0) {
    return OpenSslError("sign a certificate");
  }
  return certificate;
}

bool IsDnsName(std::string_view name) {
  if (name.empty() || name.size() > 253) return false;
  for (const std::string& label : Split(name, '.')) {
    if (label.empty() || label.size() > 63 || label.front() == '-' || label.back() == '-') {
      return false;
    }
    for (const char c : label) {
      const bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '-' || c == '_';
      if (!good) return false;
    }
  }
  return true;
}

// The names as OpenSSL's extension syntax, "DNS:a,IP:b". Each is checked first, because a comma in
// a name would add another.
Result<std::string> AlternativeNames(const ServerNames& names) {
  std::vector<std::string> parts;
  for (const std::string& name : names.dns_names) {
    if (!IsDnsName(name)) return InvalidInput("not a DNS name: '" + Printable(name) + "'");
    parts.push_back("DNS:" + name);
  }
  for (const std::string& address : names.ip_addresses) {
    ASN1_OCTET_STRING* parsed = a2i_IPADDRESS(address.c_str());
    ERR_clear_error();
    const bool good = parsed != nullptr && address.find('\0') == std::string::npos;
    ASN1_OCTET_STRING_free(parsed);
    if (!good) return InvalidInput("not an IP address: '" + Printable(address) + "'");
    parts.push_back("IP:" + address);
  }
  if (parts.empty()) return InvalidInput("a server certificate needs at least one name");
  return Join(parts, ",");
}

Result<KeyPtr> KeyOfRequest(ByteView csr_der) {
  if (csr_der.size() > kMaxCsrBytes) return InvalidInput("certificate request is over 16 KiB");
  const auto* begin = reinterpret_cast<const unsigned char*>(csr_der.data());
  const unsigned char* end = begin;
  const CsrPtr csr(d2i_X509_REQ(nullptr, &end, static_cast<long>(csr_der.size())));
  ERR_clear_error();
  if (csr == nullptr || static_cast<size_t>(end - begin) != csr_der.size()) {
    return InvalidInput("not a DER certificate request");
  }
  KeyPtr key(X509_REQ_get_pubkey(csr.get()));
  ERR_clear_error();
  if (key == nullptr) return InvalidInput("certificate request has no usable key");
  char group[32] = {};
  size_t size = 0;
  const bool is_ec = EVP_PKEY_is_a(key.get(), "EC") == 1 &&
                     EVP_PKEY_get_group_name(key.get(), group, sizeof group, &size) == 1;
  const std::string_view curve(group);
  if (!is_ec || (curve != "prime256v1" && curve != "secp384r1")) {
    return InvalidInput("key of the certificate request is not EC P-256 or P-384");
  }
  const int verified = X509_REQ_verify(csr.get(), key.get());
  ERR_clear_error();
  if (verified != 1) return InvalidInput("certificate request is not signed by its own key");
  return key;
}

std::filesystem::path KeyPath(const std::filesystem::path& dir) { return dir / "ca.key"; }
std::filesystem::path CertificatePath(const std::filesystem::path& dir) { return dir / "ca.crt"; }

Result<void> MakeDirectory(const std::filesystem::path& dir) {
  std::error_code error;
  if (std::filesystem::create_directories(dir, error)) {
    std::filesystem::permissions(dir, std::filesystem::perms::owner_all, error);
  }
  if (error) return ErrnoError(error.value(), "create directory " + dir.string());
  return Ok();
}

}  // namespace

CertificateAuthority::CertificateAuthority(std::unique_ptr<State> state)
    : state_(std::move(state)) {}
CertificateAuthority::~CertificateAuthority() = default;

const std::string& CertificateAuthority::certificate_pem() const { return state_->certificate_pem; }

Result<std::unique_ptr<CertificateAuthority>> CertificateAuthority::Create(
    const std::filesystem::path& dir, const Clock& clock) {
  std::error_code error;
  // The certificate is written last, so its presence means that a CA is complete.
  if (std::filesystem::exists(CertificatePath(dir), error)) {
    return Conflict("a CA exists in " + dir.string());
  }
  RETURN_IF_ERROR(MakeDirectory(dir));
  ASSIGN_OR_RETURN(const KeyPtr key, MakeP256Key());
  const Profile profile{.common_name = "Vallum CA " + NewUid().substr(0, 8),
                        .unit = "",
                        .validity = kAuthorityValidity,
                        .basic_constraints = "critical,CA:TRUE,pathlen:0",
                        .key_usage = "critical,keyCertSign,cRLSign",
                        .extended_key_usage = nullptr,
                        .alternative_names = "",
                        .serial_number = ""};
  ASSIGN_OR_RETURN(const CertPtr certificate,
                   Issue(profile, key.get(), nullptr, key.get(), clock.Now()));
  ASSIGN_OR_RETURN(const SecretBytes key_pem, KeyToPem(key.get()));
  ASSIGN_OR_RETURN(const Bytes der, CertificateDer(certificate.get()));
  RETURN_IF_ERROR(
      WriteFileAtomically(KeyPath(dir), key_pem.Reveal(SecretAccess("storing the CA key")), 0600));
  RETURN_IF_ERROR(WriteFileAtomically(CertificatePath(dir), AsBytes(CertificateToPem(der)), 0644));
  return Load(dir, clock);
}

Result<std::unique_ptr<CertificateAuthority>> CertificateAuthority::Load(
    const std::filesystem::path& dir, const Clock& clock) {
  ASSIGN_OR_RETURN(const Bytes pem, ReadSmallFile(CertificatePath(dir)));
  ASSIGN_OR_RETURN(const SecretBytes key_pem, ReadSecretFile(KeyPath(dir)));
  auto state = std::make_unique<State>();
  state->clock = &clock;
  state->certificate_pem = std::string(AsText(pem));
  Result<std::vector<Bytes>> certificates = CertificatesFromPem(state->certificate_pem);
  if (!certificates.has_value()) {
    return Corrupt(CertificatePath(dir).string() + ": " + certificates.error().Describe());
  }
  ASSIGN_OR_RETURN(state->certificate, ParseCertificate(certificates->front()));
  ASSIGN_OR_RETURN_CONTEXT(state->key, KeyFromPem(key_pem), "reading " + KeyPath(dir).string());
  const bool match = X509_check_private_key(state->certificate.get(), state->key.get()) == 1;
  ERR_clear_error();
  if (!match) {
    return Corrupt("ca.key and ca.crt in " + dir.string() + " do not belong together")
        .WithFix("restore both from one backup");
  }
  if (X509_check_ca(state->certificate.get()) != 1) {
    return Corrupt(CertificatePath(dir).string() + " is not a CA certificate");
  }
  return std::unique_ptr<CertificateAuthority>(new CertificateAuthority(std::move(state)));
}

Result<std::unique_ptr<CertificateAuthority>> CertificateAuthority::LoadOrCreate(
    const std::filesystem::path& dir, const Clock& clock) {
  std::error_code error;
  if (std::filesystem::exists(CertificatePath(dir), error)) return Load(dir, clock);
  return Create(dir, clock);
}

Result<Credentials> CertificateAuthority::IssueServer(const ServerNames& names) const {
  ASSIGN_OR_RETURN(std::string alternative_names, AlternativeNames(names));
  const std::string& first =
      names.dns_names.empty() ? names.ip_addresses.front() : names.dns_names.front();
  const Profile profile{.common_name = first.substr(0, 64),
                        .unit = "server",
                        .validity = kServerValidity,
                        .basic_constraints = "critical,CA:FALSE",
                        .key_usage = "critical,digitalSignature",
                        .extended_key_usage = "serverAuth",
                        .alternative_names = std::move(alternative_names),
                        .serial_number = ""};
  ASSIGN_OR_RETURN(const KeyPtr key, MakeP256Key());
  ASSIGN_OR_RETURN(const CertPtr certificate, Issue(profile, key.get(), state_->certificate.get(),
                                                    state_->key.get(), state_->clock->Now()));
  ASSIGN_OR_RETURN(const Bytes der, CertificateDer(certificate.get()));
  ASSIGN_OR_RETURN(SecretBytes key_pem, KeyToPem(key.get()));
  return Credentials{.certificate_pem = CertificateToPem(der),
                     .private_key_pem = std::move(key_pem)};
}

Result<std::string> CertificateAuthority::IssueAgent(ByteView csr_der,
                                                     std::string_view host) const {
  RETURN_IF_ERROR(ValidateName("host", host));
  ASSIGN_OR_RETURN(const KeyPtr key, KeyOfRequest(csr_der));
  const Profile profile{.common_name = std::string(host),
                        .unit = std::string(kAgentUnit),
                        .validity = kAgentValidity,
                        .basic_constraints = "critical,CA:FALSE",
                        .key_usage = "critical,digitalSignature",
                        .extended_key_usage = "clientAuth",
                        .alternative_names = "",
                        .serial_number = ""};
  ASSIGN_OR_RETURN(const CertPtr certificate, Issue(profile, key.get(), state_->certificate.get(),
                                                    state_->key.get(), state_->clock->Now()));
  ASSIGN_OR_RETURN(const Bytes der, CertificateDer(certificate.get()));
  return CertificateToPem(der);
}

Result<Credentials> CertificateAuthority::IssueSigner(std::string_view unit) const {
  const Profile profile{.common_name = std::string(unit),
                        .unit = std::string(unit),
                        .validity = kSignerValidity,
                        .basic_constraints = "critical,CA:FALSE",
                        .key_usage = "critical,digitalSignature",
                        .extended_key_usage = kDocumentSigningUse,
                        .alternative_names = "",
                        .serial_number = ""};
  ASSIGN_OR_RETURN(const KeyPtr key, MakeP256Key());
  ASSIGN_OR_RETURN(const CertPtr certificate, Issue(profile, key.get(), state_->certificate.get(),
                                                    state_->key.get(), state_->clock->Now()));
  ASSIGN_OR_RETURN(const Bytes der, CertificateDer(certificate.get()));
  ASSIGN_OR_RETURN(SecretBytes key_pem, KeyToPem(key.get()));
  return Credentials{.certificate_pem = CertificateToPem(der),
                     .private_key_pem = std::move(key_pem)};
}

Result<std::string> CertificateAuthority::IssueVtpm(ByteView key_der, std::string_view instance,
                                                    std::string_view uid) const {
  RETURN_IF_ERROR(ValidateName("instance", instance));
  if (!IsUid(uid)) return InvalidInput("not an instance's uid: '" + Printable(uid, 64) + "'");
  ASSIGN_OR_RETURN(const KeyPtr key, ParseEndorsementKey(key_der));
  const WallTime now = state_->clock->Now();
  ASSIGN_OR_RETURN(const WallTime end, ToWallTime(X509_get0_notAfter(state_->certificate.get())));
  // One that outlives its issuer would verify nowhere.
  const auto left = std::chrono::floor<std::chrono::hours>(end - now);
  const Profile profile{.common_name = std::string(instance),
                        .unit = "vtpm",
                        .validity = std::min(kVtpmValidity, left),
                        .basic_constraints = "critical,CA:FALSE",
                        .key_usage = "critical,keyAgreement",
                        .extended_key_usage = kEkCertificateUse,
                        .alternative_names = "",
                        .serial_number = std::string(uid)};
  ASSIGN_OR_RETURN(const CertPtr certificate,
                   Issue(profile, key.get(), state_->certificate.get(), state_->key.get(), now));
  ASSIGN_OR_RETURN(const Bytes der, CertificateDer(certificate.get()));
  return CertificateToPem(der);
}

}  // namespace vallum::tls
