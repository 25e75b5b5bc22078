// SPDX-License-Identifier: Apache-2.0
// JSON as Python's json module reads and writes it (formats.md 2.4): tool definitions, calls and
// results become tokens through json.dumps(json.loads(text), ensure_ascii=False), so every byte
// counts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"

namespace mft {

class PyJson {
 public:
  enum class Kind { kNull, kBool, kInt, kFloat, kString, kList, kObject };
  struct Member;  // first: the key, second: the value

  Kind kind = Kind::kNull;
  bool boolean = false;
  // kString: the text, UTF-8. kInt and kFloat: as Python prints it.
  std::string text;
  std::vector<PyJson> items;    // kList
  std::vector<Member> members;  // kObject, in order of first appearance

  static PyJson String(std::string value);
  static PyJson List();
  static PyJson Object();
  void Add(std::string key, PyJson value);

  bool is(Kind k) const { return kind == k; }
  const PyJson* Find(std::string_view key) const;  // nullptr: no such member, or no object
  // Python's truth value.
  bool Truthy() const;
};

struct PyJson::Member {
  std::string first;
  PyJson second;
};

struct PyJsonLimits {
  int max_depth = 200;
  size_t max_int_digits = 4300;         // Python's own limit
  size_t max_values = size_t{1} << 22;  // bounds the memory, 100 to 200 bytes a value
  // Members of the outermost object whose lists of integers of 32 bits are read into
  // PyJsonParsed::int_lists: 4 bytes each, and they do not count as values. Who asks for it looks
  // there: the value itself is an empty list.
  std::span<const std::string_view> int_lists = {};
};

struct PyJsonParsed {
  PyJson value;
  std::string duplicate_key;  // the first key that stood twice in an object ("" none); the last
                              // value counts
  bool has_duplicate = false;
  std::map<std::string, std::vector<int32_t>, std::less<>> int_lists;  // none is empty
};

// json.loads. INVALID_ARGUMENT with line and column for what is no JSON; OUT_OF_RANGE past a limit,
// where Python raises something that is no JSONDecodeError.
Result<PyJsonParsed> ParsePyJson(std::string_view text, const PyJsonLimits& limits = {});

// json.dumps(..., ensure_ascii=False): ", " and ": ".
std::string DumpPyJson(const PyJson& json);

// The name of a value's Python type in messages: "str", "int", "NoneType".
std::string_view PyTypeName(const PyJson& json);

}  // namespace mft
