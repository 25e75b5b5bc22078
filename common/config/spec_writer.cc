// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <charconv>
#include <utility>

#include "common/base/strings.h"
#include "common/config/yaml_reader.h"

namespace mft {

namespace {
struct JsonWriter {
  Json& out;

  template <typename T>
  void operator()(const char* key, const T& value, const FieldRule& /*rule*/) {
    if constexpr (std::is_same_v<T, std::map<std::string, std::string>>) {
      Json object = Json::object();
      for (const auto& [name, text] : value) {
        object[name] = text;
      }
      out[key] = std::move(object);
    } else {
      out[key] = value;
    }
  }
  template <typename T>
  void operator()(const char* key, const T& section) {
    Json object = Json::object();
    VisitFields(JsonWriter{object}, section);
    out[key] = std::move(object);
  }
};

// Text that YAML 1.1 and 1.2 read as the same string without quotes.
bool IsPlain(const std::string& text) {
  constexpr std::string_view kSafe =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
  const bool letter_or_slash =
      !text.empty() && (std::isalpha(static_cast<unsigned char>(text[0])) != 0 || text[0] == '/');
  if (!letter_or_slash || text.find_first_not_of(kSafe) != std::string::npos) {
    return false;
  }
  std::string lower = text;
  std::transform(
      lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  constexpr std::string_view kWords[] = {
      "true", "false", "yes", "no", "on", "off", "y", "n", "null"};
  return std::find(std::begin(kWords), std::end(kWords), lower) == std::end(kWords);
}

std::string Scalar(const std::string& text) {
  return IsPlain(text) ? text : DumpJson(Json(text));
}
std::string Scalar(bool value) {
  return StrCat(value);
}
std::string Scalar(int64_t value) {
  return StrCat(value);
}

// YAML 1.1 reads "6e-05" as text and "2" as an integer: a float has a point.
std::string Scalar(double value) {
  std::string text = StrCat(value);
  if (text.find('.') == std::string::npos) {
    const size_t exponent = text.find('e');
    text.insert(exponent == std::string::npos ? text.size() : exponent, ".0");
  }
  return text;
}

template <typename T>
std::string Scalar(const std::vector<T>& values) {
  std::vector<std::string> items;
  for (const T& value : values) {
    items.push_back(Scalar(value));
  }
  return StrCat("[", Join(items, ", "), "]");
}

std::string Scalar(const std::map<std::string, std::string>& labels) {
  std::vector<std::string> items;
  for (const auto& [key, value] : labels) {
    items.push_back(StrCat(Scalar(key), ": ", Scalar(value)));
  }
  return StrCat("{", Join(items, ", "), "}");
}

template <typename T>
bool IsNone(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return value.empty();
  } else if constexpr (std::is_same_v<T, int64_t>) {
    return value == 0;
  } else {
    return false;
  }
}

struct YamlWriter {
  std::map<std::string, std::string>& lines;  // key -> its text, sorted
  std::string indent;

  template <typename T>
  void operator()(const char* key, const T& value, const FieldRule& rule) {
    lines[key] =
        StrCat(indent, key, ": ", rule.nullable && IsNone(value) ? "null" : Scalar(value), "\n");
  }
  template <typename T>
  void operator()(const char* key, const T& section) {
    std::map<std::string, std::string> inside;
    VisitFields(YamlWriter{inside, indent + "  "}, section);
    std::string text = StrCat(indent, key, ":\n");
    for (const auto& [name, line] : inside) {
      text += line;
    }
    lines[key] = text;
  }
};
}  // namespace

Json JobSpecToJson(const JobSpec& spec) {
  Json json = Json::object();
  VisitFields(JsonWriter{json}, spec);
  return json;
}

std::string JobSpecToYaml(const JobSpec& spec) {
  std::map<std::string, std::string> lines;
  VisitFields(YamlWriter{lines, ""}, spec);
  std::string text;
  for (const auto& [key, line] : lines) {
    text += line;
  }
  return text;
}

}  // namespace mft
