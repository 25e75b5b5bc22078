// SPDX-License-Identifier: Apache-2.0
// Where an attempt begins: decided by a scan of the checkpoints on disk, not by what anybody
// remembers (durability.md, "Retries and readers").
#pragma once

#include <string>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"
#include "common/config/job_spec.h"
#include "worker/train/run_state.h"

namespace mft {

struct ResumePoint {
  std::string checkpoint_dir;    // "": from the beginning
  RunState state;                // of that checkpoint; step 0 at the beginning
  Json plan;                     // the numeric plan that it was made with
  bool own = true;               // of this run_dir; false: of mftd.resume_from
  int64_t num_microbatches = 1;  // of each rank: the job's own, unless the number of ranks changed
  std::vector<std::string> notes;  // what the scan found, for the log
};

// Under run_dir's lock: renames damaged checkpoints, removes half-written ones, and takes the
// newest good one, or else mftd.resume_from's. `now`: this job's data and ranks. A run goes on with
// the same packs in a step on any number of ranks that shares them evenly. FAILED_PRECONDITION
// where that cannot be, naming the numbers that can, and where a checkpoint of this run_dir was
// made from other data settings: going on would not be the same run. With resume_from that is a
// note. `attempt_id` names what is renamed.
Result<ResumePoint> FindResumePoint(const JobSpec& spec,
                                    const RunState& now,
                                    const std::string& attempt_id);

// What rank 0 found, for the others.
Json ResumePointToJson(const ResumePoint& point);
Result<ResumePoint> ResumePointFromJson(const Json& json);

// "threads 1 -> 2, ..."; "" where the plans are equal. Then steps are equal bit by bit; otherwise
// they are equal up to rounding.
std::string DescribePlanDifferences(const Json& before, const Json& now);

}  // namespace mft
