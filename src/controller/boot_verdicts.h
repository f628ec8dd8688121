// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "controller/boot_book.h"
#include "controller/boot_judgement.h"
#include "controller/known_artefacts.h"
#include "controller/view.h"
#include "measure/baseline.h"
#include "vallum/v1/resources.pb.h"

namespace vallum::controller {

// The controller's half of a boot's verdict. The agent says whether what was measured is what its
// disk, variables and firmware predict; this says whether it is what the instance is meant to boot:
// its baseline. Learns that at the first boot that the agent calls VERIFIED. See
// docs/boot-verdict.md. Thread-safe; calls may block on the disk.
class BootVerdicts {
 public:
  struct Parts {
    BootBook& book;
    const View& view;
    const KnownArtefacts& artefacts;
    const Clock& clock;
  };
  explicit BootVerdicts(const Parts& parts) : parts_(parts) {}

  // Keeps what a host sent of a boot. On disk at the steps of a boot only; between them in memory.
  // Errors: those of BootBook::SetRecord.
  Result<void> TakeEvidence(const std::string& uid, v1::BootEvidence evidence);
  // Keeps the agent's own word. A word that takes back a verdict begins another boot: then the
  // evidence of the one before no longer counts. Errors: as TakeEvidence.
  Result<void> TakeWord(const std::string& uid, const v1::BootMeasured& word);

  struct Judged {
    v1::BootMeasured measured;  // unset fields when the agent has said nothing
    bool learned = false;       // the baseline was made by this call
    bool again = false;         // what failed may be there at the next call
    std::string platform;       // what was learned anew of the platform; empty: nothing
  };
  // The agent's word joined with the baseline's judgement. VERIFIED takes both; without the
  // evidence of this boot it is PENDING, and so is a first boot that cannot be learned now. What
  // can never be judged or learned is DIVERGED, with the reason. So is a boot that came no further,
  // or was refused, once it measured what is not in the baseline.
  //   instance: its status says host and firmware, as the agent reported them last.
  Judged Judge(const v1::Instance& instance);

  // The last boot with the verdict as it stands. Errors: kNotFound (nothing was measured yet).
  Result<v1::BootRecord> Record(const v1::Instance& instance);
  // Errors of all below: kNotFound (no baseline yet), those of the book.
  Result<v1::Baseline> Baseline(const v1::Instance& instance);
  Result<v1::BaselineDiff> Diff(const v1::Instance& instance);
  // Makes what was measured last the baseline.
  //   events_sha256: as Diff gave it; empty: whatever it was.
  // Errors: kConflict (another boot meanwhile; the boot is not over, or the agent does not call it
  // VERIFIED).
  Result<v1::Baseline> Accept(const v1::Instance& instance, const std::string& events_sha256,
                              const std::string& user);
  // Errors: kInvalidInput (no events, a digest that is none, a PCR that is not compared).
  Result<v1::Baseline> Replace(const v1::Instance& instance, const v1::BaselineSpec& spec,
                               const std::string& user);
  // Pinned: nothing but Accept and Replace changes it, and no signed update is accepted.
  Result<v1::Baseline> Pin(const v1::Instance& instance);
  Result<v1::Baseline> Unpin(const v1::Instance& instance);
  // How often a record was compared with a baseline, extend by extend.
  uint64_t comparisons();

 private:
  JudgementInput InputOf(const v1::Instance& instance, const v1::BootRecord& record,
                         const v1::Baseline& baseline, const v1::KeySetContent& keys,
                         measure::BootExtent extent) const;
  measure::BaselineJudgement Compare(const v1::Instance& instance, const v1::BootRecord& record,
                                     const v1::Baseline& baseline, measure::BootExtent extent);
  // The boot is as it is meant to be, on another platform than that of the baseline.
  void LearnPlatform(const v1::Instance& instance, const v1::BootRecord& record,
                     const v1::Baseline& baseline, Judged& out);
  void Learn(const v1::Instance& instance, const v1::BootEvidence& evidence, Judged& out);
  // Of a boot that is not over, or has ended before its operating system.
  v1::BootMeasured JudgeUnderWay(const v1::Instance& instance, const v1::BootRecord& record,
                                 v1::BootMeasured measured);
  Result<v1::Baseline> SetPinned(const v1::Instance& instance, bool pinned);
  Result<v1::Baseline> Store(const v1::Instance& instance, v1::BaselineSpec spec,
                             const v1::Baseline* before);
  Result<v1::Baseline> Find(const v1::Instance& instance);

  // The last comparison of an instance's boot: reports come far more often than boots change.
  struct Compared {
    std::string what;  // digest of everything that decides
    measure::BaselineJudgement judgement;
  };

  const Parts parts_;
  std::mutex mutex_;                          // guards the members below
  std::map<std::string, Compared> compared_;  // by uid
  uint64_t comparisons_ = 0;
};

// SHA-256 of PCRs and digests of a boot's own extends, hex. Pure.
std::string EventsSha256(const v1::BootEvidence& evidence);
// Where the platform's own measurements can be compared: host, QEMU, firmware, machine, key set.
std::string PlatformOf(const v1::Instance& instance, const View& view);
// The pool's policy; the default pool's for an instance that names none.
v1::PoolSpec PoolOf(const v1::Instance& instance, const View& view);

}  // namespace vallum::controller
