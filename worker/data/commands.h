// SPDX-License-Identifier: Apache-2.0
// The subcommands of mft-data. Each adds itself to the command line and, when it is chosen, runs
// and stores the exit code of the program (design.md 4.1).
#pragma once

#include <CLI/App.hpp>

namespace mft::data {

void AddPrepareCommand(CLI::App& app, int& exit_code);
void AddBatchesCommand(CLI::App& app, int& exit_code);
void AddEncodeCommand(CLI::App& app, int& exit_code);
void AddDecodeCommand(CLI::App& app, int& exit_code);
void AddValidateCommand(CLI::App& app, int& exit_code);
void AddReformatCommand(CLI::App& app, int& exit_code);

}  // namespace mft::data
