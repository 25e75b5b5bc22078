// SPDX-License-Identifier: Apache-2.0
#include "common/dataset/line_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/strings.h"

namespace mft {

namespace {
constexpr size_t kReadBytes = size_t{1} << 18;
}

Result<LineReader> LineReader::Open(const std::string& path) {
  if (IsDirectory(path)) {
    return InvalidArgument(StrCat(path, ": is a directory"));
  }
  MFT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY));
  return LineReader(path, std::move(fd), kMaxLineBytes);
}

// Replaces the used-up buffer; false at the end of the file.
Result<bool> LineReader::Fill() {
  buffer_.resize(kReadBytes);
  at_ = 0;
  while (true) {
    const ssize_t got = read(fd_.get(), buffer_.data(), buffer_.size());
    if (got >= 0) {
      buffer_.resize(static_cast<size_t>(got));
      bytes_read_ += got;
      return got > 0;
    }
    if (errno != EINTR) {
      return ErrnoStatus(errno, StrCat("reading ", path_));
    }
  }
}

Result<bool> LineReader::Next(DataLine& line) {
  line.text.clear();
  line.too_long = false;
  bool begun = false;
  while (true) {
    if (at_ == buffer_.size()) {
      MFT_ASSIGN_OR_RETURN(const bool more, Fill());
      if (!more) {
        break;
      }
    }
    begun = true;
    const size_t newline = buffer_.find('\n', at_);
    const size_t end = newline == std::string::npos ? buffer_.size() : newline;
    const size_t kept = std::min(end - at_, max_line_bytes_ - line.text.size());
    line.text.append(buffer_, at_, kept);
    line.too_long |= kept < end - at_;
    at_ = newline == std::string::npos ? end : newline + 1;
    if (newline != std::string::npos) {
      break;
    }
  }
  if (!begun) {
    return false;
  }
  if (!line.too_long && line.text.ends_with('\r')) {
    line.text.pop_back();
  }
  line.number = next_number_++;
  return true;
}

}  // namespace mft
