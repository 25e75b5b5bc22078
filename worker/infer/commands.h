// SPDX-License-Identifier: Apache-2.0
// `mft-worker generate` and `mft-worker logits`.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>

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
Result<ChatRequest> ParseChatRequest(const std::string& line, const GenerateArgs& args);

// With a prompt: the answer on `out` as it comes. Without: {"ready":true}, then for each request
// line of `in` any number of {"text":...} and one {"done":true,...} or {"error":{...}} on `out`,
// until `in` ends.
Status RunGenerate(const GenerateArgs& args, std::istream& in, std::ostream& out);

// For each line of `in`, a JSON list of token ids, one line {"logits":[[...]...]} or {"error":...}:
// the logits of every position, for comparisons with other programs.
Status RunLogits(const EngineOptions& options, std::istream& in, std::ostream& out);

}  // namespace mft
