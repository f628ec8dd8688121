// SPDX-License-Identifier: Apache-2.0
#include "measure/grub_script.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <utility>

#include "base/text.h"
#include "measure/grub_syntax.h"

namespace vallum::measure {
namespace {

using Arguments = std::vector<std::string>;

// The files of a volume by their normal path, in lower case where case does not count.
struct Index {
  const GrubVolume* volume = nullptr;
  std::map<std::string, const GrubFile*> files;

  std::string Key(std::string_view path) const {
    return volume->ignores_case ? ToLower(path) : std::string(path);
  }
};

// A path on a volume that is known.
struct Place {
  const Index* index = nullptr;
  std::string path;  // "/EFI/debian"
};

struct MenuEntry {
  std::string title;
  std::string block;  // with its braces
};

// "//EFI//debian/" is "/EFI/debian".
std::string NormalPath(std::string_view path) {
  std::string normal;
  for (const std::string& part : Split(path, '/')) {
    if (!part.empty()) {
      normal += "/" + part;
    }
  }
  return normal.empty() ? "/" : normal;
}

const GrubFile* FindFile(const Place& place) {
  const auto found = place.index->files.find(place.index->Key(place.path));
  return found == place.index->files.end() ? nullptr : found->second;
}

bool IsFolder(const Place& place) {
  const std::string prefix = place.index->Key(place.path == "/" ? "/" : place.path + "/");
  const auto next = place.index->files.upper_bound(prefix);
  return next != place.index->files.end() && next->first.starts_with(prefix);
}

class Runner {
 public:
  explicit Runner(const GrubInput& input) : input_(input) {
    for (const GrubVolume& volume : input.volumes) {
      Index& index = volumes_.emplace_back(Index{&volume, {}});
      for (const GrubFile& file : volume.files) {
        index.files.emplace(index.Key(NormalPath(file.path)), &file);
      }
    }
    variables_["root"] = input.device;
    variables_["prefix"] = fmt::format("({}){}", input.device, input.prefix);
    variables_["cmdpath"] = fmt::format("({}){}", input.device, input.directory);
    variables_["grub_platform"] = "efi";
    variables_["grub_cpu"] = "x86_64";
  }

  GrubRun Run() && {
    if (auto result = Boot(); !result.has_value()) {
      run_.stopped = result.error().Describe();
    }
    return std::move(run_);
  }

 private:
  Result<void> Boot();
  Result<void> RunScript(std::string_view text, size_t depth);
  Result<bool> Execute(const GrubStatement& statement, size_t depth);
  Result<bool> ExecuteIf(const GrubStatement& statement, size_t depth);
  Result<bool> Command(const Arguments& arguments, size_t depth);
  Result<std::string> Expand(const GrubWord& word) const;
  Result<Place> Locate(std::string_view path) const;
  Result<const GrubFile*> Open(std::string_view path);
  Result<bool> Set(const Arguments& arguments);
  Result<void> CheckModuleLists() const;
  Result<bool> Test(const Arguments& arguments) const;
  Result<bool> TestOne(Arguments& words) const;
  Result<bool> Source(const Arguments& arguments, size_t depth);
  Result<bool> Search(const Arguments& arguments);
  Result<bool> InsertModule(const Arguments& arguments) const;
  Result<bool> AddEntry(const GrubStatement& statement, const Arguments& arguments);
  Result<bool> Linux(const Arguments& arguments);
  Result<bool> Initrd(const Arguments& arguments);
  Result<void> RunMenu();
  const std::string* Variable(const std::string& name) const {
    const auto found = variables_.find(name);
    return found == variables_.end() ? nullptr : &found->second;
  }

  const GrubInput& input_;
  std::map<std::string, std::string> variables_;
  std::vector<Index> volumes_;
  std::vector<MenuEntry> entries_;
  size_t commands_ = 0;
  size_t text_bytes_ = 0;
  size_t script_bytes_ = 0;
  bool kernel_loaded_ = false;
  bool booted_ = false;
  GrubRun run_;
};

// "prefix" brings lists of modules with it: GRUB reads them, and measures what it reads.
Result<void> Runner::CheckModuleLists() const {
  ASSIGN_OR_RETURN(Place lists, Locate(variables_.at("prefix") + "/x86_64-efi"));
  for (const std::string_view name : {"command.lst", "fs.lst", "crypto.lst", "terminal.lst"}) {
    if (FindFile({lists.index, fmt::format("{}/{}", lists.path, name)}) != nullptr) {
      return InvalidInput(fmt::format("GRUB reads {}/{} by itself", lists.path, name));
    }
  }
  return Ok();
}

Result<void> Runner::Boot() {
  RETURN_IF_ERROR(CheckModuleLists());
  RETURN_IF_ERROR(RunScript(input_.embedded_script, 0)).context("GRUB's embedded script");
  if (!booted_) {
    RETURN_IF_ERROR(RunMenu());
  }
  if (!kernel_loaded_) {
    return InvalidInput("the menu entry loads no kernel");
  }
  return Ok();
}

Result<void> Runner::RunMenu() {
  if (entries_.empty()) {
    return InvalidInput("no menu entry and no boot command: GRUB waits for commands");
  }
  const std::string* timeout = Variable("timeout");
  if (timeout == nullptr || timeout->empty() || timeout->front() == '-') {
    return InvalidInput("no timeout is set: GRUB waits for a key");
  }
  size_t chosen = 0;
  if (const std::string* wanted = Variable("default"); wanted != nullptr) {
    const auto [end, error] =
        std::from_chars(wanted->data(), wanted->data() + wanted->size(), chosen);
    if (error != std::errc{} || end != wanted->data() + wanted->size() ||
        chosen >= entries_.size()) {
      return InvalidInput("the default entry is not given by its number");
    }
  }
  const MenuEntry entry = entries_[chosen];
  // GRUB uses these two up, so that the entry cannot read them.
  variables_.erase("default");
  variables_.erase("timeout");
  run_.events.push_back({GrubEvent::Kind::kCommand, "setparams " + entry.title, nullptr});
  const std::string_view block = entry.block;
  RETURN_IF_ERROR(RunScript(block.substr(1, block.size() - 2), 1))
      .context(fmt::format("menu entry \"{}\"", Printable(entry.title, 60)));
  return Ok();
}

Result<void> Runner::RunScript(std::string_view text, size_t depth) {
  script_bytes_ += text.size();
  if (script_bytes_ > kGrubMaxRunBytes) {
    return InvalidInput(fmt::format("scripts of more than {} bytes", kGrubMaxRunBytes));
  }
  GrubParser parser(text);
  while (!booted_) {
    ASSIGN_OR_RETURN(const auto statement, parser.Next());
    if (!statement.has_value()) {
      return Ok();
    }
    RETURN_IF_ERROR(Execute(*statement, depth));
  }
  return Ok();
}

Result<bool> Runner::ExecuteIf(const GrubStatement& statement, size_t depth) {
  for (const GrubBranch& branch : statement.branches) {
    bool taken = branch.condition.empty();
    for (const GrubStatement& condition : branch.condition) {
      ASSIGN_OR_RETURN(taken, Execute(condition, depth));
    }
    if (!taken) {
      continue;
    }
    bool status = true;
    for (const GrubStatement& each : branch.body) {
      ASSIGN_OR_RETURN(status, Execute(each, depth));
    }
    return status;
  }
  return true;
}

Result<bool> Runner::Execute(const GrubStatement& statement, size_t depth) {
  if (booted_) {
    return true;
  }
  if (!statement.branches.empty()) {
    return ExecuteIf(statement, depth);
  }
  const std::string where = fmt::format("line {}", statement.line);
  if (++commands_ > kGrubMaxCommands) {
    return InvalidInput(fmt::format("{}: more than {} commands", where, kGrubMaxCommands));
  }
  Arguments arguments;
  for (const GrubWord& word : statement.words) {
    ASSIGN_OR_RETURN_CONTEXT(arguments.emplace_back(), Expand(word), where);
  }
  if (statement.block.has_value() && arguments.front() != "menuentry") {
    return InvalidInput(
        fmt::format("{}: {} with a block is not followed", where, Printable(arguments.front())));
  }
  std::string text = Join(arguments, " ");
  text += statement.block.has_value() ? " " + *statement.block : "";
  text_bytes_ += text.size();
  if (text_bytes_ > kGrubMaxTextBytes) {
    return InvalidInput(
        fmt::format("{}: commands of more than {} bytes", where, kGrubMaxTextBytes));
  }
  // A plain assignment and a command that does not exist are measured as well, but what GRUB does
  // with them is not followed.
  const auto status =
      statement.block.has_value() ? AddEntry(statement, arguments) : Result<bool>(true);
  RETURN_IF_ERROR(status).context(where);
  run_.events.push_back({GrubEvent::Kind::kCommand, std::move(text), nullptr});
  if (statement.block.has_value()) {
    return true;
  }
  ASSIGN_OR_RETURN_CONTEXT(const bool done, Command(arguments, depth), where);
  return done;
}

Result<std::string> Runner::Expand(const GrubWord& word) const {
  std::string text;
  for (const GrubWordPart& part : word) {
    std::string_view piece = part.text;
    if (part.is_variable) {
      const std::string* value = Variable(part.text);
      if (value == nullptr) {
        return InvalidInput(fmt::format("the value of ${} is not known", Printable(part.text)));
      }
      piece = *value;
      if (!part.is_quoted && (piece.empty() || piece.find_first_of(" \t\n") != piece.npos)) {
        return InvalidInput(fmt::format("${} makes more or less than one word", part.text));
      }
    }
    if (!part.is_quoted && piece != "[" && piece.find_first_of("*?[") != piece.npos) {
      return InvalidInput("patterns for file names are not followed");
    }
    text += piece;
    if (text.size() > kGrubMaxWordBytes) {
      return InvalidInput(fmt::format("a word of more than {} bytes", kGrubMaxWordBytes));
    }
  }
  return text;
}

Result<Place> Runner::Locate(std::string_view path) const {
  std::string device = variables_.at("root");
  if (path.starts_with('(')) {
    const size_t end = path.find(')');
    if (end == path.npos) {
      return InvalidInput("a path without ): " + Printable(path));
    }
    device = std::string(path.substr(1, end - 1));
    path.remove_prefix(end + 1);
  }
  if (!path.starts_with('/')) {
    return InvalidInput("a path without a leading slash: " + Printable(path));
  }
  for (const Index& index : volumes_) {
    if (index.volume->device == device) {
      return Place{&index, NormalPath(path)};
    }
  }
  return InvalidInput(fmt::format("what ({}) holds is not known", Printable(device)));
}

// Opens a file, which measures it. Errors: also when it does not exist.
Result<const GrubFile*> Runner::Open(std::string_view path) {
  ASSIGN_OR_RETURN(const Place place, Locate(path));
  const GrubFile* file = FindFile(place);
  if (file == nullptr) {
    return InvalidInput(fmt::format("{} does not exist", Printable(path)));
  }
  run_.events.push_back({GrubEvent::Kind::kFile,
                         fmt::format("({}){}", place.index->volume->device, place.path), file});
  return file;
}

Result<bool> Runner::Set(const Arguments& arguments) {
  const size_t equals = arguments.size() == 2 ? arguments[1].find('=') : std::string::npos;
  if (equals == std::string::npos) {
    return InvalidInput("set without name=value");
  }
  const std::string name = arguments[1].substr(0, equals);
  variables_[name] = arguments[1].substr(equals + 1);
  if (name == "prefix") {
    RETURN_IF_ERROR(CheckModuleLists());
  }
  if (name == "theme" || name == "lang" || name == "locale_dir" || name == "gfxmode" ||
      name == "fallback" || name == "pager") {
    return InvalidInput(fmt::format("the effect of ${} is not followed", name));
  }
  return true;
}

// One test with its negations; removes its words.
Result<bool> Runner::TestOne(Arguments& words) const {
  const auto take = [&] {
    std::string word = words.empty() ? "" : words.front();
    if (!words.empty()) {
      words.erase(words.begin());
    }
    return word;
  };
  if (words.empty()) {
    return false;
  }
  const std::string word = take();
  if (word == "!") {
    ASSIGN_OR_RETURN(const bool result, TestOne(words));
    return !result;
  }
  if (word == "-z" || word == "-n") {
    return take().empty() == (word == "-z");
  }
  if (word == "-e" || word == "-f" || word == "-d" || word == "-s") {
    const std::string path = take();
    ASSIGN_OR_RETURN(const Place place, Locate(path));
    const bool file = FindFile(place) != nullptr;
    const bool folder = IsFolder(place);
    if (word == "-s") {
      return InvalidInput("test -s is not followed");
    }
    return (file && word != "-d") || (folder && word != "-f");
  }
  if (!words.empty() && (words.front() == "=" || words.front() == "==" || words.front() == "!=")) {
    const bool same = take() != "!=";
    return (word == take()) == same;
  }
  if (word.starts_with('-') || word == "(" ||
      (!words.empty() && words.front().starts_with('-') && words.front() != "-o" &&
       words.front() != "-a")) {
    return InvalidInput("this test is not followed");
  }
  return !word.empty();
}

Result<bool> Runner::Test(const Arguments& arguments) const {
  if (arguments.back() != "]") {
    return InvalidInput("[ without ]");
  }
  Arguments words(arguments.begin() + 1, arguments.end() - 1);
  bool any = false;
  bool all = true;
  while (true) {
    ASSIGN_OR_RETURN(const bool one, TestOne(words));
    all = all && one;
    if (words.empty()) {
      return any || all;
    }
    const std::string word = words.front();
    words.erase(words.begin());
    if (word == "-o") {
      any = any || all;
      all = true;
    } else if (word != "-a") {
      return InvalidInput("this test is not followed");
    }
  }
}

Result<bool> Runner::Source(const Arguments& arguments, size_t depth) {
  if (arguments.size() != 2 || depth >= kGrubMaxSourceDepth) {
    return InvalidInput("source without one file, or nested too deeply");
  }
  ASSIGN_OR_RETURN(const GrubFile* file, Open(arguments[1]));
  if (!file->script.has_value()) {
    return InvalidInput(fmt::format("the text of {} is not known", Printable(file->path)));
  }
  RETURN_IF_ERROR(RunScript(*file->script, depth + 1)).context(Printable(file->path));
  return true;
}

// search --fs-uuid|--label [--set[=variable]] [--no-floppy] [--hint...] NAME. Reads no file.
Result<bool> Runner::Search(const Arguments& arguments) {
  std::string variable = "root";
  std::string wanted;
  bool by_uuid = arguments[0] == "search.fs_uuid";
  bool by_label = arguments[0] == "search.fs_label";
  for (size_t i = 1; i < arguments.size(); ++i) {
    const std::string& word = arguments[i];
    if (word == "--fs-uuid" || word == "-u") {
      by_uuid = true;
    } else if (word == "--label" || word == "-l" || word == "--fs-label") {
      by_label = true;
    } else if (word.starts_with("--set=")) {
      variable = word.substr(6);
    } else if (word == "--set" || word == "--no-floppy" || word.starts_with("--hint")) {
      continue;
    } else if (word.starts_with('-')) {
      return InvalidInput(fmt::format("search {} is not followed", Printable(word)));
    } else if (wanted.empty()) {
      wanted = word;
    } else if (arguments[0] != "search" && i == 2) {
      variable = word;  // search.fs_uuid NAME VARIABLE HINTS
    }
  }
  if (by_uuid == by_label || wanted.empty()) {
    return InvalidInput("only search by uuid or by label is followed");
  }
  const GrubVolume* found = nullptr;
  for (const GrubVolume& volume : input_.volumes) {
    if (by_uuid ? ToLower(volume.uuid) == ToLower(wanted) : volume.label == wanted) {
      if (found != nullptr) {
        return InvalidInput("search finds more than one volume");
      }
      found = &volume;
    }
  }
  if (found == nullptr) {
    return InvalidInput(fmt::format("what {} is on is not known", Printable(wanted)));
  }
  variables_[variable] = found->device;
  return true;
}

Result<bool> Runner::InsertModule(const Arguments& arguments) const {
  for (size_t i = 1; i < arguments.size(); ++i) {
    const std::string path =
        fmt::format("{}/x86_64-efi/{}.mod", variables_.at("prefix"), arguments[i]);
    ASSIGN_OR_RETURN(const Place place, Locate(path));
    if (FindFile(place) != nullptr) {
      return InvalidInput(fmt::format("{} may be read", Printable(place.path)));
    }
  }
  return true;  // built in, or it does not exist: nothing is read
}

Result<bool> Runner::AddEntry(const GrubStatement& statement, const Arguments& arguments) {
  MenuEntry entry;
  bool titled = false;
  for (size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i] == "--class" || arguments[i] == "--id") {
      ++i;
    } else if (arguments[i] == "--unrestricted") {
      continue;
    } else if (arguments[i].starts_with("-") || titled) {
      return InvalidInput("menuentry with options that are not followed");
    } else {
      entry.title = arguments[i];
      titled = true;
    }
  }
  if (!titled) {
    return InvalidInput("menuentry without a title");
  }
  entry.block = *statement.block;
  entries_.push_back(std::move(entry));
  return true;
}

Result<bool> Runner::Linux(const Arguments& arguments) {
  if (arguments.size() < 2) {
    return InvalidInput("linux without a file");
  }
  const Arguments words(arguments.begin() + 1, arguments.end());
  for (const std::string& word : words) {
    if (word.empty() || word.find_first_of(" \\'\"") != word.npos) {
      return InvalidInput("a kernel argument that needs quotation marks is not followed");
    }
  }
  ASSIGN_OR_RETURN(const GrubFile* file, Open(words.front()));
  run_.events.push_back({GrubEvent::Kind::kKernel, file->path, file});
  run_.events.push_back({GrubEvent::Kind::kKernelCommandLine, Join(words, " "), nullptr});
  kernel_loaded_ = true;
  return true;
}

Result<bool> Runner::Initrd(const Arguments& arguments) {
  if (!kernel_loaded_ || arguments.size() < 2) {
    return InvalidInput("initrd without a kernel or a file");
  }
  for (size_t i = 1; i < arguments.size(); ++i) {
    if (arguments[i].starts_with("newc:")) {
      return InvalidInput("initrd newc: is not followed");
    }
    RETURN_IF_ERROR(Open(arguments[i]));
  }
  return true;
}

Result<bool> Runner::Command(const Arguments& arguments, size_t depth) {
  const std::string& name = arguments.front();
  if (name == "[") {
    return Test(arguments);
  }
  if (name == "set") {
    return Set(arguments);
  }
  if (name == "source" || name == ".") {
    return Source(arguments, depth);
  }
  if (name == "search" || name == "search.fs_uuid" || name == "search.fs_label") {
    return Search(arguments);
  }
  if (name == "insmod") {
    return InsertModule(arguments);
  }
  if (name == "linux" || name == "linuxefi") {
    return Linux(arguments);
  }
  if (name == "initrd" || name == "initrdefi") {
    return Initrd(arguments);
  }
  if (name == "boot" && arguments.size() == 1) {
    booted_ = true;
    return true;
  }
  const bool graphical =
      std::find(arguments.begin(), arguments.end(), "gfxterm") != arguments.end();
  if (name == "export" || name == "echo" || name == "true" || name == "serial" ||
      ((name == "terminal_output" || name == "terminal_input") && !graphical)) {
    return true;
  }
  return InvalidInput(fmt::format("the command {} is not followed", Printable(name)));
}

}  // namespace

GrubRun RunGrub(const GrubInput& input) { return Runner(input).Run(); }

}  // namespace vallum::measure
