// SPDX-License-Identifier: Apache-2.0
#include "common/config/spec_validate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/job_file.h"
#include "tests/common/config/config_testing.h"

namespace mft {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Parse;
using testing::Problems;
using testing::ProblemsOf;

TEST(ValidateSpec, RefusesDynamicChunkingOfUnshuffledData) {
  EXPECT_THAT(ProblemsOf("data.instruct.shuffle: false\n"),
              ElementsAre(AllOf(HasSubstr("data.instruct.shuffle:4: Make sure to either enable"),
                                HasSubstr("`data.instruct.dynamic_chunk_fn_call=False`"))));
  EXPECT_THAT(ProblemsOf("data.instruct: {shuffle: false, dynamic_chunk_fn_call: false}\n"),
              IsEmpty());
}

TEST(ValidateSpec, WantsEvaluationDataWhenItEvaluates) {
  EXPECT_THAT(ProblemsOf("no_eval: false\n"),
              ElementsAre(HasSubstr("no_eval:4: Either set `no_eval` to True")));
  EXPECT_THAT(ProblemsOf("no_eval: false\ndata.eval_instruct_data: a.jsonl\n"), IsEmpty());
}

TEST(ValidateSpec, ChecksTheSourceLists) {
  EXPECT_THAT(
      ProblemsOf("data.data: 'b.jsonl:0'\n"),
      ElementsAre(
          "data.data:4: Make sure to define strictly positive data sampling weights, not 0"));
  EXPECT_THAT(ProblemsOf("data.data: 'b.jsonl, a.jsonl:2'\n"),
              ElementsAre(HasSubstr("a.jsonl seems to be duplicated (also in data.data)")));
  EXPECT_THAT(Problems(ParseJobYaml("model_id_or_path: m\nrun_dir: r\ndata: {data: ' , '}\n")),
              ElementsAre(HasSubstr("no training data")));
}

TEST(ValidateSpec, StaysSilentAboutWhatFollowsFromAnotherViolation) {
  EXPECT_THAT(ProblemsOf("no_eval: false\ndata.eval_instruct_data: [x]\n"),
              ElementsAre("data.eval_instruct_data:5: must be text, not a list"));
  EXPECT_THAT(
      ProblemsOf("data.instruct: {shuffle: false, dynamic_chunk_fn_call: perhaps}\n").size(), 1);
}

TEST(ValidateSpec, AFullFineTuningHasNoAdapter) {
  const std::string full = "lora.enable: false\nsave_adapters: false\n";
  EXPECT_THAT(ProblemsOf(full), IsEmpty());
  EXPECT_THAT(ProblemsOf(full + "mftd.export: [mistral, merged, hf]\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf("lora.enable: false\n"),
              ElementsAre(HasSubstr("save_adapters:0: must be false when lora.enable is false")));
  EXPECT_THAT(ProblemsOf(full + "mftd.init_adapter: a\n"),
              ElementsAre(HasSubstr("mftd.init_adapter:6: must be empty")));
  EXPECT_THAT(ProblemsOf(full + "mftd.export: [peft]\n"),
              ElementsAre(HasSubstr("mftd.export:6: \"peft\" is an adapter")));
  EXPECT_THAT(ProblemsOf(full + "no_ckpt: true\nmftd.export: [hf]\n"),
              ElementsAre(HasSubstr("mftd.export:7: \"hf\" of a full fine-tuning")));
}

TEST(ValidateSpec, WhatIsChosenByEvaluationNeedsOne) {
  const std::string eval = "no_eval: false\ndata.eval_instruct_data: e\n";
  EXPECT_THAT(ProblemsOf(eval + "mftd: {keep_best: true, early_stop: {patience: 2}}\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf("mftd: {keep_best: true, early_stop: {patience: 2}}\n"),
              ElementsAre(HasSubstr("mftd.keep_best:4: needs evaluations"),
                          HasSubstr("mftd.early_stop.patience:4: needs evaluations")));
  EXPECT_THAT(ProblemsOf(eval + "no_ckpt: true\nmftd.keep_best: true\n"),
              ElementsAre(HasSubstr("mftd.keep_best:7: needs checkpoints")));
  EXPECT_THAT(ProblemsOf(eval + "mftd.early_stop.min_delta: 0.1\n"),
              ElementsAre(HasSubstr("mftd.early_stop.min_delta:6: does nothing without")));
  EXPECT_THAT(ProblemsOf(eval + "mftd.seeds: [3, 0]\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf(eval + "mftd.seeds: [3, 3]\n"),
              ElementsAre(HasSubstr("mftd.seeds:6: names 3 twice")));
  EXPECT_THAT(ProblemsOf(eval + "mftd.seeds: 3\n"), ElementsAre(HasSubstr("a list such as")));
  EXPECT_THAT(ProblemsOf(eval + "mftd.seeds: [-1]\n").size(), 1);
  EXPECT_THAT(ProblemsOf("no_ckpt: true\nmftd: {seeds: [1], resume_from: x}\n").size(), 3);
  EXPECT_THAT(ProblemsOf(eval + "mftd.early_stop: {patience: -1, min_delta: -1}\n").size(), 2);
}

TEST(ValidateSpec, WantsFrozenWeightsForAnFp8Base) {
  EXPECT_THAT(ProblemsOf("mftd: {precision: fp8, device: cuda}\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf("mftd.precision: fp8\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf("lora.enable: false\nsave_adapters: false\nmftd.precision: fp8\n"),
              ElementsAre(HasSubstr("without `lora.enable` none is; use bf16")));
  EXPECT_THAT(ProblemsOf("mftd: {precision: fp8, device: cpu}\n"),
              ElementsAre(HasSubstr("needs a CUDA device")));
}

TEST(ValidateSpec, AcceptsWhatTheTrainerHandles) {
  EXPECT_THAT(ProblemsOf("lora.dropout: 0.1\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf("mftd.export: [mistral, peft, merged, hf]\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf("max_steps: 20\noptim.pct_start: 0.05\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf("max_steps: 1\noptim.pct_start: 1\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf("mftd: {target_modules: [wq], init_adapter: /a, ranks: 8}\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf("mftd: {device: cpu, ranks: 2}\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf("mftd.resume_from: /c\n"), IsEmpty());
  EXPECT_THAT(ProblemsOf("mftd: {resume_from: /c, init_adapter: /a}\n"),
              ElementsAre(HasSubstr("cannot be combined")));
}

TEST(ValidateSpec, SaysWhatIsMissingForATrackerAndWhatMerges) {
  const auto both =
      Parse("wandb.project: p\nmlflow: {tracking_uri: http://x, experiment_name: e}\n");
  EXPECT_THAT(both.warnings, IsEmpty());
  EXPECT_THAT(TrackersOf(both.spec), ElementsAre("wandb", "mlflow"));
  EXPECT_THAT(TrackersOf(Parse("wandb.project: ''\n").spec), IsEmpty());
  EXPECT_THAT(ProblemsOf("mlflow.tracking_uri: http://x\n"),
              ElementsAre(HasSubstr("`mlflow.experiment_name` must be set as well")));
  EXPECT_THAT(Parse("save_adapters: false\n").warnings,
              ElementsAre(HasSubstr("You have disabled `save_adapters`")));
}

TEST(CheckDevice, AppliesOnceAutoIsResolved) {
  JobSpec spec = Parse("mftd.ranks: 2\n").spec;
  EXPECT_THAT(CheckDevice(spec, "cpu"), IsEmpty());
  spec.mftd.precision = "fp8";
  EXPECT_THAT(CheckDevice(spec, "cuda"), IsEmpty());
  ASSERT_EQ(CheckDevice(spec, "cpu").size(), 1U);
  EXPECT_EQ(CheckDevice(spec, "cpu")[0].path, "mftd.precision");
}

}  // namespace
}  // namespace mft
