// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/status.h"
#include "common/tokenizer/tokenizer.h"

namespace mft::data {

// What tokenisation takes from a model directory.
struct ModelTokenizer {
  int32_t vocab_size = 0;
  std::unique_ptr<Tokenizer> tokenizer;  // null: none that can be read
  Status no_tokenizer;                   // then: why
};

// Reads params.json and the tokenizer. INVALID_ARGUMENT where their vocabularies differ.
Result<ModelTokenizer> ReadModelTokenizer(const std::string& model_dir);

}  // namespace mft::data
