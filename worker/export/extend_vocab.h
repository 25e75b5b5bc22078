// SPDX-License-Identifier: Apache-2.0
// Models of the first tokenizers (32000 tokens) made fit for the v3 tokenizer (32768): its control
// tokens have the ids behind <unk>, <s> and </s>.
#pragma once

#include <cstdint>
#include <string>

#include "common/base/status.h"

namespace mft {

struct ExtendVocabArgs {
  std::string model_dir;  // Mistral's files or Hugging Face's
  std::string to;         // is made; has Mistral's files
  std::string tokenizer;  // a v3 file of 32768 tokens to put beside them; "": none
  uint64_t seed = 0;
  std::string init = "random";  // new rows: random, or mean (of the old rows)
};

// Rows 0 to 2 of embeddings and output stay, rows 3 to 31999 move up by 768, the rows between are
// new: N(0, 1/sqrt(dim)), as mistral-finetune's extend_model_vocab (finetune-spec.md 5.4), a
// function of seed, matrix and position; all else is copied. One tensor at a time is in memory.
// `to` appears complete or not at all. INVALID_ARGUMENT: another vocabulary.
Status RunExtendVocab(const ExtendVocabArgs& args);

}  // namespace mft
