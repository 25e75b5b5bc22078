// SPDX-License-Identifier: Apache-2.0
// The JSON text at the end of a token cache file: what is in it, by source and file.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/dataset/token_cache.h"

namespace mft {

struct TokenCacheMeta {
  std::string content_key;
  std::vector<SourceInfo> sources;
};

std::string TokenCacheMetaText(const TokenCacheMeta& meta);

// Any text; what it gives is consistent in itself. DATA_LOSS otherwise.
Result<TokenCacheMeta> ParseTokenCacheMeta(std::string_view text);

}  // namespace mft
