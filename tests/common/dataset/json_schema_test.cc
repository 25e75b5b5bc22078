// SPDX-License-Identifier: Apache-2.0
// What the meta-schema of JSON Schema draft 7 accepts of each keyword.
#include <map>

#include <gtest/gtest.h>

#include "common/dataset/sample_fields.h"

namespace mft::samples {
namespace {

Status Check(const std::string& schema) {
  return CheckJsonSchema(ParsePyJson(schema).value().value);
}

struct Values {
  std::vector<std::string> good;
  std::vector<std::string> bad;
};

using Keywords = std::map<std::string, Values>;

void Expect(const Keywords& keywords) {
  for (const auto& [keyword, values] : keywords) {
    const auto check = [&](const std::string& value) {
      return Check("{\"properties\": {\"p\": {\"" + keyword + "\": " + value + "}}}");
    };
    for (const std::string& value : values.good) {
      EXPECT_TRUE(check(value).ok()) << keyword << value << check(value).message();
    }
    for (const std::string& value : values.bad) {
      const Status status = check(value);
      EXPECT_EQ(status.code(), Code::kInvalidArgument) << keyword << value;
      EXPECT_TRUE(status.message().starts_with("properties.p." + keyword)) << status.message();
    }
  }
}

TEST(JsonSchema, KnowsWhatPlainKeywordsTake) {
  const Values strings = {{R"("")", R"("x")"}, {"1", "null", R"(["x"])"}};
  const Values booleans = {{"true", "false"}, {"0", R"("true")", "null"}};
  const Values lists = {{"[]", "[1, {}]"}, {"{}", R"("x")", "null"}};
  const Values numbers = {{"1", "-1.5", "0", "1e3"}, {R"("1")", "null", "true"}};
  const Values counts = {{"0", "3", "2.0"}, {"-1", "1.5", "-2.0", R"("1")", "null", "true"}};
  const Values names = {{"[]", R"(["a", "b"])"}, {R"(["a", "a"])", "[1]", R"("a")", "{}"}};
  const Values anything = {{"1", "null", "[]"}, {}};
  Keywords keywords = {
      {"type",
       {{R"("null")", R"("array")", R"(["string", "integer"])"},
        {"[]", R"("text")", R"(["string", "string"])", R"(["string", "text"])", "1", "{}"}}},
      {"multipleOf", {{"1", "0.5", "1e9"}, {"0", "0.0", "-1", "-0.5", R"("1")", "true"}}},
      {"pattern", {{R"("a*")", R"("")"}, {R"("(")", "1"}}},
      {"required", names}};
  const auto add = [&](const Values& values, const std::vector<std::string>& of) {
    for (const std::string& keyword : of) {
      keywords[keyword] = values;
    }
  };
  add(strings, {"$id", "$schema", "$ref", "$comment", "title", "description", "format"});
  add(strings, {"contentMediaType", "contentEncoding"});
  add(booleans, {"readOnly", "uniqueItems"});
  add(lists, {"examples", "enum"});
  add(numbers, {"maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"});
  add(counts, {"maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"});
  add(anything, {"const", "default", "x-unknown"});
  Expect(keywords);
}

TEST(JsonSchema, KnowsWhereSchemasAre) {
  const Values schemas = {{"{}", "true", "false", R"({"type": "string"})"},
                          {"[]", "1", R"("string")", "null", R"({"type": "strin"})"}};
  const Values schema_lists = {{"[{}]", R"([true, {"minimum": 1}])"},
                               {"[]", "{}", "[1]", R"([{}, {"minimum": "1"}])"}};
  const Values members = {{"{}", R"({"a": {}, "b": true})"},
                          {"[]", "true", R"({"a": 1})", R"({"a": {"type": 7}})"}};
  Values dependencies = members;
  dependencies.good.push_back(R"({"a": ["b", "c"]})");
  dependencies.bad.push_back(R"({"a": ["b", "b"]})");
  Values patterns = members;
  patterns.good.push_back(R"({"^a+$": {}})");
  patterns.bad.push_back(R"({"(": {}})");
  Expect({{"additionalItems", schemas},
          {"contains", schemas},
          {"additionalProperties", schemas},
          {"propertyNames", schemas},
          {"if", schemas},
          {"then", schemas},
          {"else", schemas},
          {"not", schemas},
          {"items",
           {{"{}", "true", "[{}]", "[true, {}]"}, {"[]", "[1]", "1", "null", R"({"type": 1})"}}},
          {"allOf", schema_lists},
          {"anyOf", schema_lists},
          {"oneOf", schema_lists},
          {"definitions", members},
          {"properties", members},
          {"patternProperties", patterns},
          {"dependencies", dependencies}});
}

TEST(JsonSchema, ASchemaIsAnObjectOrABoolean) {
  EXPECT_TRUE(Check("true").ok());
  EXPECT_TRUE(Check("{}").ok());
  EXPECT_EQ(Check("[]").message(), "the schema: must be a schema (an object or a boolean), not []");
}

}  // namespace
}  // namespace mft::samples
