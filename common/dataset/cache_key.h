// SPDX-License-Identifier: Apache-2.0
// What a token cache is named after: the hash of everything that changes its samples. Weights and
// paths do not.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/dataset/token_cache.h"

namespace mft {

// Of the way from a line to tokens and mask. Raise it with every change that alters either for any
// accepted line.
inline constexpr int kEncodingVersion = 1;

struct CacheKeySource {
  SourceKind kind = SourceKind::kInstruct;
  std::vector<std::string> file_hashes;  // SHA-256 of each file, in order
};

struct CacheKeyInput {
  std::string tokenizer_hash;     // SHA-256 of the file; "" without tokenizer
  std::string tokenizer_version;  // "v3": a SentencePiece file has it in its name alone
  int32_t vocab_size = 0;
  bool dynamic_chunking = false;
  std::vector<CacheKeySource> sources;
};

std::string TokenCacheKey(const CacheKeyInput& input);  // 64 hex digits

}  // namespace mft
