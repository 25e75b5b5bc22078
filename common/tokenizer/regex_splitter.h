// SPDX-License-Identifier: Apache-2.0
// Cuts text into the matches of a pattern, for Tekken files whose pattern is not the released one.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/status.h"

namespace mft {

// PCRE2 with JIT. White space is Unicode's White_Space, as in the engine of Mistral's library;
// other classes are those of PCRE2's own Unicode version. Threads: const calls are safe from any
// thread.
class RegexSplitter {
 public:
  // INVALID_ARGUMENT names the place in the pattern.
  static Result<std::unique_ptr<RegexSplitter>> Create(const std::string& pattern);
  ~RegexSplitter();

  // The matches from left to right; what none covers is left out, as tiktoken does. `text`: valid
  // UTF-8. Where PCRE2 gives up on a text (its limits), the rest is one piece.
  void Split(std::string_view text, const std::function<void(std::string_view)>& piece) const;

 private:
  struct Code;
  explicit RegexSplitter(std::unique_ptr<Code> code);
  std::unique_ptr<Code> code_;
};

}  // namespace mft
