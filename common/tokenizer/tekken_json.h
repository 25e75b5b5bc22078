// SPDX-License-Identifier: Apache-2.0
// The JSON of a Tekken file without its whole document tree: 150,000 entries of 15 MB become a
// list.
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
  Json rest;  // all other members, "special_tokens" being null, an empty list or absent
};

// INVALID_ARGUMENT: not JSON, or an entry that is not what the format says.
Result<TekkenDocument> ParseTekkenJson(std::string_view content);

}  // namespace mft
