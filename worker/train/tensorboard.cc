// SPDX-License-Identifier: Apache-2.0
#include "worker/train/tensorboard.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstring>

#include "common/base/crc32c.h"
#include "common/base/log.h"
#include "common/base/strings.h"

namespace mft {

namespace {
static_assert(std::endian::native == std::endian::little, "event files are little-endian");

template <typename T>
void AppendRaw(T value, std::string& out) {
  std::array<char, sizeof(T)> bytes{};
  std::memcpy(bytes.data(), &value, sizeof(T));
  out.append(bytes.data(), bytes.size());
}

// The protobuf wire format: a key is field number * 8 + wire type.
enum WireType : uint64_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void AppendVarint(uint64_t value, std::string& out) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

void AppendKey(uint64_t field, WireType type, std::string& out) {
  AppendVarint(field << 3 | type, out);
}

void AppendBytes(uint64_t field, std::string_view value, std::string& out) {
  AppendKey(field, kBytes, out);
  AppendVarint(value.size(), out);
  out.append(value);
}

// tensorflow/core/util/event.proto: wall_time = 1 (double), step = 2, file_version = 3,
// summary = 5, session_log = 7. Summary.value = 1: tag = 1, simple_value = 2 (float).
// SessionLog.status = 1: START = 1.
std::string EventHead(int64_t wall_micros, int64_t step) {
  std::string event;
  AppendKey(1, kFixed64, event);
  AppendRaw(static_cast<double>(wall_micros) / 1e6, event);
  if (step != 0) {
    AppendKey(2, kVarint, event);
    AppendVarint(static_cast<uint64_t>(step), event);
  }
  return event;
}

std::string VersionEvent(int64_t wall_micros) {
  std::string event = EventHead(wall_micros, 0);
  AppendBytes(3, "brain.Event:2", event);
  return event;
}

std::string StartEvent(int64_t wall_micros, int64_t step) {
  std::string session;
  AppendKey(1, kVarint, session);
  AppendVarint(1, session);
  std::string event = EventHead(wall_micros, step);
  AppendBytes(7, session, event);
  return event;
}

std::string ScalarsEvent(int64_t wall_micros, int64_t step, std::span<const Scalar> scalars) {
  std::string summary;
  for (const Scalar& scalar : scalars) {
    std::string value;
    AppendBytes(1, scalar.tag, value);
    AppendKey(2, kFixed32, value);
    AppendRaw(static_cast<float>(scalar.value), value);
    AppendBytes(1, value, summary);
  }
  std::string event = EventHead(wall_micros, step);
  AppendBytes(5, summary, event);
  return event;
}

std::string HostName() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') {
    return "localhost";
  }
  return name.data();
}

std::string FileName(const TensorBoardWriter::Options& options) {
  std::string seconds = std::to_string(options.wall_micros / 1'000'000);
  seconds.insert(0, seconds.size() < 10 ? 10 - seconds.size() : 0, '0');
  return StrCat("events.out.tfevents.", seconds, ".", HostName(), ".", getpid(), options.suffix);
}
}  // namespace

uint32_t MaskedCrc32c(std::string_view data) {
  constexpr uint32_t kMaskDelta = 0xa282ead8;
  return std::rotr(Crc32c(data), 15) + kMaskDelta;
}

void AppendTfRecord(std::string_view data, std::string& out) {
  std::string length;
  AppendRaw(uint64_t{data.size()}, length);
  out.append(length);
  AppendRaw(MaskedCrc32c(length), out);
  out.append(data);
  AppendRaw(MaskedCrc32c(data), out);
}

Result<std::unique_ptr<TensorBoardWriter>> TensorBoardWriter::Create(const Options& options) {
  MFT_RETURN_IF_ERROR(MakeDirs(options.directory));
  const std::string path = JoinPath(options.directory, FileName(options));
  // Two attempts of one second and one process number (containers): the name gets a counter.
  std::string unique = path;
  for (int i = 1; PathExists(unique); ++i) {
    unique = StrCat(path.substr(0, path.size() - options.suffix.size()), ".", i, options.suffix);
  }
  MFT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(unique, O_WRONLY | O_CREAT | O_EXCL));
  std::unique_ptr<TensorBoardWriter> writer(new TensorBoardWriter(unique, std::move(fd)));
  MFT_RETURN_IF_ERROR(writer->Append(VersionEvent(options.wall_micros)));
  if (options.restart_step > 0) {
    MFT_RETURN_IF_ERROR(writer->Append(StartEvent(options.wall_micros, options.restart_step)));
  }
  return writer;
}

Status TensorBoardWriter::Write(int64_t step,
                                int64_t wall_micros,
                                std::span<const Scalar> scalars) {
  return Append(ScalarsEvent(wall_micros, step, scalars));
}

Status TensorBoardWriter::Append(std::string_view event) {
  std::string record;
  AppendTfRecord(event, record);
  const Status written = WriteAll(fd_.get(), record, path_);
  if (!written.ok()) {
    if (ftruncate(fd_.get(), size_) != 0 || lseek(fd_.get(), size_, SEEK_SET) < 0) {
      LogIfError(ErrnoStatus(errno, path_), "cutting back a torn TensorBoard record");
    }
    return written;
  }
  size_ += static_cast<int64_t>(record.size());
  return Status::Ok();
}

}  // namespace mft
