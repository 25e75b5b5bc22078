// SPDX-License-Identifier: Apache-2.0
// Samples of other programs' forms to the form that this one trains on (finetune-spec 5.2, 5.3).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/tokenizer/python_json.h"

namespace mft::data {

enum class DataForm {
  kOpenAi,    // {"messages": [...]}, with functions or tools; also what is in our form already
  kGlaive,    // {"function_description", "conversations": [{"from", "value"}]}
  kShareGpt,  // {"conversations": [{"from", "value"}]}, with "system" and "tools"
  kAlpaca,    // {"instruction", "input", "output"}
  kPrompt     // {"prompt", "completion"} and the like; pairs of a question and an answer
};

std::string_view DataFormName(DataForm form);  // "openai"

// By its keys; nothing where it is none of these.
std::optional<DataForm> RecogniseForm(const PyJson& sample);

// Ids of tool calls: nine letters and digits, as Mistral's models have them, the same each time for
// the same line.
class CallIds {
 public:
  explicit CallIds(std::string_view line) : line_(line) {}
  std::string Next();
  // An id of another form, such as OpenAI's "call_...", gets one of ours, each time the same one.
  std::string For(const std::string& id);
  static bool IsValid(std::string_view id);

 private:
  std::string line_;
  int64_t made_ = 0;
  std::map<std::string, std::string> renamed_;
};

// What was left out on the way, of no harm to the rest.
struct LeftOutNote {
  std::string what;  // "messages after the last answer": the same words for the same case
  int64_t count = 1;
};

struct Reformatted {
  PyJson sample;
  std::vector<LeftOutNote> notes;
};

// INVALID_ARGUMENT says why a sample cannot be converted. `line`: its text, from which ids are
// made.
Result<Reformatted> Reformat(DataForm form, const PyJson& sample, std::string_view line);

}  // namespace mft::data
