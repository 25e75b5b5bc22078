// SPDX-License-Identifier: Apache-2.0
#include <string>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "client/commands/commands.h"
#include "common/journal/record.h"

int main(int argc, char** argv) {
  constexpr int kUsageError = 2;
  mft::client::Context context;
  CLI::App app("Submits fine-tuning jobs to mftd and follows them", "mftctl");
  app.require_subcommand(1);
  app.fallthrough();
  app.add_option("--endpoint",
                 context.endpoint_flag,
                 "unix:PATH or HOST:PORT of the daemon (or MFT_ENDPOINT)");
  app.add_option("-o,--output", context.output, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  app.set_version_flag("--version", std::string(mft::BuildId()));
  for (const auto add : {mft::client::AddSubmit,
                         mft::client::AddValidate,
                         mft::client::AddList,
                         mft::client::AddDescribe,
                         mft::client::AddLogs,
                         mft::client::AddEvents,
                         mft::client::AddCancel,
                         mft::client::AddCheckpoints,
                         mft::client::AddChat,
                         mft::client::AddNode,
                         mft::client::AddMissing}) {
    add(app, context);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsageError;
  }
  return context.exit_code;
}
