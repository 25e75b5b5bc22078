// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/regex_splitter.h"

#include <array>
#include <atomic>
#include <utility>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "common/base/log.h"
#include "common/base/strings.h"

namespace mft {

namespace {
// PCRE2's \s has U+180E, which is not White_Space.
constexpr std::string_view kWhiteSpace =
    R"(\t-\r\x20\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

std::string WithOwnWhiteSpace(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const std::string_view two = pattern.substr(i, 2);
    size_t end = i + 1;  // of what is taken over as it is
    if (two == "\\s" || (two == "\\S" && !in_class)) {
      out +=
          in_class ? std::string(kWhiteSpace) : StrCat(two == "\\s" ? "[" : "[^", kWhiteSpace, "]");
      ++i;
      continue;
    }
    if (two[0] == '\\') {
      end = i + two.size();
    } else if (in_class && two == "[:" && pattern.find(":]", i) != pattern.npos) {
      end = pattern.find(":]", i) + 2;
    } else if (!in_class && two[0] == '[') {
      in_class = true;
      end += pattern.substr(end).starts_with('^') ? 1 : 0;
      end += pattern.substr(end).starts_with(']') ? 1 : 0;  // as the first, one of the class
    } else if (in_class && two[0] == ']') {
      in_class = false;
    }
    out += pattern.substr(i, end - i);
    i = end - 1;
  }
  return out;
}

struct FreeMatch {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

// As long as the engine of Mistral's library tries.
constexpr uint32_t kMaxSteps = 1'000'000;
constexpr uint32_t kMaxHeapKib = 64 * 1024;
std::string ErrorText(int error) {
  std::array<char, 200> text{};
  pcre2_get_error_message(error, reinterpret_cast<PCRE2_UCHAR*>(text.data()), text.size());
  return text.data();
}

void SayOnce(int error) {
  static std::atomic<bool> said = false;
  if (!said.exchange(true)) {
    LogWarning(StrCat("the tokenizer's pattern fails on a text (",
                      ErrorText(error),
                      "); the rest of such a text is one piece. Said once."));
  }
}
}  // namespace

struct RegexSplitter::Code {
  explicit Code(pcre2_code* compiled) : code(compiled) {}
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  pcre2_code* code;
};

RegexSplitter::RegexSplitter(std::unique_ptr<Code> code) : code_(std::move(code)) {}
RegexSplitter::~RegexSplitter() = default;

Result<std::unique_ptr<RegexSplitter>> RegexSplitter::Create(const std::string& pattern) {
  const std::string ours = WithOwnWhiteSpace(pattern);
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(ours.data()),
                                   ours.size(),
                                   PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C,
                                   &error,
                                   &offset,
                                   nullptr);
  if (code == nullptr) {
    return InvalidArgument(StrCat("no regular expression: ",
                                  ErrorText(error),
                                  " near \"",
                                  Printable(ours.substr(std::min(offset, ours.size())), 40),
                                  "\""));
  }
  auto owned = std::make_unique<Code>(code);
  // Without JIT (none for this machine) matching is slower, not different.
  static_cast<void>(pcre2_jit_compile(code, PCRE2_JIT_COMPLETE));
  return std::unique_ptr<RegexSplitter>(new RegexSplitter(std::move(owned)));
}

void RegexSplitter::Split(std::string_view text,
                          const std::function<void(std::string_view)>& piece) const {
  const std::unique_ptr<pcre2_match_data, FreeMatch> data(pcre2_match_data_create(1, nullptr));
  const std::unique_ptr<pcre2_match_context, FreeMatch> limits(pcre2_match_context_create(nullptr));
  MFT_CHECK(data != nullptr && limits != nullptr, "out of memory");
  pcre2_set_match_limit(limits.get(), kMaxSteps);
  pcre2_set_heap_limit(limits.get(), kMaxHeapKib);
  const auto match = [&](size_t at, uint32_t options) {
    return pcre2_match(code_->code,
                       reinterpret_cast<PCRE2_SPTR>(text.data()),
                       text.size(),
                       at,
                       PCRE2_NO_UTF_CHECK | options,
                       data.get(),
                       limits.get());
  };
  const bool valid = IsValidUtf8(text);
  for (size_t at = 0; at < text.size();) {
    int found = valid ? match(at, 0) : PCRE2_ERROR_BADDATA;
    if (found == PCRE2_ERROR_JIT_STACKLIMIT) {  // 32 KiB; the interpreter has the heap
      found = match(at, PCRE2_NO_JIT);
    }
    if (found == PCRE2_ERROR_NOMATCH) {
      return;
    }
    if (found < 0) {
      SayOnce(found);
      piece(text.substr(at));
      return;
    }
    const size_t* bounds = pcre2_get_ovector_pointer(data.get());
    piece(text.substr(bounds[0], bounds[1] - bounds[0]));
    at = bounds[1];
    if (bounds[1] == bounds[0]) {  // an empty match: on to the next character
      do {
        ++at;
      } while (at < text.size() && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80);
    }
  }
}

}  // namespace mft
