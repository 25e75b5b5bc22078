// SPDX-License-Identifier: Apache-2.0
#include "common/tokenizer/chat_json.h"

#include <algorithm>
#include <map>
#include <utility>

#include "common/base/strings.h"

namespace mft {

Result<PyJson> JsonOrText(const std::string& text) {
  auto parsed = ParsePyJson(text);
  if (parsed.ok()) {
    return std::move(parsed->value);
  }
  if (parsed.status().code() == Code::kInvalidArgument) {
    return PyJson::String(text);
  }
  return Status(Code::kInvalidArgument, parsed.status().message());
}

bool HasId(const ToolCall& call) {
  return !call.id.empty() && call.id != "null";
}

Result<std::string> ToolsJson(const std::vector<ToolDefinition>& tools) {
  PyJson list = PyJson::List();
  for (const ToolDefinition& tool : tools) {
    MFT_ASSIGN_OR_RETURN(PyJsonParsed parameters, ParsePyJson(tool.parameters));
    PyJson function = PyJson::Object();
    function.Add("name", PyJson::String(tool.name));
    function.Add("description", PyJson::String(tool.description));
    function.Add("parameters", std::move(parameters.value));
    PyJson entry = PyJson::Object();
    entry.Add("type", PyJson::String("function"));
    entry.Add("function", std::move(function));
    list.items.push_back(std::move(entry));
  }
  return DumpPyJson(list);
}

Result<std::string> CallsJson(const std::vector<ToolCall>& calls, bool with_ids) {
  PyJson list = PyJson::List();
  for (const ToolCall& call : calls) {
    MFT_ASSIGN_OR_RETURN(PyJson arguments, JsonOrText(call.arguments));
    PyJson entry = PyJson::Object();
    entry.Add("name", PyJson::String(call.name));
    entry.Add("arguments", std::move(arguments));
    if (with_ids && HasId(call)) {
      entry.Add("id", PyJson::String(call.id));
    }
    list.items.push_back(std::move(entry));
  }
  return DumpPyJson(list);
}

Result<std::string> NamedResultJson(const ChatMessage& message) {
  MFT_ASSIGN_OR_RETURN(PyJson content, JsonOrText(message.content));
  PyJson result = PyJson::Object();
  result.Add("name", message.name.empty() ? PyJson() : PyJson::String(message.name));
  result.Add("content", std::move(content));
  PyJson list = PyJson::List();
  list.items.push_back(std::move(result));
  return DumpPyJson(list);
}

Result<std::string> ResultJson(const ChatMessage& message) {
  MFT_ASSIGN_OR_RETURN(PyJson content, JsonOrText(message.content));
  PyJson result = PyJson::Object();
  result.Add("content", std::move(content));
  result.Add("call_id", PyJson::String(message.tool_call_id));
  return DumpPyJson(result);
}

namespace {
// formats.md 1.4: {"type": "enum", "values": [...], "accepts_none": true, "default": "none"}
Result<std::optional<std::string>> Setting(const std::string& name,
                                           const Json& rule,
                                           const std::optional<std::string>& asked) {
  if (!rule.is_object() || !rule.contains("values") || !rule["values"].is_array()) {
    return Unimplemented(StrCat("model setting ", name, " is none of a list of values"));
  }
  std::vector<std::string> values;
  for (const Json& value : rule["values"]) {
    values.push_back(value.is_string() ? value.get<std::string>() : DumpJson(value));
  }
  if (asked) {
    if (std::find(values.begin(), values.end(), *asked) == values.end()) {
      return InvalidArgument(
          StrCat(name, " should be one of ", Join(values, ", "), ", not \"", *asked, "\""));
    }
    return asked;
  }
  if (!BoolOr(rule, "accepts_none", false)) {
    return InvalidArgument(StrCat(name, " must be set for this model: ", Join(values, ", ")));
  }
  const std::string otherwise = StringOr(rule, "default", "");
  return otherwise.empty() ? std::nullopt : std::optional(otherwise);
}
}  // namespace

Result<std::string> SettingsJson(const Json& builder, const std::optional<std::string>& reasoning) {
  std::map<std::string, PyJson> settings;  // json.dumps with sort_keys
  bool known = false;
  const Json none = Json::object();
  const Json& rules = builder.is_object() ? builder : none;
  for (const auto& [name, rule] : rules.items()) {
    const bool is_effort = name == "reasoning_effort";
    known |= is_effort;
    MFT_ASSIGN_OR_RETURN(const auto value,
                         Setting(name, rule, is_effort ? reasoning : std::nullopt));
    settings[name] = value ? PyJson::String(*value) : PyJson();
  }
  if (reasoning && !known) {
    return InvalidArgument("reasoning_effort is no setting of this model");
  }
  PyJson object = PyJson::Object();
  bool any = false;
  for (auto& [name, value] : settings) {
    any |= !value.is(PyJson::Kind::kNull);
    object.Add(name, std::move(value));
  }
  return any ? DumpPyJson(object) : "";
}

}  // namespace mft
