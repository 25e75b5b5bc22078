// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace mft {

// What a field accepts; the reader reports a violation with the YAML path and this.
struct FieldRule {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool min_exclusive = false;
  std::vector<std::string> choices;  // of a string or of each element of a list; empty: any
  bool required = false;
  bool nullable = false;  // null in YAML is the member's "none": "" or 0, and written as null
};

inline FieldRule AtLeast(double min) {
  return {.min = min};
}
inline FieldRule Between(double min, double max) {
  return {.min = min, .max = max};
}
inline FieldRule Positive() {
  return {.min = 0, .min_exclusive = true};
}
inline FieldRule OneOf(std::vector<std::string> choices) {
  return {.choices = std::move(choices)};
}
inline FieldRule Required() {
  return {.required = true};
}
inline FieldRule Nullable(FieldRule rule = {}) {
  rule.nullable = true;
  return rule;
}

}  // namespace mft
