// SPDX-License-Identifier: Apache-2.0
// Text out of tokens, piece by piece: a character may take several tokens, and a piece never ends
// inside one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/status.h"
#include "common/tokenizer/tokenizer.h"

namespace mft {

// Threads: one at a time. `tokenizer` must outlive it.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  // The text that is certain now and was not before; often "".
  Result<std::string> Add(int32_t id);
  // What was held back.
  Result<std::string> Finish();

 private:
  Result<std::string> Emit(size_t stable_bytes, const std::string& text);

  const Tokenizer& tokenizer_;
  std::vector<int32_t> ids_;
  std::string emitted_;
};

// Bytes of `text` before a trailing unfinished character: bytes of an incomplete sequence, or the
// U+FFFD that a decoder puts there.
size_t StablePrefix(const std::string& text);

}  // namespace mft
