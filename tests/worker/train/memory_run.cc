// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/train/memory_run.h"

#include <array>
#include <cstdio>
#include <stdexcept>

#include "common/base/strings.h"
#include "tests/support/cache_builder.h"
#include "tests/support/temp_dir.h"
#include "tests/support/tiny_model.h"
#include "tests/worker/train/train_run.h"

namespace mft::testing {

namespace {
constexpr int64_t kRank = 16;
const std::vector<std::string> kModules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"};

int64_t ProgramBytes() {
  FILE* pipe = popen(MFT_BIN_DIR "/mft-worker info -o json", "r");
  std::array<char, 4096> text{};
  const size_t size = fread(text.data(), 1, text.size(), pipe);
  if (pclose(pipe) != 0) {
    throw std::runtime_error("mft-worker info failed");
  }
  return GetInt(ParseJson({text.data(), size}).value(), "memory_bytes").value();
}

std::vector<TestSample> Samples(const MemoryRun& run) {
  std::vector<TestSample> samples(static_cast<size_t>(run.documents));
  for (auto& sample : samples) {
    for (int32_t i = 0; i <= run.document_rows; ++i) {
      sample.tokens.push_back(1 + i * 31 % static_cast<int32_t>(run.params.vocab_size - 1));
    }
  }
  return samples;
}
}  // namespace

MemoryFigures MeasureMemory(const MemoryRun& run) {
  const TempDir dir;
  const ModelParams& params = run.params;
  const int64_t rows = run.documents * run.document_rows;
  WriteTinyModel(dir.File("model"), params);
  BuildCache(
      dir.File("tokens"), {{.files = {Samples(run)}}}, static_cast<int32_t>(params.vocab_size));
  TrainRun train(dir.File("job"), "dense");
  train.threads = 2;
  train.data_cache = dir.File("tokens");
  train.spec.model_id_or_path = dir.File("model");
  train.spec.mftd.init_adapter.clear();
  train.spec.mftd.packing = "whole";
  train.spec.lora.rank = kRank;
  train.spec.seq_len = rows;
  train.spec.max_steps = 1;
  train.spec.checkpoint = run.policy == RecomputePolicy::kBlock;
  const Ended ended = train.Run();
  const auto steps = train.Records<StepRecord>();
  if (ended.exit_code != 0 || steps.size() != 1 || steps[0].tokens != rows) {
    throw std::runtime_error(StrCat("the run ended with ", ended.exit_code, ": ", ended.log));
  }
  const int64_t chunk = ChunkRows(rows, run.document_rows);
  const LoraColumns inner = LoraInnerColumns(params, kRank, kModules);
  return {.peak = steps[0].peak_memory_bytes,
          .program = ProgramBytes(),
          .weights = 4 * TotalParameters(params),
          .lora_states = 4 * 4 * LoraParameters(params, kRank, kModules),
          .kept = params.n_layers * chunk * KeptBytesPerToken(run.policy, params, inner, 4),
          .full_logits = 4 * rows * params.vocab_size};
}

}  // namespace mft::testing
