// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "firmware/variable_store.h"
#include "measure/boot_chain.h"
#include "measure/prediction.h"

// The parts of PredictBoot: what each program of a chain measures. Internal to measure.
namespace vallum::measure {

inline constexpr PcrIndex kFirmwarePcr = PcrIndex::Of<0>();
inline constexpr PcrIndex kConfigurationPcr = PcrIndex::Of<1>();
inline constexpr PcrIndex kDriversPcr = PcrIndex::Of<2>();
inline constexpr PcrIndex kDriverDataPcr = PcrIndex::Of<3>();
inline constexpr PcrIndex kImagesPcr = PcrIndex::Of<4>();
inline constexpr PcrIndex kTablePcr = PcrIndex::Of<5>();
inline constexpr PcrIndex kPlatformPcr = PcrIndex::Of<6>();
inline constexpr PcrIndex kPolicyPcr = PcrIndex::Of<7>();
inline constexpr PcrIndex kCommandsPcr = PcrIndex::Of<8>();
inline constexpr PcrIndex kFilesPcr = PcrIndex::Of<9>();
inline constexpr PcrIndex kSectionsPcr = PcrIndex::Of<11>();
inline constexpr PcrIndex kParametersPcr = PcrIndex::Of<12>();
inline constexpr PcrIndex kExtensionsPcr = PcrIndex::Of<13>();
inline constexpr PcrIndex kMokPcr = PcrIndex::Of<14>();

// One boot while it is being predicted.
struct BootRun {
  const firmware::VariableStore& store;
  const BootInput& input;
  bool secure_boot;  // in force
  PredictionBuilder& out;

  // Extends by what the input holds in this bank; stops the PCR when it does not.
  void ExtendKnown(PcrIndex pcr, const BankDigests& digests, const std::string& description) const;
  void ExtendText(PcrIndex pcr, std::string_view text, const std::string& description) const;
  void ExtendBytes(PcrIndex pcr, ByteView data, const std::string& description) const;
  // A program that firmware or shim puts into PCR 4.
  void ExtendImage(const ChainBinary& binary, std::string_view by) const;
};

// The field of a line of .sbat: FindSbatVersion(text, "shim.debian") is "16.1"; "" when absent.
std::string FindSbatVersion(std::string_view sbat, std::string_view component);

// The firmware itself and its boot options, when the input has a platform: PCR 0, 1, 2, 3, 6.
Result<void> PredictPlatform(const BootRun& run);
// Configuration, boot attempts, partition table and the first program: PCR 4, 5, 7.
Result<void> PredictFirmware(const BootRun& run);
// shim and the start of the next program: PCR 4, 7, 14.
Result<void> PredictShim(const BootRun& run, const ChainBinary& shim, const ChainBinary* next);
// GRUB until its kernel starts: PCR 8, 9, and 4 and 7 by shim's protocol.
//   shim: what started it, or nullptr.
Result<void> PredictGrub(const BootRun& run, const ChainBinary& grub, const ChainBinary* shim);
// A unified kernel image and the kernel inside: PCR 4, 9, 11, 12, 13.
void PredictStub(const BootRun& run, const ChainBinary& stub, const ChainBinary* kernel);
// A kernel that something started by its EFI stub: PCR 9.
//   options: its command line; initrd: what it is handed, or nothing.
void PredictKernel(const BootRun& run, const ChainBinary& kernel, std::string_view options,
                   const ByteView* initrd);

}  // namespace vallum::measure
