// SPDX-License-Identifier: Apache-2.0
// What the report counts: lengths, duplicates, trainable shares.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "worker/data/data_check.h"
#include "worker/data/duplicate_counter.h"
#include "worker/data/length_histogram.h"

namespace mft::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(LengthHistogram, BucketsDouble) {
  LengthHistogram histogram;
  EXPECT_THAT(histogram.ToLines(), IsEmpty());
  EXPECT_EQ(histogram.ToJson(), Json::array());
  for (const int64_t length : {3, 4, 17, 16, 32, 32, 33}) {
    histogram.Add(length);
  }
  EXPECT_EQ(histogram.samples(), 7);
  EXPECT_THAT(histogram.ToLines(),
              ElementsAre("            3-4           2  ###########################",
                          "            5-8           0",
                          "           9-16           1  ##############",
                          "          17-32           3  ########################################",
                          "          33-64           1  ##############"));
  EXPECT_EQ(histogram.ToJson()[3].dump(), R"({"min_tokens":17,"max_tokens":32,"samples":3})");
  EXPECT_EQ(histogram.ToJson().size(), 5u);
}

TEST(LengthHistogram, TakesEveryLength) {
  LengthHistogram histogram;
  for (const int64_t length : {int64_t{0}, int64_t{1}, int64_t{1} << 62}) {
    histogram.Add(length);
  }
  EXPECT_EQ(histogram.samples(), 3);
  EXPECT_EQ(histogram.ToJson()[0]["samples"], 2);
}

TEST(DuplicateCounter, CountsExactlyWhatFits) {
  DuplicateCounter counter;
  for (int i = 0; i < 100'000; ++i) {
    EXPECT_FALSE(counter.Add(StrCat("line ", i)));
  }
  for (int i = 0; i < 100'000; i += 10) {
    EXPECT_TRUE(counter.Add(StrCat("line ", i)));
  }
  EXPECT_TRUE(counter.Add("line 0"));
  EXPECT_EQ(counter.duplicates(), 10'001);
  EXPECT_TRUE(counter.exact());
}

TEST(DuplicateCounter, EstimatesWhatDoesNot) {
  DuplicateCounter counter(1 << 12);
  for (int i = 0; i < 100'000; ++i) {
    counter.Add(StrCat("line ", i));
    if (i % 4 == 0) {
      counter.Add(StrCat("line ", i));
    }
  }
  EXPECT_FALSE(counter.exact());
  EXPECT_NEAR(static_cast<double>(counter.duplicates()), 25'000, 4'000);
}

class Check : public ::testing::Test {
 protected:
  void Run(const DataCheckOptions& options, SourceKind kind, const std::vector<uint8_t>& loss) {
    DataCheck check(options, [&](const Finding& finding) { findings_.push_back(finding); });
    check.BeginSource({.path = "s", .kind = kind, .files = {}});
    for (size_t i = 0; i < loss.size(); ++i) {
      EncodedLine encoded;
      encoded.samples.push_back({.tokens = {1, 5, 2}, .mask = {0, loss[i], 0}});
      check.Add("f", {.number = static_cast<int64_t>(i), .text = "x"}, encoded);
    }
    check.EndSource();
    problems_ = check.problems();
    report_ = check.sources().front();
  }

  std::vector<Finding> findings_;
  int64_t problems_ = 0;
  SourceReport report_;
};

TEST_F(Check, EveryRankNeedsAShareUnderReferencePacking) {
  Run({.ranks = 2}, SourceKind::kInstruct, {1, 0, 1, 0});
  ASSERT_EQ(problems_, 1);
  EXPECT_EQ(findings_[0].problem_class, "NO_TRAINABLE_TOKENS");
  EXPECT_THAT(FindingText(findings_[0]),
              HasSubstr("none of its 4 samples gives rank 1 of 2 a token to train on"));
  Run({.ranks = 2}, SourceKind::kInstruct, {1, 0, 1, 1});
  EXPECT_EQ(problems_, 0);
  Run({.ranks = 1}, SourceKind::kInstruct, {1, 0, 1, 0});
  EXPECT_EQ(problems_, 0);
  EXPECT_EQ(report_.samples_without_loss, 2);
}

// The first token is never predicted, and samples without loss fill no rows.
TEST_F(Check, CountsTokensLossAndRows) {
  DataCheck check({}, [](const Finding&) {});
  check.BeginSource({.path = "s", .files = {}});
  EncodedLine line;
  line.samples.push_back({.tokens = {1, 5, 6, 2}, .mask = {1, 0, 1, 1}});
  line.samples.push_back({.tokens = {1, 5, 2}, .mask = {0, 1, 0}});  // made by chunking
  check.Add("f", {.number = 0, .text = "x"}, line);
  EncodedLine without;
  without.samples.push_back({.tokens = {1, 5, 6, 7, 2}, .mask = {1, 0, 0, 0, 0}});
  without.samples.push_back({.tokens = {}, .mask = {}});
  check.Add("f", {.number = 1, .text = "y"}, without);
  check.EndSource();
  DataCheck cached({}, [](const Finding&) {});
  cached.BeginSource({.path = "s", .files = {}});
  cached.AddCached({.length = 4, .loss_tokens = 2, .line = 0}, false);
  cached.AddCached({.length = 5, .loss_tokens = 0, .line = 1}, false);
  cached.AddCached({.length = 3, .loss_tokens = 1, .line = 0}, true);
  cached.AddCached({.length = 0, .loss_tokens = 0, .line = 1}, true);
  cached.EndSource();
  for (const SourceReport& report : {check.sources()[0], cached.sources()[0]}) {
    EXPECT_EQ(report.samples, 2);
    EXPECT_EQ(report.chunked_samples, 2);
    EXPECT_EQ(report.tokens, 12);
    EXPECT_EQ(report.loss_tokens, 3);
    EXPECT_EQ(report.rows, 3 + 2);
    EXPECT_EQ(report.samples_without_loss, 2);
    EXPECT_EQ(report.longest_tokens, 5);
    EXPECT_EQ(report.lengths.samples(), 4);
  }
}

TEST_F(Check, SourcesWithNothingToTrainAreProblemsOfTraining) {
  Run({}, SourceKind::kText, {});
  EXPECT_EQ(problems_, 1);
  Run({}, SourceKind::kEval, {0});
  EXPECT_EQ(problems_, 0);
  EXPECT_TRUE(findings_.back().warning);
}

TEST_F(Check, OverlongSamplesAndDuplicatesAreCounted) {
  Run({.seq_len = 1, .count_duplicates = true}, SourceKind::kInstruct, {1, 1, 1});
  EXPECT_EQ(report_.overlong_samples, 3);
  EXPECT_EQ(FindingText(findings_.at(0)),
            "s: warning: 3 of 3 samples are longer than seq_len 1, split there; the parts do not "
            "see each other");
  EXPECT_EQ(report_.duplicates, 2);
  EXPECT_EQ(report_.first_duplicate, "f:2");
  Run({.seq_len = 2}, SourceKind::kInstruct, {1});
  EXPECT_EQ(report_.overlong_samples, 0);
}

}  // namespace
}  // namespace mft::data
