// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

namespace mft::testing {

struct ProgramResult {
  int exit_code = 0;  // minus the signal that ended it
  std::string out;
  std::string err;
};

// Runs build/<preset>/bin/mft-data to its end with `input` as its standard input. `stop_signal`, if
// not 0, waits for it from the beginning.
ProgramResult RunMftData(std::vector<std::string> arguments,
                         const std::string& input = "",
                         int stop_signal = 0);

}  // namespace mft::testing
