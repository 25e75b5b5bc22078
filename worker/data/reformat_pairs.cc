// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "common/base/strings.h"
#include "common/dataset/sample_fields.h"
#include "worker/data/reformat_forms.h"

namespace mft::data {

namespace {
Status AddPair(std::string question, std::string answer, PyJson& messages) {
  if (question.empty() || answer.empty()) {
    return InvalidArgument(question.empty() ? "the question is empty" : "the answer is empty");
  }
  messages.items.push_back(TextMessage("user", std::move(question)));
  messages.items.push_back(TextMessage("assistant", std::move(answer)));
  return Status::Ok();
}

// "history": [[question, answer], ...] before the pair.
Status AddHistory(const PyJson& sample, PyJson& messages) {
  const PyJson* history = samples::NotNull(sample, "history");
  if (history == nullptr) {
    return Status::Ok();
  }
  for (const PyJson& turn : history->items) {
    const bool pair = turn.is(PyJson::Kind::kList) && turn.items.size() == 2 &&
                      turn.items[0].is(PyJson::Kind::kString) &&
                      turn.items[1].is(PyJson::Kind::kString);
    if (!pair) {
      return InvalidArgument(StrCat("history: no pair of texts: ", samples::Quote(turn)));
    }
    MFT_RETURN_IF_ERROR(AddPair(turn.items[0].text, turn.items[1].text, messages));
  }
  return Status::Ok();
}

Status AddAlpaca(const PyJson& sample, PyJson& messages) {
  MFT_ASSIGN_OR_RETURN(std::string question, TextOr(sample, "instruction"));
  MFT_ASSIGN_OR_RETURN(const std::string input, TextOr(sample, "input"));
  MFT_ASSIGN_OR_RETURN(std::string answer, TextOr(sample, "output"));
  if (!input.empty()) {
    question = question.empty() ? input : StrCat(question, "\n\n", input);
  }
  return AddPair(std::move(question), std::move(answer), messages);
}

// The member that the first of `keys` names which is there.
Result<std::string> FirstText(const PyJson& sample, std::initializer_list<std::string_view> keys) {
  for (const std::string_view key : keys) {
    if (sample.Find(key) != nullptr) {
      return TextOr(sample, key);
    }
  }
  return std::string();
}

Status AddPrompt(const PyJson& sample, PyJson& messages) {
  MFT_ASSIGN_OR_RETURN(std::string question,
                       FirstText(sample, {"prompt", "question", "query", "input"}));
  MFT_ASSIGN_OR_RETURN(std::string answer,
                       FirstText(sample, {"completion", "response", "answer", "output"}));
  // Completions of the old API begin with the space that parted them from the prompt.
  const size_t space = answer.starts_with(' ') ? 1 : 0;
  return AddPair(std::move(question), answer.substr(space), messages);
}

// TRL's conversational form: "prompt" and "completion" are lists of messages.
bool IsMessageLists(const PyJson& sample) {
  const PyJson* prompt = sample.Find("prompt");
  const PyJson* completion = sample.Find("completion");
  return prompt != nullptr && prompt->is(PyJson::Kind::kList) && completion != nullptr &&
         completion->is(PyJson::Kind::kList);
}

Result<Reformatted> FromMessageLists(const PyJson& sample, CallIds& ids) {
  PyJson messages = *sample.Find("prompt");
  const PyJson& answers = *sample.Find("completion");
  messages.items.insert(messages.items.end(), answers.items.begin(), answers.items.end());
  PyJson chat = PyJson::Object();
  chat.Add("messages", std::move(messages));
  if (const PyJson* tools = samples::NotNull(sample, "tools")) {
    chat.Add("tools", *tools);
  }
  return FromMessages(chat, ids);
}
}  // namespace

Result<Reformatted> FromPair(DataForm form, const PyJson& sample, CallIds& ids) {
  if (form == DataForm::kPrompt && IsMessageLists(sample)) {
    return FromMessageLists(sample, ids);
  }
  PyJson messages = PyJson::List();
  MFT_ASSIGN_OR_RETURN(std::string system, FirstText(sample, {"system", "system_prompt"}));
  if (!system.empty()) {
    messages.items.push_back(TextMessage("system", std::move(system)));
  }
  MFT_RETURN_IF_ERROR(AddHistory(sample, messages));
  MFT_RETURN_IF_ERROR(form == DataForm::kAlpaca ? AddAlpaca(sample, messages)
                                                : AddPrompt(sample, messages));
  Reformatted result{.sample = PyJson::Object()};
  result.sample.Add("messages", std::move(messages));
  return result;
}

}  // namespace mft::data
