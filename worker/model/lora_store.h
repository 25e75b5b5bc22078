// SPDX-License-Identifier: Apache-2.0
// The trainable weights: LoRA's A and B of every adapted projection, in flat arenas with named
// views, ordered by reverse block (numerics.md, "LoRA storage"), so that clipping, AdamW and
// reductions are one pass over one range.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/checkpoint/activation_plan.h"
#include "common/checkpoint/model_params.h"
#include "worker/kernels/view.h"
#include "worker/model/aligned_floats.h"

namespace mft {

// y = W x + scale B (A x) of one projection. R = rank.
struct LoraPart {
  View b;                 // [out, R] fp32; data null: this projection has no adapter
  View grad_b;            // [out, R] fp32
  int64_t inner_col = 0;  // of its x A in the group's
  bool present() const { return b.data != nullptr; }
};

// Projections that read the same input: their A matrices are stacked, so that x is read once.
struct LoraGroup {
  View a;       // [sum of R, in] fp32
  View grad_a;  // [sum of R, in] fp32
  float scale = 1;
  int64_t rank = 0;
  int64_t inner_cols = 0;         // sum of R; 0: no adapter in this group
  int64_t inner_offset = 0;       // of the group's columns in `lora_inner` (or `expert_inner`)
  std::array<LoraPart, 3> parts;  // in the order of the projections
};

struct FfnAdapters {
  LoraGroup gate_up;  // w1, w3
  LoraGroup down;     // w2
};

// The adapters of one block: arguments of a layer's calls, so that several can share a base.
struct BlockAdapters {
  LoraGroup qkv;                     // wq, wk, wv
  LoraGroup o;                       // wo
  FfnAdapters ffn;                   // of a dense model
  std::vector<FfnAdapters> experts;  // of a mixture of experts: each its own
};

struct LoraStoreOptions {
  int64_t rank = 16;
  double scaling = 2.0;
  std::vector<std::string> target_modules;
  bool training = true;  // false: no gradient and no moments
};

// Threads: one at a time. Views live as long as the store.
class LoraStore {
 public:
  LoraStore(const ModelParams& params, LoraStoreOptions options);

  struct Tensor {
    std::string name;    // "layers.0.attention.wq.lora_A.weight"
    int64_t offset = 0;  // into each arena
    int64_t rows = 0;
    int64_t cols = 0;
  };
  const std::vector<Tensor>& tensors() const { return tensors_; }  // in arena order
  const Tensor* Find(const std::string& name) const;               // nullptr: has no such tensor
  int64_t size() const { return size_; }                           // elements of each arena

  // Flat arenas, all of the same layout. In fp32 the compute copy is the master itself.
  std::span<float> master() { return {master_.get(), static_cast<size_t>(size_)}; }
  std::span<const float> master() const { return {master_.get(), static_cast<size_t>(size_)}; }
  std::span<float> grad() { return {grad_.get(), training_size()}; }
  std::span<float> moment1() { return {moment1_.get(), training_size()}; }
  std::span<float> moment2() { return {moment2_.get(), training_size()}; }
  void ZeroGrad();

  const BlockAdapters& block(int64_t layer) const { return blocks_[static_cast<size_t>(layer)]; }
  // Columns of the slots that hold x A of a block.
  const LoraColumns& inner_cols() const { return inner_cols_; }
  int64_t bytes() const;  // of all arenas
  const LoraStoreOptions& options() const { return options_; }

 private:
  struct GroupSpec;
  size_t training_size() const { return options_.training ? static_cast<size_t>(size_) : 0; }
  void AddTensor(std::string name, int64_t rows, int64_t cols);
  void Plan(const ModelParams& params);
  void PlanGroup(const ModelParams& params, const GroupSpec& spec);
  LoraGroup MakeGroup(const GroupSpec& spec, int64_t inner_offset) const;
  BlockAdapters MakeBlock(const ModelParams& params, int64_t layer) const;
  View ViewOf(const std::string& name, float* arena) const;

  LoraStoreOptions options_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, size_t> by_name_;  // index into tensors_
  int64_t size_ = 0;
  LoraColumns inner_cols_;
  AlignedFloats master_, grad_, moment1_, moment2_;
  std::vector<BlockAdapters> blocks_;
};

}  // namespace mft
