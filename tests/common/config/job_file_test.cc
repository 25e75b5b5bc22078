// SPDX-License-Identifier: Apache-2.0
#include "common/config/job_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/yaml_reader.h"
#include "tests/common/config/config_testing.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::TempDir;

TEST(JobFile, RoundTrips) {
  const TempDir dir;
  JobFile file{
      .job_id = "jabc", .owner = "me", .request_id = "r", .request_hash = "h", .created_micros = 5};
  file.spec = testing::Parse("seed: 7\n").spec;
  ASSERT_TRUE(WriteJobFile(dir.File("plain.json"), file).ok());
  EXPECT_EQ(ReadJobFile(dir.File("plain.json"))->secret, "");
  file.secret = "secrets/jabc";
  ASSERT_TRUE(WriteJobFile(dir.File("job.json"), file).ok());
  const JobFile again = ReadJobFile(dir.File("job.json")).value();
  EXPECT_EQ(again.job_id, "jabc");
  EXPECT_EQ(again.owner, "me");
  EXPECT_EQ(again.request_id, "r");
  EXPECT_EQ(again.request_hash, "h");
  EXPECT_EQ(again.created_micros, 5);
  EXPECT_EQ(again.secret, "secrets/jabc");
  EXPECT_EQ(JobSpecToJson(again.spec), JobSpecToJson(file.spec));
}

TEST(AttemptFile, RoundTrips) {
  const TempDir dir;
  const AttemptFile file{.attempt = 3,
                         .attempt_id = "id",
                         .kind = AttemptKind::kPrepare,
                         .device = "cuda",
                         .ranks = 2,
                         .threads = 4,
                         .ranks_per_node = 1,
                         .srun = "/s/srun",
                         .gpu_uuids = {"GPU-1", "GPU-2"},
                         .cache_root = "/c",
                         .data_cache = "/c/x",
                         .grace_ms = 10,
                         .time_limit_ms = 20,
                         .trackers = {"mlflow"},
                         .tracker_python = "/p"};
  ASSERT_TRUE(WriteAttemptFile(dir.File("attempt.json"), file).ok());
  const AttemptFile again = ReadAttemptFile(dir.File("attempt.json")).value();
  EXPECT_EQ(again.attempt, 3);
  EXPECT_EQ(again.attempt_id, "id");
  EXPECT_EQ(again.kind, AttemptKind::kPrepare);
  EXPECT_EQ(again.device, "cuda");
  EXPECT_EQ(again.ranks, 2);
  EXPECT_EQ(again.threads, 4);
  EXPECT_EQ(again.ranks_per_node, 1);
  EXPECT_EQ(again.srun, "/s/srun");
  EXPECT_EQ(again.gpu_uuids, file.gpu_uuids);
  EXPECT_EQ(again.cache_root, "/c");
  EXPECT_EQ(again.data_cache, "/c/x");
  EXPECT_EQ(again.grace_ms, 10);
  EXPECT_EQ(again.time_limit_ms, 20);
  EXPECT_EQ(again.trackers, file.trackers);
  EXPECT_EQ(again.tracker_python, "/p");
}

TEST(JobFile, RefusesAnotherVersionAndDamage) {
  const TempDir dir;
  const auto message = [&](const std::string& text) {
    return ReadJobFile(dir.Write("job.json", text)).status().message();
  };
  EXPECT_THAT(message(R"({"version": 99})"), AllOf(HasSubstr("job.json"), HasSubstr("version 99")));
  EXPECT_THAT(message("{}"), HasSubstr("missing \"version\""));
  EXPECT_THAT(message("{\"version\": 1"), HasSubstr("invalid JSON"));
  EXPECT_THAT(message(R"({"version": 1, "job_id": 5})"),
              HasSubstr("\"job_id\" must be a string, not 5"));
  EXPECT_THAT(
      message(
          R"({"version":1,"job_id":"","owner":"","request_id":"","request_hash":"","created_micros":0,
                          "spec":{"data":{"data":"d"},"model_id_or_path":"m","run_dir":"r","seq_len":0}})"),
      HasSubstr("spec: seq_len: must be between"));
  EXPECT_THAT(ReadJobFile(dir.File("none")).status().message(), HasSubstr("none"));
}

TEST(AttemptFile, RefusesImpossibleValues) {
  const TempDir dir;
  AttemptFile file{.attempt = 1, .attempt_id = "id"};
  const auto written = [&](const AttemptFile& bad) {
    EXPECT_TRUE(WriteAttemptFile(dir.File("a.json"), bad).ok());
    return ReadAttemptFile(dir.File("a.json")).status().message();
  };
  EXPECT_EQ(written(file), "");
  file.ranks = 0;
  EXPECT_THAT(written(file), HasSubstr("\"ranks\" must be between 1 and"));
  file.ranks = 1;
  file.ranks_per_node = -1;
  EXPECT_THAT(written(file), HasSubstr("\"ranks_per_node\" must be between 0 and"));
  file.ranks_per_node = 0;
  file.device = "tpu";
  EXPECT_THAT(written(file), HasSubstr("not \"tpu\""));
  file.device = "cpu";
  file.grace_ms = -1;
  EXPECT_THAT(written(file), HasSubstr("must not be negative"));
}

}  // namespace
}  // namespace mft
