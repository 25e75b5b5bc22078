// SPDX-License-Identifier: Apache-2.0
// devices, version, validate.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "client/commands/commands.h"
#include "client/render/job_text.h"
#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/journal/record.h"

namespace mft::client {

namespace {
Result<int> Devices(Connection& connection, bool json) {
  v1::ListDevicesResponse response;
  MFT_RETURN_IF_ERROR(connection.Call(
      connection.node(), &v1::NodeService::Stub::ListDevices, v1::ListDevicesRequest(), response));
  if (json) {
    PrintJson(response);
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {
      {"DEVICE", "STATE", "JOBS", "MEMORY", "NAME", "DETAIL"}};
  for (const v1::Device& device : response.devices()) {
    rows.push_back({device.id(),
                    device.state(),
                    device.job_id().empty() ? "-" : device.job_id(),
                    device.memory_bytes() > 0 ? FormatBytes(device.memory_bytes()) : "-",
                    device.name(),
                    device.detail()});
  }
  std::printf("%s", FormatTable(rows).c_str());
  return 0;
}

// The client's version without a daemon is an answer too.
Result<int> Version(Connection& connection, bool json) {
  v1::ServerInfo info;
  const Status status = connection.Call(
      connection.node(), &v1::NodeService::Stub::GetServerInfo, v1::GetServerInfoRequest(), info);
  if (json && status.ok()) {
    PrintJson(info);
    return 0;
  }
  std::printf("mftctl %s\n", std::string(BuildId()).c_str());
  if (status.ok()) {
    std::printf("mftd   %s (pid %d, %s, state %s, metrics http://%s/metrics)\n",
                info.version().c_str(),
                info.pid(),
                info.listen().c_str(),
                info.state_dir().c_str(),
                info.metrics().c_str());
  } else {
    std::fprintf(stderr, "mftctl: warning: %s\n", status.message().c_str());
  }
  return 0;
}

struct ValidateFlags {
  std::vector<std::string> files, overrides;
  std::string tokenizer, kind;
  bool create_corrected = false;
};

bool IsJobFile(const std::string& path) {
  return path.ends_with(".yaml") || path.ends_with(".yml") ||
         std::filesystem::path(path).filename() == "job.json";
}

// Becomes the mft-data beside it: the same checks as the daemon's, without a daemon.
Result<int> Validate(const ValidateFlags& flags, bool json) {
  const std::string program = JoinPath(ExecutableDir(), "mft-data");
  std::vector<std::string> words = {program, "validate"};
  for (const std::string& value : flags.overrides) {
    words.insert(words.end(), {"--set", value});
  }
  if (!flags.tokenizer.empty()) {
    words.insert(words.end(), {"--tokenizer", flags.tokenizer});
  }
  if (!flags.kind.empty()) {
    words.insert(words.end(), {"--kind", flags.kind});
  }
  if (flags.create_corrected) {
    words.emplace_back("--create-corrected");
  }
  if (json) {
    words.insert(words.end(), {"-o", "json"});
  }
  for (const std::string& file : flags.files) {
    if (IsJobFile(file)) {
      words.emplace_back("--config");
    }
    words.push_back(file);
  }
  std::vector<char*> arguments;
  for (std::string& word : words) {
    arguments.push_back(word.data());
  }
  arguments.push_back(nullptr);
  execv(program.c_str(), arguments.data());
  return ErrnoStatus(errno, StrCat("starting ", program));
}
}  // namespace

void AddNode(CLI::App& app, Context& context) {
  app.add_subcommand("devices", "the node's devices and who holds them")->callback([&context] {
    context.Run([&](Connection& connection) { return Devices(connection, context.json()); });
  });
  app.add_subcommand("version", "versions of client and daemon")->callback([&context] {
    context.Run([&](Connection& connection) { return Version(connection, context.json()); });
  });
}

void AddValidate(CLI::App& app, Context& context) {
  const auto flags = std::make_shared<ValidateFlags>();
  CLI::App* command =
      app.add_subcommand("validate", "check a job file's data, or data files, without a daemon");
  command->add_option("JOB.yaml|DATA.jsonl", flags->files, "a job file, or data files")->required();
  command->add_option("--set", flags->overrides, "KEY=VALUE after the job file")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option(
      "--tokenizer", flags->tokenizer, "tokenizer file; default: that of the job's model");
  command->add_option("--kind", flags->kind, "what lines of data files are: chat, text, or auto");
  command->add_flag(
      "--create-corrected", flags->create_corrected, "write the good lines beside the file");
  command->callback(
      [flags, &context] { context.RunLocal([&] { return Validate(*flags, context.json()); }); });
}

}  // namespace mft::client
