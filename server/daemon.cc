// SPDX-License-Identifier: Apache-2.0
#include "server/daemon.h"

#include <poll.h>
#include <pwd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>

#include <spdlog/spdlog.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "server/control/control_loop.h"
#include "server/exec/slurm_client.h"
#include "server/gpu_inventory.h"
#include "server/metrics/metrics.h"
#include "server/rpc/rpc_server.h"

namespace mft::server {

namespace {
constexpr auto kGpuPeriod = std::chrono::seconds(15);

std::string HomeDirectory() {
  const char* home = std::getenv("HOME");
  if (home != nullptr && *home != '\0') {
    return home;
  }
  const passwd* user = getpwuid(geteuid());
  return user != nullptr ? user->pw_dir : "/tmp";
}

std::string DefaultStateDir() {
  for (const char* variable : {"STATE_DIRECTORY", "XDG_STATE_HOME"}) {
    const char* value = std::getenv(variable);
    if (value != nullptr && *value != '\0') {
      return std::string_view(variable) == "STATE_DIRECTORY" ? value : JoinPath(value, "mftd");
    }
  }
  return JoinPath(HomeDirectory(), ".local/state/mftd");
}

// Looks at the GPUs now and then. A node without any is asked once.
class GpuWatcher {
 public:
  explicit GpuWatcher(ControlLoop& loop) {
    std::string why;
    auto gpus = ListGpus(why);
    if (gpus.empty()) {
      spdlog::info("no GPUs: {}; jobs run on the CPU", why.empty() ? "the driver lists none" : why);
      return;
    }
    spdlog::info("{} GPUs", gpus.size());
    loop.UpdateDevices(std::move(gpus));
    thread_ = std::jthread([&loop](const std::stop_token& stop) {
      std::mutex mutex;
      std::condition_variable_any wake;
      std::unique_lock lock(mutex);
      while (!wake.wait_for(lock, stop, kGpuPeriod, [] { return false; }) &&
             !stop.stop_requested()) {
        std::string ignored;
        loop.UpdateDevices(ListGpus(ignored));
      }
    });
  }

 private:
  std::jthread thread_;
};

Status WaitForSignal() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  int number = 0;
  while (sigwait(&signals, &number) != 0) {
  }
  spdlog::info("{}: stopping", number == SIGTERM ? "SIGTERM" : "SIGINT");
  return Status::Ok();
}

// "ready listen=unix:/run/... metrics=127.0.0.1:9464 state=/var/..."
void SayReady(const std::string& listen, const std::string& metrics, const std::string& state_dir) {
  std::printf(
      "ready listen=%s metrics=%s state=%s\n", listen.c_str(), metrics.c_str(), state_dir.c_str());
  std::fflush(stdout);
}
}  // namespace

Status ResolveConfig(ServerConfig& config) {
  config.state_dir = AbsolutePath(config.state_dir.empty() ? DefaultStateDir() : config.state_dir);
  config.program_dir =
      config.program_dir.empty() ? ExecutableDir() : AbsolutePath(config.program_dir);
  config.cache_dir = config.cache_dir.empty() ? JoinPath(config.state_dir, "cache")
                                              : AbsolutePath(config.cache_dir);
  config.listen = config.listen.empty() ? DefaultListenAddress() : config.listen;
  if (!PathExists(JoinPath(config.program_dir, "mft-runner"))) {
    return NotFound(
        StrCat(JoinPath(config.program_dir, "mft-runner"),
               ": no such program; program_dir must hold mft-runner, mft-worker and mft-data"));
  }
  if (config.executor == "slurm") {
    MFT_RETURN_IF_ERROR(SlurmClient(config.slurm).CheckPrograms());
  }
  return Status::Ok();
}

Status RunDaemon(const ServerConfig& config) {
  ControlOptions options{.state_dir = config.state_dir,
                         .program_dir = config.program_dir,
                         .cache_root = config.cache_dir,
                         .cache_bytes = config.cache_gib << 30};
  options.cores = static_cast<int>(config.cores);
  options.prepare_slots = static_cast<int>(config.prepare_slots);
  options.grace_ms = config.grace_seconds * 1000;
  options.tracker_python = config.tracker_python;
  options.executor = config.executor == "slurm" ? Executor::kSlurm : Executor::kLocal;
  options.slurm = config.slurm;
  options.slurm_poll_ms = config.slurm.poll_seconds * 1000;
  MFT_ASSIGN_OR_RETURN(const auto loop, ControlLoop::Create(options));

  std::atomic<const RpcServer*> serving = nullptr;
  Metrics metrics(
      {.address = config.metrics,
       .state_dir = config.state_dir,
       .snapshot = [&] { return loop->snapshot(); },
       .num_streams =
           [&] { return serving.load() == nullptr ? 0 : serving.load()->num_streams(); }});
  loop->fan_out().AddListener([&](const EventPtr& event) { metrics.OnEvent(*event); });
  MFT_RETURN_IF_ERROR(metrics.Start());
  loop->Start();
  const GpuWatcher gpus(*loop);
  MFT_ASSIGN_OR_RETURN(const auto rpc,
                       RpcServer::Start(*loop,
                                        {.listen = config.listen,
                                         .program_dir = config.program_dir,
                                         .state_dir = config.state_dir,
                                         .metrics = metrics.address()}));
  serving = rpc.get();
  spdlog::info("serving on {}", rpc->address());
  SayReady(rpc->address(), metrics.address(), config.state_dir);
  MFT_RETURN_IF_ERROR(WaitForSignal());

  serving = nullptr;
  rpc->Shutdown();
  const auto running = loop->Shutdown();
  if (running.empty()) {
    spdlog::info("stopped; no job was running");
  } else {
    spdlog::info(
        "stopped; {} jobs go on without the daemon and are found again at its next start: {}",
        running.size(),
        Join(running, ", "));
  }
  return Status::Ok();
}

}  // namespace mft::server
