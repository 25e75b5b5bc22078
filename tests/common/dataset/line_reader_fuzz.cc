// SPDX-License-Identifier: Apache-2.0
// libFuzzer target: any bytes as a file of lines. The lines, put together again, are the file;
// over-long ones are marked and cut.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "common/base/files.h"
#include "common/base/status.h"
#include "common/dataset/line_reader.h"

namespace {

constexpr size_t kMaxLineBytes = 64;

// What Next() owes for the line at the head of `rest`.
void Check(const mft::DataLine& line, std::string_view& rest) {
  const size_t newline = rest.find('\n');
  const std::string_view whole = rest.substr(0, newline);
  rest.remove_prefix(newline == std::string_view::npos ? rest.size() : newline + 1);
  MFT_CHECK(line.too_long == (whole.size() > kMaxLineBytes), std::string(whole));
  if (line.too_long) {
    MFT_CHECK(line.text.size() <= kMaxLineBytes, line.text);
    MFT_CHECK(whole.starts_with(line.text), line.text);
  } else {
    MFT_CHECK(line.text == (whole.ends_with('\r') ? whole.substr(0, whole.size() - 1) : whole),
              line.text);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  mft::UniqueFd fd(memfd_create("lines", MFD_CLOEXEC));
  MFT_CHECK(mft::WriteAll(fd.get(), input, "memory").ok(), "writing to memory");
  MFT_CHECK(lseek(fd.get(), 0, SEEK_SET) == 0, "seeking in memory");
  mft::LineReader reader = mft::LineReader::On(std::move(fd), "memory", kMaxLineBytes);
  std::string_view rest = input;
  mft::DataLine line;
  for (int64_t number = 0; reader.Next(line).value(); ++number) {
    MFT_CHECK(line.number == number, std::to_string(line.number));
    MFT_CHECK(!rest.empty(), "a line too many");
    Check(line, rest);
  }
  MFT_CHECK(rest.empty(), std::string(rest));
  MFT_CHECK(reader.bytes_read() == static_cast<int64_t>(size), "bytes_read");
  return 0;
}
