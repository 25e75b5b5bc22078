// SPDX-License-Identifier: Apache-2.0
#include "worker/train/resume.h"

#include <algorithm>

#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"

namespace mft {

namespace {
Status Load(ResumePoint& point) {
  MFT_ASSIGN_OR_RETURN(point.state, ReadRunState(point.checkpoint_dir));
  MFT_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(point.checkpoint_dir));
  point.plan = manifest.plan;
  if (manifest.step != point.state.step) {
    return DataLoss(StrCat(point.checkpoint_dir,
                           ": state.json is of step ",
                           point.state.step,
                           ", the manifest of step ",
                           manifest.step));
  }
  return Status::Ok();
}

// The numbers of ranks that can share `packs` evenly.
std::string RanksThatShare(int64_t packs, int64_t batch_size) {
  std::vector<std::string> numbers;
  for (int64_t ranks = 1; ranks * batch_size <= packs; ++ranks) {
    if (packs % (ranks * batch_size) == 0) {
      numbers.push_back(std::to_string(ranks));
    }
  }
  return numbers.empty() ? "no number of ranks" : StrCat(Join(numbers, ", "), " ranks");
}

// Keeps the packs of a step where the number of ranks has changed (numerics.md, "What is
// semantics"): `data` and the point's num_microbatches follow.
Status ShareSteps(const JobSpec& spec,
                  const RunState& now,
                  ResumePoint& point,
                  DataIdentity& data) {
  const int64_t before = point.state.ranks;
  const int64_t packs = point.state.data.packs_per_step;
  if (before == now.ranks) {
    return Status::Ok();
  }
  const std::string change =
      StrCat(point.checkpoint_dir, " was made on ", before, " ranks, this run has ", now.ranks);
  if (spec.mftd.packing == "reference") {
    return FailedPrecondition(StrCat(
        change, ": packing reference deals the data out to the ranks, it goes on with ", before));
  }
  if (packs % (now.ranks * spec.batch_size) != 0) {
    return FailedPrecondition(StrCat(change,
                                     ": a step has ",
                                     packs,
                                     " packs, with batch_size ",
                                     spec.batch_size,
                                     " they can be shared by ",
                                     RanksThatShare(packs, spec.batch_size)));
  }
  point.num_microbatches = packs / (now.ranks * spec.batch_size);
  data.packs_per_step = packs;
  if (point.num_microbatches != spec.num_microbatches) {
    point.notes.push_back(StrCat(change,
                                 ": num_microbatches is ",
                                 point.num_microbatches,
                                 " instead of ",
                                 spec.num_microbatches,
                                 ", so that a step has the same ",
                                 packs,
                                 " packs"));
  }
  return Status::Ok();
}

Status LoadOwn(const JobSpec& spec, const RunState& now, ResumePoint& point) {
  MFT_RETURN_IF_ERROR(Load(point));
  DataIdentity data = now.data;
  MFT_RETURN_IF_ERROR(ShareSteps(spec, now, point, data));
  const std::string differences = DescribeDifferences(point.state.data, data);
  if (!differences.empty()) {
    return FailedPrecondition(StrCat(point.checkpoint_dir,
                                     " was made with other settings (",
                                     differences,
                                     "): restore them, or start a new run_dir"));
  }
  point.state.data = data;
  return Status::Ok();
}

Status LoadForeign(const JobSpec& spec, const RunState& now, ResumePoint& point) {
  point.own = false;
  MFT_RETURN_IF_ERROR(VerifyCheckpoint(point.checkpoint_dir).WithContext("mftd.resume_from"));
  MFT_RETURN_IF_ERROR(Load(point).WithContext("mftd.resume_from"));
  if (point.state.step >= spec.max_steps) {
    return FailedPrecondition(StrCat("mftd.resume_from: ",
                                     point.checkpoint_dir,
                                     " is at step ",
                                     point.state.step,
                                     ", and max_steps is ",
                                     spec.max_steps,
                                     ": there is nothing to train"));
  }
  DataIdentity data = now.data;
  data.packs_per_step = point.state.data.packs_per_step;
  if (DescribeDifferences(point.state.data, data).empty()) {  // the same data, on other ranks?
    data = now.data;
    MFT_RETURN_IF_ERROR(ShareSteps(spec, now, point, data).WithContext("mftd.resume_from"));
  } else {
    data = now.data;
    point.state.ranks = now.ranks;
  }
  const std::string differences = DescribeDifferences(point.state.data, data);
  if (!differences.empty()) {
    point.notes.push_back(StrCat("resume_from was made with other settings (",
                                 differences,
                                 "): data go on at step ",
                                 point.state.step + 1,
                                 " of this job's own order"));
  }
  point.state.data = data;
  point.state.metrics = {};  // of the other run's files
  point.state.choice = {};   // its best is not here
  return Status::Ok();
}
}  // namespace

Result<ResumePoint> FindResumePoint(const JobSpec& spec,
                                    const RunState& now,
                                    const std::string& attempt_id) {
  MFT_ASSIGN_OR_RETURN(const CheckpointScan scan, ScanCheckpoints(spec.run_dir, attempt_id));
  ResumePoint point{.state = now, .num_microbatches = spec.num_microbatches};
  for (const std::string& renamed : scan.renamed) {
    point.notes.push_back(StrCat("a checkpoint did not verify: ", renamed));
  }
  if (!scan.good.empty()) {
    point.checkpoint_dir = CheckpointDir(spec.run_dir, scan.good.back());
    MFT_RETURN_IF_ERROR(LoadOwn(spec, now, point));
  } else if (!spec.mftd.resume_from.empty()) {
    point.checkpoint_dir = spec.mftd.resume_from;
    MFT_RETURN_IF_ERROR(LoadForeign(spec, now, point));
  }
  const int64_t best = point.state.choice.best_step;
  if (spec.mftd.keep_best && best > 0 &&
      std::find(scan.good.begin(), scan.good.end(), best) == scan.good.end()) {
    point.notes.push_back(StrCat("the best checkpoint, of step ",
                                 best,
                                 ", is gone: the best is chosen among the evaluations to come"));
    point.state.choice.ForgetBest();
  }
  if (point.state.step > 0 && point.state.max_steps != spec.max_steps) {
    point.notes.push_back(StrCat("max_steps was ",
                                 point.state.max_steps,
                                 " and is ",
                                 spec.max_steps,
                                 ": the learning rate follows the new schedule"));
  }
  return point;
}

Json ResumePointToJson(const ResumePoint& point) {
  return {{"checkpoint_dir", point.checkpoint_dir},
          {"state", RunStateToJson(point.state)},
          {"plan", point.plan},
          {"own", point.own},
          {"num_microbatches", point.num_microbatches},
          {"notes", point.notes}};
}

Result<ResumePoint> ResumePointFromJson(const Json& json) {
  ResumePoint point;
  MFT_ASSIGN_OR_RETURN(point.checkpoint_dir, GetString(json, "checkpoint_dir"));
  MFT_ASSIGN_OR_RETURN(point.state, RunStateFromJson(json.value("state", Json())));
  point.plan = json.value("plan", Json());
  MFT_ASSIGN_OR_RETURN(point.own, GetBool(json, "own"));
  MFT_ASSIGN_OR_RETURN(point.num_microbatches, GetInt(json, "num_microbatches"));
  point.notes = json.value("notes", std::vector<std::string>());
  return point;
}

std::string DescribePlanDifferences(const Json& before, const Json& now) {
  std::vector<std::string> differences;
  for (const auto& [key, value] : now.items()) {
    const auto old_value = before.is_object() ? before.find(key) : before.end();
    if (old_value == before.end() || *old_value != value) {
      differences.push_back(StrCat(key,
                                   " ",
                                   old_value == before.end() ? "unknown" : DumpJson(*old_value),
                                   " -> ",
                                   DumpJson(value)));
    }
  }
  return Join(differences, ", ");
}

}  // namespace mft
