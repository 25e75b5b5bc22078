// SPDX-License-Identifier: Apache-2.0
// A model directory, data files and an observer that remembers, for tests of what mft-data makes of
// a job's data.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"
#include "worker/data/prepare.h"

namespace mft::testing {

class RecordingObserver final : public data::PrepareObserver {
 public:
  void Phase(std::string_view phase, std::string_view) override { phases.emplace_back(phase); }
  void Problem(std::string_view text) override { problems.emplace_back(text); }
  void Warning(std::string_view text) override { warnings.emplace_back(text); }
  bool Stopped() override { return stop_after-- <= 0; }

  std::vector<std::string> phases, problems, warnings;
  int stop_after = 1 << 30;
};

class PrepareFixture : public ::testing::Test {
 protected:
  PrepareFixture() {
    spec_.model_id_or_path = dir_.File("model");
    spec_.run_dir = dir_.File("run");
    spec_.seq_len = 64;
    spec_.data.instruct = {.shuffle = false, .dynamic_chunk_fn_call = false};
    MakeModel(32768);
  }

  void MakeModel(int vocab_size) { MakeModel(vocab_size, dir_.File("model")); }
  void MakeModel(int vocab_size, const std::string& directory) {
    dir_.Write(
        directory.substr(dir_.path().size() + 1) + "/params.json",
        StrCat(R"({"dim": 32, "n_layers": 2, "head_dim": 8, "hidden_dim": 48, "n_heads": 4, )",
               R"("n_kv_heads": 2, "norm_eps": 1e-5, "vocab_size": )",
               vocab_size,
               "}"));
  }

  // The v3 SentencePiece tokenizer, as a model directory has it.
  void AddTokenizer() {
    std::filesystem::create_symlink(TokenizerFile("mistral_instruct_tokenizer_240323.model.v3"),
                                    dir_.File("model/tokenizer.model.v3"));
  }

  Result<data::PreparedData> Prepare() {
    return data::PrepareData(
        {.spec = spec_, .cache_root = dir_.File("cache"), .directory = {}, .threads = threads_},
        observer_);
  }

  TempDir dir_;
  JobSpec spec_;
  RecordingObserver observer_;
  int threads_ = 1;
};

}  // namespace mft::testing
