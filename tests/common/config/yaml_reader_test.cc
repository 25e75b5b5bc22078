// SPDX-License-Identifier: Apache-2.0
#include "common/config/yaml_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/common/config/config_testing.h"

namespace mft {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::kMinimal;
using testing::Parse;
using testing::Problems;
using testing::ProblemsOf;

TEST(ParseJobYaml, TakesDefaultsForAllThatIsNotThere) {
  const JobSpecResult result = Parse("");
  ASSERT_THAT(Problems(result), IsEmpty());
  EXPECT_EQ(result.spec.model_id_or_path, "/models/7B");
  EXPECT_EQ(result.spec.seq_len, 2048);
  EXPECT_EQ(result.spec.optim.lr, 1e-4);
  EXPECT_EQ(result.spec.lora.rank, 16);
  EXPECT_EQ(result.spec.num_ckpt_keep, 3);
  EXPECT_EQ(result.spec.mftd.target_modules.size(), 7U);
  EXPECT_THAT(result.warnings, IsEmpty());
}

// The keys and values of mistral-finetune's example/7B.yaml, its empty strings included.
constexpr std::string_view kPublishedExample = R"(# data
data:
  instruct_data: ""  # comment
  data: ""  # comment
  eval_instruct_data: ""  # comment

model_id_or_path: ""  # comment
lora:
  rank: 64

seq_len: 32768
batch_size: 1
max_steps: 300
optim:
  lr: 6.e-5
  weight_decay: 0.1
  pct_start: 0.05

seed: 0
log_freq: 1
eval_freq: 100
no_eval: False
ckpt_freq: 100

save_adapters: True  # comment

run_dir: ""  # comment

wandb:
  project: "" # comment
  run_name: "" # comment
  offline: False
)";

TEST(ParseJobYaml, LoadsThePublishedExampleOnceItsPathsAreFilledIn) {
  const std::vector<std::string> paths = {"data.instruct_data=/d/train.jsonl",
                                          "data.eval_instruct_data=/d/eval.jsonl",
                                          "model_id_or_path=/m/7B",
                                          "run_dir=/r/1"};
  const JobSpecResult result = ParseJobYaml(kPublishedExample, paths);
  ASSERT_THAT(Problems(result), IsEmpty());
  EXPECT_THAT(result.warnings, IsEmpty());
  EXPECT_EQ(result.spec.lora.rank, 64);
  EXPECT_EQ(result.spec.optim.lr, 6e-5);
  EXPECT_EQ(result.spec.eval_freq, 100);
  EXPECT_FALSE(result.spec.no_eval);
  EXPECT_TRUE(result.spec.wandb.project.empty());
}

TEST(ParseJobYaml, NamesEveryEmptyPathOfThePublishedExample) {
  EXPECT_THAT(
      Problems(ParseJobYaml(kPublishedExample)),
      ElementsAre("data.instruct_data:3: no training data: set data.instruct_data or data.data",
                  "model_id_or_path:7: is required and empty",
                  "no_eval:22: Either set `no_eval` to True or provide evaluation samples under "
                  "`data.eval_instruct_data`",
                  "run_dir:27: is required and empty"));
}

TEST(ParseJobYaml, ReportsAllViolationsInLineOrder) {
  EXPECT_THAT(ProblemsOf("seq_len: 0\n"           // 4
                         "lora:\n"                // 5
                         "  rank: -3\n"           // 6
                         "  scaling: abc\n"       // 7
                         "batch_sise: 2\n"        // 8
                         "optim: [1, 2]\n"        // 9
                         "mftd: {device: gpu}\n"  // 10
                         ),
              ElementsAre("seq_len:4: must be between 1 and 128000, not 0",
                          "lora.rank:6: must be between 1 and 4096, not -3",
                          "lora.scaling:7: must be a finite number, not \"abc\"",
                          "batch_sise:8: unknown key; did you mean batch_size?",
                          "optim:9: must be a section of keys, not a list",
                          "mftd.device:10: must be one of auto, cuda, cpu, not \"gpu\""));
}

TEST(ParseJobYaml, NamesMissingRequiredKeysAfterTheOthers) {
  EXPECT_THAT(
      Problems(ParseJobYaml("seq_len: x\n")),
      ElementsAre("seq_len:1: must be an integer, not \"x\"",
                  "model_id_or_path:0: is required",
                  "run_dir:0: is required",
                  "data.instruct_data:0: no training data: set data.instruct_data or data.data"));
  EXPECT_THAT(Problems(ParseJobYaml("")).size(), 3);
}

TEST(ParseJobYaml, SuggestsTheKeyThatIsMeant) {
  EXPECT_THAT(ProblemsOf("lora: {rnk: 8}\n"),
              ElementsAre("lora.rnk:4: unknown key in section lora; did you mean lora.rank?"));
  EXPECT_THAT(ProblemsOf("lr: 1e-4\n"), ElementsAre("lr:4: unknown key; did you mean optim.lr?"));
  EXPECT_THAT(ProblemsOf("lora.alpha: 16\n"),
              ElementsAre("lora.alpha:4: unknown key in section lora"));
  EXPECT_THAT(ProblemsOf("wandbb.project: x\n"),
              ElementsAre("wandbb.project:4: unknown key; did you mean wandb?"));
  EXPECT_THAT(ProblemsOf("seq_len.x: 1\n"),
              ElementsAre("seq_len.x:4: unknown key: seq_len has no keys below it"));
}

TEST(ParseJobYaml, ReadsDottedKeysAsNestedOnes) {
  const JobSpecResult result =
      Parse("wandb.project: p\nwandb:\n  offline: yes\nmftd.labels.team: nlp\noptim.lr: 2e-5\n");
  ASSERT_THAT(Problems(result), IsEmpty());
  EXPECT_EQ(result.spec.wandb.project, "p");
  EXPECT_TRUE(result.spec.wandb.offline);
  EXPECT_EQ(result.spec.mftd.labels.at("team"), "nlp");
  EXPECT_EQ(result.spec.optim.lr, 2e-5);
}

TEST(ParseJobYaml, RefusesAKeyGivenTwice) {
  EXPECT_THAT(ProblemsOf("seed: 1\nseed: 2\n"),
              ElementsAre("seed:5: is given twice (first in line 4)"));
  EXPECT_THAT(ProblemsOf("lora: {rank: 8}\nlora.rank: 8\n"),
              ElementsAre("lora.rank:5: is given twice (first in line 4)"));
  EXPECT_THAT(ProblemsOf("mftd: {labels: {a: x, a: y}}\n"),
              ElementsAre("mftd.labels.a:4: is given twice (first in line 4)"));
}

struct NumberCase {
  const char* text;
  const char* problem;  // "" if it is accepted
  int64_t value;
};

class Integers : public ::testing::TestWithParam<NumberCase> {};

TEST_P(Integers, AreReadOrRefused) {
  const JobSpecResult result = Parse(std::string("seed: ") + GetParam().text + "\n");
  if (*GetParam().problem == '\0') {
    ASSERT_THAT(Problems(result), IsEmpty());
    EXPECT_EQ(result.spec.seed, GetParam().value);
  } else {
    EXPECT_THAT(Problems(result), ElementsAre(std::string("seed:4: ") + GetParam().problem));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Forms,
    Integers,
    ::testing::Values(
        NumberCase{"10", "", 10},
        NumberCase{"\"10\"", "", 10},
        NumberCase{"+7", "", 7},
        NumberCase{"1_000", "", 1000},
        NumberCase{"12.0", "", 12},
        NumberCase{"1e3", "", 1000},
        NumberCase{"!!int 5", "", 5},
        NumberCase{"9223372036854775807", "", INT64_MAX},
        NumberCase{"12.7", "must be an integer, not \"12.7\"", 0},
        NumberCase{"9223372036854775808",
                   "must be an integer of at most 64 bits, not \"9223372036854775808\"",
                   0},
        NumberCase{"1e300", "must be an integer, not \"1e300\"", 0},
        NumberCase{"abc", "must be an integer, not \"abc\"", 0},
        NumberCase{"0x10", "must be an integer, not \"0x10\"", 0},
        NumberCase{"\"\"", "must be an integer, not \"\"", 0},
        NumberCase{".nan", "must be an integer, not \".nan\"", 0},
        NumberCase{"nan", "must be an integer, not \"nan\"", 0},
        NumberCase{
            "010",
            "must be an integer without leading zeros (YAML 1.1 reads them as octal), not \"010\"",
            0},
        NumberCase{"[1]", "must be an integer, not a list", 0},
        NumberCase{"{a: 1}", "must be an integer, not a section", 0},
        NumberCase{"true", "must be an integer, not \"true\"", 0},
        NumberCase{"-1", "must be at least 0, not -1", 0},
        NumberCase{"", "has no value; leave the key out for its default (0)", 0},
        NumberCase{"~", "has no value; leave the key out for its default (0)", 0}));

TEST(ParseJobYaml, ReadsNumbersAsMistralFinetuneDoes) {
  for (const char* text : {"6e-5", "6.e-5", "\"6e-5\"", "0.00006", "+6E-5", "6_0.0e-6"}) {
    const JobSpecResult result = Parse(std::string("optim: {lr: ") + text + "}\n");
    ASSERT_THAT(Problems(result), IsEmpty()) << text;
    EXPECT_EQ(result.spec.optim.lr, 6e-5) << text;
  }
  for (const char* text : {".inf", "inf", "-.inf", ".nan", "nan", "1e999", "0x1p3", "1,5", "[]"}) {
    EXPECT_THAT(ProblemsOf(std::string("optim: {lr: ") + text + "}\n").size(), 1) << text;
  }
  EXPECT_THAT(ProblemsOf("max_norm: 0\n"),
              ElementsAre("max_norm:4: must be greater than 0, not 0"));
  EXPECT_THAT(ProblemsOf("optim.pct_start: 1.5\n"),
              ElementsAre("optim.pct_start:4: must be between 0 and 1, not 1.5"));
}

TEST(ParseJobYaml, ReadsBoolsInEveryCustomaryForm) {
  for (const char* text : {"true", "True", "TRUE", "yes", "on", "\"true\"", "1", "y"}) {
    EXPECT_TRUE(Parse(std::string("no_ckpt: ") + text + "\n").spec.no_ckpt) << text;
  }
  for (const char* text : {"false", "No", "off", "'no'", "0"}) {
    EXPECT_FALSE(Parse(std::string("save_adapters: ") + text + "\n").spec.save_adapters) << text;
  }
  EXPECT_THAT(ProblemsOf("no_ckpt: maybe\n"),
              ElementsAre("no_ckpt:4: must be true or false, not \"maybe\""));
}

TEST(ParseJobYaml, TakesNullForNoneWhereThatMeansSomething) {
  const JobSpecResult result = Parse(
      "num_ckpt_keep: null\nworld_size:\nwandb: {project: null, run_name: ~}\noptim:\nmlflow: "
      "null\n"
      "mftd: {time_limit: null, threads: null, resume_from: null, labels: null}\n");
  ASSERT_THAT(Problems(result), IsEmpty());
  EXPECT_EQ(result.spec.num_ckpt_keep, 0);
  EXPECT_EQ(result.spec.wandb.project, "");
  EXPECT_EQ(result.spec.optim.weight_decay, 0.1);
  EXPECT_THAT(ProblemsOf("lora: null\n"),
              ElementsAre(HasSubstr("lora:4: is null; leave the section out")));
  EXPECT_THAT(ProblemsOf("mftd: {device: null}\n"),
              ElementsAre("mftd.device:4: has no value; leave the key out for its default (auto)"));
}

TEST(ParseJobYaml, ReadsAnEmptyDataKeyAsNoSourceNotAsThePathNone) {
  const JobSpecResult result = Parse("data.data:\n");
  EXPECT_THAT(Problems(result), IsEmpty());
  EXPECT_EQ(result.spec.data.data, "");
}

TEST(ParseJobYaml, TakesTheWandbKeyOutWithAWarningThatDoesNotShowIt) {
  const JobSpecResult result = Parse("wandb: {project: p, key: s3cret}\n");
  ASSERT_THAT(Problems(result), IsEmpty());
  EXPECT_EQ(result.wandb_key, "s3cret");
  ASSERT_EQ(result.warnings.size(), 1U);
  EXPECT_THAT(result.warnings[0], HasSubstr("wandb.key"));
  EXPECT_EQ(JobSpecToJson(result.spec).dump().find("s3cret"), std::string::npos);
  EXPECT_EQ(Parse("wandb.key: s3cret\n").wandb_key, "s3cret");
  EXPECT_THAT(Parse("wandb.key: ''\n").warnings, IsEmpty());
  EXPECT_THAT(ProblemsOf("wandb: {key: [s3cret]}\n"), ElementsAre("wandb.key:4: must be text"));
}

TEST(ParseJobYaml, ReadsListsAndLabels) {
  const JobSpecResult result =
      Parse("mftd:\n  target_modules: [wq, wv]\n  labels: {team: nlp, app.io/run: 7}\n");
  ASSERT_THAT(Problems(result), IsEmpty());
  EXPECT_THAT(result.spec.mftd.target_modules, ElementsAre("wq", "wv"));
  EXPECT_EQ(result.spec.mftd.labels.at("app.io/run"), "7");
  EXPECT_THAT(ProblemsOf("mftd.target_modules: [wq, wz]\n"), ElementsAre(HasSubstr("not \"wz\"")));
  EXPECT_THAT(ProblemsOf("mftd.target_modules: [wq, wq]\n"),
              ElementsAre(HasSubstr("names \"wq\" twice")));
  EXPECT_THAT(ProblemsOf("mftd.target_modules: []\n"),
              ElementsAre(HasSubstr("must name at least one")));
  EXPECT_THAT(ProblemsOf("mftd.target_modules: wq\n"),
              ElementsAre("mftd.target_modules:4: must be a list such as [wq, wk], not \"wq\""));
}

TEST(ParseJobYaml, AcceptsAChoiceInAnotherCase) {
  EXPECT_EQ(Parse("mftd: {deterministic: True}\n").spec.mftd.deterministic, "true");
  EXPECT_EQ(Parse("mftd: {precision: BF16}\n").spec.mftd.precision, "bf16");
}

TEST(ParseJobYaml, FollowsAnchors) {
  const JobSpecResult result = Parse("seed: &s 7\nmax_steps: *s\n");
  ASSERT_THAT(Problems(result), IsEmpty());
  EXPECT_EQ(result.spec.max_steps, 7);
}

TEST(Overrides, ReplaceTheFilesValueAndTheLastOneWins) {
  const JobSpecResult result = Parse("lora.rank: bad\n",
                                     {"lora.rank=8",
                                      "lora.rank=4",
                                      "mftd.target_modules=[wq]",
                                      "optim={lr: 1e-3}",
                                      "run_dir=/r/a: b #c",
                                      "mftd.labels.x=1",
                                      "mftd.name=null"});
  ASSERT_THAT(Problems(result), IsEmpty());
  EXPECT_EQ(result.spec.lora.rank, 4);
  EXPECT_THAT(result.spec.mftd.target_modules, ElementsAre("wq"));
  EXPECT_EQ(result.spec.optim.lr, 1e-3);
  EXPECT_EQ(result.spec.run_dir, "/r/a: b #c");
  EXPECT_EQ(result.spec.mftd.labels.at("x"), "1");
  EXPECT_EQ(result.spec.mftd.name, "");
}

TEST(Overrides, AreCheckedLikeTheFile) {
  EXPECT_THAT(ProblemsOf("", {"lora.rnk=8", "seed", "=1", "seq_len=0"}),
              ElementsAre("--set:0: expected KEY=VALUE, not \"seed\"",
                          "--set:0: expected KEY=VALUE, not \"=1\"",
                          "seq_len:0: must be between 1 and 128000, not 0",
                          "lora.rnk:0: unknown key in section lora; did you mean lora.rank?"));
}

TEST(FormatViolations, PointsIntoTheFile) {
  EXPECT_EQ(
      FormatViolations(Parse("seq_len: 0\nfoo: 1\n").violations, "job.yaml"),
      "job.yaml:4: seq_len: must be between 1 and 128000, not 0\njob.yaml:5: foo: unknown key\n");
  EXPECT_EQ(FormatViolations(ParseJobYaml("- 1\n").violations, "j"),
            "j:1: a job file is a section of keys, not a list\n");
}

}  // namespace
}  // namespace mft
