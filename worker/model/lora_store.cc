// SPDX-License-Identifier: Apache-2.0
#include "worker/model/lora_store.h"

#include <algorithm>
#include <cstring>

#include "common/base/status.h"

namespace mft {

struct LoraStore::GroupSpec {
  std::vector<std::string> modules;
  LoraGroup BlockAdapters::*member;
};

namespace {
bool Contains(const std::vector<std::string>& modules, const std::string& module) {
  return std::find(modules.begin(), modules.end(), module) != modules.end();
}
}  // namespace

LoraStore::LoraStore(const ModelParams& params, LoraStoreOptions options)
    : options_(std::move(options)) {
  Plan(params);
  master_ = MakeAlignedFloats(size_);
  if (options_.training) {
    grad_ = MakeAlignedFloats(size_);
    moment1_ = MakeAlignedFloats(size_);
    moment2_ = MakeAlignedFloats(size_);
  }
  const std::vector<GroupSpec> specs = {{{"wq", "wk", "wv"}, &BlockAdapters::qkv},
                                        {{"wo"}, &BlockAdapters::o},
                                        {{"w1", "w3"}, &BlockAdapters::gate_up},
                                        {{"w2"}, &BlockAdapters::down}};
  for (int64_t layer = 0; layer < params.n_layers; ++layer) {
    BlockAdapters& block = blocks_.emplace_back();
    int64_t inner = 0;
    for (const GroupSpec& spec : specs) {
      block.*spec.member = MakeGroup(layer, spec, inner);
      inner += (block.*spec.member).inner_cols;
    }
    inner_cols_ = inner;
  }
}

// Block by block from the last; in a block the stacked A of a group first, then its B's.
void LoraStore::Plan(const ModelParams& params) {
  const auto add = [&](std::string name, int64_t rows, int64_t cols) {
    tensors_.push_back({std::move(name), size_, rows, cols});
    size_ += rows * cols;
  };
  const std::vector<std::vector<std::string>> groups = {
      {"wq", "wk", "wv"}, {"wo"}, {"w1", "w3"}, {"w2"}};
  for (int64_t layer = params.n_layers - 1; layer >= 0; --layer) {
    for (const auto& group : groups) {
      for (const bool is_a : {true, false}) {
        for (const std::string& module : group) {
          if (Contains(options_.target_modules, module)) {
            const auto shape = ProjectionShape(params, module);
            const std::string name = ProjectionName(layer, module);
            is_a ? add(name + ".lora_A.weight", options_.rank, shape[1])
                 : add(name + ".lora_B.weight", shape[0], options_.rank);
          }
        }
      }
    }
  }
}

View LoraStore::ViewOf(const std::string& name, float* arena) const {
  const auto tensor = std::find_if(
      tensors_.begin(), tensors_.end(), [&](const Tensor& t) { return t.name == name; });
  MFT_CHECK(tensor != tensors_.end(), name);
  return arena == nullptr ? View{} : MatrixView(arena + tensor->offset, tensor->rows, tensor->cols);
}

LoraGroup LoraStore::MakeGroup(int64_t layer, const GroupSpec& spec, int64_t inner_offset) const {
  LoraGroup group{.scale = static_cast<float>(options_.scaling),
                  .rank = options_.rank,
                  .inner_offset = inner_offset};
  for (size_t i = 0; i < spec.modules.size(); ++i) {
    if (!Contains(options_.target_modules, spec.modules[i])) {
      continue;
    }
    const std::string name = ProjectionName(layer, spec.modules[i]);
    if (group.inner_cols == 0) {
      group.a = ViewOf(name + ".lora_A.weight", master_.get());
      group.grad_a = ViewOf(name + ".lora_A.weight", grad_.get());
    }
    group.parts[i] = {.b = ViewOf(name + ".lora_B.weight", master_.get()),
                      .grad_b = ViewOf(name + ".lora_B.weight", grad_.get()),
                      .inner_col = group.inner_cols};
    group.inner_cols += options_.rank;
  }
  // The A's of a group are neighbours in the arena: one matrix.
  group.a.rows = group.inner_cols;
  group.grad_a.rows = group.inner_cols;
  return group;
}

void LoraStore::ZeroGrad() {
  std::memset(grad_.get(), 0, training_size() * sizeof(float));
}

int64_t LoraStore::bytes() const {
  return static_cast<int64_t>(sizeof(float)) * (size_ + 3 * static_cast<int64_t>(training_size()));
}

}  // namespace mft
