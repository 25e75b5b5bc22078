// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/cache_key.h"

#include <utility>

#include "common/base/ids.h"
#include "common/base/json.h"

namespace mft {

std::string TokenCacheKey(const CacheKeyInput& input) {
  Json sources = Json::array();
  for (const CacheKeySource& source : input.sources) {
    sources.push_back({{"kind", SourceKindName(source.kind)}, {"files", source.file_hashes}});
  }
  return Sha256Hex(DumpJson({{"format", kTokenCacheVersion},
                             {"encoding", kEncodingVersion},
                             {"tokenizer", input.tokenizer_hash},
                             {"tokenizer_version", input.tokenizer_version},
                             {"vocab_size", input.vocab_size},
                             {"dynamic_chunking", input.dynamic_chunking},
                             {"sources", std::move(sources)}}));
}

}  // namespace mft
