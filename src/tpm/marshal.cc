// SPDX-License-Identifier: Apache-2.0
#include "tpm/marshal.h"

#include <tss2/tss2_mu.h>

#include <string>

namespace vallum::tpm {
namespace {

// More than any structure that is marshalled here.
constexpr size_t kMaxStructure = 8192;

template <typename T, typename Function>
Result<Bytes> MarshalWith(const T& value, Function marshal) {
  Bytes out(kMaxStructure);
  size_t size = 0;
  if (marshal(&value, reinterpret_cast<uint8_t*>(out.data()), out.size(), &size) != 0) {
    return Internal("the TPM library cannot write one of its own structures");
  }
  out.resize(size);
  return out;
}

template <typename T, typename Function>
Result<T> UnmarshalWith(ByteView bytes, const char* what, Function unmarshal) {
  T value{};
  size_t size = 0;
  if (unmarshal(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size(), &size, &value) != 0 ||
      size != bytes.size()) {
    return InvalidInput(std::string("not a ") + what);
  }
  return value;
}

}  // namespace

Result<Bytes> Marshal(const TPMT_PUBLIC& area) {
  return MarshalWith(area, Tss2_MU_TPMT_PUBLIC_Marshal);
}
Result<Bytes> Marshal(const TPM2B_PUBLIC& area) {
  return MarshalWith(area, Tss2_MU_TPM2B_PUBLIC_Marshal);
}
Result<Bytes> Marshal(const TPM2B_PRIVATE& area) {
  return MarshalWith(area, Tss2_MU_TPM2B_PRIVATE_Marshal);
}
Result<Bytes> Marshal(const TPMT_SIGNATURE& signature) {
  return MarshalWith(signature, Tss2_MU_TPMT_SIGNATURE_Marshal);
}

Result<TPM2B_PUBLIC> UnmarshalPublic(ByteView bytes) {
  return UnmarshalWith<TPM2B_PUBLIC>(bytes, "TPM2B_PUBLIC", Tss2_MU_TPM2B_PUBLIC_Unmarshal);
}
Result<TPM2B_PRIVATE> UnmarshalPrivate(ByteView bytes) {
  return UnmarshalWith<TPM2B_PRIVATE>(bytes, "TPM2B_PRIVATE", Tss2_MU_TPM2B_PRIVATE_Unmarshal);
}
Result<TPM2B_ID_OBJECT> UnmarshalIdObject(ByteView bytes) {
  return UnmarshalWith<TPM2B_ID_OBJECT>(bytes, "TPM2B_ID_OBJECT",
                                        Tss2_MU_TPM2B_ID_OBJECT_Unmarshal);
}
Result<TPM2B_ENCRYPTED_SECRET> UnmarshalEncryptedSecret(ByteView bytes) {
  return UnmarshalWith<TPM2B_ENCRYPTED_SECRET>(bytes, "TPM2B_ENCRYPTED_SECRET",
                                               Tss2_MU_TPM2B_ENCRYPTED_SECRET_Unmarshal);
}
Result<TPMS_ATTEST> UnmarshalAttest(ByteView bytes) {
  return UnmarshalWith<TPMS_ATTEST>(bytes, "TPMS_ATTEST", Tss2_MU_TPMS_ATTEST_Unmarshal);
}

}  // namespace vallum::tpm
