// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/dataset/batcher.h"
#include "common/dataset/token_cache.h"
#include "worker/data/commands.h"
#include "worker/data/encode_file.h"
#include "worker/data/job_input.h"
#include "worker/data/prepare.h"
#include "worker/data/stop_signal.h"

namespace mft::data {
namespace {

struct BatchesArguments {
  std::string config;
  std::string data_cache;  // "": tokenise into a temporary directory
  int world_size = 1;
  int rank = 0;
  int64_t limit = 0;  // microbatches; 0: those of all steps
};

class StderrObserver final : public PrepareObserver {
 public:
  void Phase(std::string_view, std::string_view) override {}
  void Problem(std::string_view text) override {
    std::fprintf(stderr, "%s\n", std::string(text).c_str());
  }
  void Warning(std::string_view text) override { LogWarning(text); }
  bool Stopped() override { return StopSignal() != 0; }
};

// Removes itself, with all that is in it, at the end of the scope.
class TemporaryDirectory {
 public:
  static Result<std::unique_ptr<TemporaryDirectory>> Create() {
    const char* base = std::getenv("TMPDIR");
    std::string path = JoinPath(base == nullptr ? "/tmp" : base, "mft-data.XXXXXX");
    if (mkdtemp(path.data()) == nullptr) {
      return ErrnoStatus(errno, StrCat("creating ", path));
    }
    return std::make_unique<TemporaryDirectory>(std::move(path));
  }
  explicit TemporaryDirectory(std::string path) : path_(std::move(path)) {}
  ~TemporaryDirectory() { LogIfError(RemoveTree(path_), "removing a temporary directory"); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Json ToJson(const MicroBatch& batch) {
  std::string mask;
  for (const uint8_t bit : batch.mask) {
    mask.push_back(bit != 0 ? '1' : '0');
  }
  std::vector<int32_t> sizes;
  for (size_t i = 1; i < batch.cu_seqlens.size(); ++i) {
    sizes.push_back(batch.cu_seqlens[i] - batch.cu_seqlens[i - 1]);
  }
  return {{"x", batch.x}, {"y", batch.y}, {"mask", std::move(mask)}, {"sizes", std::move(sizes)}};
}

Status PrintBatches(const JobSpec& spec,
                    const TokenCache& cache,
                    const BatchesArguments& arguments) {
  MFT_ASSIGN_OR_RETURN(const BatcherOptions options,
                       BatcherOptionsFor(spec, arguments.world_size, arguments.rank));
  MFT_ASSIGN_OR_RETURN(const std::unique_ptr<Batcher> batcher, Batcher::Create(cache, options));
  const int64_t limit = arguments.limit > 0 ? arguments.limit : std::numeric_limits<int64_t>::max();
  int64_t index = 0;
  for (int64_t step = 1; step <= spec.max_steps && index < limit; ++step) {
    MFT_ASSIGN_OR_RETURN(const StepBatch batch, batcher->Step(step));
    for (const MicroBatch& micro : batch.micro) {
      if (index == limit || StopSignal() != 0) {
        return Status::Ok();
      }
      Json line = {{"rank", arguments.rank}, {"step", step}, {"index", index++}};
      line.update(ToJson(micro));
      std::printf("%s\n", DumpJson(line).c_str());
    }
  }
  if (std::fflush(stdout) != 0) {
    return ErrnoStatus(errno, "writing to standard output");
  }
  return Status::Ok();
}

Status Run(const BatchesArguments& arguments) {
  MFT_ASSIGN_OR_RETURN(const JobSpec spec, ReadJob(arguments.config));
  std::unique_ptr<TemporaryDirectory> temporary;
  std::string directory = arguments.data_cache;
  if (directory.empty()) {
    MFT_ASSIGN_OR_RETURN(temporary, TemporaryDirectory::Create());
    const PrepareRequest request = {.spec = spec,
                                    .cache_root = temporary->path(),
                                    .directory = {},
                                    .threads = DefaultThreads()};
    StderrObserver observer;
    MFT_ASSIGN_OR_RETURN(const PreparedData data, PrepareData(request, observer));
    directory = data.directory;
  }
  MFT_ASSIGN_OR_RETURN(const std::unique_ptr<TokenCache> cache, TokenCache::Open(directory));
  return PrintBatches(spec, *cache, arguments);
}

}  // namespace

void AddBatchesCommand(CLI::App& app, int& exit_code) {
  auto arguments = std::make_shared<BatchesArguments>();
  CLI::App* command = app.add_subcommand(
      "batches", "Print the microbatches that a rank will see, one JSON object a line");
  command->add_option("--config", arguments->config, "job file (YAML or job.json)")->required();
  command->add_option("--data-cache",
                      arguments->data_cache,
                      "token cache to read; default: tokenise into a temporary one");
  command->add_option("--world-size", arguments->world_size, "number of ranks")->required();
  command->add_option("--rank", arguments->rank, "which of them")->required();
  command->add_option("--limit", arguments->limit, "stop after so many microbatches");
  command->callback([arguments, &exit_code] {
    HandleStopSignals();
    const Status status = Run(*arguments);
    if (!status.ok()) {
      LogError(status.message());
    }
    exit_code = ExitCodeFor(status.code());
  });
}

}  // namespace mft::data
