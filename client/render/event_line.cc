// SPDX-License-Identifier: Apache-2.0
#include "client/render/event_line.h"

#include <google/protobuf/util/time_util.h>

#include "common/base/clock.h"
#include "common/base/strings.h"
#include "common/journal/format_line.h"

namespace mft::client {

namespace {
using google::protobuf::util::TimeUtil;

StepRecord ToRecord(const v1::Step& step) {
  return {.step = step.step(),
          .max_steps = step.max_steps(),
          .loss = step.loss(),
          .perplexity = step.perplexity(),
          .learning_rate = step.learning_rate(),
          .beta1 = step.beta1(),
          .grad_norm = step.grad_norm(),
          .loss_tokens = step.loss_tokens(),
          .tokens = step.tokens(),
          .step_seconds = step.step_seconds(),
          .tokens_per_second = step.tokens_per_second(),
          .mean_tokens_per_second = step.mean_tokens_per_second(),
          .eta_seconds = step.eta_seconds(),
          .peak_memory_bytes = step.peak_memory_bytes(),
          .memory_bytes = step.memory_bytes(),
          .nonfinite = step.nonfinite(),
          .skipped = step.skipped(),
          .expert_share = {step.expert_share().begin(), step.expert_share().end()},
          .expert_imbalance = step.has_expert_imbalance()
                                  ? std::optional<double>(step.expert_imbalance())
                                  : std::nullopt};
}

EvalRecord ToRecord(const v1::Eval& eval) {
  return {.step = eval.step(),
          .eval_loss = eval.eval_loss(),
          .perplexity = eval.perplexity(),
          .train_loss = eval.train_loss(),
          .loss_tokens = eval.loss_tokens(),
          .seconds = eval.seconds()};
}

std::string StateText(const v1::StateChanged& change) {
  std::string text = v1::JobState_Name(change.to());
  if (!change.reason().empty()) {
    text += StrCat(" (", change.reason(), ")");
  }
  return change.message().empty() ? text : StrCat(text, ": ", change.message());
}

std::string AttemptText(const v1::JobEvent& event) {
  const int64_t from = event.attempt_started().from_step();
  return from == 0 ? StrCat("attempt ", event.attempt(), " begins")
                   : StrCat("attempt ",
                            event.attempt(),
                            " goes on from step ",
                            from,
                            "; lines of later steps above are superseded");
}

std::string PreparedText(const v1::DataPrepared& data) {
  return StrCat("data prepared: ",
                data.samples(),
                " samples, ",
                data.tokens(),
                " tokens, ",
                data.loss_tokens(),
                " of them trained, ",
                FormatFixed(data.steps_per_epoch(), 1),
                " steps an epoch, ",
                FormatFixed(data.epochs(), 2),
                " epochs");
}
}  // namespace

std::string FormatTime(const google::protobuf::Timestamp& time, bool present) {
  return present ? FormatUtc(TimeUtil::TimestampToMicroseconds(time)) : "";
}

std::string EventFormatter::Line(const v1::JobEvent& event) {
  const int64_t micros = TimeUtil::TimestampToMicroseconds(event.time());
  if (start_micros_ == 0 || event.has_attempt_started()) {
    start_micros_ = micros;
  }
  const LineTime time{.wall_micros = micros,
                      .seconds_since_start = static_cast<double>(micros - start_micros_) * 1e-6};
  switch (event.event_case()) {
    case v1::JobEvent::kStep:
      return FormatStepLine(ToRecord(event.step()), time);
    case v1::JobEvent::kEval:
      return FormatEvalLine(ToRecord(event.eval()), time);
    case v1::JobEvent::kStateChanged:
      return FormatLogLine(time,
                           "job",
                           event.state_changed().to() == v1::FAILED ? "ERROR" : "INFO",
                           StateText(event.state_changed()));
    case v1::JobEvent::kAttemptStarted:
      // A preparation shows by its state and its result.
      return event.attempt_started().kind() == "prepare"
                 ? ""
                 : FormatLogLine(time, "job", "INFO", AttemptText(event));
    case v1::JobEvent::kCheckpoint:
      return FormatLogLine(time,
                           "checkpointing",
                           "INFO",
                           StrCat("step ",
                                  event.checkpoint().step(),
                                  ": ",
                                  event.checkpoint().path(),
                                  " (",
                                  FormatBytes(event.checkpoint().size_bytes()),
                                  ")"));
    case v1::JobEvent::kMessage:
      return FormatLogLine(time,
                           "message",
                           event.message().level() == "error"     ? "ERROR"
                           : event.message().level() == "warning" ? "WARNING"
                                                                  : "INFO",
                           event.message().text());
    case v1::JobEvent::kDataPrepared:
      return FormatLogLine(time, "data", "INFO", PreparedText(event.data_prepared()));
    case v1::JobEvent::kJournalDamaged:
      return FormatLogLine(time,
                           "job",
                           "WARNING",
                           StrCat("journal ",
                                  event.journal_damaged().file(),
                                  " is damaged at byte ",
                                  event.journal_damaged().offset(),
                                  ": ",
                                  event.journal_damaged().detail()));
    case v1::JobEvent::kPhase:
    case v1::JobEvent::kBookmark:
    case v1::JobEvent::EVENT_NOT_SET:
      return "";
  }
  return "";
}

}  // namespace mft::client
