// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "common/tokenizer/cached_encoding.h"

namespace mft {
namespace {

// What Find gives for a key that stands in a longer text; {} for an unknown one.
std::vector<int32_t> Find(const PieceCache& cache, const std::string& key) {
  const std::string text = key + std::string(PieceCache::kSlackBytes, '#');
  std::vector<int32_t> ids(key.size() + PieceCache::kSlackIds);
  const int32_t* end = cache.Find(std::string_view(text).substr(0, key.size()), ids.data());
  ids.resize(end == nullptr ? 0 : static_cast<size_t>(end - ids.data()));
  return ids;
}

void Insert(PieceCache& cache, const std::string& key, const std::vector<int32_t>& ids) {
  const std::string text = key + std::string(PieceCache::kSlackBytes, '?');
  cache.Insert(std::string_view(text).substr(0, key.size()), ids);
}

TEST(PieceCache, FindsKeysOfEverySize) {
  PieceCache cache;
  for (size_t size = 1; size <= PieceCache::kMaxKeyBytes; ++size) {
    const std::string key(size, 'a');
    EXPECT_TRUE(Find(cache, key).empty()) << size;
    const std::vector<int32_t> ids(std::min<size_t>(size, size <= 14 ? 4 : 20),
                                   static_cast<int32_t>(size));
    Insert(cache, key, ids);
    EXPECT_EQ(Find(cache, key), ids) << size;
  }
  EXPECT_EQ(Find(cache, "aaa"), (std::vector<int32_t>{3, 3, 3}));
}

TEST(PieceCache, TellsKeysApartThatDifferInOneByte) {
  PieceCache cache;
  const std::string key = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrst";
  for (size_t size : {3, 8, 14, 15, 16, 24, 46}) {
    Insert(cache, key.substr(0, size), {static_cast<int32_t>(size)});
    for (size_t i = 0; i < size; ++i) {
      std::string other = key.substr(0, size);
      other[i] = '\0';
      EXPECT_TRUE(Find(cache, other).empty()) << size << " " << i;
    }
    EXPECT_TRUE(Find(cache, key.substr(0, size) + '\0').empty() || size == 46);
  }
}

std::string NumberedKey(int32_t number) {
  return (number % 2 == 0 ? "k" : "a key that is too long ") + std::to_string(number);
}

// Looks `count` random keys up and adds those that are not there; returns the hits.
size_t UseRandomKeys(PieceCache& cache, unsigned seed, int count) {
  std::mt19937 random(seed);
  size_t found = 0;
  for (int i = 0; i < count; ++i) {
    const auto number = static_cast<int32_t>(random() % 600'000);
    const std::string key = NumberedKey(number);
    const std::vector<int32_t> ids = Find(cache, key);
    if (ids.empty()) {
      Insert(cache, key, {number, -number});
    } else {
      ++found;
      EXPECT_EQ(ids, (std::vector<int32_t>{number, -number}));
    }
  }
  return found;
}

TEST(PieceCache, LeavesOutButNeverMixesUpWhatDoesNotFit) {
  PieceCache cache;
  EXPECT_GT(UseRandomKeys(cache, 3, 400'000), 50'000U);
  EXPECT_FALSE(cache.full());
  UseRandomKeys(cache, 4, 600'000);
  EXPECT_TRUE(cache.full());
}

TEST(PieceCache, ThreadsFindWhatOthersAdded) {
  PieceCache cache;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] { UseRandomKeys(cache, 5, 50'000); });  // the same keys for all
    }
  }
  // But for the few that found no place; a key that two threads add at once may take two.
  EXPECT_GT(UseRandomKeys(cache, 5, 50'000), 49'500U);
}

TEST(PieceCache, LeavesOutWhatIsTooMany) {
  PieceCache cache;
  const std::string key = "a long and unusual piece";
  cache.Insert(key, std::vector<int32_t>(21, 1));
  EXPECT_TRUE(Find(cache, key).empty());
  cache.Insert(key, std::vector<int32_t>(20, 1));
  EXPECT_EQ(Find(cache, key).size(), 20U);
}

// A rare word is short and still many tokens.
TEST(PieceCache, KeepsShortPiecesOfManyIds) {
  PieceCache cache;
  const std::vector<int32_t> ids = {5, 4, 3, 2, 1};
  cache.Insert("short", ids);
  EXPECT_EQ(Find(cache, "short"), ids);
  cache.Insert("other", std::vector<int32_t>{7});
  EXPECT_EQ(Find(cache, "short"), ids);
  EXPECT_EQ(Find(cache, "other"), std::vector<int32_t>{7});
  EXPECT_TRUE(Find(cache, "shor").empty());
}

// The ids of the words of a text, each of its first byte; counts the calls.
std::vector<int32_t> EncodeWords(CachedEncoding& encoding, std::string_view text, int& calls) {
  const std::string_view whole = encoding.Begin("+", text);
  for (size_t begin = 0; begin < whole.size();) {
    const size_t end = std::min(whole.find(' ', begin + 1), whole.size());
    encoding.Add(whole.substr(begin, end - begin), [&](int32_t* to) {
      ++calls;
      *to = static_cast<int32_t>(end - begin);
      return to + 1;
    });
    begin = end;
  }
  std::vector<int32_t> out = {-1};
  encoding.End(out);
  return out;
}

TEST(CachedEncoding, EncodesEachShortPartOnce) {
  CachedEncoding encoding(std::make_shared<PieceCache>());
  int calls = 0;
  const std::vector<int32_t> expected = {-1, 2, 2, 3, 2};
  EXPECT_EQ(EncodeWords(encoding, "a a bb a", calls), expected);
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(EncodeWords(encoding, "a a bb a", calls), expected);
  EXPECT_EQ(calls, 3);
  const std::string long_text(PieceCache::kMaxKeyBytes, 'x');
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(EncodeWords(encoding, long_text, calls), (std::vector<int32_t>{-1, 47}));
  }
  EXPECT_EQ(calls, 5);
}

TEST(PieceCachePool, AllLeasesShareACache) {
  PieceCachePool pool;
  int calls = 0;
  auto one = pool.Take();
  auto two = pool.Take();
  EncodeWords(*one.operator->(), "word", calls);
  EncodeWords(*two.operator->(), "word", calls);
  EXPECT_EQ(calls, 1);
}

TEST(PieceCachePool, ReplacesAFullCache) {
  PieceCachePool pool;
  std::weak_ptr<PieceCache> first;
  std::shared_ptr<PieceCache> second;
  {
    auto before = pool.Take();
    first = before->cache();
    {
      auto lease = pool.Take();
      for (unsigned seed = 0; !lease->cache()->full(); ++seed) {
        UseRandomKeys(*lease->cache(), seed, 100'000);
      }
    }
    auto after = pool.Take();
    second = after->cache();
    EXPECT_NE(second, first.lock());
    int calls = 0;
    EXPECT_EQ(EncodeWords(*after.operator->(), "word", calls), (std::vector<int32_t>{-1, 5}));
    // Who still works with the old one ends it.
    EXPECT_EQ(before->cache(), first.lock());
  }
  EXPECT_TRUE(first.expired());
  EXPECT_EQ(pool.Take()->cache(), second);
}

}  // namespace
}  // namespace mft
