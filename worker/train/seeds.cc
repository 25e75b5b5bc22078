// SPDX-License-Identifier: Apache-2.0
#include "worker/train/seeds.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "common/config/yaml_reader.h"
#include "worker/model/status_error.h"
#include "worker/train/run_dir.h"
#include "worker/train/session.h"
#include "worker/train/trainer.h"

namespace mft {

namespace {
struct SeedResult {
  int64_t seed = 0;
  double eval_loss = Choice::kNone;
  int64_t step = 0;  // of the checkpoint that has it
};

std::string FolderOf(int64_t seed) {
  return StrCat("seeds/", seed);
}

// The job of one seed. Its run is not exported: only the best will be.
TrainContext ContextOf(const TrainContext& job, int64_t seed) {
  TrainContext context = job;
  JobSpec& spec = context.job.spec;
  spec.run_dir = JoinPath(spec.run_dir, FolderOf(seed));
  spec.seed = seed;
  spec.mftd.seeds.clear();
  spec.mftd.export_formats = {"mistral"};
  return context;
}

std::string Describe(const std::vector<SeedResult>& results) {
  std::vector<std::string> parts;
  for (const SeedResult& result : results) {
    parts.push_back(StrCat(result.seed, ": ", FormatFixed(result.eval_loss, 6)));
  }
  return Join(parts, ", ");
}

// One rename a link: a reader sees the run_dir of a run that is complete, or of one that is not.
Status Publish(const JobSpec& spec,
               const std::vector<SeedResult>& results,
               const SeedResult& best) {
  Json runs = Json::array();
  for (const SeedResult& result : results) {
    runs.push_back(
        {{"seed", result.seed},
         {"eval_loss", std::isfinite(result.eval_loss) ? Json(result.eval_loss) : Json(nullptr)},
         {"step", result.step}});
  }
  const Json json = {{"best", best.seed}, {"runs", runs}};
  MFT_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(spec.run_dir, "seeds.json"), json.dump(2) + "\n"));
  for (const char* name :
       {"tb", "metrics.train.jsonl", "metrics.eval.jsonl", "exports", "checkpoints"}) {
    const std::string target = JoinPath(FolderOf(best.seed), name);
    if (PathExists(JoinPath(spec.run_dir, target))) {
      MFT_RETURN_IF_ERROR(ReplaceLink(target, JoinPath(spec.run_dir, name)));
    }
  }
  return Status::Ok();
}

SeedResult ResultOf(int64_t seed, const Session& session) {
  const Choice& choice = session.state.choice;
  return {.seed = seed,
          .eval_loss = session.spec().mftd.keep_best ? choice.best_loss : choice.last_loss,
          .step = session.result_step()};
}

// The run of the best seed is complete: opened again, it only exports.
void ExportBest(const TrainContext& job,
                int64_t seed,
                Ranks& ranks,
                Reporter& reporter,
                StopSignals& signals,
                const Clock& clock) {
  const std::vector<std::string>& formats = job.job.spec.mftd.export_formats;
  if (std::all_of(formats.begin(), formats.end(), [](const auto& f) { return f == "mistral"; })) {
    return;  // every checkpoint has it
  }
  TrainContext context = ContextOf(job, seed);
  context.job.spec.mftd.export_formats = formats;
  const auto session = OpenSession(std::move(context), ranks, reporter, clock);
  Trainer(*session, reporter, signals, clock).Run();
}

// Before anything is trained: what one kind of run left, the other cannot go on with.
Status CheckRunDir(const JobSpec& spec) {
  std::error_code error;
  const std::filesystem::file_status checkpoints =
      std::filesystem::symlink_status(CheckpointsDir(spec.run_dir), error);
  if (spec.mftd.seeds.empty() && std::filesystem::is_symlink(checkpoints)) {
    return FailedPrecondition(
        StrCat(spec.run_dir,
               ": has the runs of several seeds, and mftd.seeds is empty: start a new run_dir"));
  }
  if (!spec.mftd.seeds.empty() && std::filesystem::is_directory(checkpoints)) {
    return FailedPrecondition(StrCat(spec.run_dir,
                                     ": has the checkpoints of one run, and mftd.seeds asks for ",
                                     TotalRuns(spec),
                                     ": start a new run_dir"));
  }
  return Status::Ok();
}

// The runner starts them.
void WarnOfTrackers(const TrainContext& context, Reporter& reporter) {
  const std::vector<std::string> trackers = TrackersOf(context.job.spec);
  if (context.attempt_dir.empty() && !trackers.empty()) {
    reporter.Message(
        LogLevel::kWarning,
        StrCat("nothing is sent to ",
               Join(trackers, " and "),
               ": a job of mftd does that; the metrics are in run_dir's metrics.*.jsonl and tb"));
  }
}
}  // namespace

FinalRecord RunJob(const TrainContext& context,
                   Ranks& ranks,
                   Reporter& reporter,
                   StopSignals& signals,
                   const Clock& clock) {
  const JobSpec& spec = context.job.spec;
  ranks.OnFirst([&] { return CheckRunDir(spec); });
  WarnOfTrackers(context, reporter);
  if (spec.mftd.seeds.empty()) {
    const auto session = OpenSession(context, ranks, reporter, clock);
    return Trainer(*session, reporter, signals, clock).Run();
  }
  std::optional<RunDir> run_dir;  // rank 0's
  ranks.OnFirst([&]() -> Status {
    MFT_ASSIGN_OR_RETURN(run_dir, RunDir::Open(spec.run_dir, context.job.job_id));
    return reporter.Persist(
        [&] { return WriteFileAtomic(JoinPath(spec.run_dir, "args.yaml"), JobSpecToYaml(spec)); });
  });
  const int64_t count = TotalRuns(spec);
  std::vector<SeedResult> results;
  for (const int64_t seed : spec.mftd.seeds) {
    const auto done = static_cast<int64_t>(results.size());
    reporter.SetPart(done * spec.max_steps, count * spec.max_steps);
    reporter.Message(LogLevel::kInfo, StrCat("seed ", seed, ", run ", done + 1, " of ", count));
    const auto session = OpenSession(ContextOf(context, seed), ranks, reporter, clock);
    FinalRecord last = Trainer(*session, reporter, signals, clock).Run();
    if (last.outcome != "done") {
      last.step += done * spec.max_steps;
      last.message = StrCat("seed ", seed, ": ", last.message);
      return last;
    }
    results.push_back(ResultOf(seed, *session));
  }
  const SeedResult best = *std::min_element(
      results.begin(), results.end(), [](const SeedResult& a, const SeedResult& b) {
        return a.eval_loss < b.eval_loss;
      });
  if (!std::isfinite(best.eval_loss)) {
    return {.outcome = "failed",
            .step = count * spec.max_steps,
            .code = static_cast<int>(Code::kOutOfRange),
            .reason = std::string(kReasonNonfinite),
            .message = "no seed of mftd.seeds has a finite eval loss"};
  }
  ExportBest(context, best.seed, ranks, reporter, signals, clock);
  ranks.OnFirst([&] { return reporter.Persist([&] { return Publish(spec, results, best); }); });
  return {.outcome = "done",
          .step = count * spec.max_steps,
          .message = StrCat("the best of ",
                            count,
                            " seeds is ",
                            best.seed,
                            ", eval loss ",
                            FormatFixed(best.eval_loss, 6),
                            " at step ",
                            best.step,
                            " (",
                            Describe(results),
                            ")")};
}

}  // namespace mft
