// SPDX-License-Identifier: Apache-2.0
#include "measure/grub_script.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "measure/grub_syntax.h"

namespace vallum::measure {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kConfig = R"(# a comment
set timeout=0
menuentry "Debian" {
  linux /vmlinuz quiet
  initrd /initrd.img
}
)";

GrubInput MakeValidInput(const std::string& config = kConfig) {
  GrubInput input;
  input.device = "hd0,gpt1";
  input.directory = "/EFI/BOOT";
  input.prefix = "/EFI/debian";
  input.embedded_script = "source $prefix/grub.cfg\n";
  GrubVolume& volume = input.volumes.emplace_back();
  volume.device = "hd0,gpt1";
  volume.ignores_case = true;
  volume.uuid = "5A11-0001";
  volume.label = "ESP";
  volume.files = {{"/EFI/debian/grub.cfg", {}, config},
                  {"/VMLINUZ", {}, {}},
                  {"/initrd.img", {}, {}},
                  {"/other.cfg", {}, "set timeout=0\n"}};
  return input;
}

std::vector<std::string> Texts(const GrubRun& run, GrubEvent::Kind kind) {
  std::vector<std::string> texts;
  for (const GrubEvent& event : run.events) {
    if (event.kind == kind) {
      texts.push_back(event.text);
    }
  }
  return texts;
}

std::vector<std::string> Commands(const GrubRun& run) {
  return Texts(run, GrubEvent::Kind::kCommand);
}

// Runs lines before the menu entry of the valid configuration; gives the commands among them.
std::vector<std::string> RunLines(const std::string& lines) {
  const GrubInput input = MakeValidInput(lines + "\n" + kConfig);
  const GrubRun run = RunGrub(input);
  EXPECT_THAT(run.stopped, IsEmpty());
  std::vector<std::string> commands = Commands(run);
  EXPECT_GE(commands.size(), 6U);
  return {commands.begin() + 1, commands.end() - 5};
}

std::string WhyStopped(const std::string& lines) {
  const GrubInput input = MakeValidInput(lines + "\n" + kConfig);
  return RunGrub(input).stopped;
}

TEST(GrubScript, CommandsFilesAndKernelAreMeasuredInTheOrderOfTheBoot) {
  const GrubInput input = MakeValidInput();
  const GrubRun run = RunGrub(input);
  EXPECT_THAT(run.stopped, IsEmpty());
  EXPECT_THAT(Commands(run),
              ElementsAre("source (hd0,gpt1)/EFI/debian/grub.cfg", "set timeout=0",
                          "menuentry Debian {\n  linux /vmlinuz quiet\n  initrd /initrd.img\n}",
                          "setparams Debian", "linux /vmlinuz quiet", "initrd /initrd.img"));
  EXPECT_THAT(
      Texts(run, GrubEvent::Kind::kFile),
      ElementsAre("(hd0,gpt1)/EFI/debian/grub.cfg", "(hd0,gpt1)/vmlinuz", "(hd0,gpt1)/initrd.img"));
  EXPECT_THAT(Texts(run, GrubEvent::Kind::kKernel), ElementsAre("/VMLINUZ"));
  EXPECT_THAT(Texts(run, GrubEvent::Kind::kKernelCommandLine), ElementsAre("/vmlinuz quiet"));
}

TEST(GrubScript, WordsAreExpandedAndQuotationMarksAreGone) {
  EXPECT_THAT(RunLines("set a='x  y' ; set b=\"$a z\"\necho  \"${b}\"\\;  '$a' \"\" # end"),
              ElementsAre("set a=x  y", "set b=x  y z", "echo x  y z; $a "));
}

TEST(GrubScript, TestsDecideWhichBranchIsTaken) {
  EXPECT_THAT(
      RunLines("if [ -e /none -o ! -d /EFI ]; then echo one\n"
               "elif [ -f /vmlinuz -a -n \"$root\" ]; then\n  echo two\nelse\n"
               "  echo three\nfi"),
      ElementsAre("[ -e /none -o ! -d /EFI ]", "[ -f /vmlinuz -a -n hd0,gpt1 ]", "echo two"));
  EXPECT_THAT(RunLines("if [ -z x ]; then echo a; else echo b; fi"),
              ElementsAre("[ -z x ]", "echo b"));
  EXPECT_THAT(RunLines("if [ a = a ]; then if [ a != a ]; then echo c; fi; echo d; fi"),
              ElementsAre("[ a = a ]", "[ a != a ]", "echo d"));
}

TEST(GrubScript, SearchSetsTheDeviceAndReadsNoFile) {
  EXPECT_THAT(RunLines("search --no-floppy --fs-uuid --set=root 5a11-0001"),
              ElementsAre("search --no-floppy --fs-uuid --set=root 5a11-0001"));
  EXPECT_THAT(RunLines("search --label --set=where ESP\necho $where"),
              ElementsAre("search --label --set=where ESP", "echo hd0,gpt1"));
  EXPECT_THAT(RunLines("search.fs_uuid 5A11-0001 root hd0,gpt1"), testing::SizeIs(1));
  EXPECT_THAT(WhyStopped("search --fs-uuid --set=root 1234-5678"), HasSubstr("is not known"));
  EXPECT_THAT(WhyStopped("search --file --set=root /x"), HasSubstr("is not followed"));
}

TEST(GrubScript, DefaultEntryIsTakenByItsNumber) {
  const std::string menu =
      "set default=1\nset timeout=5\nmenuentry a { linux /none; }\n"
      "menuentry 'b c' --class x --id y --unrestricted { linux /vmlinuz\n }\n";
  const GrubInput input = MakeValidInput(menu);
  const GrubRun run = RunGrub(input);
  EXPECT_THAT(run.stopped, IsEmpty());
  EXPECT_EQ(Commands(run)[5], "setparams b c");
  EXPECT_EQ(Commands(run)[4], "menuentry b c --class x --id y --unrestricted { linux /vmlinuz\n }");
}

TEST(GrubScript, EntryCannotReadWhatChoseIt) {
  for (const char* name : {"default", "timeout"}) {
    const GrubInput input =
        MakeValidInput(std::string("set default=0\nset timeout=0\nmenuentry a { linux /vmlinuz $") +
                       name + "; }\n");
    EXPECT_THAT(RunGrub(input).stopped, HasSubstr("is not known"));
  }
}

TEST(GrubScript, BootCommandEndsTheScript) {
  const GrubInput input = MakeValidInput("linux /vmlinuz\nboot\necho never\n");
  const GrubRun run = RunGrub(input);
  EXPECT_THAT(run.stopped, IsEmpty());
  EXPECT_EQ(Commands(run).back(), "boot");
}

TEST(GrubScript, WhatIsNotFollowedStopsWithItsLineAndKeepsWhatCameBefore) {
  const std::pair<const char*, const char*> cases[] = {
      {"load_env", "load_env is not followed"},
      {"x=1", "the command x=1"},
      {"function f { true; }", "`function`"},
      {"for i in 1 2; do true; done", "`for`"},
      {"echo $unset", "$unset is not known"},
      {"echo $?", "special variable"},
      {"echo a | b", "'|'"},
      {"echo /boot/*", "patterns"},
      {"submenu x { true; }", "submenu with a block"},
      {"echo 'open", "without an end"},
      {"if true; then echo", "without an end"},
      {"source /none.cfg", "does not exist"},
      {"source /initrd.img", "is not known"},
      {"source (hd1,gpt1)/x.cfg", "what (hd1,gpt1) holds"},
      {"terminal_output gfxterm", "terminal_output"},
      {"set theme=/x", "$theme"},
      {"set 'a=b c'; echo $a", "more or less than one word"},
      {"menuentry --hotkey=x y { true; }", "options"},
      {"linux /vmlinuz 'a b'", "quotation marks"},
      {"initrd /initrd.img", "without a kernel"},
      {"[ -s /vmlinuz ]", "-s"},
      {"[ a -nt b ]", "not followed"},
  };
  for (const auto& [line, words] : cases) {
    const GrubInput input = MakeValidInput(std::string("echo first\n") + line + "\n" + kConfig);
    const GrubRun run = RunGrub(input);
    EXPECT_THAT(run.stopped, HasSubstr(words)) << line;
    EXPECT_THAT(run.stopped, HasSubstr("line ")) << line;
    ASSERT_GE(Commands(run).size(), 2U) << line;
    EXPECT_EQ(Commands(run)[1], "echo first");
  }
}

TEST(GrubScript, MenuThatWaitsForSomebodyIsNotPredicted) {
  const GrubInput waiting = MakeValidInput("menuentry a { linux /vmlinuz; }\n");
  EXPECT_THAT(RunGrub(waiting).stopped, HasSubstr("waits for a key"));
  const GrubInput empty = MakeValidInput("set timeout=0\n");
  EXPECT_THAT(RunGrub(empty).stopped, HasSubstr("waits for commands"));
  const GrubInput named =
      MakeValidInput("set timeout=0\nset default=x\nmenuentry a { linux /vmlinuz; }\n");
  EXPECT_THAT(RunGrub(named).stopped, HasSubstr("by its number"));
}

TEST(GrubScript, ModulesThatGrubWouldReadAreNotPredicted) {
  GrubInput input = MakeValidInput(std::string("insmod gzio\n") + kConfig);
  EXPECT_THAT(RunGrub(input).stopped, IsEmpty());
  input.volumes[0].files.push_back({"/EFI/debian/x86_64-efi/gzio.mod", {}, {}});
  EXPECT_THAT(RunGrub(input).stopped, HasSubstr("may be read"));
  input.volumes[0].files.push_back({"/EFI/debian/x86_64-efi/fs.lst", {}, {}});
  EXPECT_THAT(RunGrub(input).stopped, HasSubstr("by itself"));
}

TEST(GrubScript, EndlessScriptsEnd) {
  GrubInput loop = MakeValidInput("source /EFI/debian/grub.cfg\n");
  EXPECT_THAT(RunGrub(loop).stopped, HasSubstr("nested too deeply"));
  std::string deep;
  for (int i = 0; i < 1000; ++i) {
    deep += "if ";
  }
  EXPECT_THAT(WhyStopped(deep), HasSubstr("nested too deeply"));
  std::string doubled = "set a=xx\n";
  for (int i = 0; i < 40; ++i) {
    doubled += "set a=$a$a\n";
  }
  EXPECT_THAT(WhyStopped(doubled), HasSubstr("a word of more than"));
  std::string long_words = "set a=" + std::string(60000, 'x') + "\n";
  for (int i = 0; i < 100; ++i) {
    long_words += "echo $a\n";
  }
  EXPECT_THAT(WhyStopped(long_words), HasSubstr("commands of more than"));
  GrubInput padded = MakeValidInput();
  padded.volumes[0].files[3].script = std::string(kGrubMaxScriptBytes - 1, ' ');
  padded.embedded_script.clear();
  for (int i = 0; i < 100; ++i) {
    padded.embedded_script += "source /other.cfg\n";
  }
  EXPECT_THAT(RunGrub(padded).stopped, HasSubstr("scripts of more than"));
  std::string many;
  for (size_t i = 0; i <= kGrubMaxCommands; ++i) {
    many += "true;";
  }
  EXPECT_THAT(WhyStopped(many), HasSubstr("more than"));
}

TEST(GrubScript, DamageNeverCrashes) {
  const std::string valid =
      "if [ -e /x -o \"$root\" = 'a' ]; then echo \\; ${root}; fi\n" + std::string(kConfig);
  std::mt19937 random(1);  // NOLINT: the same damage each time
  for (int i = 0; i < 3000; ++i) {
    std::string script = valid;
    script[random() % script.size()] = static_cast<char>(random() % 256);
    script.resize(random() % (script.size() + 1));
    const GrubInput input = MakeValidInput(script);
    static_cast<void>(RunGrub(input));
  }
}

}  // namespace
}  // namespace vallum::measure
