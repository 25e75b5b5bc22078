// SPDX-License-Identifier: Apache-2.0
#include "server/control/slurm_watch.h"

#include <utility>

#include "common/base/strings.h"

namespace mft::server {

void SlurmWatch::SubmitEnded(const Result<std::string>& job_id) {
  submitting_ = false;
  missing_since_ = 0;
  if (job_id.ok()) {
    job_.id = *job_id;
  } else {
    submit_error_ = job_id.status().message();
  }
}

void SlurmWatch::Listed(const std::optional<SlurmJob>& job, int64_t now_micros) {
  if (submitting_) {
    return;
  }
  news_ = true;
  if (job) {
    job_ = *job;
    missing_since_ = 0;
  } else if (missing_since_ == 0) {
    missing_since_ = now_micros;
  }
}

bool SlurmWatch::waiting() const {
  return submitting_ || (listed() && LifeOf(job_.state) == SlurmLife::kWaiting);
}

bool SlurmWatch::Over(int64_t now_micros, int64_t forget_micros) const {
  if (submitting_) {
    return false;
  }
  if (missing_since_ != 0) {
    return now_micros - missing_since_ >= forget_micros;
  }
  return listed() && LifeOf(job_.state) == SlurmLife::kOver;
}

AttemptEnd SlurmWatch::EndWithoutResult(bool began, const std::string& log) const {
  AttemptEnd end;
  const std::string ended = StrCat("Slurm job ", job_.id, " ended as ", job_.state);
  if (job_.state == "NODE_FAIL" || job_.state == "BOOT_FAIL") {
    end.kind = AttemptEnd::Kind::kRebooted;
  } else if (job_.state == "PREEMPTED" || job_.state == "REVOKED") {
    end.kind = AttemptEnd::Kind::kInterrupted;
    end.detail = ended;
  } else if (missing_since_ != 0 && !job_.id.empty() && !began) {
    end.kind = AttemptEnd::Kind::kInterrupted;  // a controller that was killed forgets the newest
    end.detail = StrCat("Slurm lost its job ", job_.id, " before it began");
  } else if (job_.id.empty() && !began) {
    end.kind = submit_error_.empty() || was_away_ ? AttemptEnd::Kind::kInterrupted
                                                  : AttemptEnd::Kind::kStartFailed;
    end.detail = submit_error_.empty() ? "the attempt did not reach Slurm" : submit_error_;
  } else {
    const std::string what =
        missing_since_ == 0 ? ended : StrCat("Slurm does not know its job ", job_.id, " any more");
    end.detail = began ? StrCat(what, "; see ", log) : what;
  }
  return end;
}

}  // namespace mft::server
