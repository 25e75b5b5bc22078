// SPDX-License-Identifier: Apache-2.0
#include "worker/train/metrics_log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/strings.h"

namespace mft {

namespace {
constexpr double kGib = 1024.0 * 1024 * 1024;  // mistral-finetune's unit for the *_mem keys

Json Number(double value) {
  return std::isfinite(value) ? Json(value) : Json(nullptr);
}

// Every key but step and time becomes a scalar, as in mistral-finetune; a list one for each
// element.
std::vector<Scalar> Scalars(std::string_view prefix, const Json& line) {
  std::vector<Scalar> scalars;
  const auto add = [&](std::string tag, const Json& value) {
    scalars.push_back(
        {.tag = std::move(tag), .value = value.is_number() ? value.get<double>() : std::nan("")});
  };
  for (const auto& [key, value] : line.items()) {
    if (key == "step" || key == "at") {
      continue;
    }
    if (!value.is_array()) {
      add(StrCat(prefix, key), value);
      continue;
    }
    for (size_t i = 0; i < value.size(); ++i) {
      add(StrCat(prefix, key, ".", i), value[i]);
    }
  }
  return scalars;
}

// Best effort: the caller repeats a failed line, and a repeated point would be worse than none.
void WriteScalars(TensorBoardWriter& writer,
                  int64_t step,
                  int64_t wall_micros,
                  const std::vector<Scalar>& scalars) {
  LogIfError(writer.Write(step, wall_micros, scalars), "TensorBoard");
}

bool HasFiles(const std::string& directory) {
  const auto names = ListDir(directory);
  return names.ok() && !names->empty();
}
}  // namespace

Json TrainMetrics(const StepRecord& step, int64_t wall_micros) {
  Json line;
  line["lr"] = Number(step.learning_rate);
  line["step"] = step.step;
  line["loss"] = Number(step.loss);
  line["percent_done"] = 100.0 * static_cast<double>(step.step) /
                         static_cast<double>(std::max<int64_t>(1, step.max_steps));
  line["peak_allocated_mem"] = static_cast<double>(step.peak_memory_bytes) / kGib;
  line["allocated_mem"] = static_cast<double>(step.memory_bytes) / kGib;
  line["wps"] = Number(step.tokens_per_second);
  line["avg_wps"] = Number(step.mean_tokens_per_second);
  line["eta_in_seconds"] = Number(step.eta_seconds);
  line["at"] = FormatUtcMicros(wall_micros);
  line["grad_norm"] = Number(step.grad_norm);
  line["beta1"] = Number(step.beta1);
  line["loss_tokens"] = step.loss_tokens;
  line["perplexity"] = Number(step.perplexity);
  if (step.expert_imbalance) {
    line["expert_imbalance"] = Number(*step.expert_imbalance);
    line["expert_share"] = step.expert_share;
  }
  return line;
}

Json EvalMetrics(const EvalRecord& eval, int64_t wall_micros) {
  Json line;
  line["step"] = eval.step;
  line["train_loss"] = Number(eval.train_loss);
  line["perplexity"] = Number(eval.perplexity);
  line["eval_loss"] = Number(eval.eval_loss);
  line["at"] = FormatUtcMicros(wall_micros);
  line["loss_tokens"] = eval.loss_tokens;
  return line;
}

Result<MetricsLog::LineFile> MetricsLog::OpenLines(const std::string& path, int64_t length) {
  LineFile file;
  file.path = path;
  MFT_ASSIGN_OR_RETURN(file.fd, OpenFile(path, O_WRONLY | O_CREAT | O_APPEND));
  MFT_ASSIGN_OR_RETURN(const int64_t present, FileSize(path));
  if (present > length && ftruncate(file.fd.get(), length) != 0) {
    return ErrnoStatus(errno, path);
  }
  // A shorter file has lost lines in a power cut: what is left stands.
  file.size = std::min(present, length);
  return file;
}

Result<std::unique_ptr<MetricsLog>> MetricsLog::Open(const Options& options) {
  std::unique_ptr<MetricsLog> log(new MetricsLog);
  MFT_ASSIGN_OR_RETURN(
      log->train_,
      OpenLines(JoinPath(options.run_dir, "metrics.train.jsonl"), options.lengths.train));
  MFT_ASSIGN_OR_RETURN(
      log->eval_, OpenLines(JoinPath(options.run_dir, "metrics.eval.jsonl"), options.lengths.eval));
  const std::string tb_directory = JoinPath(options.run_dir, "tb");
  const bool restarts = options.resume_step > 0 || HasFiles(tb_directory);
  TensorBoardWriter::Options tb{.directory = tb_directory,
                                .suffix = ".train",
                                .wall_micros = options.wall_micros,
                                .restart_step = restarts ? options.resume_step + 1 : 0};
  MFT_ASSIGN_OR_RETURN(log->tb_train_, TensorBoardWriter::Create(tb));
  if (options.with_eval) {
    tb.suffix = ".eval";
    MFT_ASSIGN_OR_RETURN(log->tb_eval_, TensorBoardWriter::Create(tb));
  }
  return log;
}

Status MetricsLog::Append(LineFile& file, const Json& line) {
  const std::string text = DumpJson(line) + "\n";
  const Status written = WriteAll(file.fd.get(), text, file.path);
  if (!written.ok()) {
    if (ftruncate(file.fd.get(), file.size) != 0) {
      LogIfError(ErrnoStatus(errno, file.path), "cutting back a torn line");
    }
    return written;
  }
  file.size += static_cast<int64_t>(text.size());
  return Status::Ok();
}

Status MetricsLog::Train(const StepRecord& step, int64_t wall_micros) {
  const Json line = TrainMetrics(step, wall_micros);
  MFT_RETURN_IF_ERROR(Append(train_, line));
  WriteScalars(*tb_train_, step.step, wall_micros, Scalars("train.", line));
  return Status::Ok();
}

Status MetricsLog::Eval(const EvalRecord& eval, int64_t wall_micros) {
  const Json line = EvalMetrics(eval, wall_micros);
  MFT_RETURN_IF_ERROR(Append(eval_, line));
  if (tb_eval_ != nullptr) {
    WriteScalars(*tb_eval_, eval.step, wall_micros, Scalars("eval.", line));
  }
  return Status::Ok();
}

}  // namespace mft
