// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/config/config_testing.h"

namespace mft {
namespace {
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Parse;
using testing::Problems;

// Another value than the default in every field, so that a forgotten one shows.
struct Unusual {
  int64_t next = 2;

  void operator()(const char* /*key*/, bool& value, const FieldRule& /*rule*/) { value = !value; }
  void operator()(const char* /*key*/, int64_t& value, const FieldRule& /*rule*/) {
    value = value == next ? 1 : next;
  }
  void operator()(const char* /*key*/, double& value, const FieldRule& /*rule*/) {
    value = 0.1 + 0.2;
  }
  void operator()(const char* key, std::string& value, const FieldRule& rule) {
    value = rule.choices.empty() ? std::string("text of ") + key + ": 'a' \"b\" # ~"
                                 : rule.choices.back();
  }
  void operator()(const char* /*key*/, std::vector<std::string>& value, const FieldRule& rule) {
    value = {rule.choices[2], rule.choices[0]};
  }
  void operator()(const char* /*key*/, std::vector<int64_t>& value, const FieldRule& /*rule*/) {
    value = {7, 0, 5};
  }
  void operator()(const char* /*key*/,
                  std::map<std::string, std::string>& value,
                  const FieldRule& /*rule*/) {
    value = {{"a.b/c", "yes"}, {"", ""}, {"n", "1e3"}};
    value.erase("");
  }
  template <typename Section>
  void operator()(const char* /*key*/, Section& section) {
    VisitFields(*this, section);
  }
};

// Unusual, and without what this version refuses.
JobSpec UnusualSpec() {
  JobSpec spec;
  VisitFields(Unusual{}, spec);
  spec.data = {.data = "x.jsonl:2",
               .shuffle = true,
               .instruct_data = "\"a,b.jsonl\"",
               .eval_instruct_data = "e"};
  spec.data.instruct = {.shuffle = true, .dynamic_chunk_fn_call = false};
  spec.lora.enable = true;
  spec.no_ckpt = false;
  spec.lora.dropout = 0;
  spec.mftd.device = "cuda";
  spec.mftd.precision = "bf16";
  spec.mftd.export_formats = {"mistral"};
  spec.mftd.resume_from.clear();
  return spec;
}

TEST(JobSpecToJson, RoundTripsEveryField) {
  const JobSpec spec = UnusualSpec();
  const Json json = JobSpecToJson(spec);
  const JobSpecResult result = ParseJobJson(ParseJson(DumpJson(json)).value());
  ASSERT_THAT(Problems(result), IsEmpty());
  EXPECT_EQ(JobSpecToJson(result.spec), json);
  EXPECT_NE(json, JobSpecToJson(JobSpec()));
}

TEST(JobSpecToYaml, RoundTripsEveryField) {
  for (const JobSpec& spec : {UnusualSpec(), Parse("").spec, Parse("num_ckpt_keep: null\n").spec}) {
    const std::string yaml = JobSpecToYaml(spec);
    const JobSpecResult result = ParseJobYaml(yaml);
    ASSERT_THAT(Problems(result), IsEmpty()) << yaml;
    EXPECT_EQ(JobSpecToJson(result.spec), JobSpecToJson(spec)) << yaml;
  }
}

TEST(JobSpecToYaml, SortsKeysAndWritesWhatMistralFinetuneReads) {
  const std::string yaml = JobSpecToYaml(Parse("optim.lr: 6e-5\nmax_norm: 2\n").spec);
  EXPECT_EQ(yaml.substr(0, 14), "batch_size: 1\n");
  EXPECT_THAT(yaml, HasSubstr("\n  lr: 6.0e-05\n"));  // YAML 1.1 reads 6e-05 as text
  EXPECT_THAT(yaml, HasSubstr("\nmax_norm: 2.0\n"));
  EXPECT_THAT(yaml, HasSubstr("\n  project: null\n"));
  EXPECT_THAT(yaml, HasSubstr("\n  eval_instruct_data: \"\"\n"));
  EXPECT_LT(yaml.find("\nlora:"), yaml.find("\nwandb:"));
}

TEST(ParseJobJson, ReadsProtoJson) {
  const Json json =
      ParseJson(R"({"data": {"instruct_data": "/a"}, "model_id_or_path": "/m", "run_dir": "/r",
      "seed": "9007199254740993", "max_steps": "10", "optim": {"lr": 1e-3, "pct_start": "0.5"}, "num_ckpt_keep": "0",
      "no_ckpt": true, "lora": null, "mftd": {"target_modules": ["wq"], "time_limit": "60", "labels": {"a": "b"}}})")
          .value();
  const JobSpecResult result = ParseJobJson(json);
  ASSERT_THAT(Problems(result), IsEmpty());
  EXPECT_EQ(result.spec.seed, 9007199254740993);
  EXPECT_EQ(result.spec.max_steps, 10);
  EXPECT_EQ(result.spec.optim.pct_start, 0.5);
  EXPECT_EQ(result.spec.optim.weight_decay, 0.1);
  EXPECT_EQ(result.spec.num_ckpt_keep, 0);
  EXPECT_EQ(result.spec.lora.rank, 16);
  EXPECT_EQ(result.spec.mftd.time_limit, 60);
}

TEST(JobKeyPaths, NamesEveryLeaf) {
  const std::vector<std::string> paths = JobKeyPaths();
  EXPECT_EQ(paths.front(), "data.data");
  EXPECT_EQ(std::count(paths.begin(), paths.end(), "data.instruct.dynamic_chunk_fn_call"), 1);
  EXPECT_EQ(std::count(paths.begin(), paths.end(), "mftd.export"), 1);
}

}  // namespace
}  // namespace mft
