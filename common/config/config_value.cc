// SPDX-License-Identifier: Apache-2.0
#include "common/config/config_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "common/base/strings.h"

namespace mft {

namespace {
constexpr size_t kMaxStringBytes = size_t{64} << 10;
constexpr size_t kMaxIntegers = 64;  // of a list
constexpr size_t kMaxLabels = 64;
constexpr size_t kMaxLabelBytes = 253;

std::string Must(std::string_view expected, const ConfigNode& node) {
  return StrCat("must be ", expected, ", not ", Describe(node));
}

template <typename T>
std::string NoValue(const T& otherwise) {
  return StrCat("has no value; leave the key out for its default (", otherwise, ")");
}

// Python's and YAML 1.1's digit grouping ("1_000") and a leading '+', which from_chars does not
// know.
std::string Digits(std::string_view text) {
  std::string digits;
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (size_t i = 0; i < text.size(); ++i) {
    const bool grouping = text[i] == '_' && i > 0 && i + 1 < text.size() && is_digit(text[i - 1]) &&
                          is_digit(text[i + 1]);
    const bool plus = text[i] == '+' && i == 0 && text.size() > 1 && text[1] != '-';
    if (!grouping && !plus) {
      digits += text[i];
    }
  }
  return digits;
}

bool HasLeadingZero(std::string_view digits) {
  if (digits.starts_with('-')) {
    digits.remove_prefix(1);
  }
  return digits.size() > 1 && digits[0] == '0' &&
         digits.find_first_not_of("0123456789") == std::string_view::npos;
}

template <typename T>
std::string OutOfRange(const FieldRule& rule, T value) {
  if (rule.min_exclusive) {
    return StrCat("must be greater than ", static_cast<T>(rule.min), ", not ", value);
  }
  if (std::isfinite(rule.min) && std::isfinite(rule.max)) {
    return StrCat("must be between ",
                  static_cast<T>(rule.min),
                  " and ",
                  static_cast<T>(rule.max),
                  ", not ",
                  value);
  }
  return std::isfinite(rule.min)
             ? StrCat("must be at least ", static_cast<T>(rule.min), ", not ", value)
             : StrCat("must be at most ", static_cast<T>(rule.max), ", not ", value);
}

template <typename T>
std::string CheckRange(const FieldRule& rule, T value) {
  const auto number = static_cast<double>(value);
  const bool low = rule.min_exclusive ? number <= rule.min : number < rule.min;
  return low || number > rule.max ? OutOfRange(rule, value) : "";
}

std::optional<double> ParseDouble(const std::string& digits) {
  double value = 0;
  const char* end = digits.data() + digits.size();
  const auto [at, error] = std::from_chars(digits.data(), end, value);
  if (error != std::errc() || at != end || digits.empty()) {
    return std::nullopt;
  }
  return value;
}

bool HasControlCharacter(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
}

// The text of a scalar, or of anything given by --set, where `a: b` or `[x` mean themselves.
std::string ReadText(const ConfigNode& node, std::string& out) {
  const bool scalar = node.kind == ConfigNode::Kind::kScalar;
  if (!scalar && !node.raw.has_value()) {
    return Must("text", node);
  }
  const std::string& text =
      node.raw.has_value() && !(scalar && node.quoted) ? *node.raw : node.text;
  if (HasControlCharacter(text)) {
    return StrCat("must not contain control characters: ", Printable(DumpJson(Json(text)), 80));
  }
  if (text.size() > kMaxStringBytes) {
    return StrCat("is longer than ", FormatBytes(kMaxStringBytes));
  }
  out = text;
  return "";
}

// Exact, or in another case ("True" for a choice that YAML reads as a bool elsewhere).
std::string CheckChoice(const FieldRule& rule, std::string& value) {
  if (rule.choices.empty() ||
      std::find(rule.choices.begin(), rule.choices.end(), value) != rule.choices.end()) {
    return "";
  }
  std::string lower = value;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if (std::find(rule.choices.begin(), rule.choices.end(), lower) != rule.choices.end()) {
    value = lower;
    return "";
  }
  return StrCat(
      "must be one of ", Join(rule.choices, ", "), ", not \"", Printable(value, 80), "\"");
}
}  // namespace

std::string ReadValue(const ConfigNode& node, const FieldRule& /*rule*/, bool& out) {
  if (node.kind == ConfigNode::Kind::kNull) {
    return NoValue(out);
  }
  std::string text = node.kind == ConfigNode::Kind::kScalar ? node.text : "";
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  for (const char* yes : {"true", "yes", "on", "y", "t", "1"}) {
    if (text == yes) {
      out = true;
      return "";
    }
  }
  for (const char* no : {"false", "no", "off", "n", "f", "0"}) {
    if (text == no) {
      out = false;
      return "";
    }
  }
  return Must("true or false", node);
}

std::string ReadValue(const ConfigNode& node, const FieldRule& rule, int64_t& out) {
  if (node.kind == ConfigNode::Kind::kNull) {
    if (!rule.nullable) {
      return NoValue(out);
    }
    out = 0;
    return "";
  }
  if (node.kind != ConfigNode::Kind::kScalar) {
    return Must("an integer", node);
  }
  const std::string digits = Digits(node.text);
  if (HasLeadingZero(digits)) {
    return Must("an integer without leading zeros (YAML 1.1 reads them as octal)", node);
  }
  int64_t value = 0;
  const char* end = digits.data() + digits.size();
  const auto [at, error] = std::from_chars(digits.data(), end, value);
  if (error == std::errc::result_out_of_range && at == end) {
    return Must("an integer of at most 64 bits", node);
  }
  if (error != std::errc() || at != end || digits.empty()) {
    constexpr double kExact = 9007199254740992.0;  // 2^53: above it a double is no exact integer
    const std::optional<double> number = ParseDouble(digits);
    if (!number.has_value() || std::abs(*number) > kExact || *number != std::floor(*number)) {
      return Must("an integer", node);
    }
    value = static_cast<int64_t>(*number);
  }
  const std::string problem = CheckRange(rule, value);
  if (problem.empty()) {
    out = value;
  }
  return problem;
}

std::string ReadValue(const ConfigNode& node, const FieldRule& rule, double& out) {
  if (node.kind == ConfigNode::Kind::kNull) {
    return NoValue(out);
  }
  if (node.kind != ConfigNode::Kind::kScalar) {
    return Must("a number", node);
  }
  const std::optional<double> value = ParseDouble(Digits(node.text));
  if (!value.has_value() || !std::isfinite(*value)) {
    return Must("a finite number", node);
  }
  const std::string problem = CheckRange(rule, *value);
  if (problem.empty()) {
    out = *value;
  }
  return problem;
}

std::string ReadValue(const ConfigNode& node, const FieldRule& rule, std::string& out) {
  if (node.kind == ConfigNode::Kind::kNull) {
    if (!rule.choices.empty()) {
      return NoValue(out);
    }
    out.clear();
    return "";
  }
  std::string text;
  std::string problem = ReadText(node, text);
  if (problem.empty()) {
    problem = CheckChoice(rule, text);
  }
  if (problem.empty()) {
    out = text;
  }
  return problem;
}

std::string ReadValue(const ConfigNode& node,
                      const FieldRule& rule,
                      std::vector<std::string>& out) {
  if (node.kind != ConfigNode::Kind::kList) {
    const std::string example =
        rule.choices.size() > 1 ? StrCat(rule.choices[0], ", ", rule.choices[1]) : "a, b";
    return Must(StrCat("a list such as [", example, "]"), node);
  }
  std::vector<std::string> values;
  for (const ConfigNode& item : node.items) {
    std::string text;
    std::string problem = ReadText(item, text);
    if (problem.empty()) {
      problem = CheckChoice(rule, text);
    }
    if (problem.empty() && std::find(values.begin(), values.end(), text) != values.end()) {
      problem = StrCat("names \"", text, "\" twice");
    }
    if (!problem.empty()) {
      return problem;
    }
    values.push_back(text);
  }
  if (values.empty() && !rule.choices.empty()) {
    return "must name at least one";
  }
  out = values;
  return "";
}

std::string ReadValue(const ConfigNode& node, const FieldRule& rule, std::vector<int64_t>& out) {
  if (node.kind != ConfigNode::Kind::kList) {
    return Must("a list such as [1, 2]", node);
  }
  if (node.items.size() > kMaxIntegers) {
    return StrCat("has ", node.items.size(), " elements; at most ", kMaxIntegers, " are taken");
  }
  std::vector<int64_t> values;
  for (const ConfigNode& item : node.items) {
    int64_t value = 0;
    const std::string problem = ReadValue(item, rule, value);
    if (!problem.empty()) {
      return problem;
    }
    if (std::find(values.begin(), values.end(), value) != values.end()) {
      return StrCat("names ", value, " twice");
    }
    values.push_back(value);
  }
  out = values;
  return "";
}

std::string ReadLabel(const std::string& key,
                      const ConfigNode& node,
                      std::map<std::string, std::string>& out) {
  if (key.empty() || key.size() > kMaxLabelBytes || HasControlCharacter(key)) {
    return StrCat("a label's name has 1 to ",
                  kMaxLabelBytes,
                  " bytes and no control characters, not \"",
                  Printable(key, 80),
                  "\"");
  }
  std::string value;
  const std::string problem = node.kind == ConfigNode::Kind::kNull ? "" : ReadText(node, value);
  if (!problem.empty()) {
    return problem;
  }
  if (value.size() > kMaxLabelBytes) {
    return StrCat("is longer than ", kMaxLabelBytes, " bytes");
  }
  if (out.size() >= kMaxLabels && !out.contains(key)) {
    return StrCat("is one label too many: at most ", kMaxLabels, " are kept");
  }
  out[key] = value;
  return "";
}

}  // namespace mft
