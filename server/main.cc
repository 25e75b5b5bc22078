// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "common/base/files.h"
#include "common/journal/record.h"
#include "server/daemon.h"

namespace {
constexpr int kUsageError = 2;

int Fail(const mft::Status& status) {
  std::fprintf(stderr, "mftd: error: %s\n", status.message().c_str());
  return mft::ExitCodeFor(status.code());
}

mft::Status ReadConfig(const std::string& path, mft::ServerConfig& config) {
  if (path.empty()) {
    return mft::Status::Ok();
  }
  MFT_ASSIGN_OR_RETURN(const std::string text, mft::ReadFile(path, size_t{1} << 20));
  mft::ServerConfigResult result = mft::ParseServerConfig(text);
  if (!result.violations.empty()) {
    return mft::InvalidArgument(mft::FormatViolations(result.violations, path));
  }
  config = result.config;
  return mft::Status::Ok();
}

// Everything that gRPC, prometheus-cpp and the loop start inherits this: only sigwait sees these
// signals.
void BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}
}  // namespace

int main(int argc, char** argv) {
  setenv("GRPC_ENABLE_FORK_SUPPORT", "false", 1);  // the daemon forks only to exec
  std::string config_path, state_dir, listen, metrics;
  bool check_config = false;
  CLI::App app("Fine-tunes Mistral models: takes job files over gRPC and runs them on this node",
               "mftd");
  app.add_option(
      "--config", config_path, "configuration file (configs/mftd.yaml documents every key)");
  app.add_option("--state-dir", state_dir, "database, job directories and token caches");
  app.add_option("--listen", listen, "unix:PATH or HOST:PORT (loopback)");
  app.add_option("--metrics", metrics, "HOST:PORT of /metrics; port 0 takes a free one");
  app.add_flag("--check-config", check_config, "check the configuration and exit");
  app.set_version_flag("--version", std::string(mft::BuildId()));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsageError;
  }
  BlockSignals();
  spdlog::set_default_logger(spdlog::stderr_logger_mt("mftd"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %^%l%$ %v", spdlog::pattern_time_type::utc);

  mft::ServerConfig config;
  if (const mft::Status status = ReadConfig(config_path, config); !status.ok()) {
    return Fail(status);
  }
  config.state_dir = state_dir.empty() ? config.state_dir : state_dir;
  config.listen = listen.empty() ? config.listen : listen;
  config.metrics = metrics.empty() ? config.metrics : metrics;
  spdlog::set_level(spdlog::level::from_str(config.log_level));
  if (const mft::Status status = mft::server::ResolveConfig(config); !status.ok()) {
    return Fail(status);
  }
  if (check_config) {
    std::printf("ok\n");
    return 0;
  }
  const mft::Status status = mft::server::RunDaemon(config);
  return status.ok() ? 0 : Fail(status);
}
