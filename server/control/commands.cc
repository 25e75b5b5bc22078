// SPDX-License-Identifier: Apache-2.0
#include "server/control/commands.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "common/base/strings.h"

namespace mft::server {

Result<std::unique_ptr<CommandQueue>> CommandQueue::Create() {
  UniqueFd event_fd(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event_fd.valid()) {
    return ErrnoStatus(errno, "eventfd");
  }
  return std::unique_ptr<CommandQueue>(new CommandQueue(std::move(event_fd)));
}

Status CommandQueue::Push(Command& command, bool internal) {
  const std::lock_guard lock(mutex_);
  if (closed_) {
    return Unavailable("the daemon is stopping");
  }
  if (!internal && commands_.size() >= kMaxCommands) {
    return {Code::kResourceExhausted,
            "TOO_MANY_COMMANDS",
            StrCat(kMaxCommands, " requests are waiting already; try again later")};
  }
  commands_.push_back(std::move(command));
  // A non-blocking eventfd refuses only when its counter is full: then it is readable anyway.
  static_cast<void>(eventfd_write(event_fd_.get(), 1));
  return Status::Ok();
}

std::deque<Command> CommandQueue::TakeAll() {
  eventfd_t count = 0;
  const std::lock_guard lock(mutex_);
  static_cast<void>(eventfd_read(event_fd_.get(), &count));
  return std::exchange(commands_, {});
}

std::deque<Command> CommandQueue::Close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  return std::exchange(commands_, {});
}

}  // namespace mft::server
