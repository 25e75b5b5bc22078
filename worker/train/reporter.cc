// SPDX-License-Identifier: Apache-2.0
#include "worker/train/reporter.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/journal/format_line.h"

namespace mft {

namespace {
constexpr size_t kMaxProcStatus = size_t{64} << 10;

std::string JournalLevel(LogLevel level) {
  std::string name(LogLevelName(level));
  std::transform(name.begin(), name.end(), name.begin(), [](char c) {
    return static_cast<char>(c - 'A' + 'a');
  });
  return name;
}

void WriteStderr(const std::string& line) {
  const std::string text = line + "\n";
  // One write keeps lines whole; a log that cannot be written has nowhere to complain.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, text.data(), text.size());
}

// "VmHWM:     1234 kB" of /proc/self/status, in bytes.
int64_t MemoryField(std::string_view status, std::string_view name) {
  const size_t at = status.find(name);
  if (at == std::string_view::npos) {
    return 0;
  }
  const std::string_view rest = status.substr(at + name.size());
  const size_t digits = rest.find_first_of("0123456789");
  int64_t kib = 0;
  if (digits != std::string_view::npos) {
    std::from_chars(rest.data() + digits, rest.data() + rest.size(), kib);
  }
  return kib * 1024;
}

bool IsDiskFull(const Status& status) {
  return status.code() == Code::kResourceExhausted;
}
}  // namespace

ProcessMemory ReadProcessMemory() {
  const auto status = ReadFile("/proc/self/status", kMaxProcStatus);
  if (!status.ok()) {
    return {};
  }
  return {.resident_bytes = MemoryField(*status, "VmRSS:"),
          .peak_bytes = MemoryField(*status, "VmHWM:")};
}

Result<std::unique_ptr<Reporter>> Reporter::Open(const Options& options,
                                                 const StopSignals& signals,
                                                 const Clock& clock) {
  std::unique_ptr<Reporter> reporter(new Reporter(options, signals, clock));
  if (!options.attempt_dir.empty()) {
    const std::string stem = JoinPath(options.attempt_dir, StrCat("rank-", options.rank));
    HeaderRecord header;
    header.attempt_id = options.attempt_id;
    header.rank = options.rank;
    header.boot_id = BootId();
    header.build = std::string(BuildId());
    MFT_ASSIGN_OR_RETURN(reporter->journal_, JournalWriter::Open(stem + ".jsonl", header, clock));
    reporter->heartbeat_ = std::make_unique<HeartbeatWriter>(stem + ".beat");
  }
  return reporter;
}

Status Reporter::OpenMetrics(const MetricsLog::Options& options) {
  MFT_ASSIGN_OR_RETURN(metrics_, MetricsLog::Open(options));
  return Status::Ok();
}

MetricsLengths Reporter::metrics_lengths() const {
  return metrics_ == nullptr ? MetricsLengths{} : metrics_->lengths();
}

double Reporter::SecondsSinceStart() const {
  return static_cast<double>(clock_.BoottimeMicros() - started_micros_) / 1e6;
}

void Reporter::Line(std::string_view logger, LogLevel level, std::string_view text) const {
  WriteStderr(FormatLogLine(
      {.wall_micros = clock_.WallMicros(), .seconds_since_start = SecondsSinceStart()},
      logger,
      LogLevelName(level),
      text));
}

Status Reporter::Append(RecordBody body) {
  if (journal_ == nullptr) {
    return Status::Ok();
  }
  return Persist([&] { return journal_->Append(body); });
}

Status Reporter::AppendOfFirst(RecordBody body) {
  return options_.rank == 0 ? Append(std::move(body)) : Status::Ok();
}

Status Reporter::Phase(std::string_view phase, std::string_view detail) {
  phase_ = phase;
  Line(
      "worker", LogLevel::kInfo, detail.empty() ? std::string(phase) : StrCat(phase, ": ", detail));
  Beat(step_);
  return Append(PhaseRecord{.phase = std::string(phase), .detail = std::string(detail)});
}

void Reporter::SetPart(int64_t first_step, int64_t max_steps) {
  part_begin_ = first_step;
  job_steps_ = max_steps;
}

Status Reporter::Resumed(int64_t from_step) {
  return AppendOfFirst(ResumeRecord{.from_step = part_begin_ + from_step});
}

Status Reporter::Step(const StepRecord& of_run) {
  const int64_t now = clock_.WallMicros();
  StepRecord step = of_run;
  if (job_steps_ > 0) {
    step.step += part_begin_;
    step.max_steps = job_steps_;
    const int64_t left = of_run.max_steps - of_run.step;
    const double per_step =
        left > 0 ? of_run.eta_seconds / static_cast<double>(left) : of_run.step_seconds;
    step.eta_seconds = per_step * static_cast<double>(step.max_steps - step.step);
  }
  WriteStderr(
      FormatStepLine(step, {.wall_micros = now, .seconds_since_start = SecondsSinceStart()}));
  if (metrics_ != nullptr) {
    MFT_RETURN_IF_ERROR(Persist([&] { return metrics_->Train(of_run, now); }));
  }
  return AppendOfFirst(step);
}

Status Reporter::Eval(const EvalRecord& of_run) {
  const int64_t now = clock_.WallMicros();
  EvalRecord eval = of_run;
  eval.step += part_begin_;
  WriteStderr(
      FormatEvalLine(eval, {.wall_micros = now, .seconds_since_start = SecondsSinceStart()}));
  if (metrics_ != nullptr) {
    MFT_RETURN_IF_ERROR(Persist([&] { return metrics_->Eval(of_run, now); }));
  }
  return AppendOfFirst(eval);
}

Status Reporter::Checkpoint(const CheckpointRecord& of_run) {
  CheckpointRecord checkpoint = of_run;
  checkpoint.step += part_begin_;
  Line("checkpointing",
       LogLevel::kInfo,
       StrCat("Done dumping checkpoint in ", checkpoint.path, " for step: ", checkpoint.step));
  if (!checkpoint.removed.empty()) {
    Line("checkpointing",
         LogLevel::kInfo,
         StrCat("Done deleting checkpoints ", Join(checkpoint.removed, ", ")));
  }
  JournalWriter* const journal = FirstJournal();
  return journal == nullptr ? Status::Ok()
                            : Persist([&] { return journal->AppendSynced(checkpoint); });
}

void Reporter::Final(const FinalRecord& final_record) {
  const bool failed = final_record.outcome == "failed";
  std::string text = StrCat(final_record.outcome, " at step ", final_record.step);
  if (!final_record.message.empty()) {
    text += StrCat(": ", final_record.message);
  }
  Line("worker", failed ? LogLevel::kError : LogLevel::kInfo, text);
  if (journal_ != nullptr) {
    LogIfError(journal_->AppendSynced(final_record), "writing the final record");
  }
}

void Reporter::Message(LogLevel level, std::string_view text) {
  Line("worker", level, text);
  if (JournalWriter* const journal = FirstJournal(); journal != nullptr) {
    LogIfError(
        journal->Append(MessageRecord{.level = JournalLevel(level), .text = std::string(text)}),
        "writing a message to the journal");
  }
}

void Reporter::Place(int64_t step, std::string_view what) const {
  if (place_) {
    place_(part_begin_ + step, what);
  }
}

void Reporter::Beat(int64_t step) {
  step_ = step;
  Place(step, phase_);
  const int64_t of_job = part_begin_ + step;
  if (heartbeat_ != nullptr) {
    heartbeat_->Write({.step = of_job,
                       .wall_micros = clock_.WallMicros(),
                       .memory_bytes = ReadProcessMemory().resident_bytes});
  }
}

Status Reporter::Persist(const std::function<Status()>& work) {
  Status status = work();
  return IsDiskFull(status) ? WaitForDisk(std::move(status), work) : status;
}

Status Reporter::WaitForDisk(Status status, const std::function<Status()>& work) {
  const auto say = [&](std::string_view phase, std::string_view detail) {
    if (journal_ != nullptr) {
      // The journal may lie on the same disk.
      LogIfError(
          journal_->Append(PhaseRecord{.phase = std::string(phase), .detail = std::string(detail)}),
          "writing to the journal");
    }
  };
  Line("worker",
       LogLevel::kWarning,
       StrCat(status.message(),
              "; trying again every ",
              FormatDuration(std::chrono::duration<double>(options_.disk_retry).count()),
              " for ",
              FormatDuration(std::chrono::duration<double>(options_.disk_give_up).count())));
  say(kPhaseDiskFull, status.message());
  for (auto waited = options_.disk_retry; waited <= options_.disk_give_up;
       waited += options_.disk_retry) {
    signals_.SleepUnlessStopped(options_.disk_retry);
    Beat(step_);
    status = work();
    if (!IsDiskFull(status)) {
      say(phase_, "");
      return status;
    }
    if (signals_.stop_requested()) {
      break;
    }
  }
  return {Code::kResourceExhausted, std::string(kReasonDiskFull), status.message()};
}

}  // namespace mft
