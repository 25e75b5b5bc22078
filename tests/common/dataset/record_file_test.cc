// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/record_file.h"

#include <cstring>

#include <gtest/gtest.h>

#include "common/dataset/token_cache.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

using token_cache_format::Record;

std::vector<uint32_t> Lines(RecordFile& file) {
  std::vector<uint32_t> lines;
  const Status status = file.ForEachBlock([&](std::string_view bytes) {
    EXPECT_EQ(bytes.size() % sizeof(Record), 0U);
    for (size_t at = 0; at < bytes.size(); at += sizeof(Record)) {
      Record record;
      std::memcpy(&record, bytes.data() + at, sizeof(record));
      lines.push_back(record.line);
    }
    return Status::Ok();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
  return lines;
}

TEST(RecordFile, KeepsTheOrderHoweverManyThereAre) {
  testing::TempDir dir;
  RecordFile file(dir.path());
  std::vector<uint32_t> expected;
  for (const uint32_t count : {0U, 5U, 43690U, 100'000U, 7U}) {
    ASSERT_TRUE(file.Clear().ok());
    expected.clear();
    for (uint32_t i = 0; i < count; ++i) {
      ASSERT_TRUE(file.Add({.line = i}).ok());
      expected.push_back(i);
    }
    EXPECT_EQ(file.size(), count);
    EXPECT_EQ(Lines(file), expected);
    EXPECT_EQ(Lines(file), expected) << "read twice";
  }
  EXPECT_TRUE(ListDir(dir.path())->empty()) << "the file has no name";
}

TEST(TokenCacheWriter, PutsManyChunkedSamplesBehindTheLines) {
  testing::TempDir dir;
  constexpr int64_t kLines = 60'000;
  auto writer = TokenCacheWriter::Create(dir.File("cache"), "key", 100).value();
  ASSERT_TRUE(writer->BeginSource("source", SourceKind::kInstruct, 1).ok());
  ASSERT_TRUE(writer->BeginFile("file").ok());
  const std::vector<int32_t> line_tokens = {1, 2};
  const std::vector<int32_t> chunk_tokens = {1, 2, 3};
  const std::vector<uint8_t> mask = {0, 1, 1};
  for (int64_t line = 0; line < kLines; ++line) {
    ASSERT_TRUE(writer->Add(line_tokens, std::span(mask).first(2), {.line = line}).ok());
    ASSERT_TRUE(writer->Add(chunk_tokens, mask, {.line = line, .chunked = true}).ok());
  }
  ASSERT_TRUE(writer->Publish().ok());
  const auto cache = TokenCache::Open(dir.File("cache")).value();
  ASSERT_TRUE(cache->VerifyIndex().ok());
  ASSERT_EQ(cache->sources().at(0).samples, 2 * kLines);
  for (int64_t i = 0; i < 2 * kLines; ++i) {
    const SampleInfo info = cache->info(0, i);
    ASSERT_EQ(info.line, i % kLines);
    ASSERT_EQ(info.length, i < kLines ? 2 : 3);
  }
  EXPECT_EQ(ListDir(dir.File("cache"))->size(), 1U);
}

}  // namespace
}  // namespace mft
