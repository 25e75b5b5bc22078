// SPDX-License-Identifier: Apache-2.0
#include "worker/data/reformat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/dataset/sample_parser.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/data/run_mft_data.h"

namespace mft::data {
namespace {

using mft::testing::Fixture;
using mft::testing::ReadJsonLines;
using mft::testing::RunMftData;
using mft::testing::TempDir;
using ::testing::HasSubstr;

Result<Reformatted> Convert(DataForm form, const std::string& line) {
  return Reformat(form, ParsePyJson(line).value().value, line);
}

Json Output(DataForm form, const std::string& line) {
  const auto result = Convert(form, line);
  return result.ok() ? Json::parse(DumpPyJson(result->sample)) : Json(result.status().message());
}

// Ids become gen000001, ... in order of appearance; a call that `wanted` gives no id has none.
void RenameIds(Json& sample, const Json& wanted) {
  std::map<std::string, std::string> names;
  const auto rename = [&](Json& id) {
    std::string& name = names[id.get<std::string>()];
    if (name.empty()) {
      name = StrCat("gen00000", names.size());
    }
    id = name;
  };
  for (size_t i = 0; sample.contains("messages") && i < sample["messages"].size(); ++i) {
    Json& message = sample["messages"][i];
    for (size_t j = 0; message.contains("tool_calls") && j < message["tool_calls"].size(); ++j) {
      Json& call = message["tool_calls"][j];
      if (wanted["messages"][i]["tool_calls"][j].contains("id")) {
        rename(call["id"]);
      } else {
        call.erase("id");
      }
    }
    if (message.contains("tool_call_id")) {
      rename(message["tool_call_id"]);
    }
  }
}

// Fixtures use ids such as "aaaaaaaaa" as well.
Json Renamed(Json sample) {
  const Json wanted = sample;
  RenameIds(sample, wanted);
  return sample;
}

bool Same(const Json& a, const Json& b) {
  return nlohmann::json::parse(a.dump()) == nlohmann::json::parse(b.dump());  // key order aside
}

struct Tally {
  int same = 0;
  int refused = 0;
  int better = 0;  // refused or broken by the reference, converted by us
};

Tally CompareWithReference(const char* file, DataForm form) {
  Tally tally;
  for (const Json& line : ReadJsonLines(Fixture(file))) {
    const std::string name = line["name"];
    const auto result = Convert(form, line["input"].dump());
    const Json& wanted = line.contains("want") ? line["want"] : line["output"];
    if (wanted.is_null() && !line.contains("error")) {
      EXPECT_FALSE(result.ok()) << name;
      ++tally.refused;
      continue;
    }
    if (line.contains("error")) {
      ++(result.ok() ? tally.better : tally.refused);
      if (result.ok()) {
        EXPECT_TRUE(ParseSample(SourceKind::kInstruct, DumpPyJson(result->sample)).ok()) << name;
      }
      continue;
    }
    EXPECT_TRUE(result.ok()) << name << ": " << result.status().message();
    if (result.ok()) {
      Json ours = Json::parse(DumpPyJson(result->sample));
      for (const Json& message : ours.value("messages", Json::array())) {
        for (const Json& call : message.value("tool_calls", Json::array())) {
          EXPECT_TRUE(CallIds::IsValid(call["id"].get<std::string>())) << name;
        }
      }
      RenameIds(ours, wanted);
      EXPECT_TRUE(Same(ours, Renamed(wanted))) << name << "\n" << ours << "\n" << wanted;
      ++tally.same;
    }
  }
  return tally;
}

TEST(Reformat, OpenAiIsTheReferencesWithItsMainBugMended) {
  const Tally tally =
      CompareWithReference("data/extended/utils/reformat_openai.jsonl", DataForm::kOpenAi);
  EXPECT_EQ(tally.same, 12);
  EXPECT_EQ(tally.refused, 6);
  EXPECT_EQ(tally.better, 2);  // a result without a name; null beside a call
}

TEST(Reformat, GlaiveIsTheReferencesWithJsonArguments) {
  const Tally tally =
      CompareWithReference("data/extended/utils/reformat_glaive.jsonl", DataForm::kGlaive);
  EXPECT_EQ(tally.same, 12);
  EXPECT_EQ(tally.refused, 5);
  EXPECT_EQ(tally.better, 0);
}

TEST(Reformat, OpenAisNewFormKeepsItsToolsAndGetsOurIds) {
  const Json out = Output(DataForm::kOpenAi, R"({"messages": [
      {"role": "developer", "content": "S"},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": null, "tool_calls": [
          {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
          {"id": "call_2", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
      {"role": "tool", "tool_call_id": "call_2", "content": "2"},
      {"role": "tool", "tool_call_id": "call_1", "content": "1"},
      {"role": "assistant", "content": "c"}],
      "tools": [{"type": "function", "function": {"name": "f"}}]})");
  ASSERT_TRUE(out.is_object()) << out;
  const Json& messages = out["messages"];
  EXPECT_EQ(messages[0]["role"], "system");
  EXPECT_EQ(messages[1]["content"], "ab");
  const std::string first = messages[2]["tool_calls"][0]["id"];
  const std::string second = messages[2]["tool_calls"][1]["id"];
  EXPECT_TRUE(CallIds::IsValid(first));
  EXPECT_NE(first, second);
  EXPECT_EQ(messages[3]["tool_call_id"], second);
  EXPECT_EQ(messages[4]["tool_call_id"], first);
  EXPECT_EQ(out["tools"][0]["function"]["parameters"], Json::object());
  EXPECT_TRUE(ParseSample(SourceKind::kInstruct, out.dump()).ok());
}

TEST(Reformat, ShareGptWithToolsAndASystemPrompt) {
  const Json out = Output(DataForm::kShareGpt, R"({"system": "S", "tools": "[{\"name\": \"f\"}]",
      "conversations": [{"from": "human", "value": "a"},
      {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"k\": 1}}"},
      {"from": "observation", "value": "r"}, {"from": "gpt", "value": "b"},
      {"from": "human", "value": "unanswered"}]})");
  ASSERT_TRUE(out.is_object()) << out;
  ASSERT_EQ(out["messages"].size(), 5U);
  EXPECT_EQ(out["messages"][0], Json({{"role", "system"}, {"content", "S"}}));
  EXPECT_EQ(out["messages"][2]["tool_calls"][0]["function"]["arguments"], R"({"k": 1})");
  EXPECT_EQ(out["messages"][3]["tool_call_id"], out["messages"][2]["tool_calls"][0]["id"]);
  EXPECT_EQ(out["tools"][0]["function"]["name"], "f");
  EXPECT_TRUE(ParseSample(SourceKind::kInstruct, out.dump()).ok());
}

// Answers of one round of calls are none of the next.
TEST(Reformat, EachRoundOfCallsHasItsOwnAnswers) {
  const auto chat = [](const std::string& second_round) {
    return R"({"tools": "[{\"name\": \"f\"}]", "conversations": [{"from": "human", "value": "a"},
      {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {}}"},
      {"from": "observation", "value": "r"}, {"from": "gpt", "value": "b"},
      {"from": "function_call", "value": "[{\"name\": \"f\", \"arguments\": {}}, )"
           R"({\"name\": \"f\", \"arguments\": {}}]"}, )" +
           second_round + R"({"from": "gpt", "value": "c"}]})";
  };
  const std::string answer = R"({"from": "observation", "value": "r"}, )";
  const Json none = Output(DataForm::kShareGpt, chat(""));
  ASSERT_TRUE(none.is_object()) << none;
  EXPECT_EQ(none["messages"].size(), 6U);
  const Json both = Output(DataForm::kShareGpt, chat(answer + answer));
  ASSERT_TRUE(both.is_object()) << both;
  EXPECT_EQ(both["messages"].size(), 8U);
  EXPECT_EQ(Output(DataForm::kShareGpt, chat(answer)),
            "conversations[6]: 1 more calls than responses before it");
  // A call that nobody answered is closed by what follows it.
  std::string late = chat("");
  late.insert(late.size() - 2, R"(, {"from": "observation", "value": "late"})");
  EXPECT_EQ(Output(DataForm::kShareGpt, late),
            "conversations[6]: a function response without a call before it");
}

// As json.dumps of the reference's script: UTF-16, in pairs from U+10000 on.
TEST(Reformat, ArgumentsOfOldCallsBecomeAscii) {
  const std::string line =
      R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null,
          "function_call": {"name": "f", "arguments": "{\"k\": \"\u007f\u0080\uffff)"
      "\xF0\x90\x80\x80\xF4\x8F\xBF\xBF"
      R"(\"}"}}], "functions": [{"name": "f"}]})";
  const Json out = Output(DataForm::kOpenAi, line);
  ASSERT_TRUE(out.is_object()) << out;
  EXPECT_EQ(out["messages"][1]["tool_calls"][0]["function"]["arguments"],
            "{\"k\": \"\x7F\\u0080\\uffff\\ud800\\udc00\\udbff\\udfff\"}");
}

TEST(Reformat, AlpacaAndPairs) {
  EXPECT_EQ(Output(DataForm::kAlpaca,
                   R"({"instruction": "i", "input": "x", "output": "o", "history": [["q", "a"]]})")
                ["messages"],
            Json::parse(R"([{"role":"user","content":"q"},{"role":"assistant","content":"a"},
                            {"role":"user","content":"i\n\nx"},{"role":"assistant","content":"o"}])"));
  EXPECT_EQ(Output(DataForm::kPrompt, R"({"prompt": "p", "completion": " c"})")["messages"],
            Json::parse(R"([{"role":"user","content":"p"},{"role":"assistant","content":"c"}])"));
  EXPECT_FALSE(Convert(DataForm::kAlpaca, R"({"instruction": "i", "output": ""})").ok());
  EXPECT_FALSE(Convert(DataForm::kPrompt, R"({"question": 5, "answer": "a"})").ok());
}

TEST(Reformat, IdsAreTheSameEachTimeAndDifferFromLineToLine) {
  CallIds a("line");
  CallIds b("line");
  CallIds c("other");
  const std::string first = a.Next();
  EXPECT_EQ(first, b.Next());
  EXPECT_NE(first, c.Next());
  EXPECT_NE(first, a.Next());
  EXPECT_EQ(a.For("call_1"), a.For("call_1"));
  EXPECT_EQ(a.For("abcDEF123"), "abcDEF123");
}

TEST(Reformat, FormsAreRecognisedByTheirKeys) {
  const auto form = [](const char* text) { return RecogniseForm(ParsePyJson(text).value().value); };
  EXPECT_EQ(form(R"({"messages": []})"), DataForm::kOpenAi);
  EXPECT_EQ(form(R"({"conversations": [], "function_description": ""})"), DataForm::kGlaive);
  EXPECT_EQ(form(R"({"conversations": []})"), DataForm::kShareGpt);
  EXPECT_EQ(form(R"({"instruction": "", "output": ""})"), DataForm::kAlpaca);
  EXPECT_EQ(form(R"({"question": "", "answer": ""})"), DataForm::kPrompt);
  EXPECT_EQ(form(R"({"text": ""})"), std::nullopt);
  EXPECT_EQ(form("[1]"), std::nullopt);
}
// A sample in our form, that training takes.
Json Trainable(DataForm form, const std::string& line) {
  const Json sample = Output(form, line);
  const auto parsed = ParseSample(SourceKind::kInstruct, sample.dump());
  EXPECT_TRUE(parsed.ok()) << line << "\n" << sample << "\n" << parsed.status().message();
  return sample;
}

std::string Chat(std::string_view middle, std::string_view more = "") {
  return StrCat(R"({"messages": [{"role": "user", "content": "a"}, )",
                middle,
                R"({"role": "assistant", "content": "b"}])",
                more,
                "}");
}

TEST(Reformat, ACallsArgumentsMayBeAnObjectOrMissing) {
  const auto arguments = [](std::string_view call) {
    const Json sample = Trainable(
        DataForm::kOpenAi,
        Chat(
            StrCat(R"({"role": "assistant", )", call, R"(}, {"role": "tool", "content": "r"}, )")));
    return sample["messages"][1]["tool_calls"][0]["function"]["arguments"];
  };
  EXPECT_EQ(arguments(R"("tool_calls": [{"function": {"name": "f", "arguments": {"k": 1.50}}}])"),
            R"({"k": 1.5})");
  EXPECT_EQ(arguments(R"("tool_calls": [{"function": {"name": "f"}}])"), "{}");
  EXPECT_EQ(arguments(R"("function_call": {"name": "f", "arguments": ""})"), "{}");
  EXPECT_EQ(arguments(R"("function_call": {"name": "f", "arguments": {"k": 1}})"), R"({"k": 1})");
}

TEST(Reformat, AToolMayAnswerNothing) {
  const Json sample = Trainable(
      DataForm::kOpenAi,
      Chat(R"({"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
              {"role": "tool", "tool_call_id": "c", "content": ""}, )"));
  EXPECT_EQ(sample["messages"][2]["content"], "");
}

TEST(Reformat, FunctionsMayLackWhatOpenAiDoesNotAskFor) {
  const Json sample =
      Trainable(DataForm::kOpenAi, Chat("", R"(, "functions": [{"name": "f", "strict": true}])"));
  EXPECT_EQ(sample["tools"][0]["function"]["parameters"], Json::object());
}

TEST(Reformat, ASystemPromptAtTheEndStays) {
  const std::string line = R"({"messages": [{"role": "user", "content": "a"},
      {"role": "assistant", "content": "b"}, {"role": "system", "content": "S"},
      {"role": "user", "content": "unanswered"}]})";
  const Json sample = Trainable(DataForm::kOpenAi, line);
  ASSERT_EQ(sample["messages"].size(), 3U);
  EXPECT_EQ(sample["messages"][2]["content"], "S");
}

TEST(Reformat, SystemPromptsOfPairsSurvive) {
  EXPECT_EQ(Trainable(DataForm::kPrompt,
                      R"({"system_prompt": "S", "question": "a", "response": "b"})")["messages"][0],
            Json({{"role", "system"}, {"content", "S"}}));
  EXPECT_EQ(RecogniseForm(ParsePyJson(R"({"question": "", "response": ""})").value().value),
            DataForm::kPrompt);
}

TEST(Reformat, PromptsMayBeListsOfMessages) {
  const Json sample = Trainable(DataForm::kPrompt, R"({"prompt": [{"role": "user", "content": "a"}],
      "completion": [{"role": "assistant", "content": null, "tool_calls":
          [{"id": "call_1", "function": {"name": "f", "arguments": {}}}]}],
      "tools": [{"type": "function", "function": {"name": "f"}}]})");
  EXPECT_TRUE(CallIds::IsValid(sample["messages"][1]["tool_calls"][0]["id"].get<std::string>()));
  EXPECT_EQ(sample["tools"][0]["function"]["name"], "f");
}

TEST(Reformat, ShareGptKeepsWeightsAndKnowsRoleAndContent) {
  const Json sample = Trainable(DataForm::kShareGpt, R"({"conversations": [
      {"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 0},
      {"from": "human", "value": "c"}, {"from": "gpt", "value": "d", "weight": 1}]})");
  EXPECT_EQ(sample["messages"][1]["weight"], 0);
  EXPECT_EQ(sample["messages"][3]["weight"], 1);
}

TEST(Reformat, AnUnknownSpeakerOfShareGptIsNoSmallThing) {
  const std::string line = R"({"conversations": [{"from": "human", "value": "a"},
      {"from": "critic", "value": "no"}, {"from": "gpt", "value": "b"}]})";
  EXPECT_EQ(Output(DataForm::kShareGpt, line),
            "conversations[1]: \"critic\" is no speaker of this form");
}

Json GlaiveCall(const std::string& value) {
  Json line = Json::parse(R"({"function_description": "{}", "conversations":
      [{"from": "human", "value": "a"}, {"from": "function-call"}]})");
  line["conversations"][1]["value"] = value;
  const Json sample = Trainable(DataForm::kGlaive, line.dump());
  return sample["messages"][1]["tool_calls"][0]["function"]["arguments"];
}

TEST(Reformat, QuotesAroundGlaivesArgumentsDoNotChangeThem) {
  EXPECT_EQ(GlaiveCall(R"({"name": "f", "arguments": '{"a": "it's \"so\" in L\'Aquila"}'})"),
            R"({"a": "it's \"so\" in L'Aquila"})");
  EXPECT_EQ(
      GlaiveCall(R"([{"name": "f", "arguments": '{"a": 1}'}, {"name": "g", "arguments": '{}'}])"),
      R"({"a": 1})");
}

TEST(Reformat, GlaivesDescriptionsMayBreakLinesAnywhere) {
  const Json sample = Trainable(DataForm::kGlaive, R"({"function_description":
      "{\"name\": \"f\", \"description\": \"two\nlines }\n\n{\"}\n{\"name\": \"g\"}",
      "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]})");
  EXPECT_EQ(sample["tools"][0]["function"]["description"], "twolines }{");
  EXPECT_EQ(sample["tools"][1]["function"]["name"], "g");
}

// One line of each form, two that cannot be converted.
constexpr const char* kMixed =
    R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
{"conversations": [{"from": "human", "value": "a"}]}
{"instruction": "a", "output": "b"}

not JSON
{"prompt": "a", "completion": "b"}
{"text": "plain"}
)";

TEST(ReformatCommand, WritesWhatCanBeTrainedOnAndListsTheRest) {
  const TempDir dir;
  const std::string in = dir.Write("in.jsonl", kMixed);
  const auto run = RunMftData({"reformat", in, dir.File("out.jsonl")});
  EXPECT_EQ(run.exit_code, 3);
  EXPECT_THAT(run.out, HasSubstr("5 of 7 lines"));
  EXPECT_THAT(run.err, HasSubstr("in.jsonl:3: no answer of the assistant"));
  EXPECT_THAT(run.err, HasSubstr("in.jsonl:6: "));
  EXPECT_EQ(ReadJsonLines(dir.File("out.jsonl")).size(), 5U);
  EXPECT_EQ(ReadFile(in).value(), kMixed);
  const auto valid = RunMftData({"validate", dir.File("out.jsonl")});
  EXPECT_EQ(valid.exit_code, 0) << valid.out << valid.err;
  // What is in our form already stays as it is.
  const auto again = RunMftData({"reformat", dir.File("out.jsonl"), dir.File("again.jsonl")});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(ReadFile(dir.File("again.jsonl")).value(), ReadFile(dir.File("out.jsonl")).value());
}

TEST(ReformatCommand, NeverOverwritesUnasked) {
  const TempDir dir;
  const std::string in = dir.Write("in.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}\n");
  const std::string out = dir.Write("out.jsonl", "mine");
  EXPECT_EQ(RunMftData({"reformat", in, out}).exit_code, 6);
  EXPECT_EQ(ReadFile(out).value(), "mine");
  EXPECT_EQ(RunMftData({"reformat", in}).exit_code, 2);
  EXPECT_EQ(RunMftData({"reformat", "--force", in, in}).exit_code, 2);
  EXPECT_EQ(RunMftData({"reformat", dir.File("none"), dir.File("x")}).exit_code, 5);
  EXPECT_EQ(RunMftData({"reformat", "--force", in, out}).exit_code, 0);
  EXPECT_EQ(ReadJsonLines(out).size(), 1U);
  const std::string before = ReadFile(in).value();
  EXPECT_EQ(RunMftData({"reformat", "--in-place", in}).exit_code, 0);
  EXPECT_EQ(ReadFile(in + ".orig").value(), before);
  EXPECT_EQ(ReadFile(in).value(), ReadFile(out).value());
  EXPECT_EQ(RunMftData({"reformat", "--in-place", in}).exit_code, 6) << "the first original stays";
  EXPECT_EQ(ListDir(dir.path()).value().size(), 3U) << "nothing temporary stays";
}

}  // namespace
}  // namespace mft::data
