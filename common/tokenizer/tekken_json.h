// SPDX-License-Identifier: Apache-2.0
// The JSON of a Tekken file without a tree of it: 150,000 entries of 15 MB become a list. What the
// loader does not need takes no memory, however much of it there is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"

namespace mft {

struct TekkenEntry {
  int64_t rank = -1;
  std::string text;  // of vocab: token_bytes, base64; of special_tokens: token_str
};

struct TekkenDocument {
  std::vector<TekkenEntry> vocab;
  std::vector<TekkenEntry> special;
  bool lists_special = false;  // special_tokens is a list, which may be empty
  Json config;                 // null where absent
  Json model_settings;         // model_settings_builder; null where absent
};

// INVALID_ARGUMENT: not JSON, or an entry that is not what the format says.
Result<TekkenDocument> ParseTekkenJson(std::string_view content);

}  // namespace mft
