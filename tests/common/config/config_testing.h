// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/config/yaml_reader.h"

namespace mft::testing {

// The smallest valid job file; tests append to it.
inline constexpr std::string_view kMinimal =
    "data: {instruct_data: a.jsonl}\n"
    "model_id_or_path: /models/7B\n"
    "run_dir: /runs/one\n";

inline JobSpecResult Parse(const std::string& more,
                           const std::vector<std::string>& overrides = {}) {
  return ParseJobYaml(std::string(kMinimal) + more, overrides);
}

// "path:line: message" of each violation.
inline std::vector<std::string> Problems(const JobSpecResult& result) {
  std::vector<std::string> lines;
  for (const Violation& violation : result.violations) {
    lines.push_back(violation.path + ":" + std::to_string(violation.line) + ": " +
                    violation.message);
  }
  return lines;
}

inline std::vector<std::string> ProblemsOf(const std::string& more,
                                           const std::vector<std::string>& overrides = {}) {
  return Problems(Parse(more, overrides));
}

}  // namespace mft::testing
