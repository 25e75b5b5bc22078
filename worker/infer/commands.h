// SPDX-License-Identifier: Apache-2.0
// `mft-worker generate` and `mft-worker logits`.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>

#include "common/base/json.h"
#include "common/base/status.h"
#include "common/tokenizer/chat.h"
#include "worker/infer/engine.h"

namespace mft {

struct GenerateArgs {
  EngineOptions engine;
  std::optional<std::string> prompt;  // nothing: requests come as JSON lines
  std::string system_prompt;
  int64_t max_tokens = 512;
  double temperature = 0;
  double top_p = 1;
  std::optional<uint64_t> seed;  // default: another answer each time
  std::string prompts;           // file of prompts instead; "": none
  int64_t batch_size = 8;        // of prompts: answered at once
  bool compare = false;          // of prompts: the base's answers beside the adapter's
  std::string output = "text";   // of prompts: text or json
};

// One conversation to answer.
struct ChatRequest {
  Conversation conversation;
  int64_t max_tokens = 512;
  SamplingOptions sampling;
};

// {"messages": [{"role", "content"}...], "system_prompt", "max_tokens", "temperature", "top_p",
// "seed"}; all but messages optional, with the defaults of `args`. INVALID_ARGUMENT names the
// field.
Result<ChatRequest> ParseChatRequest(const Json& json, const GenerateArgs& args);

// With a prompt: the answer on `out` as it comes. Without: {"ready":true}, then for each request
// line of `in` any number of {"text":...} and one {"done":true,...} or {"error":{...}} on `out`,
// until `in` ends.
Status RunGenerate(const GenerateArgs& args, std::istream& in, std::ostream& out);

// Answers the prompts of a file, args.batch_size at once, on `out` in the file's order. A
// line is a JSON string (a user's message), a request as above, or a conversation as training data
// have it, whose last answer is shown beside the model's. Every line is read before the model:
// INVALID_ARGUMENT lists the bad ones as FILE:LINE: MESSAGE.
Status RunPrompts(const GenerateArgs& args, std::ostream& out);

// For each line of `in`, a JSON list of token ids, one line {"logits":[[...]...]} or {"error":...}:
// the logits of every position, for comparisons with other programs.
Status RunLogits(const EngineOptions& options, std::istream& in, std::ostream& out);

}  // namespace mft
