// SPDX-License-Identifier: Apache-2.0
// Input made to hurt: each gives one violation, quickly, and no crash.
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/config/config_node.h"
#include "tests/common/config/config_testing.h"

namespace mft {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::Problems;
using testing::ProblemsOf;

std::string Repeat(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) {
    out += text;
  }
  return out;
}

TEST(HostileYaml, DeepNestingIsAViolation) {
  for (const char* opener : {"[", "{a: ", "- ", "? ", "{? ", "[{a: "}) {
    const auto problems = Problems(ParseJobYaml(Repeat(opener, 100'000)));
    ASSERT_EQ(problems.size(), 1U) << opener;
    EXPECT_THAT(problems[0], HasSubstr("nested deeper than 16 levels")) << opener;
  }
}

TEST(HostileYaml, AnAliasBombIsAViolation) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string previous = "*a" + std::to_string(i - 1);
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" +
            Repeat(previous + ", ", 9) + "]\n";
  }
  EXPECT_THAT(Problems(ParseJobYaml(text)), ElementsAre(HasSubstr("more than 20000 values")));
}

TEST(HostileYaml, AnAliasThatContainsItselfIsAViolation) {
  EXPECT_THAT(Problems(ParseJobYaml("data: &x {instruct: *x}\n")), ElementsAre(HasSubstr(":1: ")));
  EXPECT_THAT(Problems(ParseJobYaml("data: *nowhere\n")), ElementsAre(HasSubstr("invalid YAML")));
}

TEST(HostileYaml, DepthThroughAliasesIsBounded) {
  std::string text = "a0: &a0 [x]\n";
  for (int i = 1; i < 40; ++i) {
    text += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [*a" + std::to_string(i - 1) +
            "]\n";
  }
  EXPECT_THAT(Problems(ParseJobYaml(text)), ElementsAre(HasSubstr("nested deeper than 16 levels")));
}

TEST(HostileYaml, AnOversizedFileIsAViolation) {
  EXPECT_THAT(ProblemsOf("#" + std::string(kMaxConfigBytes, 'x')),
              ElementsAre(HasSubstr("larger than 1.0 MiB")));
}

TEST(HostileYaml, BytesThatAreNoTextAreAViolation) {
  EXPECT_THAT(ProblemsOf("seed: \xFF\n"), ElementsAre(HasSubstr("not UTF-8")));
  EXPECT_THAT(ProblemsOf(std::string("seed: 1\0\n", 9)), ElementsAre(HasSubstr("not UTF-8")));
  EXPECT_THAT(ProblemsOf("mftd: {name: \"a\\nb\"}\n"),
              ElementsAre(HasSubstr("control characters")));
  EXPECT_THAT(ProblemsOf("mftd: {init_adapter: \"/a\\0b\"}\n"),
              ElementsAre(HasSubstr("control characters")));
}

TEST(HostileYaml, SyntaxErrorsNameTheLine) {
  EXPECT_THAT(ProblemsOf("seed: [1\n"), ElementsAre(HasSubstr("invalid YAML: ")));
  EXPECT_THAT(ProblemsOf("a: b: c\n"), ElementsAre(HasSubstr(":4: invalid YAML: ")));
  EXPECT_THAT(ProblemsOf("\tseed: 1\n"), ElementsAre(HasSubstr(":4: ")));
  EXPECT_THAT(ProblemsOf("seed: !!python/object:os.system x\n"),
              ElementsAre(HasSubstr(":4: the tag ")));
  EXPECT_THAT(ProblemsOf("? [a, b]\n: 1\n"), ElementsAre(HasSubstr("a key must be a name")));
  EXPECT_THAT(ProblemsOf("---\nseed: 1\n"), ElementsAre(HasSubstr("more than one YAML document")));
  EXPECT_THAT(ProblemsOf("<<: {seed: 1}\n"), ElementsAre(HasSubstr("<<:4: unknown key")));
}

TEST(HostileYaml, QuotesOfBadValuesAreShort) {
  EXPECT_LT(ProblemsOf("seed: " + std::string(100'000, 'x') + "\n").at(0).size(), 200U);
  EXPECT_LT(ProblemsOf(std::string(900, 'k') + ": 1\n").at(0).size(), 300U);
  EXPECT_THAT(ProblemsOf("mftd: {name: " + std::string(70'000, 'x') + "}\n"),
              ElementsAre(HasSubstr("longer than")));
}

TEST(HostileYaml, ManyUnknownKeysDoNotTakeForever) {
  std::string text;
  for (int i = 0; i < 9'000; ++i) {
    text += "k" + std::to_string(i) + ": 1\n";
  }
  EXPECT_EQ(ProblemsOf(text).size(), 9'000U);
}

TEST(HostileYaml, DamagedFilesNeverCrash) {
  const std::string good = JobSpecToYaml(testing::Parse("").spec);
  std::mt19937 random(1);
  for (int round = 0; round < 3'000; ++round) {
    std::string text = good;
    for (int i = 0; i < 4; ++i) {
      const size_t at = random() % text.size();
      constexpr std::string_view kNasty = "[]{}:-?&*!|>'\"%@`#,\n\t \\0~";
      const char c = kNasty[random() % kNasty.size()];
      (random() % 2 == 0) ? text.insert(at, 1, c) : text.replace(at, 1, 1, c);
    }
    for (const Violation& violation : ParseJobYaml(text).violations) {
      EXPECT_FALSE(violation.message.empty());
    }
  }
}

TEST(HostileJson, DeepAndLargeValuesAreViolations) {
  Json deep = Json::object();
  for (int i = 0; i < 40; ++i) {
    deep = Json{{"data", deep}};
  }
  EXPECT_THAT(Problems(ParseJobJson(deep)), ElementsAre(HasSubstr("nested deeper than 16 levels")));
  Json wide = Json{{"seed", Json::array()}};
  for (int i = 0; i < 30'000; ++i) {
    wide["seed"].push_back(i);
  }
  EXPECT_THAT(Problems(ParseJobJson(wide)), ElementsAre(HasSubstr("more than 20000 values")));
  EXPECT_THAT(Problems(ParseJobJson(Json::array())),
              ElementsAre(HasSubstr("a job is a JSON object")));
}

}  // namespace
}  // namespace mft
