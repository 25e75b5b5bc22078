// SPDX-License-Identifier: Apache-2.0
#include "worker/data/reformat.h"

#include <algorithm>
#include <utility>

#include "common/base/ids.h"
#include "common/base/strings.h"
#include "common/dataset/sample_fields.h"
#include "worker/data/reformat_forms.h"

namespace mft::data {

namespace {
constexpr size_t kIdLength = 9;
}

std::string_view DataFormName(DataForm form) {
  switch (form) {
    case DataForm::kOpenAi:
      return "openai";
    case DataForm::kGlaive:
      return "glaive";
    case DataForm::kShareGpt:
      return "sharegpt";
    case DataForm::kAlpaca:
      return "alpaca";
    case DataForm::kPrompt:
      return "prompt";
  }
  return "?";
}

std::optional<DataForm> RecogniseForm(const PyJson& sample) {
  const auto has = [&](std::string_view key) { return sample.Find(key) != nullptr; };
  if (has("messages") || has("interactions")) {
    return DataForm::kOpenAi;
  }
  if (has("conversations")) {
    return has("function_description") ? DataForm::kGlaive : DataForm::kShareGpt;
  }
  if (has("instruction") && has("output")) {
    return DataForm::kAlpaca;
  }
  for (const auto& [question, answer] : {std::pair{"prompt", "completion"},
                                         {"prompt", "response"},
                                         {"question", "answer"},
                                         {"question", "response"},
                                         {"query", "response"},
                                         {"input", "output"}}) {
    if (has(question) && has(answer)) {
      return DataForm::kPrompt;
    }
  }
  return std::nullopt;
}

std::string CallIds::Next() {
  constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
  const std::string hash = Sha256Hex(StrCat(line_, "\n", made_++));
  std::string id;
  for (size_t i = 0; i < kIdLength; ++i) {
    const unsigned long byte = std::stoul(hash.substr(2 * i, 2), nullptr, 16);
    id.push_back(kAlphabet[byte % kAlphabet.size()]);
  }
  return id;
}

std::string CallIds::For(const std::string& id) {
  if (IsValid(id)) {
    return id;
  }
  std::string& ours = renamed_[id];
  if (ours.empty()) {
    ours = Next();
  }
  return ours;
}

bool CallIds::IsValid(std::string_view id) {
  return id.size() == kIdLength && std::all_of(id.begin(), id.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
         });
}

Result<Reformatted> Reformat(DataForm form, const PyJson& sample, std::string_view line) {
  if (!sample.is(PyJson::Kind::kObject)) {
    return InvalidArgument(StrCat("is no object: ", samples::Quote(sample)));
  }
  CallIds ids(line);
  switch (form) {
    case DataForm::kOpenAi:
      return FromMessages(sample, ids);
    case DataForm::kGlaive:
    case DataForm::kShareGpt:
      return FromConversations(form, sample, ids);
    case DataForm::kAlpaca:
    case DataForm::kPrompt:
      return FromPair(form, sample, ids);
  }
  return Internal("unknown form");
}

PyJson TextMessage(std::string_view role, std::string text) {
  PyJson message = PyJson::Object();
  message.Add("role", PyJson::String(std::string(role)));
  message.Add("content", PyJson::String(std::move(text)));
  return message;
}

Result<PyJson> ToolOf(const PyJson& function) {
  MFT_ASSIGN_OR_RETURN(std::string name, TextOr(function, "name"));
  if (name.empty()) {
    return InvalidArgument(StrCat("a tool without a name: ", samples::Quote(function)));
  }
  MFT_ASSIGN_OR_RETURN(std::string description, TextOr(function, "description"));
  const PyJson* parameters = samples::NotNull(function, "parameters");
  PyJson ours = PyJson::Object();
  ours.Add("name", PyJson::String(std::move(name)));
  ours.Add("description", PyJson::String(std::move(description)));
  ours.Add("parameters", parameters != nullptr ? *parameters : PyJson::Object());
  PyJson tool = PyJson::Object();
  tool.Add("type", PyJson::String("function"));
  tool.Add("function", std::move(ours));
  return tool;
}

Result<std::string> TextOr(const PyJson& object, std::string_view key) {
  const PyJson* member = samples::NotNull(object, key);
  if (member == nullptr) {
    return std::string();
  }
  if (!member->is(PyJson::Kind::kString)) {
    return InvalidArgument(
        StrCat(key, ": must be a string, not ", PyTypeName(*member), " ", samples::Quote(*member)));
  }
  return member->text;
}

std::string RoleOf(const PyJson& message) {
  const PyJson* role = message.Find("role");
  return role != nullptr && role->is(PyJson::Kind::kString) ? role->text : "";
}

std::string ArgumentsText(const PyJson* arguments) {
  const bool none = arguments == nullptr || arguments->is(PyJson::Kind::kNull);
  if (!none && !arguments->is(PyJson::Kind::kString)) {
    return DumpPyJson(*arguments);
  }
  return none || Trim(arguments->text).empty() ? "{}" : arguments->text;
}

void EndWithAssistant(PyJson& messages, std::vector<LeftOutNote>& notes) {
  std::vector<PyJson>& items = messages.items;
  size_t kept = items.size();
  while (kept > 0 && RoleOf(items[kept - 1]) != "assistant") {
    --kept;
  }
  for (size_t i = kept; kept > 0 && i < items.size(); ++i) {
    if (RoleOf(items[i]) == "system") {
      std::swap(items[kept++], items[i]);
    }
  }
  const size_t left_out = items.size() - kept;
  items.resize(kept);
  if (left_out > 0) {
    notes.push_back({"messages after the last answer", static_cast<int64_t>(left_out)});
  }
}

}  // namespace mft::data
