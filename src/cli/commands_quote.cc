// SPDX-License-Identifier: Apache-2.0
// `instance quote`: what the vTPM signed, as files that tpm2_checkquote reads.
#include <filesystem>
#include <memory>
#include <ostream>
#include <system_error>

#include "base/bytes.h"
#include "base/text.h"
#include "cli/commands.h"
#include "tls/file.h"

namespace vallum::cli {
namespace {

struct QuoteOptions {
  std::string name, nonce, pcrs, out;
};

struct QuoteFile {
  const char* name;
  const char* member;
  bool is_text;
};
constexpr QuoteFile kFiles[] = {{"quote.msg", "quoted", false},  {"quote.sig", "signature", false},
                                {"quote.pcrs", "pcrs", false},   {"ak.pub", "akPublic", false},
                                {"ak.pem", "akPublicPem", true}, {"ek.pem", "ekCertificate", true}};

Result<void> WriteFiles(const std::filesystem::path& directory, const Json& quote) {
  std::error_code failure;
  std::filesystem::create_directories(directory, failure);
  if (failure) return ErrnoError(failure.value(), "make directory " + directory.string());
  for (const QuoteFile& file : kFiles) {
    const std::string text = TextAt(quote, file.member);
    Bytes content = ToBytes(AsBytes(text));
    if (!file.is_text) {
      ASSIGN_OR_RETURN_CONTEXT(content, FromBase64(text),
                               std::string("reading the server's ") + file.member);
    }
    const std::filesystem::path path = directory / file.name;
    if (content.empty()) {
      // One of an earlier quote would be taken for this one's.
      std::filesystem::remove(path, failure);
      continue;
    }
    RETURN_IF_ERROR(tls::WriteFileAtomically(path, content, 0644));
  }
  return Ok();
}

// A word for a POSIX shell.
std::string ShellWord(const std::string& text) {
  std::string word = "'";
  for (const char c : text) {
    word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  }
  return word + "'";
}

std::string CheckCommand(const std::filesystem::path& directory, const std::string& nonce) {
  const auto path = [&](const char* name) { return ShellWord((directory / name).string()); };
  return "tpm2_checkquote -u " + path("ak.pem") + " -m " + path("quote.msg") + " -s " +
         path("quote.sig") + " -f " + path("quote.pcrs") + " -g sha256" +
         (nonce.empty() ? "" : " -q " + nonce);
}

Result<void> Quote(Tool* tool, const QuoteOptions& options) {
  if (options.out.empty() && tool->ForPeople()) {
    return InvalidInput("no --out: a quote is files")
        .WithFix("give a directory with --out, or ask for the document with -o json");
  }
  const Json body = {{"nonce", options.nonce}, {"pcrs", options.pcrs}};
  ASSIGN_OR_RETURN(const Json quote,
                   tool->Call(http::Method::kPost,
                              ResourcePath(KindOf("instance"), options.name) + "/quote", body));
  if (!options.out.empty()) {
    RETURN_IF_ERROR(WriteFiles(options.out, quote));
  }
  if (!tool->ForPeople()) return tool->Show(KindOf("instance").columns, {quote}, quote);
  const bool certified = !TextAt(quote, "ekCertificate").empty();
  tool->out() << "quote of " << Printable(TextAt(quote, "pcrSelection")) << " by the vTPM of "
              << Printable(TextAt(quote, "instance")) << " in " << Printable(options.out) << "\n"
              << (certified ? "" : "no EK certificate was issued yet: there is no ek.pem\n")
              << "verify it with:\n  " << CheckCommand(options.out, TextAt(quote, "nonce")) << "\n";
  return Ok();
}

}  // namespace

void AddQuoteCommand(CLI::App* group, Tool* tool) {
  auto options = std::make_shared<QuoteOptions>();
  CLI::App* command = group->add_subcommand("quote", "Have its vTPM sign PCR values");
  command->add_option("NAME", options->name, "Its name")->required();
  command->add_option("--nonce", options->nonce, "Up to 64 fresh random bytes, hexadecimal")
      ->required();
  command->add_option("--pcrs", options->pcrs,
                      "Such as sha256:0,1,7 (default: sha256:0,1,2,3,4,5,6,7)");
  command->add_option("--out", options->out,
                      "Directory for quote.msg, quote.sig, quote.pcrs, ak.pem, ak.pub, ek.pem");
  command->callback([=] { tool->action = [=] { return Quote(tool, *options); }; });
}

}  // namespace vallum::cli
