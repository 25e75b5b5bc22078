// SPDX-License-Identifier: Apache-2.0
// One line on stderr: "2026-11-23T07:27:39Z LEVEL program: message". For programs without spdlog
// (runner, data, worker); the daemon and the client log through spdlog.
#pragma once

#include <string_view>

#include "common/base/status.h"

namespace mft {

enum class LogLevel { kInfo, kWarning, kError };
std::string_view LogLevelName(LogLevel level);  // "WARNING"

void SetLogProgram(std::string_view name);  // before threads start
void Log(LogLevel level, std::string_view message);
inline void LogInfo(std::string_view message) {
  Log(LogLevel::kInfo, message);
}
inline void LogWarning(std::string_view message) {
  Log(LogLevel::kWarning, message);
}
inline void LogError(std::string_view message) {
  Log(LogLevel::kError, message);
}
// For best-effort work: says what failed and goes on.
void LogIfError(const Status& status, std::string_view what);

}  // namespace mft
