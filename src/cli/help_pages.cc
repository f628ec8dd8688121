// SPDX-License-Identifier: Apache-2.0
#include <memory>
#include <ostream>

#include "base/text.h"
#include "cli/commands.h"

namespace vallum::cli {
namespace {

std::vector<const CLI::App*> Subcommands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<std::string> OptionNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options([](const CLI::Option*) { return true; })) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// Every command with its path, such as "vallum instance list", parents first.
void Walk(const CLI::App& app, const std::string& path,
          std::vector<std::pair<std::string, const CLI::App*>>* out) {
  out->emplace_back(path, &app);
  for (const CLI::App* child : Subcommands(app)) Walk(*child, path + " " + child->get_name(), out);
}

std::string BashScript(const CLI::App& app) {
  std::vector<std::pair<std::string, const CLI::App*>> commands;
  Walk(app, "vallum", &commands);
  std::string known;
  std::string words;
  for (const auto& [path, command] : commands) {
    known += (known.empty() ? "'" : "|'") + path + "'";
    std::vector<std::string> next;
    for (const CLI::App* child : Subcommands(*command)) next.push_back(child->get_name());
    for (const std::string& option : OptionNames(*command)) next.push_back(option);
    words += "    '" + path + "') words='" + Join(next, " ") + "';;\n";
  }
  return "# bash completion for vallum\n"
         "_vallum() {\n"
         "  local path=vallum word words=''\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    case \"$path $word\" in " +
         known +
         ") path=\"$path $word\";; esac\n"
         "  done\n"
         "  case \"$path\" in\n" +
         words +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\"))\n"
         "}\n"
         "complete -o default -F _vallum vallum\n";
}

std::string FishScript(const CLI::App& app) {
  std::string out = "# fish completion for vallum\n";
  for (const CLI::App* group : Subcommands(app)) {
    out += "complete -c vallum -n __fish_use_subcommand -a " + group->get_name() + " -d '" +
           group->get_description() + "'\n";
    for (const CLI::App* command : Subcommands(*group)) {
      out += "complete -c vallum -n '__fish_seen_subcommand_from " + group->get_name() + "' -a " +
             command->get_name() + "\n";
    }
  }
  return out;
}

// roff takes a leading '.' or ''' for a request, and '-' for a hyphen.
std::string Roff(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else if ((c == '.' || c == '\'') && out.empty()) {
      out += "\\&";
      out += c;
    } else {
      out += c;
    }
  }
  return out;
}

std::string RoffOptions(const CLI::App& app) {
  std::string out;
  for (const CLI::Option* option : app.get_options([](const CLI::Option*) { return true; })) {
    out += ".TP\n.B " + Roff(option->get_name(true, true)) + "\n" +
           Roff(option->get_description()) + "\n";
  }
  return out;
}

// Lines as they are, one below the other.
std::string RoffExamples(const std::string& footer) {
  if (footer.empty()) return "";
  std::string out = ".PP\n.nf\n";
  for (const std::string& line : Split(footer, '\n')) {
    out += Roff(line) + "\n";
  }
  return out + ".fi\n";
}

}  // namespace

std::string CompletionScript(const CLI::App& app, const std::string& shell) {
  if (shell == "fish") return FishScript(app);
  const std::string bash = BashScript(app);
  return shell == "zsh" ? "#compdef vallum\nautoload -Uz bashcompinit && bashcompinit\n" + bash
                        : bash;
}

std::string ManPage(const CLI::App& app) {
  std::string out =
      ".TH VALLUM 1 \"\" \"Vallum\" \"User commands\"\n"
      ".SH NAME\nvallum \\- run virtual machines whose boot is checked\n"
      ".SH SYNOPSIS\n.B vallum\n[\\fIoptions\\fR] \\fIcommand\\fR ...\n.SH OPTIONS\n" +
      RoffOptions(app) + ".SH COMMANDS\n";
  std::vector<std::pair<std::string, const CLI::App*>> commands;
  Walk(app, "vallum", &commands);
  for (const auto& [path, command] : commands) {
    if (command == &app || !Subcommands(*command).empty()) continue;
    out += ".SS " + Roff(path) + "\n" + Roff(command->get_description()) + "\n" +
           RoffOptions(*command) + RoffExamples(command->get_footer());
  }
  out +=
      ".SH EXIT STATUS\n0 done, 1 other failure, 2 bad input, 3 not found, 4 conflict, 5 denied, "
      "6 unavailable, 10 not trusted, diverged, or a host would fall out, 11 to 13 what a boot "
      "was\n"
      ".SH FILES\n~/.config/vallum/config.toml, ~/.config/vallum/NAME.token (mode 0600)\n"
      ".SH ENVIRONMENT\nVALLUM_CONTEXT, VALLUM_TOKEN_FILE, VALLUM_CONFIG_DIR\n";
  return out;
}

void AddHelpCommands(CLI::App* app, Tool* tool) {
  CLI::App* version = app->add_subcommand("version", "Show the version");
  version->callback([=] {
    tool->action = [=]() -> Result<void> {
      tool->out() << "vallum " VALLUM_VERSION "\n";
      return Ok();
    };
  });
  auto shell = std::make_shared<std::string>();
  CLI::App* completion = app->add_subcommand("completion", "Print a shell's completion script");
  completion->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  completion->callback([=] {
    tool->action = [=]() -> Result<void> {
      tool->out() << CompletionScript(*app, *shell);
      return Ok();
    };
  });
  CLI::App* man = app->add_subcommand("man", "Print the manual page (roff)");
  man->callback([=] {
    tool->action = [=]() -> Result<void> {
      tool->out() << ManPage(*app);
      return Ok();
    };
  });
}

}  // namespace vallum::cli
