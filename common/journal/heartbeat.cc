// SPDX-License-Identifier: Apache-2.0
#include "common/journal/heartbeat.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace mft {

namespace {
constexpr uint64_t kMagic = 0x3130626d74666d00;  // "mftmb01"

struct Layout {
  uint64_t magic = kMagic;
  Heartbeat beat;
  std::array<uint64_t, 3> reserved{};
  uint64_t checksum = 0;
};
static_assert(sizeof(Layout) == 64);

// FNV-1a over everything before the checksum.
uint64_t Checksum(const Layout& layout) {
  std::array<unsigned char, sizeof(Layout)> bytes{};
  std::memcpy(bytes.data(), &layout, sizeof layout);
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < offsetof(Layout, checksum); ++i) {
    hash = (hash ^ bytes[i]) * 0x100000001b3;
  }
  return hash;
}
}  // namespace

HeartbeatWriter::HeartbeatWriter(const std::string& path) {
  auto fd = OpenFile(path, O_WRONLY | O_CREAT);
  if (fd.ok()) {
    fd_ = std::move(fd).value();
    // Blocks are allocated now, so that a full disk later cannot lose the record.
    static_cast<void>(posix_fallocate(fd_.get(), 0, sizeof(Layout)));
  }
}

void HeartbeatWriter::Write(const Heartbeat& beat) {
  Layout layout{.beat = beat};
  layout.checksum = Checksum(layout);
  static_cast<void>(!pwrite(fd_.get(), &layout, sizeof layout, 0));
}

std::optional<Heartbeat> ReadHeartbeat(const std::string& path) {
  const auto fd = OpenFile(path, O_RDONLY);
  Layout layout;
  if (!fd.ok() || pread(fd->get(), &layout, sizeof layout, 0) != sizeof layout ||
      layout.magic != kMagic || layout.checksum != Checksum(layout)) {
    return std::nullopt;
  }
  return layout.beat;
}

}  // namespace mft
