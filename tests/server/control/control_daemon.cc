// SPDX-License-Identifier: Apache-2.0
// A control loop as a process, to be killed by tests: commands on stdin, one answer a line.
//   submit REQUEST_ID RUN_DIR STEPS [label=value]...   the job's id, or "error: ..."
//   wait JOB       its final state
//   retries JOB    retries used
#include <iostream>
#include <sstream>

#include <spdlog/spdlog.h>

#include "common/base/strings.h"
#include "tests/server/control/harness.h"

namespace {

using namespace mft;
using namespace mft::server;

std::string Submit(ControlLoop& loop, std::istringstream& words) {
  SubmitRequest request;
  std::string run_dir, word;
  int64_t steps = 0;
  words >> request.request_id >> run_dir >> steps;
  server::testing::Labels labels;
  while (words >> word) {
    labels[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
  }
  request.request_hash = run_dir;
  request.spec = server::testing::MakeSpec(run_dir, steps, labels);
  auto answer = std::make_shared<std::promise<std::string>>();
  loop.Submit(std::move(request), [answer](const Result<JobViewPtr>& view) {
    answer->set_value(view.ok() ? (*view)->job.id : "error: " + view.status().ToString());
  });
  return answer->get_future().get();
}

// A loop that has just begun may not have told of its jobs yet.
JobViewPtr Find(ControlLoop& loop, const std::string& id) {
  JobViewPtr job;
  server::testing::Eventually([&] { return (job = loop.snapshot()->Find(id)) != nullptr; });
  return job;
}

std::string Wait(ControlLoop& loop, const std::string& id) {
  const auto state = [&] { return Find(loop, id)->job.state; };
  server::testing::Eventually([&] { return IsFinal(state()); });
  return std::string(JobStateName(state()));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3 && argc != 4) {
    return 2;
  }
  spdlog::set_level(spdlog::level::off);  // stdout is for answers
  ControlOptions options;
  options.state_dir = argv[1];
  options.program_dir = argv[2];
  options.cores = 4;
  options.tick_ms = 5;
  options.retry_delay_ms = 20;
  if (argc == 4) {  // folder of Slurm's programs
    options.executor = Executor::kSlurm;
    options.slurm.bin_dir = argv[3];
    options.slurm_poll_ms = 20;
    options.slurm_urgent_poll_ms = 20;
    options.slurm_forget_ms = 1'000;
  }
  auto loop = ControlLoop::Create(options);
  if (!loop.ok()) {
    std::cout << loop.status().ToString() << std::endl;
    return ExitCodeFor(loop.status().code());
  }
  (*loop)->Start();
  std::cout << "ready" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string verb, id;
    words >> verb;
    if (verb == "submit") {
      std::cout << Submit(**loop, words) << std::endl;
      continue;
    }
    words >> id;
    if (verb == "wait") {
      std::cout << Wait(**loop, id) << std::endl;
    } else {
      std::cout << Find(**loop, id)->job.retries_used << std::endl;
    }
  }
  return 0;
}
