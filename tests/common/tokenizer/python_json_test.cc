// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/python_json.h"

#include <array>

#include <gtest/gtest.h>

namespace mft {
namespace {

std::string RoundTrip(const std::string& text) {
  const auto parsed = ParsePyJson(text);
  return parsed.ok() ? DumpPyJson(parsed->value) : "error: " + parsed.status().message();
}

// Expected values: python3 -c 'import json,sys; print(json.dumps(json.loads(sys.argv[1]),
// ensure_ascii=False))' TEXT
TEST(PyJson, WritesWhatPythonWrites) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"1.10", "1.1"},
      {"1.0", "1.0"},
      {"1e5", "100000.0"},
      {"0.00001", "1e-05"},
      {"1e16", "1e+16"},
      {"-0", "0"},
      {"-0.0", "-0.0"},
      {"123456789012345680.0", "1.2345678901234568e+17"},
      {"5e-324", "5e-324"},
      {"1.7976931348623157e+308", "1.7976931348623157e+308"},
      {"1E400", "Infinity"},
      {"-1e400", "-Infinity"},
      {"1e-400", "0.0"},
      {"NaN", "NaN"},
      {"0.0001", "0.0001"},
      {"9999999999999998.0", "9999999999999998.0"},
      {"123456789012345678901234567890", "123456789012345678901234567890"},
      {" [ 1 ,2 ] ", "[1, 2]"},
      {"{\"b\":1,\"a\":{}}", "{\"b\": 1, \"a\": {}}"},
      {"{\"a\":1,\"b\":2,\"a\":3}", "{\"a\": 3, \"b\": 2}"},
      {"\"\\u00e9\\/\\ud83d\\ude42\\u0001\\n\\u007f\"",
       "\"\xC3\xA9/\xF0\x9F\x99\x82\\u0001\\n\x7f\""},
      {"true", "true"},
      {"null", "null"},
      {"[]", "[]"},
      {"{}", "{}"},
  };
  for (const auto& [text, expected] : cases) {
    EXPECT_EQ(RoundTrip(text), expected) << text;
  }
}

TEST(PyJson, RefusesWhatPythonRefuses) {
  for (const std::string& text : std::vector<std::string>{"",
                                                          "{",
                                                          "[1,]",
                                                          "{\"a\":1,}",
                                                          "01",
                                                          "1.",
                                                          ".5",
                                                          "+1",
                                                          "'a'",
                                                          "\"a",
                                                          "\"\n\"",
                                                          "\"\\x\"",
                                                          "nul",
                                                          "1 2",
                                                          "{1:2}",
                                                          "\"\\u12\"",
                                                          "-",
                                                          "1e",
                                                          "[1 2]",
                                                          "\xEF\xBB\xBF"
                                                          "1"}) {
    EXPECT_EQ(ParsePyJson(text).status().code(), Code::kInvalidArgument) << text;
  }
}

TEST(PyJson, LimitsAreNoJsonErrors) {
  EXPECT_EQ(ParsePyJson(std::string(100'000, '[')).status().code(), Code::kOutOfRange);
  EXPECT_EQ(ParsePyJson(std::string(5000, '1')).status().code(), Code::kOutOfRange);
  EXPECT_EQ(ParsePyJson("\"\\ud800 x\"").status().code(), Code::kOutOfRange);
  EXPECT_TRUE(ParsePyJson("[1, 2]", {.max_values = 3}).ok());
  EXPECT_EQ(ParsePyJson("[1, 2]", {.max_values = 2}).status().code(), Code::kOutOfRange);
}

constexpr std::array<std::string_view, 1> kTokens = {"tokens"};

TEST(PyJson, ListsOfIntegersAreReadApartWhereAskedFor) {
  const auto parsed = ParsePyJson(
      R"({"tokens": [ 1,-2 ,0, -0,2147483647,-2147483648 ], "x": [1], "y": {"tokens": [3]}})",
      {.int_lists = kTokens});
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  ASSERT_EQ(parsed->int_lists.size(), 1U);
  EXPECT_EQ(parsed->int_lists.at("tokens"),
            (std::vector<int32_t>{1, -2, 0, 0, 2147483647, -2147483647 - 1}));
  EXPECT_TRUE(parsed->value.Find("tokens")->is(PyJson::Kind::kList));
  EXPECT_EQ(parsed->value.Find("x")->items.size(), 1U);
  EXPECT_EQ(parsed->value.Find("y")->Find("tokens")->items.size(), 1U);
  EXPECT_TRUE(
      ParsePyJson(R"({"tokens": [1, 2, 3]})", {.max_values = 1, .int_lists = kTokens}).ok());
}

TEST(PyJson, OtherListsAreReadOrRefusedAsEver) {
  for (const char* list :
       {"[]",      "[1.5]", "[1, 2e3]", "[true]",   "[null]", "[2147483648]", "[[1]]",
        "[\"1\"]", "3",     "[01]",     "[1, -01]", "[1,]",   "[1 2]",        "[-]",
        "[--1]",   "[+1]",  "[1",       "[1,",      "[",      "[1}",          "[,1]"}) {
    const std::string text = std::string("{\"tokens\": ") + list + "}";
    const auto apart = ParsePyJson(text, {.int_lists = kTokens});
    const auto plain = ParsePyJson(text);
    ASSERT_EQ(apart.ok(), plain.ok()) << list;
    if (plain.ok()) {
      EXPECT_EQ(DumpPyJson(apart->value), DumpPyJson(plain->value));
      EXPECT_TRUE(apart->int_lists.empty()) << list;
    } else {
      EXPECT_EQ(apart.status().ToString(), plain.status().ToString());
    }
  }
}

TEST(PyJson, TruthIsThatOfPython) {
  for (const char* text : {"0", "0.0", "-0.0", "0e5", "false", "null", "\"\"", "[]", "{}", "-0"}) {
    EXPECT_FALSE(ParsePyJson(text)->value.Truthy()) << text;
  }
  for (const char* text : {"1", "0.5", "-1", "1e-300", "true", "\"0\"", "[0]", "{\"\": 0}"}) {
    EXPECT_TRUE(ParsePyJson(text)->value.Truthy()) << text;
  }
}

// With a search of the keys before it for each key this would take minutes.
TEST(PyJson, FindsTheEndOfAStringAnywhere) {
  for (size_t i = 0; i < 40; ++i) {
    const std::string plain(i, '\x7F');
    const auto read = [&](const std::string& rest) {
      const auto parsed = ParsePyJson("\"" + plain + rest);
      return parsed.ok() ? parsed->value.text : "refused";
    };
    EXPECT_EQ(read("\""), plain);
    EXPECT_EQ(read("\\n\xC3\xA9 and so on and on\""), plain + "\n\xC3\xA9 and so on and on");
    EXPECT_EQ(read("\x1F and so on and on\""), "refused");
    EXPECT_EQ(read("\" and so on and on\""), "refused");
  }
}

TEST(PyJson, AnObjectOfManyKeysIsReadInTime) {
  constexpr int kKeys = 300'000;
  std::string text = "{";
  for (int i = 0; i < kKeys; ++i) {
    text += "\"" + std::to_string(i) + "\": 0, ";
  }
  const auto parsed = ParsePyJson(text + "\"17\": 1, \"299000\": 2}");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->value.members.size(), static_cast<size_t>(kKeys));
  EXPECT_EQ(parsed->duplicate_key, "17");
  EXPECT_EQ(parsed->value.members[17].second.text, "1");
  EXPECT_EQ(parsed->value.members[299000].second.text, "2");
}

}  // namespace
}  // namespace mft
