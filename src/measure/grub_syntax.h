// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

// The syntax of GRUB's scripts, as far as a prediction follows it: simple commands, blocks in
// braces and `if`. Everything else is refused, naming the line (GRUB manual, "Writing full
// configuration files directly"; grub-core/script).
namespace vallum::measure {

inline constexpr size_t kGrubMaxScriptBytes = size_t{256} << 10U;
inline constexpr size_t kGrubMaxNesting = 16;

// A piece of a word: text as it is, or the name of a variable.
struct GrubWordPart {
  std::string text;
  bool is_variable = false;
  bool is_quoted = false;
};
using GrubWord = std::vector<GrubWordPart>;

struct GrubStatement;
struct GrubBranch {
  std::vector<GrubStatement> condition;  // empty: else
  std::vector<GrubStatement> body;
};

// A command, or an `if` with its branches.
struct GrubStatement {
  size_t line = 0;  // from 1
  std::vector<GrubWord> words;
  std::optional<std::string> block;  // "{ ... }" after the words, as written
  std::vector<GrubBranch> branches;  // not empty: an `if`
};

// Reads a script statement by statement, as GRUB does. Does not own the text.
class GrubParser {
 public:
  explicit GrubParser(std::string_view text) : text_(text) {}

  // The next statement, or nothing at the end.
  // Errors: kInvalidInput (syntax that is wrong or not followed), beginning "line N: ".
  Result<std::optional<GrubStatement>> Next();

 private:
  enum class TokenKind { kWord, kBlock, kSeparator, kEnd };
  struct Token {
    TokenKind kind = TokenKind::kEnd;
    GrubWord word;
    std::string block;
  };

  Result<std::optional<GrubStatement>> ParseStatement(size_t depth);
  Result<std::optional<GrubStatement>> ParseIf(GrubStatement statement, size_t depth);
  Result<std::string> ParseUntil(std::vector<GrubStatement>& into,
                                 const std::vector<std::string_view>& keywords, size_t depth);
  std::optional<std::string> TakeKeyword(const std::vector<std::string_view>& keywords);
  void SkipSeparators();

  Result<Token> ReadToken();
  Result<Token> ReadWord();
  Result<std::string> ReadBlock();
  Result<void> ReadDouble(GrubWord& word);
  Result<void> ReadVariable(GrubWord& word, bool is_quoted);
  void SkipBlanks();
  bool AtEnd() const { return at_ >= text_.size(); }
  char Peek() const { return text_[at_]; }
  char Take();
  Error Refuse(std::string what) const;

  std::string_view text_;
  size_t at_ = 0;
  size_t line_ = 1;
};

}  // namespace vallum::measure
