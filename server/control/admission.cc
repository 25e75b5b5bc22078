// SPDX-License-Identifier: Apache-2.0
#include "server/control/admission.h"

#include <spdlog/spdlog.h>

#include "common/base/files.h"
#include "server/exec/attempt_dir.h"

namespace mft::server {

namespace {

void Undo(const AdmissionTask& task) {
  if (const Status status = RemoveTree(task.job_dir); !status.ok()) {
    spdlog::warn("job {} was not accepted and leaves files: {}", task.job_id, status.ToString());
  }
  ReleaseRunDir(task.claim);
}

Status Admit(const AdmissionTask& task) {
  if (task.check_only) {
    return CheckRunDir(task.claim);
  }
  MFT_RETURN_IF_ERROR(ClaimRunDir(task.claim));
  Status status = MakeDurableDirs(task.job_dir, 0700);
  if (status.ok()) {
    status = WriteJobFile(JoinPath(task.job_dir, "job.json"), task.file);
  }
  if (!status.ok()) {
    Undo(task);
  }
  return status;
}

}  // namespace

void Admission::Start() {
  thread_ = std::thread([this] { Run(); });
}

void Admission::Push(AdmissionTask task) {
  const std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  wake_.notify_one();
}

void Admission::Stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    wake_.notify_one();
  }
  if (thread_.joinable()) {
    thread_.join();
  }
}

void Admission::Run() {
  while (true) {
    AdmissionTask task;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
      if (tasks_.empty()) {
        return;
      }
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    if (task.undo) {
      Undo(task);
    } else {
      done_(task.job_id, Admit(task));
    }
  }
}

}  // namespace mft::server
