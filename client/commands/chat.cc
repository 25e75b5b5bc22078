// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cstdio>
#include <iostream>

#include "client/commands/commands.h"
#include "common/base/strings.h"

namespace mft::client {

namespace {
struct ChatFlags {
  std::string job, prompt, system_prompt;
  bool base = false;
  int max_tokens = 0;
  double temperature = 0, top_p = 0;
  int64_t seed = 0;
};

using Stream = grpc::ClientReaderWriter<v1::ChatRequest, v1::ChatResponse>;

// "JOB" or "JOB@STEP".
Result<v1::ChatRequest> OpenRequest(const ChatFlags& flags) {
  v1::ChatRequest request;
  v1::ChatOpen& open = *request.mutable_open();
  const size_t at = flags.job.find('@');
  open.set_job_id(flags.job.substr(0, at));
  if (at != std::string::npos) {
    const std::string step = flags.job.substr(at + 1);
    if (step.empty() || step.size() > 15 ||
        step.find_first_not_of("0123456789") != std::string::npos) {
      return InvalidArgument(StrCat(flags.job, ": the part after @ must be a step"));
    }
    open.set_step(std::stoll(step));
  }
  open.set_base(flags.base);
  open.set_max_tokens(flags.max_tokens);
  open.set_temperature(flags.temperature);
  open.set_top_p(flags.top_p);
  open.set_seed(flags.seed);
  open.set_system_prompt(flags.system_prompt);
  return request;
}

// Prints one answer; false when the stream has ended.
bool Ask(Stream& stream, const std::string& prompt) {
  v1::ChatRequest turn;
  turn.mutable_turn()->set_text(prompt);
  if (!stream.Write(turn)) {
    return false;
  }
  v1::ChatResponse response;
  while (stream.Read(&response)) {
    if (response.has_done()) {
      std::printf("\n");
      std::fflush(stdout);
      return true;
    }
    std::fwrite(response.text().data(), 1, response.text().size(), stdout);
    std::fflush(stdout);
  }
  return false;
}

void Converse(Stream& stream) {
  const bool terminal = isatty(STDIN_FILENO) != 0;
  std::string line;
  while (true) {
    if (terminal) {
      std::fprintf(stderr, "> ");
    }
    if (!std::getline(std::cin, line) || (!line.empty() && !Ask(stream, line))) {
      return;
    }
  }
}

Result<int> Chat(Connection& connection, const ChatFlags& flags) {
  MFT_ASSIGN_OR_RETURN(const v1::ChatRequest open, OpenRequest(flags));
  grpc::ClientContext context;
  const auto stream = connection.jobs().Chat(&context);
  v1::ChatResponse ready;
  if (stream->Write(open) && stream->Read(&ready) && ready.has_ready()) {
    if (flags.prompt.empty()) {
      Converse(*stream);
    } else {
      Ask(*stream, flags.prompt);
    }
  }
  stream->WritesDone();
  v1::ChatResponse rest;
  while (stream->Read(&rest)) {
  }
  MFT_RETURN_IF_ERROR(connection.Convert(stream->Finish()));
  return 0;
}
}  // namespace

void AddChat(CLI::App& app, Context& context) {
  const auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = app.add_subcommand(
      "chat", "talk to a checkpoint: one prompt, or a conversation on the terminal");
  command
      ->add_option(
          "JOB[@STEP]", flags->job, "job, and the step of its checkpoint (default: the newest)")
      ->required();
  command->add_option("PROMPT", flags->prompt, "one question; without it a conversation");
  command->add_flag("--base", flags->base, "the base model, without the adapter");
  command->add_option("--max-tokens", flags->max_tokens, "of an answer (default 256)")
      ->check(CLI::PositiveNumber);
  command->add_option("--temperature", flags->temperature, "0 (default) is greedy")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--top-p", flags->top_p, "nucleus sampling")->check(CLI::Range(0.0, 1.0));
  command->add_option("--seed", flags->seed, "of the sampling");
  command->add_option("--system", flags->system_prompt, "system prompt");
  command->callback([flags, &context] {
    context.Run([&](Connection& connection) { return Chat(connection, *flags); });
  });
}

}  // namespace mft::client
