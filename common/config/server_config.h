// SPDX-License-Identifier: Apache-2.0
// The daemon's configuration file (configs/mftd.yaml documents every key). Flags of mftd override
// it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/config/job_spec.h"
#include "common/config/yaml_reader.h"

namespace mft {

// How trainings are handed to Slurm (executor: slurm).
struct SlurmConfig {
  std::string bin_dir;    // of sbatch, squeue, scancel and (on the nodes) srun; "": PATH
  std::string partition;  // "": Slurm's default
  std::string account;
  std::string qos;
  std::vector<std::string> arguments;  // of sbatch, e.g. --constraint=h100
  std::string gres = "gpu";            // name of a GPU in --gres, e.g. gpu:h100
  int64_t gpus_per_node = 0;           // 0: the nodes have none, jobs run on CPUs
  int64_t cores_per_node = 0;          // 0: as many as the daemon's own node shares out
  int64_t ranks_per_node = 0;          // a job of more is spread over nodes; 0: one node a job
  int64_t memory_gib = 0;              // of one rank; 0: the partition's default
  int64_t max_jobs = 1000;             // in Slurm at once; the others wait in the daemon
  int64_t poll_seconds = 5;            // between two looks at Slurm's queue
};

template <typename Visitor>
void VisitFields(Visitor&& visit, auto& self) requires
    std::is_same_v<std::remove_cvref_t<decltype(self)>, SlurmConfig> {
  visit("bin_dir", self.bin_dir, FieldRule{});
  visit("partition", self.partition, FieldRule{});
  visit("account", self.account, FieldRule{});
  visit("qos", self.qos, FieldRule{});
  visit("arguments", self.arguments, FieldRule{});
  visit("gres", self.gres, FieldRule{});
  visit("gpus_per_node", self.gpus_per_node, Between(0, 1024));
  visit("cores_per_node", self.cores_per_node, Between(0, 65536));
  visit("ranks_per_node", self.ranks_per_node, Between(0, 1024));
  visit("memory_gib", self.memory_gib, Between(0, int64_t{1} << 20));
  visit("max_jobs", self.max_jobs, Between(1, 100'000));
  visit("poll_seconds", self.poll_seconds, Between(1, 600));
}

struct ServerConfig {
  std::string state_dir;  // "": $XDG_STATE_HOME/mftd, else ~/.local/state/mftd
  std::string listen;     // unix:PATH or HOST:PORT; "": the default socket
  std::string metrics = "127.0.0.1:9464";
  std::string program_dir;  // where mft-runner and the others are; "": beside mftd
  std::string cache_dir;    // token caches; "": <state_dir>/cache
  int64_t cache_gib = 64;   // token caches beyond that go, those unused for longest first
  int64_t cores = 0;        // shared out between CPU jobs; 0: those that the daemon may run on
  int64_t prepare_slots = 2;
  int64_t grace_seconds = 120;             // from SIGTERM to SIGKILL of an attempt
  std::string tracker_python = "python3";  // interpreter that has the clients of W&B and MLflow
  std::string log_level = "info";
  std::string executor = "local";  // who runs trainings: local (this node) | slurm
  SlurmConfig slurm;
};

template <typename Visitor>
void VisitFields(Visitor&& visit, auto& self) requires
    std::is_same_v<std::remove_cvref_t<decltype(self)>, ServerConfig> {
  visit("state_dir", self.state_dir, FieldRule{});
  visit("listen", self.listen, FieldRule{});
  visit("metrics", self.metrics, FieldRule{});
  visit("program_dir", self.program_dir, FieldRule{});
  visit("cache_dir", self.cache_dir, FieldRule{});
  visit("cache_gib", self.cache_gib, Between(1, int64_t{1} << 20));
  visit("cores", self.cores, Between(0, 65536));
  visit("prepare_slots", self.prepare_slots, Between(1, 64));
  visit("grace_seconds", self.grace_seconds, Between(1, 86'400));
  visit("tracker_python", self.tracker_python, FieldRule{});
  visit("log_level", self.log_level, OneOf({"debug", "info", "warning", "error"}));
  visit("executor", self.executor, OneOf({"local", "slurm"}));
  visit("slurm", self.slurm);
}

struct ServerConfigResult {
  ServerConfig config;  // valid only if `violations` is empty
  std::vector<Violation> violations;
};

// Unknown keys and wrong values are violations with their lines.
ServerConfigResult ParseServerConfig(std::string_view yaml);

}  // namespace mft
