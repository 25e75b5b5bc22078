// SPDX-License-Identifier: Apache-2.0
#include "client/render/job_text.h"

#include <algorithm>
#include <cmath>

#include "client/render/event_line.h"
#include "common/base/strings.h"

namespace mft::client {

namespace {
void Add(std::string& out, std::string_view name, const std::string& value) {
  if (!value.empty()) {
    out += name;
    out += ':';
    out.append(name.size() < 15 ? 15 - name.size() : 1, ' ');
    out += value + "\n";
  }
}

std::string ProgressText(const v1::JobProgress& progress) {
  std::string text = StrCat("step ", progress.step(), " of ", progress.max_steps());
  if (progress.has_train_loss()) {
    text += StrCat(", train loss ",
                   FormatFixed(progress.train_loss(), 3),
                   ", perplexity ",
                   FormatFixed(std::exp(progress.train_loss()), 3));
  }
  if (progress.has_eval_loss()) {
    text += StrCat(", eval loss ", FormatFixed(progress.eval_loss(), 3));
  }
  return text;
}

std::string NextStep(const v1::Job& job) {
  switch (job.state()) {
    case v1::FAILED:
      if (job.reason().starts_with("VALIDATION")) {
        return "correct the lines named above (mftctl validate JOB.yaml lists them all) and submit "
               "again";
      }
      return StrCat("see mftctl logs ",
                    job.id(),
                    " and mftctl logs ",
                    job.id(),
                    " --rank 0; correct the cause and submit again");
    case v1::VALIDATED:
    case v1::QUEUED:
      return "wait, or see mftctl devices and mftctl ls for what is before it";
    case v1::SUCCEEDED:
      return StrCat("mftctl checkpoints ",
                    job.id(),
                    " lists the adapters; mftctl chat ",
                    job.id(),
                    " talks to the newest");
    default:
      return "";
  }
}
}  // namespace

std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
    }
  }
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      out += row[i];
      if (i + 1 < row.size()) {
        out.append(widths[i] - row[i].size() + 2, ' ');
      }
    }
    out += '\n';
  }
  return out;
}

std::string FormatEstimate(const v1::Estimate& estimate, int64_t max_steps) {
  std::string out;
  const std::string about = estimate.exact() ? "" : "about ";
  Add(out,
      "tokens",
      StrCat(about,
             estimate.tokens(),
             " in the training data, ",
             estimate.tokens_per_step(),
             " a step"));
  Add(out,
      "steps",
      StrCat(max_steps, ", ", about, FormatFixed(estimate.steps_per_epoch(), 1), " an epoch"));
  Add(out, "epochs", StrCat(about, FormatFixed(estimate.epochs(), 2)));
  Add(out,
      "time",
      estimate.seconds() > 0 ? "about " + FormatDuration(estimate.seconds()) : "unknown");
  Add(out,
      "memory",
      StrCat(FormatBytes(estimate.memory_bytes()),
             " a rank, weights ",
             FormatBytes(estimate.weights_bytes())));
  Add(out, "disk", FormatBytes(estimate.disk_bytes()));
  Add(out, "trainable", StrCat(estimate.trainable_parameters(), " parameters"));
  for (const std::string& note : estimate.notes()) {
    Add(out, "note", note);
  }
  return out;
}

std::string FormatJob(const v1::Job& job) {
  std::string out;
  Add(out, "job", job.id());
  Add(out, "name", job.name());
  Add(out,
      "state",
      job.reason().empty() ? v1::JobState_Name(job.state())
                           : StrCat(v1::JobState_Name(job.state()), " (", job.reason(), ")"));
  Add(out, "message", job.message());
  Add(out, "phase", job.progress().phase());
  Add(out, "progress", job.progress().max_steps() > 0 ? ProgressText(job.progress()) : "");
  Add(out,
      "checkpoint",
      job.progress().last_checkpoint_step() > 0
          ? StrCat("step ", job.progress().last_checkpoint_step())
          : "");
  Add(out, "attempt", job.attempt() > 0 ? std::to_string(job.attempt()) : "");
  Add(out, "owner", job.owner());
  Add(out, "created", FormatTime(job.create_time(), job.has_create_time()));
  Add(out, "started", FormatTime(job.start_time(), job.has_start_time()));
  Add(out, "ended", FormatTime(job.end_time(), job.has_end_time()));
  Add(out, "model", job.spec().model_id_or_path());
  Add(out, "run_dir", job.spec().run_dir());
  Add(out, "job_dir", job.job_dir());
  for (const v1::DeviceLease& device : job.devices()) {
    Add(out,
        "device",
        device.uuid().empty() ? device.id() : StrCat(device.id(), " ", device.uuid()));
  }
  return out + FormatEstimate(job.estimate(), job.spec().max_steps());
}

std::string FormatWhy(const v1::Job& job) {
  std::string out = v1::JobState_Name(job.state());
  out += job.reason().empty() ? "" : StrCat(" (", job.reason(), ")");
  out += job.message().empty() ? "\n" : StrCat(": ", job.message(), "\n");
  const std::string next = NextStep(job);
  return next.empty() ? out : StrCat(out, "next: ", next, "\n");
}

}  // namespace mft::client
