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

Status LoadOwn(const DataIdentity& data, ResumePoint& point) {
  MFT_RETURN_IF_ERROR(Load(point));
  const std::string differences = DescribeDifferences(point.state.data, data);
  if (!differences.empty()) {
    return FailedPrecondition(StrCat(point.checkpoint_dir,
                                     " was made with other settings (",
                                     differences,
                                     "): restore them, or start a new run_dir"));
  }
  return Status::Ok();
}

Status LoadForeign(const JobSpec& spec, const DataIdentity& data, ResumePoint& point) {
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
  const std::string differences = DescribeDifferences(point.state.data, data);
  if (!differences.empty()) {
    point.notes.push_back(StrCat("resume_from was made with other settings (",
                                 differences,
                                 "): data go on at step ",
                                 point.state.step + 1,
                                 " of this job's own order"));
  }
  point.state.metrics = {};  // of the other run's files
  point.state.choice = {};   // its best is not here
  return Status::Ok();
}
}  // namespace

Result<ResumePoint> FindResumePoint(const JobSpec& spec,
                                    const DataIdentity& data,
                                    const std::string& attempt_id) {
  MFT_ASSIGN_OR_RETURN(const CheckpointScan scan, ScanCheckpoints(spec.run_dir, attempt_id));
  ResumePoint point;
  for (const std::string& renamed : scan.renamed) {
    point.notes.push_back(StrCat("a checkpoint did not verify: ", renamed));
  }
  if (!scan.good.empty()) {
    point.checkpoint_dir = CheckpointDir(spec.run_dir, scan.good.back());
    MFT_RETURN_IF_ERROR(LoadOwn(data, point));
  } else if (!spec.mftd.resume_from.empty()) {
    point.checkpoint_dir = spec.mftd.resume_from;
    MFT_RETURN_IF_ERROR(LoadForeign(spec, data, point));
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
  point.state.data = data;
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
