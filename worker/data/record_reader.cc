// SPDX-License-Identifier: Apache-2.0
#include "worker/data/record_reader.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "common/base/strings.h"

namespace mft::data {
namespace {

constexpr size_t kReadBytes = size_t{1} << 18;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool IsBlank(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

// Whether the file's first character is a bracket. What cannot be read twice (a pipe) is lines.
bool BeginsArray(const UniqueFd& fd) {
  char begin[4096];
  const ssize_t got = pread(fd.get(), begin, sizeof(begin), 0);
  std::string_view text(begin, got > 0 ? static_cast<size_t>(got) : 0);
  if (text.starts_with(kByteOrderMark)) {
    text.remove_prefix(kByteOrderMark.size());
  }
  return Trim(text).starts_with('[');
}

// Follows JSON only as far as is needed to find an element's end.
class Nesting {
 public:
  bool InElement() const { return in_string_ || depth_ > 0; }
  void Add(char c) {
    if (in_string_) {
      in_string_ = escaped_ || c != '"';
      escaped_ = !escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      --depth_;
    }
  }

 private:
  int64_t depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

}  // namespace

Result<RecordReader> RecordReader::Open(const std::string& path, size_t max_record_bytes) {
  MFT_ASSIGN_OR_RETURN(LineReader lines, LineReader::Open(path));
  MFT_ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(path, O_RDONLY | O_NONBLOCK));
  const bool array = BeginsArray(fd);
  return RecordReader(std::move(lines), std::move(fd), path, array, max_record_bytes);
}

Result<bool> RecordReader::Next(DataRecord& record) {
  record.text.clear();
  record.problem = Status::Ok();
  return array_ ? NextElement(record) : NextLine(record);
}

Result<bool> RecordReader::NextLine(DataRecord& record) {
  DataLine line;
  while (true) {
    MFT_ASSIGN_OR_RETURN(const bool more, lines_.Next(line));
    if (!more) {
      return false;
    }
    if (line.number == 0 && line.text.starts_with(kByteOrderMark)) {
      line.text.erase(0, kByteOrderMark.size());
    }
    if (line.too_long || !Trim(line.text).empty()) {
      break;
    }
  }
  record.line = line.number + 1;
  record.text = std::move(line.text);
  if (line.too_long) {
    record.problem =
        InvalidArgument(StrCat("the line is longer than ", FormatBytes(LineReader::kMaxLineBytes)));
  }
  return true;
}

Result<bool> RecordReader::Fill() {
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

// What stands before and behind the array. True: the record is a problem to tell.
bool RecordReader::Trailing(DataRecord& record, char c) {
  if (state_ == State::kBefore) {
    state_ = c == '[' ? State::kElements : State::kBefore;  // else blank, or the byte order mark
  } else if (!IsBlank(c)) {
    state_ = State::kEnded;
    record.line = line_;
    record.problem = InvalidArgument("something stands behind the array's end; it is not read");
    return true;
  }
  return false;
}

Result<bool> RecordReader::NextElement(DataRecord& record) {
  Nesting nesting;
  bool too_long = false;
  while (state_ != State::kEnded) {
    if (at_ == buffer_.size()) {
      MFT_ASSIGN_OR_RETURN(const bool more, Fill());
      if (!more) {
        const bool complete = state_ == State::kAfter;
        record.line = line_;
        record.problem = InvalidArgument("the file ends inside its array");
        state_ = State::kEnded;
        return !complete;
      }
    }
    const char c = buffer_[at_++];
    line_ += c == '\n' ? 1 : 0;
    if (state_ != State::kElements) {
      if (Trailing(record, c)) {
        return true;
      }
      continue;
    }
    if (!nesting.InElement() && (c == ',' || c == ']')) {
      state_ = c == ']' ? State::kAfter : State::kElements;
      if (too_long) {
        record.problem = InvalidArgument(
            StrCat("the element is longer than ", FormatBytes(int64_t(max_record_bytes_))));
      }
      if (!record.text.empty()) {
        return true;
      }
    } else if (!record.text.empty() || !IsBlank(c)) {
      record.line = record.text.empty() ? line_ : record.line;
      nesting.Add(c);
      too_long |= record.text.size() == max_record_bytes_;
      record.text.append(too_long ? 0 : 1, c);
    }
  }
  return false;
}

}  // namespace mft::data
