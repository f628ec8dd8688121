// SPDX-License-Identifier: Apache-2.0
#include "measure/grub_syntax.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace vallum::measure {
namespace {

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsName(char c) { return IsNameStart(c) || (c >= '0' && c <= '9'); }
bool EndsWord(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ';'; }

void AddText(GrubWord& word, char c, bool is_quoted) {
  if (word.empty() || word.back().is_variable || word.back().is_quoted != is_quoted) {
    word.push_back({{}, false, is_quoted});
  }
  word.back().text += c;
}

}  // namespace

Error GrubParser::Refuse(std::string what) const {
  return InvalidInput(fmt::format("line {}: {}", line_, what));
}

char GrubParser::Take() {
  const char c = text_[at_++];
  line_ += c == '\n' ? 1 : 0;
  return c;
}

void GrubParser::SkipBlanks() {
  while (!AtEnd() && (Peek() == ' ' || Peek() == '\t' || Peek() == '\r')) {
    Take();
  }
  if (!AtEnd() && Peek() == '#') {
    while (!AtEnd() && Peek() != '\n') {
      Take();
    }
  }
}

Result<void> GrubParser::ReadVariable(GrubWord& word, bool is_quoted) {
  const bool braced = !AtEnd() && Peek() == '{';
  if (braced) {
    Take();
  }
  std::string name;
  while (!AtEnd() && (name.empty() ? IsNameStart(Peek()) : IsName(Peek()))) {
    name += Take();
  }
  if (name.empty()) {
    return Refuse("a special variable is not followed");
  }
  if (braced && (AtEnd() || Take() != '}')) {
    return Refuse("${ without }");
  }
  word.push_back({std::move(name), true, is_quoted});
  return Ok();
}

Result<void> GrubParser::ReadDouble(GrubWord& word) {
  word.push_back({{}, false, true});  // "" is a word too
  while (!AtEnd() && Peek() != '"') {
    const char c = Take();
    if (c == '$') {
      RETURN_IF_ERROR(ReadVariable(word, true));
    } else if (c == '\\' && !AtEnd() && (Peek() == '$' || Peek() == '"' || Peek() == '\\')) {
      AddText(word, Take(), true);
    } else {
      AddText(word, c, true);
    }
  }
  if (AtEnd()) {
    return Refuse("a quotation without an end");
  }
  Take();
  return Ok();
}

Result<GrubParser::Token> GrubParser::ReadWord() {
  Token token;
  token.kind = TokenKind::kWord;
  while (!AtEnd() && !EndsWord(Peek())) {
    const char c = Take();
    switch (c) {
      case '\'':
        token.word.push_back({{}, false, true});
        while (!AtEnd() && Peek() != '\'') {
          AddText(token.word, Take(), true);
        }
        if (AtEnd()) {
          return Refuse("a quotation without an end");
        }
        Take();
        break;
      case '"':
        RETURN_IF_ERROR(ReadDouble(token.word));
        break;
      case '$':
        RETURN_IF_ERROR(ReadVariable(token.word, false));
        break;
      case '\\':
        if (AtEnd()) {
          return Refuse("a backslash at the end");
        }
        if (const char escaped = Take(); escaped != '\n') {
          AddText(token.word, escaped, true);
        }
        break;
      case '{':
      case '}':
      case '|':
      case '&':
      case '<':
      case '>':
        return Refuse(fmt::format("'{}' is not followed here", c));
      default:
        AddText(token.word, c, false);
    }
  }
  return token;
}

Result<std::string> GrubParser::ReadBlock() {
  const size_t begin = at_;
  size_t depth = 0;
  char quote = 0;
  bool word_begins = true;
  while (!AtEnd()) {
    const char c = Take();
    if (quote != 0) {
      if (c == '\\' && quote == '"' && !AtEnd()) {
        Take();
      } else if (c == quote) {
        quote = 0;
      }
      continue;
    }
    if (c == '#' && word_begins) {
      while (!AtEnd() && Peek() != '\n') {
        Take();
      }
    } else if (c == '\\' && !AtEnd()) {
      Take();
    } else if (c == '\'' || c == '"') {
      quote = c;
    } else if (c == '{') {
      ++depth;
    } else if (c == '}' && --depth == 0) {
      return std::string(text_.substr(begin, at_ - begin));
    }
    word_begins = EndsWord(c) || c == '{';
  }
  return Refuse("a block without an end");
}

Result<GrubParser::Token> GrubParser::ReadToken() {
  SkipBlanks();
  Token token;
  if (AtEnd()) {
    return token;
  }
  if (Peek() == '\n' || Peek() == ';') {
    Take();
    token.kind = TokenKind::kSeparator;
    return token;
  }
  if (Peek() == '{') {
    token.kind = TokenKind::kBlock;
    ASSIGN_OR_RETURN(token.block, ReadBlock());
    return token;
  }
  return ReadWord();
}

void GrubParser::SkipSeparators() {
  while (true) {
    SkipBlanks();
    if (AtEnd() || (Peek() != '\n' && Peek() != ';')) {
      return;
    }
    Take();
  }
}

std::optional<std::string> GrubParser::TakeKeyword(const std::vector<std::string_view>& keywords) {
  SkipSeparators();
  size_t end = at_;
  while (end < text_.size() && !EndsWord(text_[end])) {
    ++end;
  }
  const std::string_view word = text_.substr(at_, end - at_);
  if (std::find(keywords.begin(), keywords.end(), word) == keywords.end()) {
    return std::nullopt;
  }
  at_ = end;
  return std::string(word);
}

Result<std::string> GrubParser::ParseUntil(std::vector<GrubStatement>& into,
                                           const std::vector<std::string_view>& keywords,
                                           size_t depth) {
  while (true) {
    if (auto keyword = TakeKeyword(keywords); keyword.has_value()) {
      return *std::move(keyword);
    }
    ASSIGN_OR_RETURN(auto statement, ParseStatement(depth));
    if (!statement.has_value()) {
      return Refuse("an `if` without an end");
    }
    into.push_back(*std::move(statement));
  }
}

Result<std::optional<GrubStatement>> GrubParser::ParseIf(GrubStatement statement, size_t depth) {
  if (depth >= kGrubMaxNesting) {
    return Refuse("`if` is nested too deeply");
  }
  std::string keyword = "elif";
  while (keyword == "elif") {
    GrubBranch& branch = statement.branches.emplace_back();
    RETURN_IF_ERROR(ParseUntil(branch.condition, {"then"}, depth + 1));
    if (branch.condition.empty()) {
      return Refuse("an `if` without a condition");
    }
    ASSIGN_OR_RETURN(keyword, ParseUntil(branch.body, {"elif", "else", "fi"}, depth + 1));
  }
  if (keyword == "else") {
    RETURN_IF_ERROR(ParseUntil(statement.branches.emplace_back().body, {"fi"}, depth + 1));
  }
  return statement;
}

Result<std::optional<GrubStatement>> GrubParser::ParseStatement(size_t depth) {
  SkipSeparators();
  GrubStatement statement;
  statement.line = line_;
  if (TakeKeyword({"if"}).has_value()) {
    return ParseIf(std::move(statement), depth);
  }
  if (auto keyword = TakeKeyword({"for", "while", "until", "function", "then", "elif", "else", "fi",
                                  "do", "done", "select"});
      keyword.has_value()) {
    return Refuse(fmt::format("`{}` is not followed here", *keyword));
  }
  while (true) {
    ASSIGN_OR_RETURN(Token token, ReadToken());
    if (token.kind == TokenKind::kSeparator || token.kind == TokenKind::kEnd) {
      break;
    }
    if (statement.block.has_value()) {
      return Refuse("words after a block");
    }
    if (token.kind == TokenKind::kBlock) {
      statement.block = std::move(token.block);
    } else {
      statement.words.push_back(std::move(token.word));
    }
  }
  if (statement.words.empty()) {
    if (statement.block.has_value()) {
      return Refuse("a block without a command");
    }
    return std::optional<GrubStatement>{};
  }
  return statement;
}

Result<std::optional<GrubStatement>> GrubParser::Next() {
  if (text_.size() > kGrubMaxScriptBytes) {
    return Refuse(fmt::format("the script has more than {} bytes", kGrubMaxScriptBytes));
  }
  return ParseStatement(0);
}

}  // namespace vallum::measure
