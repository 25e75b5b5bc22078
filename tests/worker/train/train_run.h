// SPDX-License-Identifier: Apache-2.0
// Runs the real `mft-worker train` on a fixture of tests/fixtures/train.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/base/json.h"
#include "common/config/job_spec.h"
#include "common/journal/record.h"
#include "tests/support/cache_builder.h"

namespace mft::testing {

struct Ended {
  int exit_code = -1;
  int signal = 0;
  std::string log;  // its stderr
};

// A job on the data and the model of a fixture, in a directory of the test's. Each start is an
// attempt of its own.
class TrainRun {
 public:
  // The job that the fixture's config.json describes: packing `reference`, no shuffling, fp32.
  TrainRun(const std::string& directory, const std::string& fixture);

  JobSpec spec;
  // As the runner sets it: spinning threads of a test on a busy machine only wait for each other.
  std::map<std::string, std::string> environment = {{"GOMP_SPINCOUNT", "2000"}};
  int threads = 1;  // of each rank
  int ranks = 1;
  int held = -1;           // the rank that stops itself (SIGSTOP) before it is the worker; -1: none
  int64_t data_limit = 0;  // RLIMIT_DATA of each rank, which counts as its memory; 0: none
  std::string device = "cpu";
  std::string data_cache;

  // Evaluates on these instead of the fixture's.
  void UseEvalSamples(const std::vector<TestSample>& samples);

  // Writes job.json and attempt.json and starts the worker of each rank.
  void Start();
  Ended Wait();                  // for all ranks; of rank 0
  std::vector<Ended> WaitAll();  // of each
  Ended Run() {
    Start();
    return Wait();
  }
  // Waits until rank 0's journal has a record that `wanted` likes; false if rank 0 ends first.
  bool WaitFor(const std::function<bool(const Record&)>& wanted) const;
  void Signal(int signal, int rank = 0) const;
  pid_t pid(int rank = 0) const { return pids_[static_cast<size_t>(rank)]; }

  std::vector<Record> Journal(int rank = 0) const;  // of the newest attempt
  template <typename Body>
  std::vector<Body> Records() const {
    std::vector<Body> bodies;
    for (const Record& record : Journal()) {
      if (const Body* body = std::get_if<Body>(&record.body)) {
        bodies.push_back(*body);
      }
    }
    return bodies;
  }
  std::string RunFile(const std::string& name) const { return spec.run_dir + "/" + name; }
  std::string Checkpoint(int64_t step) const;
  std::string TrainedFile(int64_t step) const;  // adapter or model of that checkpoint
  std::string fixture_dir() const { return fixture_dir_; }

 private:
  std::string AttemptDir() const;
  void StartRank(int rank);

  std::string directory_;
  std::string fixture_dir_;
  int attempt_ = 0;
  std::vector<pid_t> pids_;
};

// Every value of an fp32 or bf16 safetensors file, by tensor.
std::map<std::string, std::vector<float>> ReadTensors(const std::string& path);

}  // namespace mft::testing
