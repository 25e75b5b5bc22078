// SPDX-License-Identifier: Apache-2.0
#include "common/base/json.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "common/base/strings.h"

namespace mft {

namespace {
// Watches the parse for what nlohmann accepts and we do not: deep nesting and duplicate keys.
class Guard {
 public:
  explicit Guard(int max_depth) : max_depth_(max_depth) {}

  bool operator()(int depth, Json::parse_event_t event, Json& value) {
    switch (event) {
      case Json::parse_event_t::object_start:
      case Json::parse_event_t::array_start:
        if (depth >= max_depth_) {
          throw std::length_error(StrCat("nesting deeper than ", max_depth_, " levels"));
        }
        keys_.resize(static_cast<size_t>(depth) + 1);
        keys_.back().clear();
        break;
      case Json::parse_event_t::key: {
        const auto& key = value.get_ref<const std::string&>();
        if (!keys_[static_cast<size_t>(depth) - 1].insert(key).second) {
          throw std::length_error(StrCat("duplicate key \"", Printable(key, 80), "\""));
        }
        break;
      }
      case Json::parse_event_t::object_end:
      case Json::parse_event_t::array_end:
      case Json::parse_event_t::value:
        break;
    }
    return true;
  }

 private:
  int max_depth_;
  std::vector<std::set<std::string>> keys_;
};

Status WrongType(const Json& object, std::string_view key, std::string_view expected) {
  const auto member = object.is_object() ? object.find(std::string(key)) : object.end();
  if (!object.is_object() || member == object.end()) {
    return InvalidArgument(StrCat("missing \"", key, "\""));
  }
  return InvalidArgument(
      StrCat("\"", key, "\" must be ", expected, ", not ", Printable(DumpJson(*member), 80)));
}

const Json* Find(const Json& object, std::string_view key) {
  if (!object.is_object()) {
    return nullptr;
  }
  const auto member = object.find(std::string(key));
  return member == object.end() ? nullptr : &*member;
}

// nlohmann prefixes "[json.exception.parse_error.101] "; people need only what follows.
std::string Readable(std::string_view what) {
  const size_t bracket = what.find("] ");
  return std::string(bracket == std::string_view::npos ? what : what.substr(bracket + 2));
}
}  // namespace

Result<Json> ParseJson(std::string_view text, int max_depth) {
  try {
    return Json::parse(text.begin(), text.end(), Guard(max_depth));
  } catch (const std::exception& error) {
    return InvalidArgument(StrCat("invalid JSON: ", Printable(Readable(error.what()), 300)));
  }
}

std::string DumpJson(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Result<std::string> GetString(const Json& object, std::string_view key) {
  const Json* member = Find(object, key);
  if (member == nullptr || !member->is_string()) {
    return WrongType(object, key, "a string");
  }
  return member->get<std::string>();
}

Result<int64_t> GetInt(const Json& object, std::string_view key) {
  const Json* member = Find(object, key);
  if (member == nullptr || !member->is_number_integer() ||
      (member->is_number_unsigned() &&
       member->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))) {
    return WrongType(object, key, "an integer");
  }
  return member->get<int64_t>();
}

Result<double> GetDouble(const Json& object, std::string_view key) {
  const Json* member = Find(object, key);
  if (member == nullptr || !member->is_number()) {
    return WrongType(object, key, "a number");
  }
  return member->get<double>();
}

Result<bool> GetBool(const Json& object, std::string_view key) {
  const Json* member = Find(object, key);
  if (member == nullptr || !member->is_boolean()) {
    return WrongType(object, key, "true or false");
  }
  return member->get<bool>();
}

std::string StringOr(const Json& object, std::string_view key, std::string_view otherwise) {
  auto value = GetString(object, key);
  return value.ok() ? std::move(value).value() : std::string(otherwise);
}

int64_t IntOr(const Json& object, std::string_view key, int64_t otherwise) {
  const auto value = GetInt(object, key);
  return value.ok() ? *value : otherwise;
}

double DoubleOr(const Json& object, std::string_view key, double otherwise) {
  const auto value = GetDouble(object, key);
  return value.ok() ? *value : otherwise;
}

bool BoolOr(const Json& object, std::string_view key, bool otherwise) {
  const auto value = GetBool(object, key);
  return value.ok() ? *value : otherwise;
}

}  // namespace mft
