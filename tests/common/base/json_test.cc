// SPDX-License-Identifier: Apache-2.0
#include "common/base/json.h"

#include <gtest/gtest.h>

namespace mft {
namespace {

TEST(ParseJson, RefusesDuplicateKeysDeepNestingAndBadUtf8) {
  EXPECT_TRUE(ParseJson(R"({"a": {"b": 1}, "c": {"b": 2}})").ok());
  EXPECT_NE(ParseJson(R"({"a": 1, "a": 2})").status().message().find("duplicate key \"a\""),
            std::string::npos);
  EXPECT_FALSE(ParseJson(std::string(100, '[') + std::string(100, ']')).ok());
  EXPECT_FALSE(ParseJson("\"\xFF\"").ok());
  EXPECT_FALSE(ParseJson("").ok());
}

TEST(TypedAccess, NamesKeyAndValue) {
  const Json json = ParseJson(R"({"n": "x", "big": 18446744073709551615})").value();
  EXPECT_EQ(GetInt(json, "n").status().message(), "\"n\" must be an integer, not \"x\"");
  EXPECT_EQ(GetInt(json, "m").status().message(), "missing \"m\"");
  EXPECT_FALSE(GetInt(json, "big").ok());
  EXPECT_EQ(IntOr(json, "m", 7), 7);
}

TEST(DumpJson, ReplacesBytesThatAreNoUtf8) {
  EXPECT_EQ(DumpJson(Json("a\xFF")), "\"a\xEF\xBF\xBD\"");
}

}  // namespace
}  // namespace mft
