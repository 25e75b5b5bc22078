// SPDX-License-Identifier: Apache-2.0
#include "worker/comm/shared_segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "worker/comm/tcp_socket.h"

namespace mft {

namespace {

using Text = std::array<char, 160>;

Text ToText(std::string_view value) {
  Text text{};
  std::ranges::copy(value.substr(0, text.size() - 1), text.begin());
  return text;
}
std::string FromText(const Text& text) {
  return Printable({text.data(), strnlen(text.data(), text.size())}, text.size());
}

// What rank 0 offers: a file descriptor of its own, which others of its host find in /proc.
struct Offer {
  Text host{};  // HostId(); empty: rank 0 has nothing to offer, and `why`
  Text why{};
  int64_t process = 0;
  int64_t descriptor = 0;
  uint64_t device = 0;  // of the memory's file, that it is no other
  uint64_t inode = 0;
  uint64_t bytes = 0;
};
struct Answer {
  uint32_t shares = 0;
  Text why{};
};
struct Verdict {
  uint32_t shared = 0;
  Text why{};
};

template <typename Message>
Status SendMessage(const RankLink& link, const Message& message) {
  return SendAll(link[Channel::kMain].get(), std::as_bytes(std::span(&message, 1)))
      .WithContext(StrCat("to rank ", link.rank));
}
template <typename Message>
Result<Message> ReceiveMessage(const RankLink& link, const RankOptions& options) {
  Message message;
  MFT_RETURN_IF_ERROR(ReceiveAllWithin(link[Channel::kMain].get(),
                                       std::as_writable_bytes(std::span(&message, 1)),
                                       std::chrono::milliseconds(options.meet_ms),
                                       options.stop)
                          .WithContext(StrCat("from rank ", link.rank)));
  return message;
}

// Equal where two processes see the same memory and the same process ids.
Result<std::string> HostId() {
  MFT_ASSIGN_OR_RETURN(const std::string boot, ReadFile("/proc/sys/kernel/random/boot_id"));
  std::array<char, 64> processes{};
  if (readlink("/proc/self/ns/pid", processes.data(), processes.size() - 1) < 0) {
    return ErrnoStatus(errno, "/proc/self/ns/pid");
  }
  return StrCat(Trim(boot), " ", processes.data());
}

Result<std::unique_ptr<SharedSegment>> Map(int fd, size_t bytes) {
  void* const data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) {
    return ErrnoStatus(errno, StrCat("mapping ", bytes, " bytes of shared memory"));
  }
  return std::make_unique<SharedSegment>(std::span(static_cast<std::byte*>(data), bytes));
}

struct Owned {
  UniqueFd fd;  // open until all have it
  Offer offer;
  std::unique_ptr<SharedSegment> segment;
};

Result<Owned> Make(size_t bytes) {
  Owned owned;
  MFT_ASSIGN_OR_RETURN(const std::string host, HostId());
  owned.fd = UniqueFd(memfd_create("mft-ranks", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  struct stat info {};
  // Sealed: nobody can cut off what others have mapped.
  if (!owned.fd.valid() || ftruncate(owned.fd.get(), static_cast<off_t>(bytes)) != 0 ||
      fcntl(owned.fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0 ||
      fstat(owned.fd.get(), &info) != 0) {
    return ErrnoStatus(errno, StrCat(bytes, " bytes of shared memory"));
  }
  MFT_ASSIGN_OR_RETURN(owned.segment, Map(owned.fd.get(), bytes));
  owned.offer = {.host = ToText(host),
                 .process = getpid(),
                 .descriptor = owned.fd.get(),
                 .device = info.st_dev,
                 .inode = info.st_ino,
                 .bytes = bytes};
  return owned;
}

Result<std::unique_ptr<SharedSegment>> Take(const Offer& offer, size_t bytes) {
  if (offer.host == Text{}) {
    return Unavailable(StrCat("rank 0: ", FromText(offer.why)));
  }
  MFT_ASSIGN_OR_RETURN(const std::string host, HostId());
  if (FromText(offer.host) != FromText(ToText(host))) {
    return Unavailable("it is on another host, or in another pid namespace, than rank 0");
  }
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd,
                       OpenFile(StrCat("/proc/", offer.process, "/fd/", offer.descriptor),
                                O_RDWR | O_NONBLOCK | O_NOCTTY));
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) {
    return ErrnoStatus(errno, "shared memory");
  }
  if (info.st_dev != offer.device || info.st_ino != offer.inode || offer.bytes != bytes) {
    return Unavailable("the memory that it found is not rank 0's");
  }
  return Map(fd.get(), bytes);
}

// Rank 0: asks every rank, and tells all.
Result<Verdict> Decide(const RankOptions& options,
                       const std::vector<RankLink>& links,
                       const Result<Owned>& owned) {
  Offer offer;
  if (owned.ok()) {
    offer = owned->offer;
  } else {
    offer.why = ToText(owned.status().message());
  }
  for (const RankLink& link : links) {
    MFT_RETURN_IF_ERROR(SendMessage(link, offer));
  }
  Verdict verdict{.shared = 1};
  for (const RankLink& link : links) {
    MFT_ASSIGN_OR_RETURN(const Answer answer, ReceiveMessage<Answer>(link, options));
    if (answer.shares == 0 && verdict.shared != 0) {
      verdict = {.shared = 0,
                 .why = ToText(StrCat("rank ", link.rank, ": ", FromText(answer.why)))};
    }
  }
  for (const RankLink& link : links) {
    MFT_RETURN_IF_ERROR(SendMessage(link, verdict));
  }
  return verdict;
}

}  // namespace

SharedSegment::~SharedSegment() {
  munmap(bytes_.data(), bytes_.size());
}

Result<std::unique_ptr<SharedSegment>> ShareMemory(const RankOptions& options,
                                                   const std::vector<RankLink>& links,
                                                   size_t bytes) {
  std::unique_ptr<SharedSegment> segment;
  Verdict verdict;
  if (options.rank == 0) {
    auto owned = Make(bytes);
    MFT_ASSIGN_OR_RETURN(verdict, Decide(options, links, owned));
    segment = owned.ok() ? std::move(owned->segment) : nullptr;
  } else {
    MFT_ASSIGN_OR_RETURN(const Offer offer, ReceiveMessage<Offer>(links[0], options));
    auto taken = Take(offer, bytes);
    const Answer answer{.shares = taken.ok() ? 1U : 0U, .why = ToText(taken.status().message())};
    MFT_RETURN_IF_ERROR(SendMessage(links[0], answer));
    MFT_ASSIGN_OR_RETURN(verdict, ReceiveMessage<Verdict>(links[0], options));
    segment = taken.ok() ? std::move(*taken) : nullptr;
  }
  if (verdict.shared != 0) {
    return segment;
  }
  const std::string why = StrCat("the ranks cannot share memory: ", FromText(verdict.why));
  if (options.transport == RankTransport::kSharedMemory) {
    return FailedPrecondition(why);
  }
  if (options.rank == 0) {
    LogInfo(StrCat(why, "; they use TCP"));
  }
  return std::unique_ptr<SharedSegment>();
}

}  // namespace mft
