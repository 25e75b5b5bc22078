// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "common/base/clock.h"
#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/config/job_file.h"
#include "common/journal/build.h"
#include "common/journal/writer.h"
#include "worker/data/commands.h"
#include "worker/data/job_input.h"
#include "worker/data/prepare.h"
#include "worker/data/stop_signal.h"

namespace mft::data {
namespace {

constexpr int64_t kMaxPrintedProblems = 1000;
constexpr int64_t kMaxJournalProblems = 100;
constexpr int kExitInterrupted = 130;

struct PrepareArguments {
  std::string config;       // by hand: YAML or job.json ...
  std::string out;          // ... and the directory of the cache
  std::string job;          // in an attempt: job.json ...
  std::string attempt_dir;  // ... and the attempt's directory
};

// Problems and warnings go to stderr, and with the phases to the attempt's journal where there is
// one.
class Reporter final : public PrepareObserver {
 public:
  explicit Reporter(std::unique_ptr<JournalWriter> journal) : journal_(std::move(journal)) {}

  void Phase(std::string_view phase, std::string_view detail) override {
    Append(PhaseRecord{.phase = std::string(phase), .detail = Printable(detail, 4096)});
  }

  void Problem(std::string_view text) override {
    ++problems_;
    if (problems_ <= kMaxPrintedProblems) {
      std::fprintf(stderr, "%s\n", std::string(text).c_str());
    }
    if (problems_ <= kMaxJournalProblems) {
      Append(MessageRecord{.level = "error", .text = std::string(text)});
    }
  }

  void Warning(std::string_view text) override {
    ++warnings_;
    if (warnings_ <= kMaxPrintedProblems) {
      LogWarning(text);
    }
    if (warnings_ <= kMaxJournalProblems) {
      Append(MessageRecord{.level = "warning", .text = std::string(text)});
    }
  }

  bool Stopped() override { return StopSignal() != 0; }

  // The last record, and the exit code that goes with it.
  int Finish(const Result<PreparedData>& data) {
    SayWhatWasLeftOut();
    return data.ok() ? Succeed(*data) : Fail(data.status());
  }

 private:
  void Append(RecordBody body) {
    if (journal_ != nullptr) {
      LogIfError(journal_->Append(std::move(body)), "journal");
    }
  }

  void AppendFinal(FinalRecord record) {
    if (journal_ != nullptr) {
      LogIfError(journal_->AppendSynced(std::move(record)), "journal");
    }
  }

  void SayWhatWasLeftOut() {
    SayWhatWasLeftOut(problems_, "error", " more problems");
    SayWhatWasLeftOut(warnings_, "warning", " more warnings");
  }

  void SayWhatWasLeftOut(int64_t count, const char* level, std::string_view what) {
    if (count > kMaxPrintedProblems) {
      std::fprintf(stderr, "%s\n", StrCat("... and ", count - kMaxPrintedProblems, what).c_str());
    }
    if (count > kMaxJournalProblems) {
      Append(MessageRecord{.level = level,
                           .text = StrCat("... and ", count - kMaxJournalProblems, what)});
    }
  }

  int Succeed(const PreparedData& data) {
    LogInfo(StrCat(data.reused ? "reusing a token cache: " : "",
                   data.samples,
                   " samples, ",
                   data.tokens,
                   " tokens, ",
                   data.loss_tokens,
                   " of them with loss, ",
                   data.eval_samples,
                   " evaluation samples, ",
                   FormatFixed(data.steps_per_epoch, 2),
                   " steps an epoch, ",
                   FormatFixed(data.epochs, 2),
                   " epochs"));
    Append(DataPreparedRecord{.samples = data.samples,
                              .tokens = data.tokens,
                              .loss_tokens = data.loss_tokens,
                              .eval_samples = data.eval_samples,
                              .steps_per_epoch = data.steps_per_epoch,
                              .epochs = data.epochs,
                              .cache = data.directory});
    AppendFinal({.outcome = "done", .reason = {}, .message = {}});
    if (journal_ == nullptr) {
      std::printf("%s\n", data.directory.c_str());
    }
    return 0;
  }

  int Fail(const Status& status) {
    FinalRecord record = {.outcome = "failed",
                          .code = static_cast<int>(status.code()),
                          .reason = status.reason(),
                          .message = status.message()};
    if (status.code() == Code::kCancelled) {
      record = {.outcome = "stopped", .reason = {}, .message = "stopped by a signal"};
    } else if (status.code() == Code::kResourceExhausted && record.reason.empty()) {
      record.outcome = "stopped";  // nothing is wrong with the job: somebody has to make room
      record.reason = "DISK_FULL";
    }
    LogError(status.message());
    AppendFinal(record);
    if (status.code() == Code::kCancelled) {
      return journal_ != nullptr ? 0 : kExitInterrupted;
    }
    return ExitCodeFor(status.code());
  }

  std::unique_ptr<JournalWriter> journal_;  // null: by hand
  int64_t problems_ = 0;
  int64_t warnings_ = 0;
};

int Threads() {
  return static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 1u, 16u));
}

Result<PreparedData> PrepareByHand(const PrepareArguments& arguments, Reporter& reporter) {
  PrepareRequest request = {
      .spec = {}, .cache_root = {}, .directory = AbsolutePath(arguments.out), .threads = Threads()};
  MFT_ASSIGN_OR_RETURN(request.spec, ReadJob(arguments.config));
  return PrepareData(request, reporter);
}

Result<PreparedData> PrepareAttempt(const PrepareArguments& arguments,
                                    const AttemptFile& attempt,
                                    Reporter& reporter) {
  MFT_RETURN_IF_ERROR(CheckBuildOfRunner());
  PrepareRequest request = {
      .spec = {}, .cache_root = attempt.cache_root, .directory = {}, .threads = attempt.threads};
  MFT_ASSIGN_OR_RETURN(request.spec, ReadJob(arguments.job));
  return PrepareData(request, reporter);
}

int RunAttempt(const PrepareArguments& arguments) {
  const std::string path = JoinPath(arguments.attempt_dir, "attempt.json");
  const Result<AttemptFile> attempt = ReadAttemptFile(path);
  if (!attempt.ok()) {
    LogError(attempt.status().message());
    return ExitCodeFor(attempt.status().code());
  }
  Result<std::unique_ptr<JournalWriter>> journal =
      JournalWriter::Open(JoinPath(arguments.attempt_dir, "rank-0.jsonl"),
                          HeaderRecord{.attempt_id = attempt->attempt_id,
                                       .rank = 0,
                                       .boot_id = BootId(),
                                       .build = std::string(BuildId())});
  if (!journal.ok()) {
    LogError(journal.status().message());
    return ExitCodeFor(journal.status().code());
  }
  Reporter reporter(std::move(journal).value());
  return reporter.Finish(PrepareAttempt(arguments, *attempt, reporter));
}

int RunPrepare(const PrepareArguments& arguments) {
  HandleStopSignals();
  if (!arguments.attempt_dir.empty()) {
    return RunAttempt(arguments);
  }
  Reporter reporter(nullptr);
  return reporter.Finish(PrepareByHand(arguments, reporter));
}

}  // namespace

void AddPrepareCommand(CLI::App& app, int& exit_code) {
  auto arguments = std::make_shared<PrepareArguments>();
  CLI::App* command = app.add_subcommand(
      "prepare", "Check a job's data and tokenise it into a cache that training reads");
  command->add_option("--config", arguments->config, "by hand: job file (YAML or job.json)");
  command->add_option(
      "--out", arguments->out, "by hand: directory of the cache; its path is printed");
  command->add_option("--job", arguments->job, "in an attempt: job.json");
  command->add_option("--attempt-dir",
                      arguments->attempt_dir,
                      "in an attempt: directory with attempt.json; gets the journal rank-0.jsonl");
  command->callback([arguments, &exit_code] {
    const bool hand = !arguments->config.empty() && !arguments->out.empty();
    const bool runs = !arguments->job.empty() && !arguments->attempt_dir.empty();
    const bool mixed = (hand && !(arguments->job.empty() && arguments->attempt_dir.empty())) ||
                       (runs && !(arguments->config.empty() && arguments->out.empty()));
    if (hand == runs || mixed) {
      throw CLI::ValidationError("prepare", "needs --config and --out, or --job and --attempt-dir");
    }
    exit_code = RunPrepare(*arguments);
  });
}

}  // namespace mft::data
