// SPDX-License-Identifier: Apache-2.0
#include "worker/train/world.h"

#include <charconv>
#include <cstdlib>
#include <limits>

#include "common/base/strings.h"

namespace mft {

namespace {
constexpr int kMaxRanks = 4096;
constexpr int kMaxPort = 65535;
// Ports of srun steps: below those that the kernel hands out by default, from 32768 on.
constexpr int kFirstStepPort = 20'000;
constexpr int kStepPorts = 12'000;

std::optional<int64_t> ParseInt(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size() && !text.empty();
  return whole ? std::optional(value) : std::nullopt;
}

// Of `fallback` where the variable is not set. Numbers are in [min, max].
Result<int> EnvInt(
    const Getenv& env, const std::string& name, int min, int max, std::optional<int> fallback) {
  const auto text = env(name);
  if (!text.has_value() || text->empty()) {
    return fallback.has_value() ? Result<int>(*fallback)
                                : Result<int>(InvalidArgument(StrCat(name, " is not set")));
  }
  const auto value = ParseInt(*text);
  if (!value.has_value() || *value < min || *value > max) {
    return InvalidArgument(StrCat(
        name, " must be a number from ", min, " to ", max, ", not \"", Printable(*text, 80), "\""));
  }
  return static_cast<int>(*value);
}

bool IsSet(const Getenv& env, const std::string& name) {
  return !env(name).value_or("").empty();
}

Result<World> FromTorchrun(const Getenv& env) {
  World world;
  MFT_ASSIGN_OR_RETURN(world.size, EnvInt(env, "WORLD_SIZE", 1, kMaxRanks, 1));
  MFT_ASSIGN_OR_RETURN(world.rank, EnvInt(env, "RANK", 0, world.size - 1, 0));
  // Somebody who says nothing of hosts means one.
  MFT_ASSIGN_OR_RETURN(world.local_size,
                       EnvInt(env, "LOCAL_WORLD_SIZE", 1, world.size, world.size));
  MFT_ASSIGN_OR_RETURN(world.local_rank, EnvInt(env, "LOCAL_RANK", 0, world.local_size - 1, 0));
  world.run_id = env("TORCHELASTIC_RUN_ID").value_or("");
  if (world.size == 1) {
    return world;
  }
  if (!IsSet(env, "RANK")) {
    return InvalidArgument(StrCat("WORLD_SIZE is ", world.size, ", and RANK is not set"));
  }
  world.master_address = env("MASTER_ADDR").value_or("");
  MFT_ASSIGN_OR_RETURN(world.master_port, EnvInt(env, "MASTER_PORT", 1, kMaxPort, 0));
  return world;
}

Result<World> FromSrun(const Getenv& env) {
  World world;
  MFT_ASSIGN_OR_RETURN(world.size, EnvInt(env, "SLURM_STEP_NUM_TASKS", 1, kMaxRanks, std::nullopt));
  MFT_ASSIGN_OR_RETURN(world.rank, EnvInt(env, "SLURM_PROCID", 0, world.size - 1, std::nullopt));
  MFT_ASSIGN_OR_RETURN(const int node,
                       EnvInt(env, "SLURM_NODEID", 0, std::numeric_limits<int>::max(), 0));
  world.local_size =
      TasksOfNode(env("SLURM_STEP_TASKS_PER_NODE").value_or(""), node).value_or(world.size);
  MFT_ASSIGN_OR_RETURN(world.local_rank, EnvInt(env, "SLURM_LOCALID", 0, world.local_size - 1, 0));
  constexpr int kAny = std::numeric_limits<int>::max();
  MFT_ASSIGN_OR_RETURN(const int job, EnvInt(env, "SLURM_JOB_ID", 0, kAny, 0));
  MFT_ASSIGN_OR_RETURN(const int step, EnvInt(env, "SLURM_STEP_ID", 0, kAny, 0));
  world.run_id = StrCat("slurm-", job, ".", step);
  world.master_address = IsSet(env, "MASTER_ADDR")
                             ? *env("MASTER_ADDR")
                             : FirstHost(env("SLURM_STEP_NODELIST").value_or(""));
  const int derived = kFirstStepPort + static_cast<int>((int64_t{job} * 31 + step) % kStepPorts);
  MFT_ASSIGN_OR_RETURN(world.master_port, EnvInt(env, "MASTER_PORT", 1, kMaxPort, derived));
  return world;
}
}  // namespace

std::optional<std::string> ProcessGetenv(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

Result<World> ReadWorld(const Getenv& env) {
  // A batch script has SLURM_PROCID too, but only a step of srun has tasks of its own.
  const bool srun = !IsSet(env, "WORLD_SIZE") && IsSet(env, "SLURM_STEP_NUM_TASKS");
  MFT_ASSIGN_OR_RETURN(World world, srun ? FromSrun(env) : FromTorchrun(env));
  world.transport = env("MFT_RANK_TRANSPORT").value_or("");
  if (!world.transport.empty() && world.transport != "tcp" && world.transport != "shm") {
    return InvalidArgument(StrCat(
        "MFT_RANK_TRANSPORT must be tcp or shm, not \"", Printable(world.transport, 80), "\""));
  }
  return world;
}

Status CheckMeetingPlace(const World& world) {
  if (world.size == 1) {
    return Status::Ok();
  }
  if (world.master_address.empty()) {
    return InvalidArgument(StrCat("there are ", world.size, " ranks, and MASTER_ADDR is not set"));
  }
  return world.master_port > 0
             ? Status::Ok()
             : InvalidArgument(
                   StrCat("there are ", world.size, " ranks, and MASTER_PORT is not set"));
}

std::string FirstHost(const std::string& nodelist) {
  const size_t end = nodelist.find_first_of(",[");
  std::string host = nodelist.substr(0, end);
  if (end == std::string::npos || nodelist[end] == ',') {
    return host;
  }
  const size_t number_end = nodelist.find_first_of(",-]", end);
  host +=
      nodelist.substr(end + 1, number_end == std::string::npos ? number_end : number_end - end - 1);
  const size_t close = nodelist.find(']', end);
  if (close != std::string::npos) {  // "rack[1-2]-a,..": what follows the brackets belongs to it
    const size_t tail_end = nodelist.find_first_of(",[", close);
    host +=
        nodelist.substr(close + 1, tail_end == std::string::npos ? tail_end : tail_end - close - 1);
  }
  return host;
}

std::optional<int> TasksOfNode(const std::string& tasks_per_node, int node) {
  int64_t first = 0;  // node of the part at hand
  for (const std::string& part : Split(tasks_per_node, ',')) {
    const size_t open = part.find("(x");
    const auto tasks = ParseInt(std::string_view(part).substr(0, open));
    std::optional<int64_t> nodes = 1;
    if (open != std::string::npos) {
      const bool closed = part.ends_with(')') && part.size() > open + 3;
      nodes = closed ? ParseInt(std::string_view(part).substr(open + 2, part.size() - open - 3))
                     : std::nullopt;
    }
    if (!tasks || !nodes || *tasks < 1 || *tasks > kMaxRanks || *nodes < 1 ||
        *nodes > std::numeric_limits<int>::max()) {
      return std::nullopt;
    }
    if (node < first + *nodes) {
      return static_cast<int>(*tasks);
    }
    first += *nodes;
  }
  return std::nullopt;
}

}  // namespace mft
