// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/python_json.h"

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
