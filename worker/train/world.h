// SPDX-License-Identifier: Apache-2.0
// Which rank of how many this process is: torchrun's variables, or those of a step of srun.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "common/base/status.h"

namespace mft {

// The environment, as a function: tests pass their own.
using Getenv = std::function<std::optional<std::string>(const std::string& name)>;
std::optional<std::string> ProcessGetenv(const std::string& name);

struct World {
  int rank = 0;
  int size = 1;
  int local_rank = 0;          // on this host: which of its GPUs
  int local_size = 1;          // ranks on this host: they share its cores and memory
  std::string master_address;  // of rank 0's host; "": not said
  int master_port = 0;         // where it listens; 0: not said
  std::string transport;       // "tcp", "shm"; "": shared memory where all ranks can
  std::string run_id;  // the same on all ranks of a launch; "" where the launcher gives none
};

// RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT (torchrun, the runner,
// Kubernetes); without WORLD_SIZE, in a step of srun: SLURM_PROCID, SLURM_LOCALID,
// SLURM_STEP_NUM_TASKS, SLURM_STEP_TASKS_PER_NODE, the first host of SLURM_STEP_NODELIST and a port
// derived from the step's number, which MASTER_ADDR and MASTER_PORT override. One rank where there
// is neither. MFT_RANK_TRANSPORT (tcp | shm) forces how the ranks' data travels. INVALID_ARGUMENT
// names the variable and its value.
Result<World> ReadWorld(const Getenv& env);

// INVALID_ARGUMENT names what is missing for ranks that meet at an address.
Status CheckMeetingPlace(const World& world);

// "node[03-05,9],other" -> "node03". "" where there is none.
std::string FirstHost(const std::string& nodelist);

// Tasks on node `node`, from 0, of "2(x3),1". nullopt where the text has no such node or is none.
std::optional<int> TasksOfNode(const std::string& tasks_per_node, int node);

}  // namespace mft
