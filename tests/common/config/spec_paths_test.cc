// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "tests/common/config/config_testing.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::TempDir;

std::vector<std::string> Keys(const std::vector<Violation>& violations) {
  std::vector<std::string> keys;
  for (const Violation& violation : violations) {
    keys.push_back(violation.path);
  }
  return keys;
}

TEST(MakePathsAbsolute, ResolvesEveryPathAndNamesTheJob) {
  JobSpec spec;
  spec.model_id_or_path = "models/./7B/";
  spec.run_dir = "../runs/bot";
  spec.data.data = "/abs/t.jsonl:2,rel.jsonl";
  spec.data.instruct_data = "'a,b.jsonl':3";
  spec.mftd.init_adapter = "lora.safetensors";
  ASSERT_TRUE(MakePathsAbsolute(spec, "/home/me/work").ok());
  EXPECT_EQ(spec.model_id_or_path, "/home/me/work/models/7B");
  EXPECT_EQ(spec.run_dir, "/home/me/runs/bot");
  EXPECT_EQ(spec.data.data, "/abs/t.jsonl:2,/home/me/work/rel.jsonl");
  EXPECT_EQ(spec.data.instruct_data, "\"/home/me/work/a,b.jsonl\":3");
  EXPECT_EQ(spec.data.eval_instruct_data, "");
  EXPECT_EQ(spec.mftd.init_adapter, "/home/me/work/lora.safetensors");
  EXPECT_EQ(spec.mftd.resume_from, "");
  EXPECT_EQ(spec.mftd.name, "bot");
}

TEST(CheckPaths, AcceptsWhatIsThere) {
  const TempDir dir;
  JobSpec spec;
  spec.model_id_or_path = dir.File("model");
  dir.Write("model/params.json", "{}");
  spec.run_dir = dir.File("runs/a/b");  // made by the attempt
  spec.data.instruct_data = dir.Write("d.jsonl", "{}") + ":2";
  EXPECT_THAT(CheckPaths(spec), IsEmpty());
}

TEST(CheckPaths, NamesEverythingThatIsNot) {
  const TempDir dir;
  JobSpec spec;
  spec.no_eval = false;
  spec.model_id_or_path = dir.File("model");
  spec.run_dir = dir.Write("file", "x") + "/run";
  spec.data.data = dir.File("t.jsonl");
  spec.data.instruct_data = dir.File("i.jsonl");
  spec.data.eval_instruct_data = dir.File("e.jsonl");
  spec.mftd.init_adapter = dir.File("a");
  const auto violations = CheckPaths(spec);
  EXPECT_THAT(Keys(violations),
              ::testing::ElementsAre("model_id_or_path",
                                     "data.data",
                                     "data.instruct_data",
                                     "data.eval_instruct_data",
                                     "mftd.init_adapter",
                                     "run_dir"));
  EXPECT_THAT(violations[0].message, HasSubstr(dir.File("model")));
  EXPECT_THAT(violations[5].message, HasSubstr("is not a directory"));
  ASSERT_TRUE(MakeDirs(dir.File("model")).ok());
  EXPECT_THAT(CheckPaths(spec)[0].message, HasSubstr("no params.json"));
}

}  // namespace
}  // namespace mft
