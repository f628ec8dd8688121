// SPDX-License-Identifier: Apache-2.0
#include "measure/baseline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "measure/event_digest.h"

namespace vallum::measure {
namespace {

constexpr HashAlgorithm kBank = HashAlgorithm::kSha256;
constexpr PcrIndex kImages = PcrIndex::Of<4>();
constexpr PcrIndex kTable = PcrIndex::Of<5>();
constexpr PcrIndex kFiles = PcrIndex::Of<9>();
constexpr PcrIndex kDiskPcrs[] = {kImages,
                                  kTable,
                                  PcrIndex::Of<8>(),
                                  kFiles,
                                  PcrIndex::Of<11>(),
                                  PcrIndex::Of<12>(),
                                  PcrIndex::Of<13>(),
                                  PcrIndex::Of<14>()};
// As measure::PredictBoot describes them.
constexpr std::string_view kTableWords = "GPT of the disk";
constexpr std::string_view kFileWords = "file ";
// Of a PCR, after what is the same at both ends was taken off.
constexpr size_t kMaxAligned = 1024;
constexpr size_t kShortDigest = 16;

// One event of one PCR: where it stands in the record, and which extend of the PCR it is.
struct Place {
  size_t at = 0;
  size_t number = 0;
};

// The events of a PCR, without attempts that failed: of boot options, of leaving the firmware.
//   passed_over: digests of PCR 4 that are left out, too.
std::vector<Place> PlacesOf(std::span<const BootEvent> events, PcrIndex pcr, BootExtent extent,
                            const std::set<Bytes>& passed_over) {
  static const Bytes calling = ActionDigest(kBank, kActionCalling);
  static const Bytes returning = ActionDigest(kBank, kActionReturning);
  static const Bytes invoked = ActionDigest(kBank, kActionExitInvoked);
  static const Bytes failed = ActionDigest(kBank, kActionExitFailed);
  std::vector<Place> places;
  const auto ends_with = [&](const Bytes& digest) {
    return !places.empty() && events[places.back().at].digest == digest;
  };
  size_t number = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    if (events[i].pcr != pcr) {
      continue;
    }
    ++number;
    const Bytes& digest = events[i].digest;
    if (pcr == kImages && passed_over.contains(digest)) {
      continue;
    }
    if (pcr == kImages && digest == calling && ends_with(returning)) {
      places.pop_back();
    } else if (pcr == kTable && digest == failed) {
      if (ends_with(invoked)) places.pop_back();
    } else {
      places.push_back({i, number});
    }
  }
  // The next event says whether the boot goes on with another option.
  if (extent == BootExtent::kUnderWay && pcr == kImages && ends_with(returning)) {
    places.pop_back();
  }
  return places;
}

// A step of turning the baseline into what was measured: both for a change, one for a missing or
// an extra event.
struct Step {
  std::optional<Place> expected;
  std::optional<Place> measured;
};

class Alignment {
 public:
  Alignment(const BaselineInput& input, PcrIndex pcr)
      : input_(input),
        old_(PlacesOf(input.baseline, pcr, BootExtent::kWhole, PassedOver(input))),
        new_(PlacesOf(input.measured, pcr, input.extent, PassedOver(input))) {}

  // The differing events; `matched` gets, for each event of the baseline that is in both, where it
  // is in the measured record.
  std::vector<Step> Steps(std::vector<std::optional<size_t>>& matched) {
    size_t begin = 0;
    while (begin < std::min(old_.size(), new_.size()) && Same(begin, begin)) {
      Match(begin, begin, matched);
      ++begin;
    }
    size_t old_end = old_.size();
    size_t new_end = new_.size();
    while (old_end > begin && new_end > begin && Same(old_end - 1, new_end - 1)) {
      Match(--old_end, --new_end, matched);
    }
    const size_t rows = old_end - begin;
    const size_t columns = new_end - begin;
    std::vector<Step> steps;
    if (rows > kMaxAligned || columns > kMaxAligned) {
      Replace(begin, old_end, begin, new_end, steps);
    } else {
      Align(begin, rows, columns, matched, steps);
    }
    if (input_.extent == BootExtent::kUnderWay) DropWhatMayCome(matched, steps);
    return steps;
  }

 private:
  static const std::set<Bytes>& PassedOver(const BaselineInput& input) {
    static const std::set<Bytes> kNone;
    return input.extent == BootExtent::kUnderWay ? input.firmware_programs : kNone;
  }
  bool Same(size_t i, size_t j) const {
    return input_.baseline[old_[i].at].digest == input_.measured[new_[j].at].digest;
  }
  void Match(size_t i, size_t j, std::vector<std::optional<size_t>>& matched) const {
    matched[old_[i].at] = new_[j].at;
  }

  // What is missing behind the last event that is there.
  void DropWhatMayCome(const std::vector<std::optional<size_t>>& matched,
                       std::vector<Step>& steps) const {
    size_t last = 0;  // of the baseline, that has something beside it or behind it
    for (const Place& place : old_) {
      if (matched[place.at]) last = std::max(last, place.at + 1);
    }
    for (const Step& step : steps) {
      if (step.expected && step.measured) last = std::max(last, step.expected->at + 1);
    }
    std::erase_if(steps,
                  [&](const Step& step) { return !step.measured && step.expected->at >= last; });
  }

  // What stands in the place of what: pairs, then the rest.
  void Replace(size_t old_begin, size_t old_end, size_t new_begin, size_t new_end,
               std::vector<Step>& steps) const {
    while (old_begin < old_end || new_begin < new_end) {
      Step step;
      if (old_begin < old_end) step.expected = old_[old_begin++];
      if (new_begin < new_end) step.measured = new_[new_begin++];
      steps.push_back(step);
    }
  }

  // Longest common subsequence.
  void Align(size_t begin, size_t rows, size_t columns, std::vector<std::optional<size_t>>& matched,
             std::vector<Step>& steps) const {
    const size_t width = columns + 1;
    std::vector<uint16_t> length((rows + 1) * width);
    for (size_t i = rows; i-- > 0;) {
      for (size_t j = columns; j-- > 0;) {
        length[i * width + j] =
            Same(begin + i, begin + j)
                ? static_cast<uint16_t>(length[(i + 1) * width + j + 1] + 1)
                : std::max(length[(i + 1) * width + j], length[i * width + j + 1]);
      }
    }
    size_t i = 0;
    size_t j = 0;
    size_t old_from = 0;
    size_t new_from = 0;
    while (i < rows && j < columns) {
      if (Same(begin + i, begin + j)) {
        Replace(begin + old_from, begin + i, begin + new_from, begin + j, steps);
        Match(begin + i++, begin + j++, matched);
        old_from = i;
        new_from = j;
      } else if (length[(i + 1) * width + j] >= length[i * width + j + 1]) {
        ++i;
      } else {
        ++j;
      }
    }
    Replace(begin + old_from, begin + rows, begin + new_from, begin + columns, steps);
  }

  const BaselineInput& input_;
  const std::vector<Place> old_;
  const std::vector<Place> new_;
};

// "/vmlinuz", "\vmlinuz", "(hd0,gpt1)/vmlinuz" are one file of the disk.
std::string PlainPath(std::string_view path) {
  if (path.starts_with('(')) {
    path.remove_prefix(std::min(path.size(), path.find(')') + 1));
  }
  std::string plain = ToLower(path);
  std::replace(plain.begin(), plain.end(), '\\', '/');
  return plain.substr(std::min(plain.size(), plain.find_first_not_of('/')));
}

std::string Short(const Bytes& digest) { return ToHex(digest).substr(0, kShortDigest) + "..."; }

std::string Describe(const std::string& what, const Bytes& digest) {
  return what.empty() ? "sha256 " + Short(digest)
                      : fmt::format("{} (sha256 {})", what, Short(digest));
}

class Judge {
 public:
  explicit Judge(const BaselineInput& input) : input_(input) {
    for (auto* events : {&input_.baseline, &input_.measured}) {
      *events = events->first(CountBootEvents(*events).value_or(events->size()));
    }
  }

  BaselineJudgement Run() {
    std::vector<std::optional<size_t>> matched(input_.baseline.size());
    std::vector<std::pair<PcrIndex, std::vector<Step>>> steps;
    for (const PcrIndex pcr : kDiskPcrs) {
      steps.emplace_back(pcr, Alignment(input_, pcr).Steps(matched));
    }
    for (const PcrIndex pcr : input_.platform_pcrs) {
      steps.emplace_back(pcr, Alignment(input_, pcr).Steps(matched));
    }
    for (const auto& [pcr, of_pcr] : steps) {
      for (const Step& step : of_pcr) {
        found_.push_back({Order(step, matched), Make(pcr, step)});
      }
    }
    std::stable_sort(found_.begin(), found_.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    Accept();
    if (input_.extent == BootExtent::kUnderWay) {
      std::erase_if(found_, [&](const auto& each) { return MayBeAccepted(each.second); });
    }
    BaselineJudgement judgement;
    for (auto& [order, difference] : found_) {
      judgement.differences.push_back(std::move(difference));
    }
    return judgement;
  }

 private:
  // Where in the boot: an event that is missing comes behind the last one before it that came.
  // Doubled, so that there is room between two events.
  size_t Order(const Step& step, const std::vector<std::optional<size_t>>& matched) const {
    if (step.measured) {
      return 2 * step.measured->at + 2;
    }
    for (size_t i = step.expected->at; i-- > 0;) {
      if (matched[i]) {
        return 2 * *matched[i] + 3;
      }
    }
    return 0;
  }

  std::string WordsOf(const BootEvent& event) const {
    if (!event.what.empty() || !input_.describe) {
      return event.what;
    }
    return input_.describe(event.pcr, event.digest);
  }

  BaselineDifference Make(PcrIndex pcr, const Step& step) const {
    BaselineDifference out{pcr, 0, {}, {}, {}, {}, false, false, {}};
    // Firmware and loaders fill PCR 0 to 7 and shim 14; what they read and start is in the others.
    out.early = pcr <= PcrIndex::Of<7>() || pcr == PcrIndex::Of<14>();
    if (step.expected) {
      const BootEvent& event = input_.baseline[step.expected->at];
      out.event = step.expected->number;
      out.expected = event.digest;
      out.expected_what = WordsOf(event);
    }
    if (step.measured) {
      const BootEvent& event = input_.measured[step.measured->at];
      out.event = step.measured->number;
      out.measured = event.digest;
      out.measured_what = WordsOf(event);
    }
    const std::string place = fmt::format("PCR {}, extend {}: ", pcr.value(), out.event);
    if (!step.measured) {
      out.words = place + Describe(out.expected_what, out.expected) + " was not measured";
    } else if (!step.expected) {
      out.words = place + Describe(out.measured_what, out.measured) + " was not expected";
    } else {
      out.words = place + "expected " + Describe(out.expected_what, out.expected) + ", measured " +
                  Describe(out.measured_what, out.measured);
    }
    return out;
  }

  const DiskProgram* ProgramOf(const Bytes& authenticode) const {
    const auto found =
        std::find_if(input_.programs.begin(), input_.programs.end(), [&](const DiskProgram& each) {
          return !each.authenticode_sha256.empty() && each.authenticode_sha256 == authenticode;
        });
    return found == input_.programs.end() ? nullptr : &*found;
  }

  void Accept() {
    if (input_.pinned) {
      return;
    }
    std::set<std::string> updated;  // paths
    for (auto& [order, difference] : found_) {
      AcceptTable(difference);
      AcceptProgram(difference, updated);
    }
    for (auto& [order, difference] : found_) {
      AcceptFile(difference, updated);
    }
  }

  // Guests grow their own partitions, mostly at their first boot. No table is ever run: what its
  // partitions lead to is measured by itself.
  static void AcceptTable(BaselineDifference& difference) {
    if (difference.pcr == kTable && !difference.expected.empty() &&
        difference.measured_what.starts_with(kTableWords) &&
        difference.expected_what.starts_with(kTableWords)) {
      difference.accepted = true;
      difference.words = fmt::format(
          "changed: the partition table of the disk (was {}, now {}); tables are not run",
          Short(difference.expected), Short(difference.measured));
    }
  }

  void AcceptProgram(BaselineDifference& difference, std::set<std::string>& updated) const {
    if (!input_.accept_signed_updates || difference.pcr != kImages || difference.expected.empty() ||
        difference.measured.empty()) {
      return;
    }
    const DiskProgram* program = ProgramOf(difference.measured);
    if (program == nullptr || !program->signer_accepted) {
      return;
    }
    updated.insert(PlainPath(program->path));
    difference.accepted = true;
    difference.words =
        fmt::format("changed, signer accepted: {} (was {}, now {}, signed by {})", program->path,
                    Short(difference.expected), Short(difference.measured),
                    program->signer.empty() ? "?" : program->signer);
  }

  // The path of a file that was read in both boots, with another content; empty: it is none.
  static std::string ChangedFile(const BaselineDifference& difference) {
    const auto path = [](const std::string& what) {
      return what.starts_with(kFileWords) ? PlainPath(what.substr(kFileWords.size())) : "";
    };
    const std::string file = path(difference.measured_what);
    return difference.pcr == kFiles && file == path(difference.expected_what) ? file : "";
  }

  // GRUB reads and measures the file of a kernel before it has shim look at its signature.
  bool MayBeAccepted(const BaselineDifference& difference) const {
    return !difference.accepted && input_.accept_signed_updates && !input_.pinned &&
           !ChangedFile(difference).empty();
  }

  // GRUB measures a kernel's file once more, whole, when it reads it.
  static void AcceptFile(BaselineDifference& difference, const std::set<std::string>& updated) {
    const std::string file = ChangedFile(difference);
    if (!file.empty() && updated.contains(file)) {
      difference.accepted = true;
      difference.words =
          fmt::format("changed with the program: {} (was {}, now {})", difference.measured_what,
                      Short(difference.expected), Short(difference.measured));
    }
  }

  BaselineInput input_;
  std::vector<std::pair<size_t, BaselineDifference>> found_;  // with its order
};

}  // namespace

std::optional<size_t> CountBootEvents(std::span<const BootEvent> events) {
  static const Bytes succeeded = ActionDigest(kBank, kActionExitSucceeded);
  for (size_t i = 0; i < events.size(); ++i) {
    if (events[i].pcr == kTable && events[i].digest == succeeded) {
      return i + 1;
    }
  }
  return std::nullopt;
}

const BaselineDifference* BaselineJudgement::First() const {
  const auto found = std::find_if(differences.begin(), differences.end(),
                                  [](const BaselineDifference& each) { return !each.accepted; });
  return found == differences.end() ? nullptr : &*found;
}

BaselineJudgement JudgeByBaseline(const BaselineInput& input) { return Judge(input).Run(); }

}  // namespace vallum::measure
