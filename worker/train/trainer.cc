// SPDX-License-Identifier: Apache-2.0
#include "worker/train/trainer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "worker/model/status_error.h"
#include "worker/train/checkpointer.h"
#include "worker/train/chunks.h"
#include "worker/train/grad_clip.h"
#include "worker/train/grad_sync.h"
#include "worker/train/optimizer.h"
#include "worker/train/result_export.h"

namespace mft {

namespace {
// With `nonfinite: skip`, a run that only ever skips learns nothing more.
constexpr int64_t kMaxSkipsInARow = 100;

Rows RowsOf(const MicroBatch& chunk, int64_t step) {
  return {.tokens = chunk.x,
          .targets = chunk.y,
          .row_weight = chunk.row_weight,
          .cu_seqlens = chunk.cu_seqlens,
          .pack = chunk.pack,
          .pack_row = chunk.pack_row,
          .step = step};
}

bool IsDue(int64_t step, int64_t frequency) {
  return frequency > 0 && step % frequency == 0;
}

// What a rank does within a step, for those who may have to tell where it was lost.
constexpr std::string_view kSummingGradients = "summing gradients";
constexpr std::string_view kUpdatingWeights = "updating weights";
}  // namespace

class StopWatch {
 public:
  explicit StopWatch(const Clock& clock) : clock_(clock), start_(clock.BoottimeMicros()) {}
  double seconds() const { return static_cast<double>(clock_.BoottimeMicros() - start_) / 1e6; }

 private:
  const Clock& clock_;
  const int64_t start_;
};

Trainer::Trainer(Session& session, Reporter& reporter, StopSignals& signals, const Clock& clock)
    : session_(session), reporter_(reporter), signals_(signals), clock_(clock) {}

FinalRecord Trainer::Run() {
  if (IsLast()) {
    return Complete(false);
  }
  ThrowIfError(reporter_.Phase(kPhaseTraining));
  while (!IsLast()) {
    const Requests requests = AgreeOnRequests();
    if (requests.stop) {
      return Stop();
    }
    if (requests.checkpoint) {
      SaveCheckpoint();
    }
    const StepResult result = TrainStep(session_.state.step + 1);
    if (!result.finite && session_.spec().mftd.nonfinite != "skip") {
      return EndOnNonfinite(result);
    }
    ++session_.state.step;
    ReportStep(result, !result.finite);
    skips_in_a_row_ = result.finite ? 0 : skips_in_a_row_ + 1;
    if (skips_in_a_row_ == kMaxSkipsInARow) {
      return EndOnNonfinite(result);
    }
    AfterStep();
  }
  return Complete(true);
}

// A request that reached one rank is every rank's, at the same boundary between steps.
Trainer::Requests Trainer::AgreeOnRequests() {
  // Before this attempt's first step there is nothing that the newest checkpoint does not have.
  std::array<bool, 2> asked = {signals_.stop_requested(),
                               steps_done_ > 0 && signals_.TakeCheckpointRequest()};
  session_.ranks.Any(asked);
  return {.stop = asked[0], .checkpoint = asked[1]};
}

// Exports the result. `trained`: by this attempt.
FinalRecord Trainer::Complete(bool trained) {
  const JobSpec& spec = session_.spec();
  const Choice& choice = session_.state.choice;
  session_.ranks.OnFirst([&] {
    ExportResult(session_, reporter_, trained);
    return Status::Ok();
  });
  std::string message;
  std::string reason;
  if (session_.state.step < spec.max_steps) {
    reason = kReasonEarlyStop;
    message = StrCat("stopped early after step ",
                     session_.state.step,
                     " of ",
                     spec.max_steps,
                     ": ",
                     choice.waited,
                     choice.best_step == 0 ? " evaluations, none with a finite eval loss"
                                           : StrCat(" evaluations without an eval loss below ",
                                                    FormatFixed(choice.reference_loss, 6)),
                     spec.mftd.early_stop.min_delta > 0
                         ? StrCat(" by more than ", spec.mftd.early_stop.min_delta)
                         : std::string());
  }
  if (spec.mftd.keep_best && choice.best_step > 0) {
    message += StrCat(message.empty() ? "" : "; ",
                      "the best checkpoint is that of step ",
                      choice.best_step,
                      ", eval loss ",
                      FormatFixed(choice.best_loss, 6));
  }
  return End("done", std::move(reason), std::move(message));
}

// One optimizer step. Nothing that a checkpoint holds changes before the last statement.
Trainer::StepResult Trainer::TrainStep(int64_t step) {
  const StopWatch watch(clock_);
  const JobSpec& spec = session_.spec();
  ParamStore& trained = session_.trained();

  // Fetch
  reporter_.Place(step, kPhaseTraining);
  StepBatch batch = ValueOrThrow(session_.batcher->Step(step));
  StepResult result{.rates = RatesAt(session_.schedule, step),
                    .loss_tokens = batch.loss_tokens,
                    .tokens = batch.tokens};
  // Forward, loss, backward: row weights are normalised over the whole step, so sums just add up
  trained.ZeroGrad();
  session_.model->ResetRouting();
  const std::vector<MicroBatch> chunks = ChunksOf(std::move(batch));
  const int64_t owed = PassesOwed(static_cast<int64_t>(chunks.size()));
  for (const MicroBatch& chunk : chunks) {
    session_.model->AddForwardBackward(RowsOf(chunk, step));
  }
  for (int64_t pass = 0; pass < owed; ++pass) {
    PassOverBlocks(*session_.weights, true);
  }
  result.loss = session_.model->TakeLoss();
  // Sync
  reporter_.Place(step, kSummingGradients);
  SumOverRanks(session_.ranks, trained.grad());
  SumSmall(result);
  reporter_.Place(step, kUpdatingWeights);
  // Clip: every rank has the same gradient, bit by bit, and so the same norm
  result.grad_norm = GradNorm(trained);
  const double clip = ClipFactor(result.grad_norm, spec.max_norm);
  // Check finite
  result.finite = std::isfinite(result.loss) && std::isfinite(result.grad_norm);
  // Step
  if (result.finite) {
    UpdateWeights(trained,
                  {.lr = result.rates.lr,
                   .beta1 = result.rates.beta1,
                   .weight_decay = spec.optim.weight_decay,
                   .grad_scale = clip,
                   .update = ++session_.state.updates});
  }
  result.seconds = watch.seconds();
  return result;
}

// Of this rank, without those that teach nothing: their gradient is zero.
std::vector<MicroBatch> Trainer::ChunksOf(StepBatch batch) const {
  std::vector<MicroBatch> chunks;
  for (MicroBatch& micro : batch.micro) {
    for (MicroBatch& chunk : SplitIntoChunks(std::move(micro), session_.chunk_rows)) {
      if (chunk.loss_tokens > 0) {
        chunks.push_back(std::move(chunk));
      }
    }
  }
  return chunks;
}

// Sharded blocks are gathered by all ranks at once: a rank with fewer passes than another takes
// part in as many.
int64_t Trainer::PassesOwed(int64_t own) const {
  if (session_.placement != WeightPlacement::kSharded) {
    return 0;
  }
  const std::vector<double> passes = session_.ranks.Gather(static_cast<double>(own));
  return static_cast<int64_t>(*std::max_element(passes.begin(), passes.end())) - own;
}

// The rest of what a step sums: its loss, and how many rows each expert had.
void Trainer::SumSmall(StepResult& result) {
  const auto rows = session_.model->expert_rows();
  std::vector<double> sums(rows.begin(), rows.end());
  sums.push_back(result.loss);
  session_.ranks.Sum(std::span<double>(sums));
  result.loss = sums.back();
  sums.pop_back();
  const auto& moe = session_.weights->params().moe;
  result.experts =
      LoadOfExperts(std::vector<int64_t>(sums.begin(), sums.end()), moe ? moe->num_experts : 0);
}

void Trainer::ReportStep(const StepResult& result, bool skipped) {
  const JobSpec& spec = session_.spec();
  // A step that ends the run has not been counted.
  const int64_t step = session_.state.step + (!result.finite && !skipped ? 1 : 0);
  ++steps_done_;
  tokens_done_ += result.tokens;
  train_seconds_ += result.seconds;
  session_.state.train_loss = result.loss;
  reporter_.Beat(session_.state.step);
  if (result.finite && !IsDue(step, spec.log_freq) && !IsLast()) {
    return;
  }
  const ProcessMemory memory = MemoryInUse(session_);
  const double mean_seconds = train_seconds_ / static_cast<double>(steps_done_);
  ThrowIfError(reporter_.Step(
      {.step = step,
       .max_steps = spec.max_steps,
       .loss = result.loss,
       .perplexity = std::exp(result.loss),
       .learning_rate = result.rates.lr,
       .beta1 = result.rates.beta1,
       .grad_norm = result.grad_norm,
       .loss_tokens = result.loss_tokens,
       .tokens = result.tokens,
       .step_seconds = result.seconds,
       .tokens_per_second = static_cast<double>(result.tokens) / result.seconds,
       .mean_tokens_per_second = static_cast<double>(tokens_done_) / train_seconds_,
       .eta_seconds = mean_seconds * static_cast<double>(spec.max_steps - step),
       .peak_memory_bytes = memory.peak_bytes,
       .memory_bytes = memory.resident_bytes,
       .nonfinite = !result.finite,
       .skipped = skipped,
       .expert_share = result.experts.share,
       .expert_imbalance =
           result.experts.share.empty() ? std::nullopt : std::optional(result.experts.imbalance)}));
}

// Evaluation, checkpoint: what may be due at the boundary after a step.
void Trainer::AfterStep() {
  const JobSpec& spec = session_.spec();
  const int64_t step = session_.state.step;
  const bool evaluates = session_.eval_loss_tokens > 0 && (IsDue(step, spec.eval_freq) || IsLast());
  const bool best = evaluates && Evaluate() && spec.mftd.keep_best;
  const bool due = !spec.no_ckpt && (IsDue(step, spec.ckpt_freq) || IsLast());
  if (due || best) {
    SaveCheckpoint();
  }
}

// Mean over all loss tokens of all samples: how they are grouped does not matter.
bool Trainer::Evaluate() {
  const StopWatch watch(clock_);
  ThrowIfError(reporter_.Phase(kPhaseEvaluating));
  double sum = 0;
  const int64_t owed = PassesOwed(static_cast<int64_t>(session_.eval_chunks.size()));
  for (const MicroBatch& chunk : session_.eval_chunks) {
    sum += session_.model->Loss(RowsOf(chunk, session_.state.step));
    reporter_.Beat(session_.state.step);
  }
  for (int64_t pass = 0; pass < owed; ++pass) {
    PassOverBlocks(*session_.weights, false);
  }
  session_.ranks.Sum(std::span(&sum, 1));
  const double loss = sum / static_cast<double>(session_.eval_loss_tokens);
  ThrowIfError(reporter_.Eval({.step = session_.state.step,
                               .eval_loss = loss,
                               .perplexity = std::exp(loss),
                               .train_loss = session_.state.train_loss,
                               .loss_tokens = session_.eval_loss_tokens,
                               .seconds = watch.seconds()}));
  ThrowIfError(reporter_.Phase(kPhaseTraining));
  return session_.state.choice.Observe(
      session_.state.step, loss, session_.spec().mftd.early_stop.min_delta);
}

void Trainer::SaveCheckpoint() {
  const int64_t step = session_.state.step;
  if (step == session_.saved_step) {
    return;
  }
  const StopWatch watch(clock_);
  ThrowIfError(reporter_.Phase(kPhaseSaving, StrCat("step ", step)));
  session_.ranks.OnFirst([&] { return WriteCheckpoint(watch); });
  session_.saved_step = step;
  if (!IsLast()) {
    ThrowIfError(reporter_.Phase(kPhaseTraining));
  }
}

// Rank 0's: every rank holds the same weights and moments.
Status Trainer::WriteCheckpoint(const StopWatch& watch) {
  const JobSpec& spec = session_.spec();
  const int64_t step = session_.state.step;
  session_.trained().Download();
  session_.state.max_steps = spec.max_steps;
  session_.state.metrics = reporter_.metrics_lengths();
  const CheckpointContents contents{
      .trained = session_.trained(),
      .adapters = session_.full != nullptr ? nullptr : session_.lora.get(),
      .state = session_.state,
      .model = session_.weights->params(),
      .lora = {.enable = true,
               .rank = spec.lora.rank,
               .dropout = spec.lora.dropout,
               .scaling = spec.lora.scaling},
      .trained_dtype = session_.trained_dtype(),
      .merge_into = spec.save_adapters || session_.full != nullptr ? "" : spec.model_id_or_path,
      .tokenizer_file = session_.tokenizer_file};
  const Manifest manifest{.step = step,
                          .attempt = session_.context.attempt,
                          .job_id = session_.context.job.job_id,
                          .plan = session_.plan};
  int64_t bytes = 0;
  MFT_RETURN_IF_ERROR(reporter_.Persist([&]() -> Status {
    MFT_ASSIGN_OR_RETURN(
        bytes, PublishCheckpoint(spec.run_dir, manifest, [&](const std::string& directory) {
          return WriteCheckpointFiles(directory, contents);
        }));
    return Status::Ok();
  }));
  const int64_t best = spec.mftd.keep_best ? session_.state.choice.best_step : 0;
  MFT_RETURN_IF_ERROR(reporter_.Persist([&] { return PointBestAt(spec.run_dir, best); }));
  return reporter_.Checkpoint(
      {.step = step,
       .path = CheckpointDir(spec.run_dir, step),
       .size_bytes = bytes,
       .seconds = watch.seconds(),
       .removed = RemoveOldCheckpoints(spec.run_dir, spec.num_ckpt_keep, best)});
}

FinalRecord Trainer::EndOnNonfinite(const StepResult& result) {
  const bool counted = skips_in_a_row_ == kMaxSkipsInARow;
  const int64_t step = session_.state.step + (counted ? 0 : 1);
  std::string message = StrCat(
      "step ", step, ": loss ", result.loss, ", gradient norm ", result.grad_norm, ": not finite");
  if (counted) {
    return End("failed",
               std::string(kReasonNonfinite),
               StrCat(message, ", as in each of the ", kMaxSkipsInARow, " steps before"));
  }
  ReportStep(result, false);
  if (session_.spec().mftd.nonfinite == "pause") {
    // The weights are those of the step before.
    SaveCheckpoint();
    return End("stopped", std::string(kReasonNonfinite), std::move(message));
  }
  return End("failed", std::string(kReasonNonfinite), std::move(message));
}

FinalRecord Trainer::Stop() {
  // Before this attempt's first step there is nothing that the newest checkpoint does not have.
  if (steps_done_ > 0) {
    SaveCheckpoint();
  }
  return End("stopped", "", StrCat("stopped on request after step ", session_.state.step));
}

FinalRecord Trainer::End(std::string outcome, std::string reason, std::string message) {
  FinalRecord record{.outcome = std::move(outcome),
                     .step = session_.state.step,
                     .reason = std::move(reason),
                     .message = std::move(message)};
  if (record.outcome == "failed") {
    record.code = static_cast<int>(Code::kOutOfRange);
  }
  return record;
}

}  // namespace mft
