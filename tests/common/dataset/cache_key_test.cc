// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/cache_key.h"

#include <functional>
#include <set>

#include <gtest/gtest.h>

namespace mft {
namespace {

TEST(TokenCacheKey, ChangesWithEverythingThatChangesSamples) {
  const CacheKeyInput base = {
      .tokenizer_hash = "t",
      .vocab_size = 10,
      .sources = {{.kind = SourceKind::kText, .file_hashes = {"a", "b"}}, {.file_hashes = {"c"}}}};
  const std::vector<std::function<void(CacheKeyInput&)>> changes = {
      [](CacheKeyInput& i) { i.tokenizer_hash = "u"; },
      [](CacheKeyInput& i) { i.tokenizer_version = "v3"; },
      [](CacheKeyInput& i) { i.vocab_size = 11; },
      [](CacheKeyInput& i) { i.dynamic_chunking = true; },
      [](CacheKeyInput& i) { i.sources[0].kind = SourceKind::kInstruct; },
      [](CacheKeyInput& i) { i.sources[0].file_hashes = {"ab"}; },
      [](CacheKeyInput& i) {
        i.sources[0].file_hashes = {"b", "a"};
      },
      [](CacheKeyInput& i) { i.sources.pop_back(); },
  };
  std::set<std::string> keys = {TokenCacheKey(base)};
  EXPECT_EQ(keys.begin()->size(), 64u);
  EXPECT_EQ(TokenCacheKey(base), *keys.begin());
  for (const auto& change : changes) {
    CacheKeyInput changed = base;
    change(changed);
    EXPECT_TRUE(keys.insert(TokenCacheKey(changed)).second) << keys.size();
  }
}

}  // namespace
}  // namespace mft
