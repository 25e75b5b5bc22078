// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iomanip>
#include <ostream>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/dataset/line_reader.h"
#include "common/dataset/sample_parser.h"
#include "common/tokenizer/tokenizer.h"
#include "worker/infer/commands.h"

namespace mft {

namespace {

constexpr size_t kMaxProblems = 20;  // told; the rest are counted

struct Prompt {
  int64_t line = 0;  // from 1
  ChatRequest request;
  std::vector<int32_t> tokens;
  std::optional<std::string> reference;  // the answer that the file has
};

using Answers = std::vector<std::optional<Result<Completion>>>;  // [prompts]; nothing: not yet

bool EndsWithAnswer(const Json& json) {
  const auto messages = json.find("messages");
  return messages != json.end() && messages->is_array() && !messages->empty() &&
         messages->back().is_object() && StringOr(messages->back(), "role", "") == "assistant";
}

// A training sample, its last answer taken off.
Result<Prompt> PromptOfSample(const std::string& line, const GenerateArgs& args) {
  MFT_ASSIGN_OR_RETURN(Sample sample, ParseSample(SourceKind::kInstruct, line));
  auto* conversation = std::get_if<Conversation>(&sample);
  if (conversation == nullptr) {
    return InvalidArgument("has no conversation");
  }
  // For the settings, and their defaults.
  MFT_ASSIGN_OR_RETURN(
      ChatRequest request,
      ParseChatRequest({{"messages", {{{"role", "user"}, {"content", ""}}}}}, args));
  Prompt prompt{.reference = std::move(conversation->messages.back().content)};
  conversation->messages.pop_back();
  request.conversation = std::move(*conversation);
  prompt.request = std::move(request);
  return prompt;
}

Result<Prompt> ParsePrompt(const std::string& line, const GenerateArgs& args) {
  MFT_ASSIGN_OR_RETURN(Json json, ParseJson(line));
  if (json.is_string()) {
    json = {{"messages", {{{"role", "user"}, {"content", json}}}},
            {"system_prompt", args.system_prompt}};
  }
  if (!json.is_object()) {
    return InvalidArgument("a prompt is a JSON string, or an object with messages");
  }
  if (EndsWithAnswer(json)) {
    return PromptOfSample(line, args);
  }
  Prompt prompt;
  MFT_ASSIGN_OR_RETURN(prompt.request, ParseChatRequest(json, args));
  return prompt;
}

Result<std::vector<Prompt>> ReadPrompts(const GenerateArgs& args, const Tokenizer& tokenizer) {
  MFT_ASSIGN_OR_RETURN(LineReader reader, LineReader::Open(args.prompts));
  std::vector<Prompt> prompts;
  std::string problems;
  size_t num_problems = 0;
  DataLine line;
  while (true) {
    MFT_ASSIGN_OR_RETURN(const bool more, reader.Next(line));
    if (!more) {
      break;
    }
    if (!line.too_long && Trim(line.text).empty()) {
      continue;
    }
    auto prompt = line.too_long ? Result<Prompt>(InvalidArgument("the line is too long"))
                                : ParsePrompt(line.text, args);
    auto tokens = prompt.ok() ? EncodePrompt(tokenizer, prompt->request.conversation)
                              : Result<std::vector<int32_t>>(prompt.status());
    if (tokens.ok()) {
      prompt->line = line.number + 1;
      prompt->tokens = std::move(tokens).value();
      prompts.push_back(std::move(prompt).value());
    } else if (++num_problems <= kMaxProblems) {
      problems += StrCat("\n", args.prompts, ":", line.number + 1, ": ", tokens.status().message());
    }
  }
  if (num_problems > 0) {
    return InvalidArgument(StrCat(num_problems, " bad prompts", problems));
  }
  if (prompts.empty()) {
    return InvalidArgument(StrCat(args.prompts, ": has no prompts"));
  }
  return prompts;
}

std::string LastContent(const Conversation& conversation) {
  return conversation.messages.empty() ? "" : conversation.messages.back().content;
}

Result<Json> AnswerToJson(const Prompt& prompt,
                          const Result<Completion>& answer,
                          const Tokenizer& tokenizer) {
  if (!answer.ok()) {
    return Json{{"error", answer.status().message()}};
  }
  MFT_ASSIGN_OR_RETURN(const std::string text, tokenizer.Decode(answer->tokens));
  return Json{{"text", text},
              {"finish_reason", answer->stopped ? "stop" : "length"},
              {"prompt_tokens", prompt.tokens.size()},
              {"completion_tokens", answer->tokens.size()}};
}

// Answers of several models to the same prompts, told in the prompts' order.
class Report {
 public:
  // All must outlive the object.
  Report(const GenerateArgs& args,
         const std::vector<Prompt>& prompts,
         const Tokenizer& tokenizer,
         std::ostream& out)
      : args_(args), prompts_(prompts), tokenizer_(tokenizer), out_(out) {}

  void AddModel(std::string name) {
    models_.push_back(std::move(name));
    answers_.emplace_back(prompts_.size());
  }
  Status Answered(size_t model, size_t prompt, Result<Completion> answer) {
    num_tokens_ += answer.ok() ? answer->tokens.size() : 0;
    failures_ += answer.ok() ? 0 : 1;
    answers_[model][prompt] = std::move(answer);
    for (; told_ < prompts_.size() && IsComplete(told_); ++told_) {
      MFT_RETURN_IF_ERROR(Tell(told_));
    }
    return out_.good() ? Status::Ok() : Unavailable("standard output is closed");
  }
  size_t num_tokens() const { return num_tokens_; }
  size_t num_failures() const { return failures_; }

 private:
  bool IsComplete(size_t prompt) const {
    return std::ranges::all_of(
        answers_, [prompt](const Answers& answers) { return answers[prompt].has_value(); });
  }

  Status Tell(size_t number) {
    const Prompt& prompt = prompts_[number];
    Json json = {{"line", prompt.line}, {"prompt", LastContent(prompt.request.conversation)}};
    for (size_t model = 0; model < models_.size(); ++model) {
      MFT_ASSIGN_OR_RETURN(json[models_[model]],
                           AnswerToJson(prompt, *answers_[model][number], tokenizer_));
      answers_[model][number] = Status(Code::kInternal, "told");  // frees the answer
    }
    if (prompt.reference) {
      json["reference"] = *prompt.reference;
    }
    args_.output == "json" ? void(out_ << DumpJson(json) << '\n') : TellAsText(json);
    out_ << std::flush;
    return Status::Ok();
  }

  void TellAsText(const Json& json) {
    out_ << args_.prompts << ':' << json["line"] << ": " << json["prompt"].get<std::string>()
         << '\n';
    for (const std::string& model : models_) {
      const Json& answer = json[model];
      const bool failed = answer.contains("error");
      TellLine(failed ? model + " (error)" : model,
               StringOr(answer, failed ? "error" : "text", ""));
    }
    if (json.contains("reference")) {
      TellLine("reference", json["reference"].get<std::string>());
    }
  }
  void TellLine(const std::string& name, const std::string& text) {
    constexpr int kNameColumns = 12;
    out_ << "  " << std::left << std::setw(kNameColumns) << name + ":" << text << '\n';
  }

  const GenerateArgs& args_;
  const std::vector<Prompt>& prompts_;
  const Tokenizer& tokenizer_;
  std::ostream& out_;
  std::vector<std::string> models_;
  std::vector<Answers> answers_;  // [models]
  size_t told_ = 0;
  size_t num_tokens_ = 0;
  size_t failures_ = 0;
};

// As long as the longest prompt with its answer may get, and no longer than was allowed.
int64_t ContextFor(const std::vector<Prompt>& prompts, int64_t allowed) {
  int64_t needed = 2;
  for (const Prompt& prompt : prompts) {
    needed =
        std::max(needed, static_cast<int64_t>(prompt.tokens.size()) + prompt.request.max_tokens);
  }
  return std::min(needed, allowed);
}

}  // namespace

Status RunPrompts(const GenerateArgs& args, std::ostream& out) {
  if (args.compare && args.engine.adapter.empty()) {
    return InvalidArgument("--compare needs --adapter: there is nothing to compare the base with");
  }
  MFT_ASSIGN_OR_RETURN(const std::string tokenizer_file, FindTokenizerFile(args.engine.model_dir));
  MFT_ASSIGN_OR_RETURN(const auto tokenizer, LoadTokenizer(tokenizer_file));
  MFT_ASSIGN_OR_RETURN(const std::vector<Prompt> prompts, ReadPrompts(args, *tokenizer));
  EngineOptions options = args.engine;
  options.conversations = std::min(args.batch_size, static_cast<int64_t>(prompts.size()));
  options.context_tokens = ContextFor(prompts, options.context_tokens);
  MFT_ASSIGN_OR_RETURN(const auto engine, Engine::Create(options));
  const auto base = args.compare ? engine->WithoutAdapter() : nullptr;

  std::vector<Engine::Request> requests;
  for (const Prompt& prompt : prompts) {
    requests.push_back({.prompt = prompt.tokens,
                        .max_tokens = prompt.request.max_tokens,
                        .end_token = tokenizer->eos(),
                        .sampling = prompt.request.sampling});
  }
  Report report(args, prompts, *tokenizer, out);
  report.AddModel(args.engine.adapter.empty() ? "base" : "adapter");
  if (base) {
    report.AddModel("base");
  }
  const int64_t start = SystemClock().BoottimeMicros();
  size_t model = 0;
  for (Engine* each : {engine.get(), base.get()}) {
    if (each != nullptr) {
      MFT_RETURN_IF_ERROR(
          each->GenerateAll(requests, [&](size_t prompt, Result<Completion> answer) {
            return report.Answered(model, prompt, std::move(answer));
          }));
    }
    ++model;
  }
  const double seconds = static_cast<double>(SystemClock().BoottimeMicros() - start) / 1e6;
  LogInfo(StrCat(prompts.size(),
                 " prompts, ",
                 report.num_tokens(),
                 " tokens in ",
                 FormatFixed(seconds, 2),
                 " s, ",
                 FormatFixed(static_cast<double>(report.num_tokens()) / seconds, 1),
                 " tokens/s"));
  return report.num_failures() == 0
             ? Status::Ok()
             : InvalidArgument(StrCat(report.num_failures(), " prompts could not be answered"));
}

}  // namespace mft
