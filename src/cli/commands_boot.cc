// SPDX-License-Identifier: Apache-2.0
// A boot as it happens, and what an instance is meant to boot.
#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "base/text.h"
#include "cli/commands.h"

namespace vallum::cli {
namespace {

// Exit codes beside those of every command: a script tells a bad boot from a bad call by them.
constexpr int kDiverged = 10;
constexpr int kRefused = 11;
constexpr int kUnmeasured = 12;
constexpr int kNoVerdict = 13;

constexpr size_t kShortDigest = 12;
constexpr size_t kLine = 500;
constexpr std::chrono::seconds kEventWait{1};

std::string Short(const std::string& digest) {
  return digest.size() <= kShortDigest ? digest : digest.substr(0, kShortDigest) + "...";
}

std::string Pad(std::string text, size_t width) {
  text.resize(std::max(width, text.size()), ' ');
  return text;
}

// "2027-01-15T08:00:00.250Z" -> "08:00:00.250".
std::string TimeOfDay(const std::string& rfc3339) {
  const size_t begin = rfc3339.find('T');
  if (begin == std::string::npos) return "-";
  const std::string time = rfc3339.substr(begin + 1, rfc3339.find('Z') - begin - 1);
  return Printable(time.substr(0, 12), 12);
}

std::vector<Json> Items(const Json& list) {
  return list.is_array() ? std::vector<Json>(list.begin(), list.end()) : std::vector<Json>();
}

int ExitCodeOf(const std::string& verdict) {
  if (verdict == "BOOT_VERIFIED") return 0;
  if (verdict == "BOOT_DIVERGED") return kDiverged;
  if (verdict == "BOOT_REFUSED") return kRefused;
  return verdict == "BOOT_UNMEASURED" ? kUnmeasured : kNoVerdict;
}

// The server's own, for programs; people were shown it in words.
Result<void> Document(Tool* tool, const Json& document) {
  return tool->ForPeople() ? Ok() : tool->Show({}, {}, document);
}

// Prints what is new of a boot each time that the instance is seen.
class BootPrinter {
 public:
  explicit BootPrinter(Tool* tool) : tool_(tool) {}

  // Returns true once the boot is over, with the exit code in the tool.
  bool Show(const Json& instance) {
    const Json measured = At(instance, "status.boot.measured");
    const int64_t resets = NumberAt(measured, "tpmResets");
    const std::vector<Json> stages = Items(At(measured, "stages"));
    if (resets != resets_ || stages.size() < printed_) {
      if (printed_ > 0) Print("-- another boot begins --");
      resets_ = resets;
      printed_ = 0;
    }
    for (; printed_ < stages.size(); ++printed_) ShowStage(stages[printed_]);
    tool_->out().flush();
    return Over(instance, measured);
  }

 private:
  void Print(const std::string& line) {
    if (tool_->ForPeople()) tool_->out() << line << "\n";
  }

  void ShowStage(const Json& stage) {
    const bool expected = TextAt(stage, "asExpected") == "true";
    const std::string digest = TextAt(stage, "digest");
    std::string line = Pad(TimeOfDay(TextAt(stage, "time")), 12) + "  " +
                       Pad(Printable(TextAt(stage, "name"), 40), 16) + "  " +
                       Pad(expected ? "as expected" : "NOT as expected", 15) + "  ";
    if (!digest.empty()) {
      line +=
          "PCR " + std::to_string(NumberAt(stage, "pcr")) + " " + Printable(Short(digest)) + "  ";
    }
    Print(line + Printable(TextAt(stage, "detail"), kLine));
  }

  // The verdict is of the boot that was asked for, and the last one.
  bool Over(const Json& instance, const Json& measured) {
    const bool current =
        NumberAt(instance, "status.observedGeneration") >=
            NumberAt(instance, "metadata.generation") &&
        NumberAt(instance, "status.observedRebootCount") >= NumberAt(instance, "spec.rebootCount");
    const std::string verdict = TextAt(measured, "verdict");
    const std::string phase = TextAt(instance, "status.phase");
    const bool ended =
        phase == "INSTANCE_STOPPED" || phase == "INSTANCE_CRASHED" || phase == "INSTANCE_FAILED";
    const bool decided = ExitCodeOf(verdict) != kNoVerdict;
    if (!current || (!decided && !ended)) return false;
    tool_->exit_code = ExitCodeOf(verdict);
    if (decided) {
      Print("verdict: " + FriendlyEnum(verdict));
    } else {
      Print("no verdict: the instance is " + FriendlyEnum(phase) + ": " +
            Printable(TextAt(instance, "status.reason"), kLine));
    }
    if (tool_->ForPeople()) tool_->out() << DescribeVerdict(measured);
    return true;
  }

  Tool* tool_;
  int64_t resets_ = 0;
  size_t printed_ = 0;
};

struct Seen {
  Json instance;
  int64_t revision = 0;
};

// The instance and the revision that it was seen at.
Result<Seen> Look(Tool* tool, const std::string& name) {
  ASSIGN_OR_RETURN(const Json list, tool->CallList("instances", "fields=metadata.name=" +
                                                                    http::PercentEncode(name)));
  const std::vector<Json> items = Items(At(list, "items"));
  if (items.empty()) {
    return NotFound("there is no instance " + Printable(name, 63)).WithFix("vallum instance list");
  }
  return Seen{.instance = items.front(), .revision = NumberAt(list, "revision")};
}

Result<void> WatchBoot(Tool* tool, const std::string& name) {
  BootPrinter printer(tool);
  const MonotonicTime end = tool->environment().clock->Monotonic() + tool->timeout();
  const auto in_time = [&]() -> Result<void> {
    if (tool->environment().clock->Monotonic() < end) return Ok();
    return Unavailable("the boot of instance " + Printable(name, 63) + " has no verdict after " +
                       std::to_string(tool->timeout_seconds) + " s")
        .WithFix("vallum instance show " + Printable(name, 63) + ", or a longer --timeout");
  };
  // Each round lists and watches from there; a stream that ends or is too old begins the next.
  while (true) {
    ASSIGN_OR_RETURN(Seen seen, Look(tool, name));
    if (printer.Show(seen.instance)) return Document(tool, seen.instance);
    RETURN_IF_ERROR(in_time());
    ASSIGN_OR_RETURN(http::Client* const client, tool->Connect());
    const std::string target = "/v1/instances?watch=" + std::to_string(seen.revision) +
                               "&fields=metadata.name=" + http::PercentEncode(name);
    ASSIGN_OR_RETURN(
        const auto reader,
        client->OpenEvents(
            {.method = http::Method::kGet, .target = target, .headers = {}, .body = {}}));
    while (true) {
      RETURN_IF_ERROR(in_time());
      const auto event = reader->Next(kEventWait);
      if (!event.has_value() || (event->has_value() && (*event)->event == "error")) break;
      // A change of another instance comes as a deletion: it does not match.
      if (!event->has_value() || (*event)->event != "put") continue;
      const Json instance = Json::parse((*event)->data, nullptr, false);
      if (instance.is_discarded()) return Internal("the server's event is no JSON");
      if (printer.Show(instance)) return Document(tool, instance);
    }
  }
}

// ---- baseline ----

std::string BaselinePath(const std::string& name, const std::string& what = "") {
  return ResourcePath(KindOf("instance"), name) + "/baseline" + what;
}

Result<void> ShowBaseline(Tool* tool, const std::string& name) {
  ASSIGN_OR_RETURN(const Json baseline, tool->Call(http::Method::kGet, BaselinePath(name)));
  if (tool->ForPeople()) {
    tool->out() << "baseline of instance " << Printable(name) << ": "
                << Printable(TextAt(baseline, "spec.origin"), kLine) << ", "
                << FriendlyAge(TextAt(baseline, "spec.time"), tool->now())
                << (TextAt(baseline, "spec.pinned") == "true" ? ", pinned\n" : "\n");
  }
  std::vector<Json> rows;
  for (const Json& event : Items(At(baseline, "spec.events"))) {
    const Result<Bytes> digest = FromBase64(TextAt(event, "digest"));
    rows.push_back({{"pcr", NumberAt(event, "pcr")},
                    {"digest", digest.has_value() ? ToHex(*digest) : "?"},
                    {"what", TextAt(event, "what")}});
  }
  static const std::vector<Column> kColumns = {
      {"PCR", "pcr", Style::kNumber}, {"SHA256", "digest"}, {"WHAT", "what"}};
  return tool->Show(kColumns, rows, baseline);
}

void PrintChanges(Tool* tool, const Json& diff) {
  for (const Json& change : Items(At(diff, "changes"))) {
    tool->out() << (TextAt(change, "accepted") == "true" ? "  accepted  " : "  differs   ")
                << Printable(TextAt(change, "words"), kLine) << "\n";
  }
}

bool Differs(const Json& diff) {
  const std::vector<Json> changes = Items(At(diff, "changes"));
  return std::any_of(changes.begin(), changes.end(),
                     [](const Json& change) { return TextAt(change, "accepted") != "true"; });
}

Result<void> DiffBaseline(Tool* tool, const std::string& name) {
  ASSIGN_OR_RETURN(const Json diff, tool->Call(http::Method::kGet, BaselinePath(name, "/diff")));
  tool->exit_code = Differs(diff) ? kDiverged : 0;
  if (!tool->ForPeople()) return Document(tool, diff);
  tool->out() << "the last boot of instance " << Printable(name)
              << (tool->exit_code == 0 ? " is what it is meant to boot\n"
                                       : " is not what it is meant to boot\n");
  PrintChanges(tool, diff);
  return Ok();
}

// Accepts the boot that is shown, and no other that may have come meanwhile.
Result<void> AcceptBaseline(Tool* tool, const std::string& name) {
  Json body = Json::object();
  const Result<Json> diff = tool->Call(http::Method::kGet, BaselinePath(name, "/diff"));
  if (diff.has_value()) {
    body["eventsSha256"] = TextAt(*diff, "eventsSha256");
    if (tool->ForPeople()) PrintChanges(tool, *diff);
  } else if (diff.error().code() != ErrorCode::kNotFound) {
    return diff.error();
  }
  ASSIGN_OR_RETURN(const Json baseline,
                   tool->Call(http::Method::kPost, BaselinePath(name, "/accept"), body));
  if (!tool->ForPeople()) return Document(tool, baseline);
  tool->out() << "instance " << Printable(name) << ": its last boot is now its baseline\n";
  return Ok();
}

Result<void> PinBaseline(Tool* tool, const std::string& name, const std::string& verb) {
  ASSIGN_OR_RETURN(const Json baseline,
                   tool->Call(http::Method::kPost, BaselinePath(name, "/" + verb), Json::object()));
  if (!tool->ForPeople()) return Document(tool, baseline);
  tool->out() << "the baseline of instance " << Printable(name) << " is "
              << (verb == "pin" ? "pinned\n" : "not pinned any more\n");
  return Ok();
}

CLI::App* AddNamed(CLI::App* group, Tool* tool, const std::string& verb, const std::string& about,
                   std::function<Result<void>(Tool*, const std::string&)> action) {
  auto name = std::make_shared<std::string>();
  CLI::App* command = group->add_subcommand(verb, about);
  command->add_option("NAME", *name, "Name of the instance")->required();
  command->callback([=] { tool->action = [=] { return action(tool, *name); }; });
  return command;
}

}  // namespace

std::string DescribeVerdict(const Json& measured) {
  std::string out;
  const auto line = [&](const std::string& name, const std::string& value) {
    if (!value.empty() && value != "-") {
      out += "  " + Pad(name, 14) + Printable(value, kLine) + "\n";
    }
  };
  line("early", FriendlyEnum(TextAt(measured, "early")));
  line("late", FriendlyEnum(TextAt(measured, "late")));
  if (const Json first = At(measured, "firstDifference"); !first.is_null()) {
    const auto event = [&](const std::string& digest, const std::string& what) {
      const std::string brief = Short(TextAt(first, digest));
      const std::string words = TextAt(first, what);
      if (brief.empty()) return std::string("nothing");
      return words.empty() ? brief : words + " (" + brief + ")";
    };
    line("differs at", "PCR " + std::to_string(NumberAt(first, "pcr")) + ", extend " +
                           std::to_string(NumberAt(first, "event")));
    line("expected", event("expected", "expectedWhat") + ", by " + TextAt(first, "expectedFrom"));
    line("measured", event("measured", "measuredWhat"));
  }
  for (const Json& change : Items(At(measured, "acceptedChanges"))) {
    if (change.is_string()) line("accepted", change.get<std::string>());
  }
  for (const Json& reason : Items(At(measured, "reasons"))) {
    if (reason.is_string()) line("reason", reason.get<std::string>());
  }
  return out;
}

void AddBootCommands(CLI::App* group, Tool* tool) {
  AddNamed(group, tool, "watch-boot", "Show a boot as it is measured, until its verdict", WatchBoot)
      ->footer(
          "A boot that is already over is shown at once. Exit status: 0 VERIFIED, 10 DIVERGED,\n"
          "11 REFUSED, 12 UNMEASURED, 13 ended without a verdict, 6 none within --timeout.\n"
          "Examples:\n"
          "  vallum instance reboot web1 && vallum instance watch-boot web1 --timeout 120\n"
          "  vallum instance watch-boot web1 -o json | jq .status.boot.measured");
  CLI::App* baseline = group->add_subcommand("baseline", "What an instance is meant to boot");
  baseline->require_subcommand(1);
  baseline->footer(
      "It is learned at the first VERIFIED boot; later boots are compared with it.\n"
      "Examples:\n"
      "  vallum instance baseline diff web1\n"
      "  vallum instance baseline accept web1      # after an update that was meant\n"
      "  vallum instance baseline pin web1         # not even signed updates any more");
  AddNamed(baseline, tool, "show", "List its extends", ShowBaseline);
  AddNamed(baseline, tool, "diff", "Compare the last boot with it; exit status 10 if it differs",
           DiffBaseline);
  AddNamed(baseline, tool, "accept", "Make what was measured last the baseline", AcceptBaseline);
  for (const std::string verb : {"pin", "unpin"}) {
    AddNamed(baseline, tool, verb, verb == "pin" ? "Let nothing but accept change it" : "Undo pin",
             [verb](Tool* t, const std::string& name) { return PinBaseline(t, name, verb); });
  }
}

}  // namespace vallum::cli
