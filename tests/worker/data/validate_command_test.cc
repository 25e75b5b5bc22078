// SPDX-License-Identifier: Apache-2.0
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "common/config/job_file.h"
#include "tests/worker/data/prepare_fixture.h"
#include "tests/worker/data/run_mft_data.h"

namespace mft {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using testing::Fixture;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::ProgramResult;
using testing::ReadJsonLines;

constexpr std::string_view kGood =
    R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})";
constexpr std::string_view kToolChat =
    R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},)"
    R"( {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}], "tools":)"
    R"( [{"function": {"name": "f", "description": "", "parameters": {}}}]})";

class Validate : public testing::PrepareFixture {
 protected:
  Validate() {
    spec_.data.instruct = {.shuffle = true, .dynamic_chunk_fn_call = true};
    spec_.batch_size = 2;
    spec_.max_steps = 10;
  }

  // Validates spec_, written as the daemon writes a job.
  ProgramResult Run(std::vector<std::string> more = {}) {
    const std::string job = dir_.File("job.json");
    EXPECT_TRUE(WriteJobFile(job, {.job_id = "j", .spec = spec_}).ok());
    more.insert(more.begin(), {"validate", "--config", job});
    return testing::RunMftData(more);
  }
  Json RunJson(std::vector<std::string> more = {}) {
    more.insert(more.end(), {"-o", "json"});
    return Json::parse(Run(more).out);
  }
};

TEST_F(Validate, CountsWhatTrainingWouldSee) {
  AddTokenizer();
  spec_.data.data = dir_.Write("text.jsonl", "{\"text\": \"Hallo\"}\n{\"text\": \"\"}\n");
  spec_.data.instruct_data = dir_.Write("chat.jsonl", StrCat(kGood, "\n", kToolChat, "\n")) + ":3";
  spec_.data.eval_instruct_data = dir_.Write("eval.jsonl", StrCat(kGood, "\n"));
  const ProgramResult text = Run();
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, EndsWith("no problems\n"));
  EXPECT_THAT(text.out,
              AllOf(HasSubstr(StrCat(" epochs of ", dir_.File("text.jsonl"), ", weight 1\n")),
                    HasSubstr(StrCat(" epochs of ", dir_.File("chat.jsonl"), ", weight 3\n")),
                    Not(HasSubstr(StrCat(" epochs of ", dir_.File("eval.jsonl"))))));
  const Json report = RunJson();
  EXPECT_EQ(report["num_problems"], 0);
  EXPECT_EQ(report["problems"], Json::array());
  ASSERT_EQ(report["sources"].size(), 3u);
  const Json& chat = report["sources"][1];
  EXPECT_EQ(chat["samples"], 2);
  EXPECT_EQ(chat["chunked_samples"], 1);
  EXPECT_EQ(chat["weight"], 3.0);
  EXPECT_EQ(chat["duplicates"], 0);
  ASSERT_EQ(chat["length_histogram"].size(), 4u);  // 6 tokens, 39, and 34 of the chunk
  EXPECT_EQ(chat["length_histogram"][0].dump(), R"({"min_tokens":5,"max_tokens":8,"samples":1})");
  EXPECT_EQ(chat["length_histogram"][3].dump(), R"({"min_tokens":33,"max_tokens":64,"samples":2})");
  EXPECT_THAT(text.out, HasSubstr("  tokens     samples\n            5-8           1  ####"));
  EXPECT_EQ(chat["loss_tokens"], 2 * 3);  // "b" EOS, "d" EOS, and the chunk's "b" EOS
  EXPECT_EQ(report["sources"][2]["tokens"], 6);
  // The cache that training reads has the same counts.
  spec_.no_eval = false;
  const auto prepared = Prepare();
  ASSERT_TRUE(prepared.ok()) << prepared.status().ToString();
  EXPECT_EQ(prepared->tokens,
            report["sources"][0]["tokens"].get<int64_t>() + chat["tokens"].get<int64_t>());
  EXPECT_DOUBLE_EQ(prepared->steps_per_epoch, report["expected"]["steps_per_epoch"].get<double>());
  EXPECT_DOUBLE_EQ(prepared->epochs, report["expected"]["epochs"].get<double>());
}

TEST_F(Validate, TellsWhichDeviceItsTimeIsFor) {
  AddTokenizer();
  spec_.data.instruct_data = dir_.Write("chat.jsonl", StrCat(kGood, "\n"));
  spec_.mftd.threads = 3;
  const auto expected = [&](const std::string& device) {
    spec_.mftd.device = device;
    return RunJson()["expected"];
  };
  const Json cpu = expected("cpu");
  EXPECT_GT(cpu["seconds"].get<double>(), 0);
  EXPECT_EQ(cpu["seconds_device"], "cpu");
  EXPECT_THAT(Run().out,
              AllOf(HasSubstr(" on 3 threads of this machine's CPU, without evaluation\n"),
                    Not(HasSubstr("GPU"))));
  EXPECT_EQ(expected("auto")["seconds"], cpu["seconds"]);
  EXPECT_THAT(Run().out,
              HasSubstr("CPU, without evaluation; how long a GPU takes is known once it has made a "
                        "few steps\n"));
  const Json cuda = expected("cuda");
  EXPECT_TRUE(cuda["seconds"].is_null());
  EXPECT_TRUE(cuda["seconds_device"].is_null());
  EXPECT_THAT(Run().out,
              AllOf(HasSubstr("; how long a GPU takes is known once it has made a few steps\n"),
                    Not(HasSubstr("CPU"))));
  spec_.mftd.ranks = 2;  // which the CPU does not do
  EXPECT_TRUE(expected("auto")["seconds"].is_null());
}

TEST_F(Validate, ReportsEveryProblemOfEveryFile) {
  AddTokenizer();
  dir_.Write("dir/b.jsonl", StrCat(kGood, "\n[]\n"));
  dir_.Write("dir/a.jsonl", StrCat("{not json\n", kGood, "\n\n"));
  spec_.data.data = dir_.Write("text.jsonl", "{\"text\": 7}\n");
  spec_.data.instruct_data = dir_.File("dir") + "," + dir_.File("missing.jsonl");
  const ProgramResult result = Run();
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.out,
              AllOf(HasSubstr(StrCat("missing.jsonl does not exist")),
                    HasSubstr(dir_.File("text.jsonl:1: AssertionError: ")),
                    HasSubstr(dir_.File("dir/a.jsonl:1: JSONDecodeError: ")),
                    HasSubstr(dir_.File("dir/a.jsonl:3: JSONDecodeError: blank line")),
                    HasSubstr(dir_.File("dir/b.jsonl:2: JSONDecodeError: ")),
                    EndsWith("5 problems\n")));
  const Json report = RunJson();
  EXPECT_EQ(report["num_problems"], 5);
  ASSERT_EQ(report["problems"].size(), 5u);
  EXPECT_EQ(report["problems"][1]["file"], dir_.File("text.jsonl"));
  EXPECT_EQ(report["problems"][1]["line"], 1);
  EXPECT_EQ(report["problems"][1]["class"], "AssertionError");
}

// The daemon's VALIDATING is PrepareData.
TEST_F(Validate, PreparationReportsTheSame) {
  AddTokenizer();
  spec_.no_eval = false;
  spec_.seq_len = 4;
  spec_.data.data = dir_.Write("text.jsonl", "{\"text\": 7}\n{\"text\": \"one two three four\"}\n");
  spec_.data.instruct_data = dir_.Write(
      "a.jsonl",
      StrCat(R"({"system_prompt": "S", "messages": [{"role": "assistant", "content": "a"}, )",
             R"({"role": "assistant", "content": "b"}]})",
             "\n[]\n",
             kGood,
             "\n\xFF"));
  spec_.data.eval_instruct_data = dir_.Write("eval.jsonl", "{}\n");
  EXPECT_EQ(Prepare().status().reason(), "VALIDATION_FAILED");
  std::vector<std::string> told[2];
  const Json report = RunJson();
  for (const Json& problem : report["problems"]) {
    const bool warning = problem["severity"] == "warning";
    const int64_t line = problem["line"];
    told[warning ? 1 : 0].push_back(
        StrCat(problem["file"].get<std::string>(),
               line > 0 ? StrCat(":", line) : "",
               ": ",
               warning ? "" : problem["class"].get<std::string>() + ": ",
               problem["message"].get<std::string>()));
  }
  EXPECT_EQ(observer_.problems, told[0]);
  EXPECT_EQ(observer_.warnings, told[1]);
  EXPECT_EQ(told[0].size(), 4u);
  EXPECT_EQ(told[1].size(), 3u);
}

TEST_F(Validate, OverridesChangeTheJobFile) {
  const std::string data = dir_.Write("a.jsonl", StrCat(kGood, "\n", kGood, "\n"));
  const std::string yaml = dir_.Write("job.yaml",
                                      StrCat("model_id_or_path: ",
                                             spec_.model_id_or_path,
                                             "\nrun_dir: ",
                                             spec_.run_dir,
                                             "\ndata: {instruct_data: ",
                                             dir_.File("none.jsonl"),
                                             "}\nmax_steps: 1\n"));
  EXPECT_EQ(testing::RunMftData({"validate", "--config", yaml}).exit_code, 3);
  const ProgramResult changed = testing::RunMftData(
      {"validate", "--config", yaml, "--set", "data.instruct_data=" + data, "--set", "seq_len=9"});
  EXPECT_EQ(changed.exit_code, 0) << changed.out << changed.err;
  EXPECT_THAT(changed.out, HasSubstr("1 line repeats an earlier one, the first is " + data + ":2"));
  EXPECT_EQ(testing::RunMftData({"validate", data, "--set", "seq_len=9"}).exit_code, 2);
  const ProgramResult bad =
      testing::RunMftData({"validate", "--config", yaml, "--set", "seqlen=9"});
  EXPECT_EQ(bad.exit_code, 3);
  EXPECT_THAT(bad.err, HasSubstr("seqlen"));
}

TEST_F(Validate, EveryInvalidFixtureIsReportedWithItsLine) {
  std::string lines;
  std::vector<std::string> classes;
  for (const char* file : {"data/invalid.jsonl", "data/extended/invalid.jsonl"}) {
    for (const Json& line : ReadJsonLines(Fixture(file))) {
      if (line["kind"] == "instruct") {
        lines += line["sample"].dump() + "\n";
        classes.push_back(line.contains("accepted") ? "" : line["error"].get<std::string>());
      }
    }
  }
  spec_.data.instruct_data = dir_.Write("a.jsonl", lines);
  std::map<int, std::string> found;
  const Json report = RunJson();
  for (const Json& problem : report["problems"]) {
    if (problem["severity"] == "error") {
      found[problem["line"].get<int>()] = problem["class"];
    }
  }
  for (size_t i = 0; i < classes.size(); ++i) {
    EXPECT_EQ(found[static_cast<int>(i) + 1], classes[i]) << i + 1;
  }
}

TEST_F(Validate, CreateCorrectedKeepsTheGoodLinesAsTheyAre) {
  const std::string odd = "  " + std::string(kGood) + " ";
  const std::string bad = dir_.Write("bad.jsonl", StrCat("[]\n", odd, "\r\n\n", kGood, "\n{"));
  const std::string clean = dir_.Write("clean.jsonl", StrCat(kGood, "\n"));
  const ProgramResult result = testing::RunMftData({"validate", "--create-corrected", bad, clean});
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THAT(result.out, HasSubstr(StrCat("wrote ", bad, ".corrected\n")));
  EXPECT_EQ(ReadFile(bad + ".corrected").value(), StrCat(odd, "\n", kGood, "\n"));
  EXPECT_FALSE(PathExists(clean + ".corrected"));
  EXPECT_EQ(testing::RunMftData({"validate", bad + ".corrected"}).exit_code, 0);
}

TEST_F(Validate, WithoutTheModelTheDataIsStillChecked) {
  const std::string data = dir_.Write("a.jsonl", StrCat(kGood, "\n"));
  spec_.data.instruct_data = data;
  spec_.model_id_or_path = dir_.File("elsewhere");
  const ProgramResult result = Run();
  EXPECT_EQ(result.exit_code, 0) << result.out;
  EXPECT_THAT(result.out, AllOf(HasSubstr("tokens are not counted"), HasSubstr("elsewhere")));
  const ProgramResult counted =
      Run({"--tokenizer", testing::TokenizerFile("mistral_instruct_tokenizer_240323.model.v3")});
  EXPECT_THAT(counted.out, AllOf(HasSubstr("6 tokens"), Not(HasSubstr("not counted"))));
  dir_.Write("a.jsonl", "[]\n");
  EXPECT_EQ(Run().exit_code, 3);
}

TEST_F(Validate, SaysWhatCannotBeTrained) {
  AddTokenizer();
  spec_.data.instruct_data = dir_.Write(
      "a.jsonl",
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0}]})");
  const ProgramResult nothing = Run();
  EXPECT_EQ(nothing.exit_code, 3);
  EXPECT_THAT(nothing.out, HasSubstr("NO_TRAINABLE_TOKENS"));
  spec_.data.instruct_data = dir_.Write(
      "b.jsonl",
      R"({"system_prompt": "S", "messages": [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]})");
  spec_.seq_len = 3;
  const ProgramResult lost = Run();
  EXPECT_EQ(lost.exit_code, 0) << lost.out;
  EXPECT_THAT(lost.out,
              AllOf(HasSubstr("b.jsonl:1: warning: the system prompt is left out"),
                    HasSubstr("1 of 1 sample is longer than seq_len 3")));
}

TEST_F(Validate, WrongUseAndBadJobsHaveTheirExitCodes) {
  EXPECT_EQ(testing::RunMftData({"validate"}).exit_code, 2);
  EXPECT_EQ(testing::RunMftData({"validate", "--config", "a", "b"}).exit_code, 2);
  EXPECT_EQ(testing::RunMftData({"validate", "-o", "xml", "b"}).exit_code, 2);
  EXPECT_EQ(testing::RunMftData({"validate", "--config", dir_.File("none.yaml")}).exit_code, 5);
  const std::string yaml = dir_.Write("job.yaml", "sequence_len: 7\n");
  const ProgramResult unknown = testing::RunMftData({"validate", "--config", yaml});
  EXPECT_EQ(unknown.exit_code, 3);
  EXPECT_THAT(unknown.err, HasSubstr("job.yaml:1: sequence_len"));
  const Json error =
      Json::parse(testing::RunMftData({"validate", "--config", yaml, "-o", "json"}).out);
  EXPECT_EQ(error["error"]["code"], "INVALID_ARGUMENT");
  const ProgramResult missing = testing::RunMftData({"validate", dir_.File("none.jsonl")});
  EXPECT_EQ(missing.exit_code, 3);
  EXPECT_THAT(missing.out, HasSubstr("none.jsonl"));
}

}  // namespace
}  // namespace mft
