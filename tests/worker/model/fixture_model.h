// SPDX-License-Identifier: Apache-2.0
// A model, adapter and batches of tests/fixtures/train (computed by mistral-finetune's own code in
// float64).
#pragma once

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/checkpoint/safetensors.h"
#include "tests/support/fixtures.h"
#include "worker/model/tensor_values.h"
#include "worker/model/transformer.h"

namespace mft::testing {

inline std::vector<float> FloatsOf(const TensorEntry& tensor) {
  std::vector<float> values(tensor.data.size() / sizeof(float));
  std::memcpy(values.data(), tensor.data.data(), tensor.data.size());
  return values;
}

// Every bf16 table that this machine has.
inline std::vector<const KernelTable*> Bf16Tables() {
  std::vector<const KernelTable*> tables = {CpuKernelsFor("avx512-bf16"),
                                            CpuKernelsFor("avx512-amx-bf16")};
  std::erase(tables, nullptr);
  return tables;
}

// With the best one for fp32.
inline std::vector<const KernelTable*> Precisions() {
  std::vector<const KernelTable*> tables = Bf16Tables();
  tables.insert(tables.begin(), &CpuKernels());
  return tables;
}

inline void LoadAdapter(LoraStore& store, const std::string& path) {
  const auto file = SafetensorsFile::Open(path).value();
  for (const LoraStore::Tensor& tensor : store.tensors()) {
    const TensorEntry* entry = file->Find(tensor.name);
    const auto size = static_cast<size_t>(tensor.rows * tensor.cols);
    MFT_CHECK(entry != nullptr && entry->data.size() == size * DTypeSize(entry->dtype),
              tensor.name);
    ReadValues(*entry, store.master().subspan(static_cast<size_t>(tensor.offset), size));
  }
}

struct FixtureBatch {
  std::vector<int32_t> x, y, cu_seqlens = {0};
  std::vector<float> mask;
  Rows rows() const { return {x, y, mask, cu_seqlens}; }
};

inline FixtureBatch BatchOf(const Json& line) {
  FixtureBatch batch;
  batch.x = line["x"].get<std::vector<int32_t>>();
  batch.y = line["y"].get<std::vector<int32_t>>();
  for (const auto& size : line["sizes"]) {
    batch.cu_seqlens.push_back(batch.cu_seqlens.back() + size.get<int32_t>());
  }
  // null: every target counts; a string of 0 and 1; or a list of booleans.
  batch.mask.assign(batch.x.size(), 1.0F);
  const Json mask = line.value("mask", Json());
  for (size_t i = 0; i < batch.mask.size() && !mask.is_null(); ++i) {
    const bool counts = mask.is_string() ? mask.get_ref<const std::string&>()[i] == '1'
                                         : mask[i] == 1 || mask[i] == true;
    batch.mask[i] = counts ? 1.0F : 0.0F;
  }
  return batch;
}

// Row weights as numerics.md defines them, over the microbatches of one
// step, of all its ranks.
inline void Normalise(std::vector<FixtureBatch>& micro, bool by_token) {
  double step_tokens = 0;
  for (const FixtureBatch& batch : micro) {
    for (const float m : batch.mask) {
      step_tokens += m;
    }
  }
  for (FixtureBatch& batch : micro) {
    double own = 0;
    for (const float m : batch.mask) {
      own += m;
    }
    const double divisor = by_token ? step_tokens : own * static_cast<double>(micro.size());
    for (float& m : batch.mask) {
      m = m == 0 ? 0.0F : static_cast<float>(m / divisor);
    }
  }
}

inline void ExpectNear(std::span<const float> actual,
                       std::span<const float> expected,
                       double tolerance,
                       const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance) << what << " at " << i;
  }
}

// Everything that a forward and backward pass of a fixture needs.
struct FixtureModel {
  explicit FixtureModel(const std::string& folder,
                        TransformerOptions options = {.policy = RecomputePolicy::kNothing},
                        const KernelTable& kernels = CpuKernels())
      : dir(Fixture("train/" + folder)) {
    const Json config = Json::parse(std::ifstream(dir + "/config.json"));
    weights = LoadResidentWeights(dir + "/model").value();
    store = std::make_unique<LoraStore>(
        weights->params(),
        LoraStoreOptions{.rank = config["lora"]["rank"].get<int64_t>(),
                         .scaling = config["lora"]["scaling"].get<double>(),
                         .target_modules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"}});
    LoadAdapter(*store, dir + "/lora_init.safetensors");
    options.max_rows = 512;
    options.max_positions = 512;
    model = std::make_unique<Transformer>(*weights, *store, kernels, options);
  }

  std::string dir;
  std::unique_ptr<WeightSource> weights;
  std::unique_ptr<LoraStore> store;
  std::unique_ptr<Transformer> model;
};

}  // namespace mft::testing
