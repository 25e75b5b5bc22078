// SPDX-License-Identifier: Apache-2.0
// One line of a data file to a checked sample (finetune-spec 2.2 to 2.5, design.md 4.2).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/base/status.h"
#include "common/dataset/token_cache.h"
#include "common/tokenizer/chat.h"

namespace mft {

struct TextSample {
  std::string text;
};

// {"tokens", "mask"} or Hugging Face's {"input_ids", "labels"}: needs no tokenizer.
struct TokenSample {
  EncodedSample sample;
};

using Sample = std::variant<Conversation, TextSample, TokenSample>;

// Parses and checks one line. What a source of `kind` may hold: text sources hold text, others
// conversations, evaluation both; all may hold tokens. A failure is INVALID_ARGUMENT; its reason()
// is the class of mistral-finetune or mistral-common where they have one ("MessageFormatError"),
// its message names the place, the value and what is expected.
Result<Sample> ParseSample(SourceKind kind, std::string_view line);

}  // namespace mft
