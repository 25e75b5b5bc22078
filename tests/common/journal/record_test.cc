// SPDX-License-Identifier: Apache-2.0
#include "common/journal/record.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

namespace mft {
namespace {

TEST(Record, EveryTypeReadsBackAsItWasWritten) {
  const FinalRecord final{.outcome = "failed", .step = 3, .code = 3, .reason = "R", .message = "m"};
  const std::vector<RecordBody> bodies = {
      HeaderRecord{.attempt_id = "a", .rank = -1, .boot_id = "b", .build = "c"},
      PhaseRecord{.phase = "p", .detail = "d"},
      ResumeRecord{.from_step = 9},
      StepRecord{.step = 1, .max_steps = 2, .loss = 0.1, .eta_seconds = 5, .skipped = true},
      StepRecord{.step = 3, .expert_share = {0.25, 0.75}, .expert_imbalance = 1.5},
      EvalRecord{.step = 2, .eval_loss = 1e-300},
      CheckpointRecord{.step = 3, .path = "/p \"q\"\n", .removed = {"x", "y"}},
      MessageRecord{.level = "info", .text = "\xC3\xA9"},
      DataPreparedRecord{.samples = 4, .cache = "/c"},
      final,
      ResultRecord{.outcome = "failed",
                   .ranks = {{.rank = 0, .exit_code = 3, .final = final}, {.rank = 1, .signal = 9}},
                   .first_failed = 0},
  };
  ASSERT_EQ(bodies.size(), std::variant_size_v<RecordBody> + 1);
  for (const RecordBody& body : bodies) {
    const std::string line = EncodeRecord({.seq = 7, .at_micros = 8, .body = body});
    const auto decoded = DecodeRecord(line);
    ASSERT_TRUE(decoded.ok()) << decoded.status().message();
    EXPECT_EQ(EncodeRecord(*decoded), line);
    EXPECT_EQ(decoded->body.index(), body.index());
    EXPECT_EQ(line.find('\n'), std::string::npos);
  }
}

TEST(Record, KeepsNumbersThatAreNotFinite) {
  const double kInf = std::numeric_limits<double>::infinity();
  const StepRecord step{.loss = std::nan(""), .perplexity = kInf, .grad_norm = -kInf};
  const auto decoded = DecodeRecord(EncodeRecord({.seq = 1, .at_micros = 0, .body = step}));
  ASSERT_TRUE(decoded.ok());
  EXPECT_TRUE(std::isnan(std::get<StepRecord>(decoded->body).loss));
  EXPECT_EQ(std::get<StepRecord>(decoded->body).perplexity, kInf);
  EXPECT_EQ(std::get<StepRecord>(decoded->body).grad_norm, -kInf);
}

TEST(Record, TellsOfExpertsOnlyWhereThereAreSome) {
  const std::string dense = EncodeRecord({.seq = 1, .at_micros = 0, .body = StepRecord{.step = 1}});
  EXPECT_EQ(dense.find("expert"), std::string::npos);
  const auto body = std::get<StepRecord>(DecodeRecord(dense)->body);
  EXPECT_TRUE(body.expert_share.empty());
  EXPECT_FALSE(body.expert_imbalance.has_value());
  const StepRecord step{.expert_share = {0.25, 0.75}, .expert_imbalance = 1.5};
  std::string line = EncodeRecord({.seq = 1, .at_micros = 0, .body = step});
  EXPECT_EQ(std::get<StepRecord>(DecodeRecord(line)->body).expert_share, step.expert_share);
  line.replace(line.find("0.75"), 4, "\"x\"");
  EXPECT_FALSE(DecodeRecord(line).ok());
}

TEST(Record, CutsTextThatIsTooLong) {
  const std::string line = EncodeRecord(
      {.seq = 1, .at_micros = 0, .body = MessageRecord{"info", std::string(300'000, '\x01')}});
  EXPECT_LE(line.size(), kMaxRecordBytes);
  EXPECT_TRUE(DecodeRecord(line).ok());
}

TEST(Record, RefusesHostileLines) {
  for (
      const std::string& line : std::vector<std::string>{
          std::string(""),
          std::string("{}"),
          std::string("[1]"),
          std::string(R"({"seq":1,"at":1,"type":"nope"})"),
          std::string(R"({"seq":"1","at":1,"type":"resume","from_step":1})"),
          std::string(R"({"seq":1,"at":1,"type":"resume"})"),
          std::string(
              R"({"seq":1,"at":1,"type":"header","version":99999999999,"attempt_id":"","rank":0,"boot_id":"","build":""})"),
          std::string(
              R"({"seq":1,"at":1,"type":"result","outcome":"","ranks":[1],"first_failed":0,"code":0,"reason":"","message":""})"),
          std::string(70'000, ' '),
          std::string(1000, '[')}) {
    EXPECT_FALSE(DecodeRecord(line).ok()) << line.substr(0, 80);
  }
}

}  // namespace
}  // namespace mft
