// SPDX-License-Identifier: Apache-2.0
// Where a text may be cut so that its parts, encoded one by one, give the same ids as the whole.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/tokenizer/sentencepiece_model.h"

namespace mft {

// BPE only ever joins two neighbours to a piece of the vocabulary. So where no piece holds two
// characters next to each other nothing is joined across them, the parts on both sides do not see
// each other, and the order of the joins within a part is that of the whole.
// Threads: const calls are safe from any thread.
class SentencePieceSplitter {
 public:
  static constexpr size_t kMalformed = static_cast<size_t>(-1);

  explicit SentencePieceSplitter(const SentencePieceModel& model);

  // Whether `text` holds a user-defined piece: then it cannot be cut.
  bool HasUserDefined(std::string_view text) const;

  // The end of the part that begins at `begin` < text.size(), which is a character's first byte;
  // kMalformed where the text is no UTF-8.
  size_t End(std::string_view text, size_t begin) const;

  // The end of a part, the first one behind `at` < text.size() or that at the next character.
  size_t Cut(std::string_view text, size_t at) const;

 private:
  bool Joins(uint32_t first, uint32_t second) const;

  std::array<std::array<bool, 128>, 128> ascii_joins_{};
  std::vector<uint64_t> joins_;  // first << 32 | second, sorted
  std::vector<std::string> user_defined_;
};

}  // namespace mft
