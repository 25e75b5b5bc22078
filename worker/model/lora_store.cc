// SPDX-License-Identifier: Apache-2.0
#include "worker/model/lora_store.h"

#include <algorithm>

namespace mft {

// Projections that share an input: in one layer, of one expert where there are experts.
struct LoraStore::GroupSpec {
  std::vector<std::string> modules;
  int64_t layer = 0;
  int64_t expert = kNoExpert;

  static constexpr int64_t kNoExpert = -1;
  std::string Name(const std::string& module) const {
    return expert == kNoExpert ? ProjectionName(layer, module)
                               : ExpertProjectionName(layer, expert, module);
  }
};

namespace {
const std::vector<std::string> kQkv = {"wq", "wk", "wv"};
const std::vector<std::string> kO = {"wo"};
const std::vector<std::string> kGateUp = {"w1", "w3"};
const std::vector<std::string> kDown = {"w2"};

bool Contains(const std::vector<std::string>& modules, const std::string& module) {
  return std::find(modules.begin(), modules.end(), module) != modules.end();
}
}  // namespace

LoraStore::LoraStore(const ModelParams& params, LoraStoreOptions options)
    : ParamStore(options.kernels),
      options_(std::move(options)),
      inner_cols_(LoraInnerColumns(params, options_.rank, options_.target_modules)) {
  Plan(params);
  AllocateMaster();
  if (options_.training) {
    AllocateTraining();
  }
  for (int64_t layer = 0; layer < params.n_layers; ++layer) {
    blocks_.push_back(MakeBlock(params, layer));
  }
}

// Block by block from the last; in a block the stacked A of a group first, then its B's.
void LoraStore::Plan(const ModelParams& params) {
  for (int64_t layer = params.n_layers - 1; layer >= 0; --layer) {
    PlanGroup(params, {kQkv, layer});
    PlanGroup(params, {kO, layer});
    const int64_t first = params.moe ? 0 : GroupSpec::kNoExpert;
    const int64_t end = params.moe ? params.moe->num_experts : first + 1;
    for (int64_t expert = first; expert < end; ++expert) {
      PlanGroup(params, {kGateUp, layer, expert});
      PlanGroup(params, {kDown, layer, expert});
    }
  }
}

void LoraStore::PlanGroup(const ModelParams& params, const GroupSpec& spec) {
  for (const bool is_a : {true, false}) {
    for (const std::string& module : spec.modules) {
      if (Contains(options_.target_modules, module)) {
        const auto shape = ProjectionShape(params, module);
        is_a ? AddTensor(spec.Name(module) + ".lora_A.weight", options_.rank, shape[1])
             : AddTensor(spec.Name(module) + ".lora_B.weight", shape[0], options_.rank);
      }
    }
  }
}

LoraGroup LoraStore::MakeGroup(const GroupSpec& spec, int64_t inner_offset) const {
  LoraGroup group{.scale = static_cast<float>(options_.scaling),
                  .rank = options_.rank,
                  .inner_offset = inner_offset};
  for (size_t i = 0; i < spec.modules.size(); ++i) {
    if (!Contains(options_.target_modules, spec.modules[i])) {
      continue;
    }
    const std::string name = spec.Name(spec.modules[i]);
    if (group.inner_cols == 0) {
      group.a = MasterOf(name + ".lora_A.weight");
      group.grad_a = GradOf(name + ".lora_A.weight");
    }
    group.parts[i] = {.b = MasterOf(name + ".lora_B.weight"),
                      .grad_b = GradOf(name + ".lora_B.weight"),
                      .inner_col = group.inner_cols};
    group.inner_cols += options_.rank;
  }
  // The A's of a group are neighbours in the arena: one matrix.
  group.a.rows = group.inner_cols;
  group.grad_a.rows = group.inner_cols;
  return group;
}

BlockAdapters LoraStore::MakeBlock(const ModelParams& params, int64_t layer) const {
  const auto ffn = [&](int64_t expert, int64_t offset) {
    FfnAdapters adapters;
    adapters.gate_up = MakeGroup({kGateUp, layer, expert}, offset);
    adapters.down = MakeGroup({kDown, layer, expert}, offset + adapters.gate_up.inner_cols);
    return adapters;
  };
  BlockAdapters block;
  block.qkv = MakeGroup({kQkv, layer}, 0);
  block.o = MakeGroup({kO, layer}, block.qkv.inner_cols);
  if (!params.moe) {
    block.ffn = ffn(GroupSpec::kNoExpert, block.o.inner_offset + block.o.inner_cols);
    return block;
  }
  for (int64_t expert = 0; expert < params.moe->num_experts; ++expert) {
    block.experts.push_back(ffn(expert, 0));
  }
  return block;
}

}  // namespace mft
