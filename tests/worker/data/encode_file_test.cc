// SPDX-License-Identifier: Apache-2.0
#include "worker/data/encode_file.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "tests/support/temp_dir.h"

namespace mft::data {
namespace {

class EncodeFileTest : public ::testing::TestWithParam<int> {
 protected:
  // Line i holds i % 7 + 1 tokens i, every thousandth one is long.
  std::string WriteTokens(int lines) {
    std::string text;
    for (int i = 0; i < lines; ++i) {
      const int count = i % 1000 == 999 ? 30'000 : i % 7 + 1;
      std::string tokens = std::to_string(i);
      for (int k = 1; k < count; ++k) {
        tokens += StrCat(",", i);
      }
      text += StrCat("{\"tokens\":[", tokens, "]}\n");
    }
    return dir_.Write("tokens.jsonl", text);
  }

  Status Encode(const std::string& path, const LineSink& sink, std::function<bool()> stopped = {}) {
    const LineEncoder encoder({.vocab_size = 1 << 20});
    EncodeFileOptions options = {.kind = SourceKind::kInstruct, .threads = GetParam()};
    if (stopped) {
      options.stopped = std::move(stopped);
    }
    return EncodeFile(path, encoder, options, sink);
  }

  testing::TempDir dir_;
};

TEST_P(EncodeFileTest, HandsOverEveryLineInOrder) {
  constexpr int kLines = 20'000;
  int64_t next = 0;
  const Status status =
      Encode(WriteTokens(kLines), [&](const DataLine& line, const EncodedLine& encoded) {
        EXPECT_EQ(line.number, next++);
        EXPECT_EQ(encoded.samples.at(0).tokens.at(0), line.number);
        return Status::Ok();
      });
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_EQ(next, kLines);
}

TEST_P(EncodeFileTest, EndsWithTheSinksFirstFailure) {
  int calls = 0;
  const Status status = Encode(WriteTokens(20'000), [&](const DataLine& line, const EncodedLine&) {
    ++calls;
    return line.number == 4321 ? Status(Code::kResourceExhausted, "the disk is full")
                               : Status::Ok();
  });
  EXPECT_EQ(status.message(), "the disk is full");
  EXPECT_EQ(calls, 4322);
}

TEST_P(EncodeFileTest, IsStoppedBetweenLines) {
  int calls = 0;
  int asked = 0;
  const Status status = Encode(
      WriteTokens(20'000),
      [&](const DataLine&, const EncodedLine&) {
        ++calls;
        return Status::Ok();
      },
      [&] { return ++asked == 3; });
  EXPECT_EQ(status.code(), Code::kCancelled);
  EXPECT_GT(calls, 0);
  EXPECT_LT(calls, 20'000);
}

TEST_P(EncodeFileTest, ReadsNothingFromAnEmptyFile) {
  const LineSink never = [](const DataLine&, const EncodedLine&) { return Internal("called"); };
  EXPECT_TRUE(Encode(dir_.Write("empty.jsonl", ""), never).ok());
  EXPECT_EQ(Encode(dir_.File("missing.jsonl"), never).code(), Code::kNotFound);
}

INSTANTIATE_TEST_SUITE_P(Threads, EncodeFileTest, ::testing::Values(1, 2, 5));

}  // namespace
}  // namespace mft::data
