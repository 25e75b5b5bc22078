// SPDX-License-Identifier: Apache-2.0
// What others ask of the control thread.
#include <algorithm>

#include <spdlog/spdlog.h>

#include "common/base/ids.h"
#include "common/base/strings.h"
#include "server/control/control_loop_impl.h"

namespace mft::server {

namespace {
constexpr size_t kMaxPending = 1'000;  // submits whose files are being made
}

void ControlLoop::Impl::HandleCommands() {
  std::deque<Command> commands = queue_->TakeAll();
  for (Command& command : commands) {
    std::visit([this](auto& typed) { Handle(typed); }, command);
  }
}

// Everything that can be said without touching the job's own files.
Status ControlLoop::Impl::CheckSubmit(const SubmitRequest& request) const {
  if (!closed_.ok()) {
    return closed_.WithContext("new jobs are refused");
  }
  if (pending_.size() >= kMaxPending) {
    return {Code::kResourceExhausted,
            "TOO_MANY_COMMANDS",
            StrCat(kMaxPending, " submits wait for the disk already; try again later")};
  }
  if (const std::string other = JobWithRunDir(request.spec.run_dir); !other.empty()) {
    return {
        Code::kAlreadyExists,
        "RUN_DIR_IN_USE",
        StrCat(
            "run_dir ", request.spec.run_dir, " belongs to job ", other, ", which has not ended")};
  }
  return NeedsOf(request.spec, Capacity()).status();
}

std::string ControlLoop::Impl::JobWithRunDir(const std::string& run_dir) const {
  for (const auto& [id, job] : state_.jobs) {
    if (!IsFinal(job.state) && job.file->spec.run_dir == run_dir) {
      return id;
    }
  }
  for (const auto& [id, pending] : pending_) {
    if (!pending.request.validate_only && pending.request.spec.run_dir == run_dir) {
      return id;
    }
  }
  return "";
}

// True if the request was seen before and is answered, or will be with the one that is under way.
bool ControlLoop::Impl::AnswerKnownRequest(SubmitCommand& command) {
  const SubmitRequest& request = command.request;
  if (request.request_id.empty() || request.validate_only) {
    return false;
  }
  const auto reused = [&](const std::string& job_id) {
    command.done(Status(Code::kAlreadyExists,
                        "REQUEST_ID_REUSED",
                        StrCat("request_id ",
                               request.request_id,
                               " was used for another request (job ",
                               job_id,
                               ")")));
  };
  if (const auto it = state_.requests.find(request.request_id); it != state_.requests.end()) {
    const std::string& job_id = it->second.job_id;
    if (it->second.hash != request.request_hash) {
      reused(job_id);
    } else {
      command.done(views_.at(job_id));
    }
    return true;
  }
  for (auto& [job_id, pending] : pending_) {
    if (pending.request.request_id != request.request_id) {
      continue;
    }
    if (pending.request.request_hash != request.request_hash) {
      reused(job_id);
    } else {
      pending.done.push_back(std::move(command.done));
    }
    return true;
  }
  return false;
}

void ControlLoop::Impl::Handle(SubmitCommand& command) {
  if (AnswerKnownRequest(command)) {
    return;
  }
  if (const Status status = CheckSubmit(command.request); !status.ok()) {
    command.done(status);
    return;
  }
  const std::string id = NewJobId();
  Pending pending{
      .request = std::move(command.request), .done = {}, .created_micros = Now(), .claim = {}};
  pending.done.push_back(std::move(command.done));
  pending.secret = pending.request.wandb_key.empty() ? "" : SecretName(id);
  pending.claim = {
      .run_dir = pending.request.spec.run_dir, .job_id = id, .state_dir = options_.state_dir};
  AdmissionTask task{.job_dir = JobDir(id),
                     .file = JobFile{.job_id = id,
                                     .owner = pending.request.owner,
                                     .request_id = pending.request.request_id,
                                     .request_hash = pending.request.request_hash,
                                     .created_micros = pending.created_micros,
                                     .secret = pending.secret,
                                     .spec = pending.request.spec},
                     .wandb_key = std::exchange(pending.request.wandb_key, {}),
                     .claim = pending.claim,
                     .check_only = pending.request.validate_only};
  pending_.emplace(id, std::move(pending));
  disk_.Push([this, id, task = std::move(task)] {
    Command admitted(AdmittedCommand{.job_id = id, .status = Admit(task)});
    // Refused only once the loop has ended, which then answers itself.
    static_cast<void>(queue_->Push(admitted, true));
  });
}

void ControlLoop::Impl::Handle(AdmittedCommand& command) {
  const auto node = pending_.extract(command.job_id);
  Pending& pending = node.mapped();
  const auto answer = [&pending](const Result<JobViewPtr>& result) {
    for (const JobDone& done : pending.done) {
      done(result);
    }
  };
  if (!command.status.ok() || pending.request.validate_only) {
    answer(command.status.ok() ? Result<JobViewPtr>(nullptr) : command.status);
    return;
  }
  const SubmitRequest& request = pending.request;
  Job job;
  job.id = command.job_id;
  job.file = std::make_shared<const JobFile>(JobFile{.job_id = job.id,
                                                     .owner = request.owner,
                                                     .request_id = request.request_id,
                                                     .request_hash = request.request_hash,
                                                     .created_micros = pending.created_micros,
                                                     .secret = pending.secret,
                                                     .spec = request.spec});
  job.reason = reason::kWaitingForPreparation;
  job.message = "accepted";
  job.created_micros = pending.created_micros;
  job.progress.max_steps = TotalSteps(request.spec);
  job.estimate = request.estimate.SerializeAsString();
  Changes changes(state_, Now());
  changes.AddJob(std::move(job));
  if (!request.request_id.empty()) {
    changes.AddRequest(StoredRequest{.request_id = request.request_id,
                                     .hash = request.request_hash,
                                     .job_id = command.job_id,
                                     .at_micros = pending.created_micros});
  }
  const Status status = CommitAndTell(changes);
  if (!status.ok()) {
    disk_.Push(
        [dir = JobDir(command.job_id), claim = pending.claim] { UndoAdmission(dir, claim); });
    answer(status);
    return;
  }
  schedule_due_ = true;
  spdlog::info("job {} ({}) is queued", command.job_id, request.spec.mftd.name);
  answer(views_.at(command.job_id));
}

void ControlLoop::Impl::Handle(CancelCommand& command) {
  const std::string& id = command.request.job_id;
  const auto it = state_.jobs.find(id);
  if (it == state_.jobs.end()) {
    command.done(Status(Code::kNotFound, "JOB_NOT_FOUND", StrCat("there is no job ", id)));
    return;
  }
  if (IsFinal(it->second.state)) {
    command.done(
        Status(Code::kFailedPrecondition,
               "JOB_FINISHED",
               StrCat("job ", id, " has ended already: ", JobStateName(it->second.state))));
    return;
  }
  Changes changes(state_, Now());
  Job& job = changes.EditJob(id);
  job.intent = std::max(job.intent, command.request.now ? Intent::kCancelNow : Intent::kCancel);
  if (OpenAttemptOf(id) == nullptr) {
    changes.Transition(
        job, JobState::kCancelled, reason::kCancelRequested, "cancelled before it ran");
  } else if (job.state != JobState::kCancelling) {
    const std::string_view how = command.request.now ? "its processes are being killed"
                                 : job.state == JobState::kRunning
                                     ? "it writes a checkpoint and stops"
                                     : "its processes are stopping";
    changes.Transition(job,
                       JobState::kCancelling,
                       reason::kCancelRequested,
                       StrCat("cancelled on request: ", how));
  }
  const Status status = CommitAndTell(changes);
  schedule_due_ = true;
  // The signal follows in this turn: FollowAttempts reads the committed intent.
  command.done(status.ok() ? Result<JobViewPtr>(views_.at(id)) : status);
}

void ControlLoop::Impl::Handle(DevicesCommand& command) {
  gpus_ = std::move(command.gpus);
  schedule_due_ = true;
  snapshot_due_ = true;
}

void ControlLoop::Impl::Handle(AcquireSlotCommand& command) {
  const SlotRequest& request = command.request;
  const FreeDevices free = Free();
  Slot slot{.id = next_slot_, .lease = {}};
  if (request.device == "cuda" && !free.gpus.empty()) {
    slot.lease = free.gpus.front();
  } else if (request.device == "cpu" && free.cores > 0) {
    slot.lease =
        Lease{.id = "cpu:0", .uuid = "", .cores = std::clamp(request.cores, 1, free.cores)};
  } else {
    const std::string_view what = request.device == "cuda" ? "GPU" : "CPU core";
    command.done(Status(
        Code::kResourceExhausted,
        "NO_FREE_SLOT",
        StrCat("every ", what, " of this node is held by a job; try again when one has ended")));
    return;
  }
  ++next_slot_;
  slot_leases_[slot.id] = slot.lease;
  slots_[slot.id] = request;
  snapshot_due_ = true;
  command.done(slot);
}

void ControlLoop::Impl::Handle(ReleaseSlotCommand& command) {
  slot_leases_.erase(command.slot_id);
  slots_.erase(command.slot_id);
  schedule_due_ = true;
  snapshot_due_ = true;
}

void ControlLoop::Impl::Handle(CachesBoundCommand& command) {
  stats_.caches = command.use.caches;
  stats_.cache_bytes = command.use.bytes;
  stats_.caches_removed += command.use.removed;
  stats_.cache_bytes_removed += command.use.removed_bytes;
  snapshot_due_ = true;
}

void ControlLoop::Impl::Handle(ShutdownCommand&) {
  stopping_ = true;
}

// After the threads have ended: whoever still waits for an answer gets one, and no files stay
// behind.
void ControlLoop::Impl::RejectLeftovers() {
  const Status stopping = Unavailable("the daemon is stopping");
  for (Command& command : queue_->Close()) {
    if (auto* submit = std::get_if<SubmitCommand>(&command)) {
      submit->done(stopping);
    } else if (auto* cancel = std::get_if<CancelCommand>(&command)) {
      cancel->done(stopping);
    } else if (auto* slot = std::get_if<AcquireSlotCommand>(&command)) {
      slot->done(stopping);
    }
  }
  for (auto& [id, pending] : pending_) {
    if (!pending.request.validate_only) {
      UndoAdmission(JobDir(id), pending.claim);
    }
    for (const JobDone& done : pending.done) {
      done(stopping);
    }
  }
  pending_.clear();
}

}  // namespace mft::server
