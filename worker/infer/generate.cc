// SPDX-License-Identifier: Apache-2.0
#include <istream>
#include <ostream>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "common/tokenizer/tokenizer.h"
#include "worker/infer/commands.h"
#include "worker/infer/text_stream.h"

namespace mft {

namespace {
struct Answer {
  size_t prompt_tokens = 0;
  Completion completion;
  double seconds = 0;
};

void WriteLine(std::ostream& out, const Json& json) {
  out << DumpJson(json) << '\n' << std::flush;
}

Json ErrorLine(const Status& status) {
  Json error = {{"code", std::string(CodeName(status.code()))}, {"message", status.message()}};
  if (!status.reason().empty()) {
    error["reason"] = status.reason();
  }
  return {{"error", std::move(error)}};
}

using OnText = std::function<Status(const std::string&)>;

Result<Answer> AnswerRequest(Engine& engine,
                             const Tokenizer& tokenizer,
                             const ChatRequest& request,
                             const OnText& on_text) {
  const Clock& clock = SystemClock();
  const int64_t start = clock.BoottimeMicros();
  MFT_ASSIGN_OR_RETURN(const std::vector<int32_t> prompt,
                       EncodePrompt(tokenizer, request.conversation));
  TextStream stream(tokenizer);
  Answer answer{.prompt_tokens = prompt.size()};
  MFT_ASSIGN_OR_RETURN(answer.completion,
                       engine.Generate({.prompt = prompt,
                                        .max_tokens = request.max_tokens,
                                        .end_token = tokenizer.eos(),
                                        .sampling = request.sampling},
                                       [&](int32_t id) -> Status {
                                         MFT_ASSIGN_OR_RETURN(const std::string text,
                                                              stream.Add(id));
                                         return text.empty() ? Status::Ok() : on_text(text);
                                       }));
  MFT_ASSIGN_OR_RETURN(const std::string rest, stream.Finish());
  if (!rest.empty()) {
    MFT_RETURN_IF_ERROR(on_text(rest));
  }
  answer.seconds = static_cast<double>(clock.BoottimeMicros() - start) / 1e6;
  return answer;
}

Status AnswerPrompt(const GenerateArgs& args,
                    Engine& engine,
                    const Tokenizer& tokenizer,
                    std::ostream& out) {
  const Json json = {{"messages", {{{"role", "user"}, {"content", *args.prompt}}}},
                     {"system_prompt", args.system_prompt}};
  MFT_ASSIGN_OR_RETURN(const ChatRequest request, ParseChatRequest(json, args));
  const auto answer =
      AnswerRequest(engine, tokenizer, request, [&](const std::string& text) -> Status {
        out << text << std::flush;
        return out.good() ? Status::Ok() : Unavailable("standard output is closed");
      });
  MFT_RETURN_IF_ERROR(answer.status());
  out << '\n' << std::flush;
  return Status::Ok();
}

void AnswerLine(const std::string& line,
                const GenerateArgs& args,
                Engine& engine,
                const Tokenizer& tokenizer,
                std::ostream& out) {
  const auto json = ParseJson(line);
  const auto request =
      json.ok() ? ParseChatRequest(*json, args) : Result<ChatRequest>(json.status());
  auto answer =
      Result<Answer>(request.status().ok() ? Status(Code::kInternal, "") : request.status());
  if (request.ok()) {
    answer = AnswerRequest(engine, tokenizer, *request, [&](const std::string& text) -> Status {
      WriteLine(out, {{"text", text}});
      return out.good() ? Status::Ok() : Unavailable("standard output is closed");
    });
  }
  if (!answer.ok()) {
    WriteLine(out, ErrorLine(answer.status()));
    return;
  }
  WriteLine(out,
            {{"done", true},
             {"finish_reason", answer->completion.stopped ? "stop" : "length"},
             {"prompt_tokens", answer->prompt_tokens},
             {"completion_tokens", answer->completion.tokens.size()},
             {"seconds", answer->seconds}});
}

Result<Json> LogitsLine(const std::string& line, Engine& engine) {
  MFT_ASSIGN_OR_RETURN(const Json json, ParseJson(line));
  std::vector<int32_t> tokens;
  for (const Json& id : json) {
    if (!id.is_number_integer()) {
      return InvalidArgument("a line is a JSON list of token ids");
    }
    tokens.push_back(id.get<int32_t>());
  }
  MFT_ASSIGN_OR_RETURN(const std::vector<float> logits, engine.Logits(tokens));
  const auto columns = static_cast<size_t>(engine.params().vocab_size);
  Json rows = Json::array();
  for (size_t begin = 0; begin < logits.size(); begin += columns) {
    const std::span<const float> row = std::span(logits).subspan(begin, columns);
    rows.push_back(std::vector<float>(row.begin(), row.end()));
  }
  return Json{{"logits", std::move(rows)}};
}
}  // namespace

Status RunGenerate(const GenerateArgs& args, std::istream& in, std::ostream& out) {
  MFT_ASSIGN_OR_RETURN(const std::string tokenizer_file, FindTokenizerFile(args.engine.model_dir));
  MFT_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(tokenizer_file));
  MFT_ASSIGN_OR_RETURN(const auto engine, Engine::Create(args.engine));
  if (args.prompt.has_value()) {
    return AnswerPrompt(args, *engine, *tokenizer, out);
  }
  WriteLine(out, {{"ready", true}});
  for (std::string line; out.good() && std::getline(in, line);) {
    if (!Trim(line).empty()) {
      AnswerLine(line, args, *engine, *tokenizer, out);
    }
  }
  return Status::Ok();
}

Status RunLogits(const EngineOptions& options, std::istream& in, std::ostream& out) {
  MFT_ASSIGN_OR_RETURN(const auto engine, Engine::Create(options));
  for (std::string line; std::getline(in, line);) {
    const auto logits = LogitsLine(line, *engine);
    WriteLine(out, logits.ok() ? *logits : ErrorLine(logits.status()));
  }
  return Status::Ok();
}

}  // namespace mft
