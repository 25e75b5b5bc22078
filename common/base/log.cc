// SPDX-License-Identifier: Apache-2.0
#include "common/base/log.h"

#include <unistd.h>

#include <string>

#include "common/base/clock.h"
#include "common/base/strings.h"

namespace mft {

namespace {
std::string& ProgramName() {
  static std::string name = "mft";
  return name;
}
}  // namespace

std::string_view LogLevelName(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo:
      return "INFO";
    case LogLevel::kWarning:
      return "WARNING";
    case LogLevel::kError:
      return "ERROR";
  }
  return "?";
}
void SetLogProgram(std::string_view name) {
  ProgramName() = name;
}

void Log(LogLevel level, std::string_view message) {
  const std::string line = StrCat(FormatUtc(SystemClock().WallMicros()),
                                  " ",
                                  LogLevelName(level),
                                  " ",
                                  ProgramName(),
                                  ": ",
                                  message,
                                  "\n");
  // One write keeps lines of several processes whole; a log that cannot be written has nowhere to
  // complain.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

void LogIfError(const Status& status, std::string_view what) {
  if (!status.ok()) {
    LogWarning(StrCat(what, ": ", status.message()));
  }
}

}  // namespace mft
