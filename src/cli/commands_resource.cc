// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <ostream>

#include "base/text.h"
#include "cli/commands.h"
#include "cli/image_report.h"

namespace vallum::cli {
namespace {

struct ListOptions {
  std::string labels;
  std::string fields;
};
struct SetOptions {
  std::string name;
  std::vector<std::string> labels;
};

Result<void> List(Tool* tool, const Kind& kind, const ListOptions& options) {
  std::string query;
  if (!options.labels.empty()) query += "labels=" + http::PercentEncode(options.labels);
  if (!options.fields.empty()) {
    query += (query.empty() ? "fields=" : "&fields=") + http::PercentEncode(options.fields);
  }
  ASSIGN_OR_RETURN(const Json answer, tool->CallList(kind.plural, query));
  const std::vector<Json> items(answer["items"].begin(), answer["items"].end());
  return tool->Show(kind.columns, items, answer);
}

Result<void> ShowOne(Tool* tool, const Kind& kind, const std::string& name) {
  ASSIGN_OR_RETURN(const Json answer, tool->Call(http::Method::kGet, ResourcePath(kind, name)));
  if (tool->output == "table" && kind.name == "instance") {
    tool->out() << DescribeInstance(answer, tool->now());
    return Ok();
  }
  if (tool->output == "table" && kind.name == "image") {
    tool->out() << DescribeImage(answer, tool->now());
    return Ok();
  }
  return tool->Show(kind.columns, {answer}, answer);
}

// "key=value" sets a label, "key-" removes it.
Result<void> Set(Tool* tool, const Kind& kind, const SetOptions& options) {
  Json labels = Json::object();
  for (const std::string& word : options.labels) {
    const size_t equals = word.find('=');
    if (equals != std::string::npos && equals > 0) {
      labels[word.substr(0, equals)] = word.substr(equals + 1);
    } else if (word.size() > 1 && word.back() == '-') {
      labels[word.substr(0, word.size() - 1)] = nullptr;
    } else {
      return InvalidInput("'" + Printable(word) + "' is no label")
          .WithFix("write key=value to set a label, key- to remove it");
    }
  }
  ASSIGN_OR_RETURN(
      const Json answer,
      tool->Call(http::Method::kPatch, ResourcePath(kind, options.name),
                 Json{{"metadata", {{"labels", labels}}}}, "application/merge-patch+json"));
  return ShowWritten(tool, kind, answer, kind.name + " " + options.name + " changed");
}

Result<void> Watch(Tool* tool, const Kind& kind) {
  ASSIGN_OR_RETURN(const OutputFormat format, tool->Format());
  ASSIGN_OR_RETURN(const Json start, tool->CallList(kind.plural, ""));
  const std::vector<Json> items(start["items"].begin(), start["items"].end());
  RETURN_IF_ERROR(tool->Show(kind.columns, items, start));
  tool->out().flush();
  ASSIGN_OR_RETURN(http::Client* const client, tool->Connect());
  const std::string target =
      "/v1/" + kind.plural + "?watch=" + std::to_string(NumberAt(start, "revision"));
  ASSIGN_OR_RETURN(
      const auto reader,
      client->OpenEvents(
          {.method = http::Method::kGet, .target = target, .headers = {}, .body = {}}));
  while (true) {
    ASSIGN_OR_RETURN(const auto event, reader->Next(std::chrono::seconds(5)));
    if (!event.has_value()) continue;
    const Json item = Json::parse(event->data, nullptr, false);
    if (item.is_discarded()) return Internal("the server's event is no JSON");
    if (format == OutputFormat::kJson) {
      tool->out() << Json{{"event", event->event}, {"object", item}}.dump() << "\n";
    } else {
      const std::string text = Render(format, kind.columns, {item}, item, tool->now());
      // Without the header line, which was printed once.
      tool->out() << (event->event == "delete" ? "deleted: " : "")
                  << (format == OutputFormat::kYaml ? text : text.substr(text.find('\n') + 1));
    }
    tool->out().flush();
  }
}

void AddList(CLI::App* group, Tool* tool, const Kind& kind) {
  auto options = std::make_shared<ListOptions>();
  CLI::App* command = group->add_subcommand("list", "List all");
  command->add_option("-l,--labels", options->labels, "Only those with these labels: a=b,c=d");
  command->add_option("--fields", options->fields,
                      "Only those with these values: " + kind.fields_example);
  command->callback(
      [=, &kind] { tool->action = [=, &kind] { return List(tool, kind, *options); }; });
}

}  // namespace

std::string ResourcePath(const Kind& kind, const std::string& name) {
  return "/v1/" + kind.plural + "/" + http::PercentEncode(name);
}

Result<Json> KeyValues(const std::vector<std::string>& words, const std::string& option) {
  Json object = Json::object();
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos || equals == 0) {
      return InvalidInput(option + " '" + Printable(word) + "' is not of the form key=value");
    }
    object[word.substr(0, equals)] = word.substr(equals + 1);
  }
  return object;
}

Result<void> ShowWritten(Tool* tool, const Kind& kind, const Json& answer,
                         const std::string& line) {
  if (!tool->ForPeople()) return tool->Show(kind.columns, {answer}, answer);
  tool->out() << Printable(line) << "\n";
  return Ok();
}

Result<void> FinishOperation(Tool* tool, const Json& answer, Follow follow,
                             const std::string& line) {
  const Kind& operations = KindOf("operation");
  if (follow == Follow::kReturn) {
    return ShowWritten(tool, operations, answer,
                       line + ": started, operation " + TextAt(answer, "metadata.name"));
  }
  RETURN_IF_ERROR(tool->WaitForOperation(answer));
  return ShowWritten(tool, operations, answer, line + ": done");
}

void AddResourceCommands(CLI::App* group, Tool* tool, const Kind& kind) {
  AddList(group, tool, kind);
  auto name = std::make_shared<std::string>();
  // These have a `show` of their own.
  if (kind.name != "host" && kind.name != "keyset" && kind.name != "rollout" &&
      kind.name != "policy" && kind.name != "tpmauthority") {
    CLI::App* show = group->add_subcommand("show", "Show one");
    show->add_option("NAME", *name, "Its name")->required();
    show->callback(
        [=, &kind] { tool->action = [=, &kind] { return ShowOne(tool, kind, *name); }; });
  }
  if (kind.deletable && kind.name != "instance") {
    CLI::App* remove = group->add_subcommand("delete", "Delete one");
    remove->add_option("NAME", *name, "Its name")->required();
    remove->callback([=, &kind] {
      tool->action = [=, &kind]() -> Result<void> {
        ASSIGN_OR_RETURN(const Json answer,
                         tool->Call(http::Method::kDelete, ResourcePath(kind, *name)));
        return ShowWritten(tool, kind, answer, kind.name + " " + *name + " deleted");
      };
    });
  }
  if (kind.labels) {
    auto options = std::make_shared<SetOptions>();
    CLI::App* set = group->add_subcommand("set", "Set or remove labels");
    set->add_option("NAME", options->name, "Its name")->required();
    set->add_option("LABEL", options->labels, "key=value, or key- to remove")->required();
    set->callback([=, &kind] { tool->action = [=, &kind] { return Set(tool, kind, *options); }; });
  }
  CLI::App* watch = group->add_subcommand("watch", "List, then show each change as it happens");
  watch->callback([=, &kind] { tool->action = [=, &kind] { return Watch(tool, kind); }; });
}

}  // namespace vallum::cli
