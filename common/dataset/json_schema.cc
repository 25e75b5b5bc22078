// SPDX-License-Identifier: Apache-2.0
// The meta-schema of JSON Schema draft 7, keyword by keyword: what a tool's parameters must
// satisfy.
#include <algorithm>
#include <array>
#include <set>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "common/dataset/sample_fields.h"

namespace mft::samples {

namespace {
using Kind = PyJson::Kind;

Status Wrong(const std::string& path, std::string_view expected, const PyJson& value) {
  return InvalidArgument(
      StrCat(path.empty() ? "the schema" : path, ": must be ", expected, ", not ", Quote(value)));
}

bool IsCount(const PyJson& value) {
  // 2.0 counts as an integer in JSON Schema.
  const bool whole = value.is(Kind::kInt) || (value.is(Kind::kFloat) && value.text.ends_with(".0"));
  return whole && !value.text.starts_with('-');
}

bool IsNumber(const PyJson& value) {
  return value.is(Kind::kInt) || value.is(Kind::kFloat);
}

bool AreUniqueStrings(const PyJson& value) {
  std::set<std::string_view> seen;
  return value.is(Kind::kList) &&
         std::all_of(value.items.begin(), value.items.end(), [&](const PyJson& item) {
           return item.is(Kind::kString) && seen.insert(item.text).second;
         });
}

bool IsTypeName(const PyJson& value) {
  constexpr std::array<std::string_view, 7> kTypes = {
      "array", "boolean", "integer", "null", "number", "object", "string"};
  return value.is(Kind::kString) &&
         std::find(kTypes.begin(), kTypes.end(), value.text) != kTypes.end();
}

bool IsType(const PyJson& value) {
  return IsTypeName(value) || (AreUniqueStrings(value) && !value.items.empty() &&
                               std::all_of(value.items.begin(), value.items.end(), IsTypeName));
}

bool IsRegex(const PyJson& value) {
  if (!value.is(Kind::kString)) {
    return false;
  }
  // As Python and JavaScript read patterns: \uXXXX is a character, halves of pairs too.
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_compile_extra_options(context,
                                  PCRE2_EXTRA_ALT_BSUX | PCRE2_EXTRA_ALLOW_SURROGATE_ESCAPES);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(value.text.data()),
                                   value.text.size(),
                                   PCRE2_UTF,
                                   &error,
                                   &offset,
                                   context);
  pcre2_code_free(code);
  pcre2_compile_context_free(context);
  return code != nullptr;
}

using Predicate = bool (*)(const PyJson&);
struct Keyword {
  std::string_view name;
  Predicate accepts;
  std::string_view expected;
};
constexpr Predicate kIsString = [](const PyJson& v) { return v.is(Kind::kString); };
constexpr Predicate kIsBool = [](const PyJson& v) { return v.is(Kind::kBool); };
constexpr Predicate kIsList = [](const PyJson& v) { return v.is(Kind::kList); };
constexpr Predicate kIsPositive = [](const PyJson& v) {
  return IsNumber(v) && v.text[0] != '-' && v.Truthy();
};

constexpr std::array kKeywords = {
    Keyword{"$id", kIsString, "a string"},
    Keyword{"$schema", kIsString, "a string"},
    Keyword{"$ref", kIsString, "a string"},
    Keyword{"$comment", kIsString, "a string"},
    Keyword{"title", kIsString, "a string"},
    Keyword{"description", kIsString, "a string"},
    Keyword{"format", kIsString, "a string"},
    Keyword{"contentMediaType", kIsString, "a string"},
    Keyword{"contentEncoding", kIsString, "a string"},
    Keyword{"readOnly", kIsBool, "true or false"},
    Keyword{"examples", kIsList, "a list"},
    Keyword{"enum", kIsList, "a list"},
    Keyword{"type",
            IsType,
            "a type name or a list of different ones (array, boolean, integer, null, number, "
            "object, string)"},
    Keyword{"multipleOf", kIsPositive, "a number above 0"},
    Keyword{"maximum", IsNumber, "a number"},
    Keyword{"exclusiveMaximum", IsNumber, "a number"},
    Keyword{"minimum", IsNumber, "a number"},
    Keyword{"exclusiveMinimum", IsNumber, "a number"},
    Keyword{"maxLength", IsCount, "a count"},
    Keyword{"minLength", IsCount, "a count"},
    Keyword{"maxItems", IsCount, "a count"},
    Keyword{"minItems", IsCount, "a count"},
    Keyword{"maxProperties", IsCount, "a count"},
    Keyword{"minProperties", IsCount, "a count"},
    Keyword{"uniqueItems", kIsBool, "true or false"},
    Keyword{"required", AreUniqueStrings, "a list of different names"},
    Keyword{"pattern", IsRegex, "a regular expression"},
};

template <size_t N>
bool IsOneOf(std::string_view name, const std::array<std::string_view, N>& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Status CheckSchema(const PyJson& schema, const std::string& path);

Status CheckList(const PyJson& list, const std::string& path) {
  if (!list.is(Kind::kList) || list.items.empty()) {
    return Wrong(path, "a list of schemas", list);
  }
  for (size_t i = 0; i < list.items.size(); ++i) {
    MFT_RETURN_IF_ERROR(CheckSchema(list.items[i], StrCat(path, "[", i, "]")));
  }
  return Status::Ok();
}

// An object of schemas; `dependencies` may hold lists of names too.
Status CheckMembers(const PyJson& object, const std::string& path, std::string_view keyword) {
  if (!object.is(Kind::kObject)) {
    return Wrong(path, "an object of schemas", object);
  }
  for (const PyJson::Member& member : object.members) {
    const std::string member_path = StrCat(path, ".", Printable(member.first, 40));
    if (keyword == "patternProperties" && !IsRegex(PyJson::String(member.first))) {
      return InvalidArgument(StrCat(member_path, ": the name is no regular expression"));
    }
    if (!(keyword == "dependencies" && AreUniqueStrings(member.second))) {
      MFT_RETURN_IF_ERROR(CheckSchema(member.second, member_path));
    }
  }
  return Status::Ok();
}

Status CheckKeyword(std::string_view name, const PyJson& value, const std::string& path) {
  constexpr std::array<std::string_view, 8> kSchemas = {"additionalItems",
                                                        "contains",
                                                        "additionalProperties",
                                                        "propertyNames",
                                                        "if",
                                                        "then",
                                                        "else",
                                                        "not"};
  constexpr std::array<std::string_view, 3> kLists = {"allOf", "anyOf", "oneOf"};
  constexpr std::array<std::string_view, 4> kMembers = {
      "definitions", "properties", "patternProperties", "dependencies"};
  for (const Keyword& keyword : kKeywords) {
    if (keyword.name == name) {
      return keyword.accepts(value) ? Status::Ok() : Wrong(path, keyword.expected, value);
    }
  }
  if (IsOneOf(name, kSchemas) || (name == "items" && !value.is(Kind::kList))) {
    return CheckSchema(value, path);
  }
  if (IsOneOf(name, kLists) || name == "items") {
    return CheckList(value, path);
  }
  return IsOneOf(name, kMembers) ? CheckMembers(value, path, name) : Status::Ok();
}

Status CheckSchema(const PyJson& schema, const std::string& path) {
  if (schema.is(Kind::kBool)) {
    return Status::Ok();
  }
  if (!schema.is(Kind::kObject)) {
    return Wrong(path, "a schema (an object or a boolean)", schema);
  }
  for (const PyJson::Member& member : schema.members) {
    MFT_RETURN_IF_ERROR(
        CheckKeyword(member.first,
                     member.second,
                     StrCat(path, path.empty() ? "" : ".", Printable(member.first, 40))));
  }
  return Status::Ok();
}
}  // namespace

Status CheckJsonSchema(const PyJson& schema) {
  return CheckSchema(schema, "");
}

}  // namespace mft::samples
