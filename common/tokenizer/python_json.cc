// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/python_json.h"

#include <algorithm>
#include <array>
#include <utility>

namespace mft {

namespace {
constexpr std::string_view kHexDigits = "0123456789abcdef";

void DumpString(std::string_view text, std::string& out) {
  constexpr std::string_view kValues = "\"\\\b\f\n\r\t";
  constexpr std::string_view kNames = "\"\\bfnrt";
  out += '"';
  size_t copied = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte >= 0x20 && byte != '"' && byte != '\\') {
      continue;
    }
    out.append(text.substr(copied, i - copied));
    copied = i + 1;
    const size_t named = kValues.find(text[i]);
    if (named != std::string_view::npos) {
      out += '\\';
      out += kNames[named];
    } else {
      out += "\\u00";
      out += kHexDigits[byte >> 4];
      out += kHexDigits[byte & 15];
    }
  }
  out.append(text.substr(copied));
  out += '"';
}

void Dump(const PyJson& json, std::string& out) {
  switch (json.kind) {
    case PyJson::Kind::kNull:
      out += "null";
      return;
    case PyJson::Kind::kBool:
      out += json.boolean ? "true" : "false";
      return;
    case PyJson::Kind::kInt:
    case PyJson::Kind::kFloat:
      out += json.text;
      return;
    case PyJson::Kind::kString:
      DumpString(json.text, out);
      return;
    case PyJson::Kind::kList:
      out += '[';
      for (size_t i = 0; i < json.items.size(); ++i) {
        out += i > 0 ? ", " : "";
        Dump(json.items[i], out);
      }
      out += ']';
      return;
    case PyJson::Kind::kObject:
      out += '{';
      for (size_t i = 0; i < json.members.size(); ++i) {
        out += i > 0 ? ", " : "";
        DumpString(json.members[i].first, out);
        out += ": ";
        Dump(json.members[i].second, out);
      }
      out += '}';
      return;
  }
}
}  // namespace

PyJson PyJson::List() {
  PyJson json;
  json.kind = Kind::kList;
  return json;
}

PyJson PyJson::Object() {
  PyJson json;
  json.kind = Kind::kObject;
  return json;
}

void PyJson::Add(std::string key, PyJson value) {
  members.push_back({std::move(key), std::move(value)});
}

PyJson PyJson::String(std::string value) {
  PyJson json;
  json.kind = Kind::kString;
  json.text = std::move(value);
  return json;
}

const PyJson* PyJson::Find(std::string_view key) const {
  const auto found =
      std::find_if(members.begin(), members.end(), [&](const Member& m) { return m.first == key; });
  return found == members.end() ? nullptr : &found->second;
}

bool PyJson::Truthy() const {
  switch (kind) {
    case Kind::kNull:
      return false;
    case Kind::kBool:
      return boolean;
    case Kind::kInt:
      return text != "0";
    case Kind::kFloat:
      return text != "0.0" && text != "-0.0";
    case Kind::kString:
      return !text.empty();
    case Kind::kList:
      return !items.empty();
    case Kind::kObject:
      return !members.empty();
  }
  return false;
}

std::string DumpPyJson(const PyJson& json) {
  std::string out;
  Dump(json, out);
  return out;
}

std::string_view PyTypeName(const PyJson& json) {
  constexpr std::array<std::string_view, 7> kNames = {
      "NoneType", "bool", "int", "float", "str", "list", "dict"};
  return kNames[static_cast<size_t>(json.kind)];
}

}  // namespace mft
