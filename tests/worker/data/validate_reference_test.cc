// SPDX-License-Identifier: Apache-2.0
// The examples of mistral-finetune's README and tests: its validator's verdicts, line by line, and
// an answer where it crashes or loses errors (finetune-spec 2.5, 5.1 and 7.1).
#include <filesystem>
#include <map>
#include <regex>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "tests/worker/data/prepare_fixture.h"
#include "tests/worker/data/run_mft_data.h"

namespace mft {
namespace {

using testing::Fixture;
using ::testing::HasSubstr;
using testing::ProgramResult;
using testing::ReadJsonLines;

using Place = std::pair<std::string, int>;  // file and line

class LikeTheReference : public testing::PrepareFixture {
 protected:
  LikeTheReference() { AddTokenizer(); }

  // Writes a case's files and its job, with our model in place of the table key that the
  // reference takes for one.
  ProgramResult Run(const Json& example, std::vector<std::string> more = {}) {
    for (const auto& [name, lines] : example["files"].items()) {
      std::string text;
      for (const Json& line : lines) {
        text += line.get<std::string>() + "\n";
      }
      dir_.Write(name, text);
    }
    const std::string yaml = std::regex_replace(
        example["yaml"].get<std::string>(), std::regex("open-mistral-7b"), dir_.File("model"));
    // The sources are relative: to the directory that the validator is started in.
    const std::string job = dir_.Write("job.yaml", yaml);
    std::vector<std::string> arguments = {"validate", "--config", job, "-o", "json"};
    for (const char* key : {"data.data", "data.instruct_data", "data.eval_instruct_data"}) {
      arguments.insert(arguments.end(), {"--set", StrCat(key, "=", Absolute(yaml, key))});
    }
    arguments.insert(arguments.end(), more.begin(), more.end());
    return testing::RunMftData(arguments);
  }

  // "a.jsonl:3,b.jsonl" of the key in the YAML text, below dir_.
  std::string Absolute(const std::string& yaml, std::string_view key) const {
    std::smatch match;
    const std::regex line(StrCat("\n  ", key.substr(5), ": \"([^\"]*)\""));
    std::string sources = std::regex_search(yaml, match, line) ? match[1].str() : "";
    if (sources.empty()) {
      return "''";
    }
    std::string absolute;
    for (const std::string& source : Split(sources, ',')) {
      absolute += StrCat(absolute.empty() ? "" : ",", dir_.File(source));
    }
    return absolute;
  }

  std::set<Place> Problems(const Json& report) const {
    std::set<Place> places;
    for (const Json& problem : report["problems"]) {
      if (problem["severity"] == "error") {
        const std::string file = problem["file"];
        places.insert({std::filesystem::relative(file, dir_.path()), problem["line"]});
      }
    }
    return places;
  }
};

// What the reference's copy without errors leaves out is what it found, also where its report
// forgets it.
std::set<Place> LeftOut(const Json& example) {
  std::set<Place> places;
  for (const auto& [name, content] : example["made"].items()) {
    if (!name.ends_with(".corrected")) {
      continue;
    }
    const std::string file = name.substr(0, name.size() - std::string(".corrected").size());
    std::multiset<std::string> good;
    for (const Json& line : content) {
      good.insert(line.get<std::string>());
    }
    int number = 0;
    for (const Json& line : example["files"][file]) {
      ++number;
      const auto found = good.find(line.get<std::string>());
      if (found == good.end()) {
        places.insert({file, number});
      } else {
        good.erase(found);
      }
    }
  }
  return places;
}

// "The data in line 10 of dataset a.jsonl is incorrectly formatted."
std::set<Place> Printed(const Json& example) {
  std::set<Place> places;
  const std::string text = example["printed"].get<std::string>();
  const std::regex sentence("The data in line (\\d+) of dataset (\\S+) ");
  for (std::sregex_iterator at(text.begin(), text.end(), sentence), end; at != end; ++at) {
    places.insert({(*at)[2].str(), std::stoi((*at)[1].str())});
  }
  return places;
}

TEST_F(LikeTheReference, VerdictsAreTheSameLineByLine) {
  int compared = 0;
  for (const Json& example : ReadJsonLines(Fixture("data/extended/utils/validate.jsonl"))) {
    SCOPED_TRACE(example["name"].get<std::string>());
    std::set<Place> expected = LeftOut(example);
    expected.merge(Printed(example));
    expected.erase({"e.jsonl", 4});  // a text sample: it can be evaluated here
    const bool crashed = !example["crash"].is_null();
    const ProgramResult result = Run(example);
    const Json report = Json::parse(result.out);
    const std::set<Place> found = Problems(report);
    if (!crashed || !expected.empty()) {
      EXPECT_EQ(found, expected);
      ++compared;
    }
    EXPECT_EQ(result.exit_code, found.empty() ? 0 : 3) << result.err;
    for (const Json& problem : report["problems"]) {
      EXPECT_NE(problem["class"], "") << problem["message"];
    }
  }
  EXPECT_EQ(compared, 6);
}

TEST_F(LikeTheReference, WhereItCrashesThereIsAnAnswer) {
  std::map<std::string, Json> examples;
  for (const Json& example : ReadJsonLines(Fixture("data/extended/utils/validate.jsonl"))) {
    examples[example["name"]] = example;
  }
  const auto only_problem = [&](const std::string& name) {
    const Json report = Json::parse(Run(examples.at(name)).out);
    EXPECT_EQ(report["num_problems"], 1) << report.dump();
    return report["problems"].back();
  };
  const Json role = only_problem("unknown role: crash");
  EXPECT_EQ(role["class"], "UnrecognizedRoleError");
  EXPECT_EQ(role["line"], 3);
  EXPECT_THAT(role["message"].get<std::string>(), HasSubstr("narrator is not one of system, user"));
  const Json type = only_problem("content of the wrong type: crash");
  EXPECT_EQ(type["class"], "ValidationError");
  EXPECT_THAT(type["message"].get<std::string>(), HasSubstr("messages[0].content"));
  const Json folder = Json::parse(Run(examples.at("a folder: crash")).out);
  EXPECT_EQ(folder["num_problems"], 0);
  EXPECT_EQ(folder["sources"][0]["samples"], 2);
}

TEST_F(LikeTheReference, CountsAreTheSameTokens) {
  for (const Json& example : ReadJsonLines(Fixture("data/extended/utils/validate.jsonl"))) {
    std::smatch match;
    const std::string text = example["printed"].get<std::string>();
    if (!std::regex_search(text, match, std::regex("\"data_tokens\": (\\d+)")) ||
        !LeftOut(example).empty()) {
      continue;
    }
    SCOPED_TRACE(example["name"].get<std::string>());
    const Json report = Json::parse(Run(example).out);
    int64_t tokens = 0;
    for (const Json& source : report["sources"]) {
      tokens += source["kind"] == "eval" ? 0 : source["tokens"].get<int64_t>();
    }
    EXPECT_EQ(tokens, std::stoll(match[1].str()));
  }
}

// The "fix" column of finetune-spec 2.5, row by row.
struct Row {
  std::string line;
  std::string problem_class;  // "": accepted
  std::vector<std::string> parts;
};

TEST_F(LikeTheReference, EveryRowOfTheTableIsFixed) {
  const std::string call =
      R"({"role": "assistant", "tool_calls": [{"id": "aaaaaaaaa", "function": {"name": "f", "arguments": "{}"}}, {"id": "bbbbbbbbb", "function": {"name": "g", "arguments": "{}"}}]})";
  const std::vector<Row> rows = {
      {R"({"messages": [{"role": "bot", "content": "a"}]})",
       "UnrecognizedRoleError",
       {"messages[0].role", "bot", "system, user, assistant, tool"}},
      {R"({"messages": [{"role": "user", "content": ["a"]}, {"role": "assistant", "content": "b"}]})",
       "ValidationError",
       {"messages[0].content", "list [\"a\"]"}},
      {R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": "x"}]})",
       "ValidationError",
       {"messages[1].weight", "0 or 1", "\"x\""}},
      {R"({"messages": [{"role": "user", "content": null, "tool_calls": []}]})",
       "AssertionError",
       {"messages[0]", "no text", "belong to the assistant"}},
      {R"({"messages": null})", "AssertionError", {"messages", "list of messages", "null"}},
      {StrCat(
           R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [{"id": "aaaaaaaaa", "function": {"name": ")",
           std::string(500, 'x'),
           "\"}}]}]}"),
       "ToolCallFormatError",
       {"messages[1].tool_calls[0].function", "'arguments'", "..."}},
      {R"({"messages": [{"role": "user", "content": "a"}]})",
       "InvalidMessageStructureException",
       {"of the assistant"}},
      {StrCat(R"({"messages": [{"role": "user", "content": "a"}, )", call, "]}"), "", {}},
      {"", "JSONDecodeError", {"blank line", "remove"}},
      {"{\"messages\": \"\xFF\"}", "EncodingError", {"byte 15", "0xff", "UTF-8"}},
      {R"({"a": {"b": 1, "b": 2}, "messages": []})", "JSONDecodeError", {"\"b\"", "remove one"}},
  };
  std::string text;
  for (const Row& row : rows) {
    text += row.line + "\n";
  }
  const std::string data = dir_.Write("rows.jsonl", text);
  const ProgramResult result = testing::RunMftData({"validate", "--kind", "chat", data});
  EXPECT_EQ(result.exit_code, 3);
  const std::vector<std::string> printed = Split(result.out, '\n');
  size_t next = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].problem_class.empty()) {
      continue;
    }
    const std::string& line = printed.at(next++);
    EXPECT_TRUE(line.starts_with(StrCat(data, ":", i + 1, ": ", rows[i].problem_class, ": ")))
        << line;
    EXPECT_LT(line.size(), 600u) << line;
    for (const std::string& part : rows[i].parts) {
      EXPECT_THAT(line, HasSubstr(part));
    }
  }
  EXPECT_EQ(next, rows.size() - 1);
}

// The same for text samples, whose assertions have no text in the reference.
TEST_F(LikeTheReference, TextSamplesAreAnsweredToo) {
  const std::string data = dir_.Write("text.jsonl",
                                      "{\"text\": \"a\", \"content\": \"b\"}\n{\"txt\": \"a\"}\n"
                                      "{\"text\": null}\n{\"text\": \"good\"}\n");
  const ProgramResult result = testing::RunMftData({"validate", "--kind", "text", data});
  EXPECT_THAT(result.out,
              HasSubstr(data + ":1: AssertionError: has both \"text\" and \"content\""));
  EXPECT_THAT(result.out, HasSubstr(data + ":2: AssertionError: needs \"text\" or \"content\""));
  EXPECT_THAT(result.out, HasSubstr(data + ":3: AssertionError: needs \"text\" or \"content\""));
  EXPECT_THAT(result.out, HasSubstr("3 problems"));
}

}  // namespace
}  // namespace mft
