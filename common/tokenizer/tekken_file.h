// SPDX-License-Identifier: Apache-2.0
// Reads a Tekken file (formats.md 1.4). Hostile files are errors that name what is wrong; memory is
// bounded by the vocabulary that a file may have.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"
#include "common/tokenizer/tokenizer.h"

namespace mft {

struct TekkenFile {
  TokenizerVersion version = TokenizerVersion::kV3;
  std::string pattern;
  int32_t vocab_size = 0;            // special tokens included
  std::vector<std::string> special;  // by id: as many ids as come before rank 0
  std::vector<std::string> tokens;   // bytes by rank; ids are ranks + special.size()
  Json model_settings;               // v15's model_settings_builder, or null
};

// INVALID_ARGUMENT says what is wrong, without the file's name.
Result<TekkenFile> ParseTekkenFile(std::string_view content);

}  // namespace mft
