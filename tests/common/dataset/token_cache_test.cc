// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/token_cache.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/dataset/batcher.h"
#include "common/dataset/token_cache_format.h"
#include "tests/support/cache_builder.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

using testing::BuildCache;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::TempDir;
using testing::TestSource;
using token_cache_format::Header;
using token_cache_format::Record;

std::vector<TestSource> TwoSources() {
  return {{.kind = SourceKind::kText,
           .weight = 3,
           .files = {{{.tokens = {1, 5, 2}}}, {{.tokens = {1, 2}}, {.tokens = {}}}}},
          {.kind = SourceKind::kEval,
           .files = {{{.tokens = {1, 7, 8, 9, 2}, .mask = {1, 0, 0, 1, 1}}}}}};
}

TEST(TokenCache, GivesBackWhatWasWritten) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("root/key"), TwoSources(), 10);
  EXPECT_EQ(cache->content_key(), "test");
  EXPECT_EQ(cache->vocab_size(), 10);
  ASSERT_EQ(cache->sources().size(), 2u);
  const SourceInfo& text = cache->sources()[0];
  EXPECT_EQ(text.path, "source0");
  EXPECT_EQ(text.kind, SourceKind::kText);
  EXPECT_EQ(text.weight, 3);
  EXPECT_EQ(text.samples, 3);
  EXPECT_EQ(text.tokens, 5);
  EXPECT_EQ(text.loss_tokens, 3);
  ASSERT_EQ(text.files.size(), 2u);
  EXPECT_EQ(text.files[1].path, "source0/1.jsonl");
  EXPECT_EQ(text.files[1].first_sample, 1);
  EXPECT_EQ(text.files[1].samples, 2);
  EXPECT_THAT(cache->sample(0, 1)->tokens, ElementsAre(1, 2));
  EXPECT_EQ(cache->info(0, 2).length, 0);
  EXPECT_THAT(cache->sample(1, 0)->tokens, ElementsAre(1, 7, 8, 9, 2));
  EXPECT_THAT(cache->sample(1, 0)->mask, ElementsAre(1, 0, 0, 1, 1));
  EXPECT_EQ(cache->info(1, 0).loss_tokens, 2) << "the first token is never predicted";
}

TEST(TokenCache, PutsChunkedSamplesBehindTheLinesOfTheirFile) {
  const TempDir dir;
  const TestSource source = {.files = {{{.tokens = {1, 10}},
                                        {.tokens = {1, 11}, .origin = {.line = 0, .chunked = true}},
                                        {.tokens = {1, 12}}},
                                       {{.tokens = {1, 13}}}}};
  const auto cache = BuildCache(dir.File("key"), {source});
  EXPECT_EQ(cache->sample(0, 1)->tokens[1], 12);
  EXPECT_EQ(cache->sample(0, 2)->tokens[1], 11);
  EXPECT_EQ(cache->sample(0, 3)->tokens[1], 13);
  EXPECT_EQ(cache->info(0, 1).line, 1);
  EXPECT_EQ(cache->info(0, 2).line, 0);
  EXPECT_EQ(cache->sources()[0].files[0].line_samples, 2);
}

TEST(TokenCache, RemembersTheFirstWarningsOfEachFileAndTheNumber) {
  const TempDir dir;
  auto writer = TokenCacheWriter::Create(dir.File("key"), "k", 10).value();
  ASSERT_TRUE(writer->BeginSource("source", SourceKind::kText, 1).ok());
  for (const int64_t count : {0, 1, 150}) {
    ASSERT_TRUE(writer->BeginFile("file").ok());
    for (int64_t line = 0; line < count; ++line) {
      writer->AddWarning(line, line == 0 ? "caf\xC3\xA9 \"\xff" : std::string(5000, 'x'));
    }
  }
  ASSERT_TRUE(writer->Publish().ok());
  const auto cache = TokenCache::Open(dir.File("key")).value();
  const std::vector<CachedFile>& files = cache->sources()[0].files;
  EXPECT_TRUE(files[0].warnings.empty());
  ASSERT_EQ(files[1].warnings.size(), 1U);
  EXPECT_THAT(files[1].warnings[0].text, ::testing::StartsWith("caf\xC3\xA9 \""));
  EXPECT_EQ(files[2].num_warnings, 150);
  ASSERT_EQ(files[2].warnings.size(), 100U);
  EXPECT_EQ(files[2].warnings[99].line, 99);
  EXPECT_LT(files[2].warnings[99].text.size(), 1100U);
}

// For ThreadSanitizer: an index and samples that nobody has verified yet, from many threads at
// once.
TEST(TokenCache, IsReadFromManyThreads) {
  const TempDir dir;
  TestSource source = {.files = {{}}};
  for (int32_t i = 0; i < 500; ++i) {
    source.files[0].push_back({.tokens = {1, i, 2}});
  }
  BuildCache(dir.File("key"), {source});
  const auto cache = TokenCache::Open(dir.File("key")).value();
  std::atomic<int> right = 0;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        EXPECT_TRUE(cache->VerifyIndex().ok());
        for (int32_t i = 0; i < 500; ++i) {
          const auto sample = cache->sample(0, i);
          right += sample.ok() && sample->tokens[1] == i && cache->info(0, i).length == 3 ? 1 : 0;
        }
      });
    }
  }
  EXPECT_EQ(right, 2000);
}

TEST(TokenCacheDeathTest, SamplesThatAreNotThereAndUnverifiedOnesAreMistakesOfTheCaller) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), TwoSources());
  EXPECT_DEATH(static_cast<void>(cache->info(0, 3)), "sample 3 of source 0");
  EXPECT_DEATH(static_cast<void>(cache->info(0, -1)), "sample -1 of source 0");
  EXPECT_DEATH(static_cast<void>(cache->sample(2, 0)), "sample 0 of source 2");
  const auto unverified = TokenCache::Open(dir.File("key")).value();
  EXPECT_DEATH(static_cast<void>(unverified->sample(0, 0)), "sample 0 of source 0");
}

TEST(TokenCache, AnEmptyCacheIsReadable) {
  const TempDir dir;
  EXPECT_TRUE(BuildCache(dir.File("key"), {})->sources().empty());
}

TEST(TokenCacheWriter, RefusesIdsOutsideTheVocabulary) {
  const TempDir dir;
  auto writer = TokenCacheWriter::Create(dir.File("key"), "k", 10);
  ASSERT_TRUE(writer.ok());
  ASSERT_TRUE((*writer)->BeginSource("a.jsonl", SourceKind::kText, 1).ok());
  ASSERT_TRUE((*writer)->BeginFile("a.jsonl").ok());
  const std::vector<int32_t> tokens = {1, 10};
  const std::vector<uint8_t> mask = {1, 1};
  const Status status = (*writer)->Add(tokens, mask, {.line = 4});
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("a.jsonl:5: token id 10"));
}

TEST(TokenCacheWriter, LeavesNothingBehindWithoutPublish) {
  const TempDir dir;
  { ASSERT_TRUE(TokenCacheWriter::Create(dir.File("key"), "k", 10).ok()); }
  EXPECT_THAT(*ListDir(dir.path()), ElementsAre());
}

TEST(TokenCacheWriter, TheFasterOfTwoBuildersWins) {
  const TempDir dir;
  auto slow = TokenCacheWriter::Create(dir.File("key"), "test", 32768);
  ASSERT_TRUE(slow.ok());
  BuildCache(dir.File("key"), TwoSources());
  ASSERT_TRUE((*slow)->Publish().ok());
  slow = Status(Code::kCancelled, "");
  EXPECT_EQ((*TokenCache::Open(dir.File("key")))->sources().size(), 2u);
  EXPECT_THAT(*ListDir(dir.path()), ElementsAre("key"));
}

TEST(TokenCacheWriter, RefusesADirectoryThatHoldsSomethingElse) {
  const TempDir dir;
  dir.Write("key/precious", "x");
  auto writer = TokenCacheWriter::Create(dir.File("key"), "k", 10);
  EXPECT_EQ((*writer)->Publish().code(), Code::kAlreadyExists);
  EXPECT_TRUE(PathExists(dir.File("key/precious")));
  BuildCache(dir.File("other"), TwoSources());
  writer = TokenCacheWriter::Create(dir.File("other"), "another key", 10);
  EXPECT_EQ((*writer)->Publish().code(), Code::kAlreadyExists);
}

TEST(TokenCacheWriter, ReplacesADamagedCache) {
  const TempDir dir;
  dir.Write("key/tokens.mft", "garbage");
  EXPECT_EQ(TokenCache::Open(dir.File("key")).status().code(), Code::kDataLoss);
  BuildCache(dir.File("key"), TwoSources());
  EXPECT_THAT(*ListDir(dir.path()), ElementsAre("key"));
}

TEST(TokenCacheWriter, StaleTemporariesAreRemovedAndLiveOnesKept) {
  const TempDir dir;
  auto live = TokenCacheWriter::Create(dir.File("key"), "k", 10);
  ASSERT_TRUE(live.ok());
  dir.Write("tmp.cache.dead/tokens.mft", "left by a killed process");
  ASSERT_TRUE(RemoveStaleTokenCaches(dir.path()).ok());
  EXPECT_FALSE(PathExists(dir.File("tmp.cache.dead")));
  EXPECT_TRUE((*live)->Publish().ok());
}

TEST(TokenCacheWriter, CleansUpBesideItself) {
  const TempDir dir;
  dir.Write("tmp.cache.dead/tokens.mft", "left by a killed process");
  dir.Write("tmp.cache.old/x", "");
  ASSERT_TRUE(RemoveTree(dir.File("tmp.cache.old/x")).ok());
  std::filesystem::last_write_time(
      dir.File("tmp.cache.old"),
      std::filesystem::file_time_type::clock::now() - std::chrono::minutes(2));
  ASSERT_TRUE(MakeDirs(dir.File("tmp.cache.starting")).ok());
  BuildCache(dir.File("key"), TwoSources());
  EXPECT_THAT(*ListDir(dir.path()), ElementsAre("key", "tmp.cache.starting"));
}

TEST(TakeTokenCacheAway, LeavesAnOpenCacheAndOneThatIsToBeKept) {
  const TempDir dir;
  auto cache = BuildCache(dir.File("key"), TwoSources());
  const auto take = [&](bool keep) {
    return *TakeTokenCacheAway(dir.File("key"), [keep] { return keep; });
  };
  EXPECT_FALSE(take(false)) << "open";
  cache.reset();
  EXPECT_FALSE(take(true));
  EXPECT_TRUE(TokenCache::Open(dir.File("key")).ok());
  EXPECT_TRUE(take(false));
  EXPECT_THAT(*ListDir(dir.path()), ElementsAre());
}

TEST(TokenCacheWriter, APublishedCacheIsNotLockedByItsWriter) {
  const TempDir dir;
  auto writer = TokenCacheWriter::Create(dir.File("key"), "k", 10);
  ASSERT_TRUE((*writer)->Publish().ok());
  const auto cache = TokenCache::Open(dir.File("key"));
  ASSERT_TRUE(cache.ok());
  EXPECT_FALSE(*TakeTokenCacheAway(dir.File("key"), [] { return false; }));
}

// Everything that is checked between a file and tokens to train on.
Status ReadAll(const std::string& directory) {
  const auto cache = TokenCache::Open(directory);
  return cache.ok() ? VerifyTokenCache(**cache, [] { return false; }) : cache.status();
}

// A published file whose bytes a test changes; `rehash` makes the checksums match again.
class HostileCache : public ::testing::Test {
 protected:
  HostileCache() {
    BuildCache(dir_.File("key"), TwoSources(), 10);
    bytes_ = *ReadFile(path_);
    std::memcpy(&header_, bytes_.data(), sizeof(header_));
  }

  void SetRecord(size_t index, const std::function<void(Record&)>& change) {
    Record record;
    char* at = bytes_.data() + header_.records_offset + index * sizeof(Record);
    std::memcpy(&record, at, sizeof(record));
    change(record);
    std::memcpy(at, &record, sizeof(record));
  }

  void ReplaceMeta(std::string_view from, std::string_view to) {
    const size_t at = bytes_.rfind(from);
    ASSERT_NE(at, std::string::npos) << from;
    bytes_.replace(at, from.size(), to);
    header_.meta_bytes += to.size() - from.size();
  }

  Status ReadChanged(bool rehash = true) {
    std::memcpy(bytes_.data(), &header_, sizeof(header_));
    if (rehash) {
      testing::SealCache(bytes_);
    }
    dir_.Write("key/tokens.mft", bytes_);
    return ReadAll(dir_.File("key"));
  }

  TempDir dir_;
  std::string path_ = dir_.File("key/tokens.mft");
  std::string bytes_;
  Header header_;
  // Behind the samples of 3, 2 and 5 tokens, which take 15, 10 and 25 bytes.
  const std::set<size_t> padding_ = {207, 218, 219, 245, 246, 247};
};

TEST_F(HostileCache, UnchangedBytesAreReadable) {
  EXPECT_TRUE(ReadChanged().ok());
}

TEST_F(HostileCache, RecordsOutsideTheDataAreRefused) {
  const auto original = bytes_;
  const std::vector<std::function<void(Record&)>> changes = {
      [](Record& r) { r.offset = 0; },
      [](Record& r) { r.offset = 130; },
      [](Record& r) { r.offset = ~uint64_t{3}; },
      [](Record& r) { r.length = 1u << 30; },
      [](Record& r) { r.length = ~0u; },
      [this](Record& r) { r.offset = header_.records_offset; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    bytes_ = original;
    SetRecord(0, changes[i]);
    EXPECT_EQ(ReadChanged().code(), Code::kDataLoss) << i;
  }
}

TEST_F(HostileCache, CountsThatDisagreeAreRefused) {
  const auto original = bytes_;
  const Header header = header_;
  const std::vector<std::pair<std::string, std::string>> changes = {
      {R"("samples":3,"tokens":5)", R"("samples":2,"tokens":5)"},
      {R"("samples":3,"tokens":5)", R"("samples":-1,"tokens":5)"},
      {R"("samples":3,"tokens":5)", R"("samples":9223372036854775807,"tokens":5)"},
      {R"("tokens":5)", R"("tokens":6)"},
      {R"("loss_tokens":3)", R"("loss_tokens":2)"},
      {R"("samples":2,"line_samples":2)", R"("samples":2,"line_samples":3)"},
      {R"("num_warnings":0)", R"("num_warnings":-1)"},
      {R"("num_warnings":0)", R"("num_warning":0)"},
      {R"("warnings":[])", R"("warnings":[{"line":1,"text":"x"}])"},
      {R"("warnings":[])", R"("warnings":{})"},
      {R"("samples":2,"line_samples":2)", R"("samples":1,"line_samples":1)"},
      {R"("kind":"eval")", R"("kind":"evil")"},
      {R"("weight":3.0)", R"("weight":-3.0)"},
      {R"("content_key":"test")", R"("content_key":7)"},
      {R"("sources":[)", R"("sauces":[)"},
      {R"({"content_key")", R"([{"content_key")"},
  };
  for (const auto& [from, to] : changes) {
    bytes_ = original;
    header_ = header;
    ReplaceMeta(from, to);
    EXPECT_EQ(ReadChanged().code(), Code::kDataLoss) << to;
  }
}

TEST_F(HostileCache, LossTokensBeyondTheLengthAreRefused) {
  SetRecord(0, [](Record& r) { r.loss_tokens = 3; });
  EXPECT_EQ(ReadChanged().code(), Code::kDataLoss);
}

TEST_F(HostileCache, HeaderFieldsOutOfRangeAreRefused) {
  const Header original = header_;
  const std::vector<std::function<void(Header&)>> changes = {
      [](Header& h) { h.magic[0] = 'X'; },
      [](Header& h) { h.version = 1; },
      [](Header& h) { h.vocab_size = 0; },
      [](Header& h) { h.records_offset = 0; },
      [](Header& h) { h.records_offset = uint64_t{1} << 62; },
      [](Header& h) { h.num_records = ~uint64_t{0}; },
      [](Header& h) { h.num_records = uint64_t{1} << 60; },
      [](Header& h) { h.num_records += 1; },
      [](Header& h) { h.meta_bytes = ~uint64_t{0}; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    for (const bool rehash : {false, true}) {
      header_ = original;
      changes[i](header_);
      EXPECT_EQ(ReadChanged(rehash).code(), Code::kDataLoss) << i << rehash;
    }
  }
}

TEST_F(HostileCache, EveryTruncationIsRefused) {
  const std::string original = bytes_;
  for (size_t size = 0; size < original.size(); ++size) {
    dir_.Write("key/tokens.mft", original.substr(0, size));
    ASSERT_EQ(TokenCache::Open(dir_.File("key")).status().code(), Code::kDataLoss) << size;
  }
}

// Whatever bit flips, no sample comes out other than it went in.
TEST_F(HostileCache, EveryFlippedBitIsFoundBeforeItIsTrainedOn) {
  const std::string original = bytes_;
  const size_t unused = offsetof(Header, zero);
  for (size_t at = 0; at < original.size(); ++at) {
    bytes_ = original;
    bytes_[at] = static_cast<char>(bytes_[at] ^ (1 << at % 8));
    dir_.Write("key/tokens.mft", bytes_);
    const Status status = ReadAll(dir_.File("key"));
    const bool padding = (at >= unused && at < sizeof(Header)) || padding_.contains(at);
    ASSERT_EQ(status.code(), padding ? Code::kOk : Code::kDataLoss) << at << status.ToString();
    ASSERT_EQ(status.reason(), padding ? "" : kDataCacheGone) << at;
  }
}

TEST_F(HostileCache, ADamagedSampleIsRefusedByItsUsersAndTheOthersAreNot) {
  bytes_[sizeof(Header) + 4] ^= 1;  // 5 becomes 4, in the vocabulary: only the checksum can tell
  ASSERT_EQ(ReadChanged(/*rehash=*/false).code(), Code::kDataLoss);
  const auto cache = TokenCache::Open(dir_.File("key"));
  ASSERT_TRUE(cache.ok());
  ASSERT_TRUE((*cache)->VerifyIndex().ok()) << "the index is sound";
  EXPECT_EQ((*cache)->sample(0, 0).status().reason(), kDataCacheGone);
  EXPECT_EQ((*cache)->sample(0, 0).status().code(), Code::kDataLoss) << "also the second time";
  EXPECT_THAT((*cache)->sample(0, 1)->tokens, ElementsAre(1, 2));
  for (const char* packing : {"whole", "reference"}) {
    const auto batcher = Batcher::Create(**cache, {.seq_len = 2, .packing = packing});
    ASSERT_TRUE(batcher.ok()) << packing;
    EXPECT_EQ((*batcher)->Step(1).status().reason(), kDataCacheGone) << packing;
  }
  EXPECT_TRUE(EvalBatches(**cache, 8, 64, 1, 0).ok()) << "reads the other source";
}

TEST_F(HostileCache, OpeningReadsNeitherTheIndexNorTheSamples) {
  const size_t index_end = bytes_.size() - header_.meta_bytes;
  std::fill(bytes_.begin() + sizeof(Header), bytes_.begin() + static_cast<int64_t>(index_end), 'x');
  dir_.Write("key/tokens.mft", bytes_);
  const auto cache = TokenCache::Open(dir_.File("key"));
  ASSERT_TRUE(cache.ok()) << cache.status().ToString();
  EXPECT_EQ((*cache)->sources()[0].samples, 3);
  EXPECT_EQ((*cache)->VerifyIndex().reason(), kDataCacheGone);
  EXPECT_EQ(Batcher::Create(**cache, {.seq_len = 8}).status().reason(), kDataCacheGone);
  EXPECT_EQ(EvalBatches(**cache, 8, 64, 1, 0).status().reason(), kDataCacheGone);
}

TEST_F(HostileCache, APublishedCacheWithADamagedSampleIsReplaced) {
  bytes_[sizeof(Header) + 4] ^= 1;
  ASSERT_EQ(ReadChanged(/*rehash=*/false).code(), Code::kDataLoss);
  BuildCache(dir_.File("key"), TwoSources(), 10);
  EXPECT_TRUE(ReadAll(dir_.File("key")).ok());
}

TEST(VerifyTokenCache, StopsWhenItIsTold) {
  const TempDir dir;
  const auto cache = BuildCache(dir.File("key"), TwoSources());
  EXPECT_EQ(VerifyTokenCache(*cache, [] { return true; }).code(), Code::kCancelled);
}

TEST(TokenCache, AMissingCacheIsNotFound) {
  const TempDir dir;
  EXPECT_EQ(TokenCache::Open(dir.File("key")).status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace mft
