// SPDX-License-Identifier: Apache-2.0
#include "worker/data/progress_bar.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "common/base/files.h"
#include "common/base/status.h"
#include "common/base/strings.h"

namespace mft::data {
namespace {

constexpr int64_t kRedrawMicros = 100'000;
constexpr int64_t kFirstDrawMicros = 300'000;  // what is done before needs no bar
constexpr int64_t kBarCharacters = 24;
constexpr double kSecondsOfEstimate = 2;  // an estimate after less is a guess

bool IsTerminal(int fd) {
  const char* term = std::getenv("TERM");
  return isatty(fd) != 0 && (term == nullptr || std::string_view(term) != "dumb");
}

size_t Columns(int fd) {
  winsize size{};
  return ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

}  // namespace

std::string ProgressText(const Progress& progress, std::string_view what, size_t width) {
  const int64_t total = std::max<int64_t>(progress.total, 1);
  const int64_t done = std::clamp<int64_t>(progress.done, 0, total);
  const double share = static_cast<double>(done) / static_cast<double>(total);
  const auto filled = static_cast<size_t>(share * kBarCharacters);
  std::string text = StrCat("[",
                            std::string(filled, '#'),
                            std::string(kBarCharacters - filled, '-'),
                            "] ",
                            share < 0.1   ? "  "
                            : share < 1.0 ? " "
                                          : "",
                            static_cast<int>(share * 100),
                            " %  ",
                            FormatBytes(done),
                            " of ",
                            FormatBytes(progress.total));
  if (progress.seconds >= kSecondsOfEstimate && share > 0) {
    text += StrCat(", ", FormatDuration(progress.seconds * (1 - share) / share), " left");
  }
  text += StrCat("  ", Printable(what, 200));
  if (text.size() > width) {  // cut at a character's boundary
    size_t end = width;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) {
      --end;
    }
    text.resize(end);
  }
  return text;
}

ProgressBar::ProgressBar(int fd, int64_t total, const Clock& clock)
    : fd_(fd),
      total_(total),
      clock_(clock),
      terminal_(IsTerminal(fd)),
      begin_micros_(clock.BoottimeMicros()),
      next_micros_(begin_micros_ + kFirstDrawMicros) {}

void ProgressBar::Write(std::string_view text) const {
  // A terminal that went away is no reason to stop.
  [[maybe_unused]] const Status ignored = WriteAll(fd_, text, "terminal");
}

void ProgressBar::Update(std::string_view what, int64_t done) {
  if (!terminal_) {
    return;
  }
  const int64_t now = clock_.BoottimeMicros();
  if (now < next_micros_) {
    return;
  }
  next_micros_ = now + kRedrawMicros;
  drawn_ = true;
  const Progress progress = {
      .done = done, .total = total_, .seconds = static_cast<double>(now - begin_micros_) / 1e6};
  // The last column stays free: a full line would wrap.
  Write(StrCat("\r\x1b[K", ProgressText(progress, what, Columns(fd_) - 1)));
}

void ProgressBar::Clear() {
  if (drawn_) {
    Write("\r\x1b[K");
    drawn_ = false;
  }
}

}  // namespace mft::data
