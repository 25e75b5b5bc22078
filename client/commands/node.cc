// SPDX-License-Identifier: Apache-2.0
// devices, version, validate.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
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

// Becomes the mft-data beside it: the same checks as the daemon's, without a daemon.
Result<int> Validate(const std::vector<std::string>& files, bool create_corrected, bool json) {
  const std::string program = JoinPath(ExecutableDir(), "mft-data");
  std::vector<std::string> words = {program, "validate"};
  for (const std::string& file : files) {
    if (file.ends_with(".yaml") || file.ends_with(".yml") || file.ends_with(".json")) {
      words.emplace_back("--config");
    }
    words.push_back(file);
  }
  if (create_corrected) {
    words.emplace_back("--create-corrected");
  }
  if (json) {
    words.insert(words.end(), {"-o", "json"});
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
  const auto files = std::make_shared<std::vector<std::string>>();
  const auto create_corrected = std::make_shared<bool>(false);
  CLI::App* command =
      app.add_subcommand("validate", "check a job file's data, or data files, without a daemon");
  command->add_option("JOB.yaml|DATA.jsonl", *files, "a job file, or data files")->required();
  command->add_flag(
      "--create-corrected", *create_corrected, "write the good lines beside the file");
  command->callback([files, create_corrected, &context] {
    context.RunLocal([&] { return Validate(*files, *create_corrected, context.json()); });
  });
}

}  // namespace mft::client
