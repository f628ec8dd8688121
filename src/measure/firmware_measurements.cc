// SPDX-License-Identifier: Apache-2.0
#include "measure/firmware_measurements.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "firmware/firmware_volume.h"
#include "formats/pe.h"

namespace vallum::measure {
namespace {

using firmware::FirmwareImage;
using firmware::FirmwareVolume;

struct KnownBuild {
  std::string_view pei_sha256;  // of the volume before it ran
  PeiLayout layout;
};

// Debian's ovmf 2022.11-6+deb12u2. Each was run under QEMU 7.2, and its volume in the guest's
// memory was compared with the file at the moment it is measured: docs/boot-measurement.md.
constexpr KnownBuild kKnownBuilds[] = {
    // OVMF_CODE_4M.secboot.fd
    {"dd099b33f9e54526542b92036e12aed1af73d17f0cdeaa12ab02b1030953ac4c",
     {0xe0c0, 0xe080, 0xe14a, true}},
    // OVMF_CODE_4M.fd
    {"471281a7d197d12ac61a810e5150b9b5ddc47be78ef0c24af7a8192c81b3a808",
     {0xe0c0, 0xe080, 0xe14a, false}},
    // OVMF_CODE.secboot.fd
    {"2e571db1989a97dbacc3bf4563af4a4e681a8bb16394c98e0018432ebc9115d1",
     {0xefc0, 0xef60, 0xf04a, true}},
    // OVMF_CODE.fd
    {"18e2c1cc4960c2694c162e8e756fbf467aaeceee7dbfe1e1dd919ffb2cd9a9d2",
     {0xefc0, 0xef60, 0xf04a, false}},
};

// EDK II DxeTpm2MeasureBootLib.c: drivers of a measured volume are measured with it, applications
// by themselves, too. One that is no PE program cannot be started.
void AddApplication(const firmware::FirmwareProgram& program, FirmwareMeasurements& out) {
  if (program.file_type != firmware::kFirmwareFileApplication) return;
  const auto image = formats::PeImage::Parse(program.image);
  if (!image.has_value()) return;
  Result<Bytes> digest = image->AuthenticodeDigest(HashAlgorithm::kSha256);
  if (!digest.has_value()) return;
  out.applications.push_back(
      {program.name.empty() ? program.file.ToString() : program.name, *std::move(digest)});
}

}  // namespace

Result<FirmwareMeasurements> MeasureFirmware(ByteView image, std::span<const HashAlgorithm> banks) {
  ASSIGN_OR_RETURN_CONTEXT(const FirmwareImage parsed, FirmwareImage::Parse(image),
                           "this should be a code file of OVMF, the OVMF_CODE*.fd that QEMU runs");
  std::vector<const FirmwareVolume*> packed;
  for (const FirmwareVolume& volume : parsed.volumes()) {
    if (volume.nested) packed.push_back(&volume);
  }
  if (packed.size() != 2 || !packed[1]->name.has_value()) {
    return InvalidInput("not a code file of OVMF: it has no two packed volumes, PEI and DXE")
        .WithFix("give the OVMF_CODE*.fd that QEMU runs");
  }
  FirmwareMeasurements out;
  for (const firmware::FirmwareProgram& program : parsed.programs()) {
    if (program.file == kBootMenuFile) out.menu_name = program.name;
    AddApplication(program, out);
  }
  if (out.menu_name.empty()) {
    return InvalidInput("not a code file of OVMF: its boot manager's menu is missing")
        .WithFix("give the OVMF_CODE*.fd that QEMU runs");
  }
  out.pei_volume = ToBytes(packed[0]->content);
  out.dxe_name = *packed[1]->name;
  for (const HashAlgorithm bank : banks) {
    out.dxe_volume[bank] = Digest(bank, packed[1]->content);
  }
  const std::string digest = ToHex(Digest(HashAlgorithm::kSha256, out.pei_volume));
  for (const KnownBuild& build : kKnownBuilds) {
    if (build.pei_sha256 == digest) out.layout = build.layout;
  }
  return out;
}

}  // namespace vallum::measure
