// SPDX-License-Identifier: Apache-2.0
// LoRA's A and B of every adapted projection, ordered by reverse block (numerics.md, "LoRA
// storage").
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "common/checkpoint/activation_plan.h"
#include "common/checkpoint/model_params.h"
#include "worker/kernels/view.h"
#include "worker/model/param_store.h"

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
  bool training = true;                  // false: no gradient and no moments
  const KernelTable* kernels = nullptr;  // of the device that trains; null: the CPU
};

class LoraStore final : public ParamStore {
 public:
  LoraStore(const ModelParams& params, LoraStoreOptions options);

  const BlockAdapters& block(int64_t layer) const { return blocks_[static_cast<size_t>(layer)]; }
  // Columns of the slots that hold x A of a block.
  const LoraColumns& inner_cols() const { return inner_cols_; }
  const LoraStoreOptions& options() const { return options_; }

 private:
  struct GroupSpec;
  void Plan(const ModelParams& params);
  void PlanGroup(const ModelParams& params, const GroupSpec& spec);
  LoraGroup MakeGroup(const GroupSpec& spec, int64_t inner_offset) const;
  BlockAdapters MakeBlock(const ModelParams& params, int64_t layer) const;

  LoraStoreOptions options_;
  LoraColumns inner_cols_;
  std::vector<BlockAdapters> blocks_;
};

}  // namespace mft
