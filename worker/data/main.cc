// SPDX-License-Identifier: Apache-2.0
#include <exception>
#include <string>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "common/base/log.h"
#include "worker/data/commands.h"

int main(int argc, char** argv) {
  mft::SetLogProgram("mft-data");
  CLI::App app("Checks, encodes and prepares training data", "mft-data");
  app.require_subcommand(1);
  int exit_code = 0;
  mft::data::AddPrepareCommand(app, exit_code);
  mft::data::AddBatchesCommand(app, exit_code);
  mft::data::AddEncodeCommand(app, exit_code);
  mft::data::AddDecodeCommand(app, exit_code);
  mft::data::AddValidateCommand(app, exit_code);
  mft::data::AddReformatCommand(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  return exit_code;
}
