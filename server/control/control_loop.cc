// SPDX-License-Identifier: Apache-2.0
#include "server/control/control_loop.h"

#include "common/base/files.h"
#include "server/control/control_loop_impl.h"

namespace mft::server {

namespace {

// A command that cannot be queued is answered here, by the thread that asked.
template <typename Typed>
void PushOrRefuse(CommandQueue& queue, Typed typed) {
  Command command(std::move(typed));
  const Status status = queue.Push(command);
  if (!status.ok()) {
    std::get<Typed>(command).done(status);
  }
}

}  // namespace

ControlLoop::ControlLoop() = default;

ControlLoop::~ControlLoop() {
  Shutdown();
}

Result<std::unique_ptr<ControlLoop>> ControlLoop::Create(ControlOptions options) {
  std::unique_ptr<ControlLoop> loop(new ControlLoop());
  loop->database_path_ = JoinPath(options.state_dir, "mftd.db");
  loop->impl_ = std::make_unique<Impl>(std::move(options), loop->snapshots_, loop->fan_out_);
  MFT_RETURN_IF_ERROR(loop->impl_->Open(loop->database_path_));
  return loop;
}

void ControlLoop::Start() {
  impl_->Start();
}

std::vector<std::string> ControlLoop::Shutdown() {
  return impl_ ? impl_->Stop() : std::vector<std::string>();
}

void ControlLoop::Submit(SubmitRequest request, JobDone done) {
  PushOrRefuse(impl_->queue(),
               SubmitCommand{.request = std::move(request), .done = std::move(done)});
}

void ControlLoop::Cancel(CancelRequest request, JobDone done) {
  PushOrRefuse(impl_->queue(),
               CancelCommand{.request = std::move(request), .done = std::move(done)});
}

void ControlLoop::AcquireSlot(SlotRequest request, SlotDone done) {
  PushOrRefuse(impl_->queue(),
               AcquireSlotCommand{.request = std::move(request), .done = std::move(done)});
}

void ControlLoop::UpdateDevices(std::vector<GpuInfo> gpus) {
  Command command(DevicesCommand{.gpus = std::move(gpus)});
  // Refused only by a daemon that stops, and then nobody needs it.
  static_cast<void>(impl_->queue().Push(command, true));
}

void ControlLoop::ReleaseSlot(uint64_t slot_id) {
  Command command(ReleaseSlotCommand{.slot_id = slot_id});
  static_cast<void>(impl_->queue().Push(command, true));
}

}  // namespace mft::server
