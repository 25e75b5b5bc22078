// SPDX-License-Identifier: Apache-2.0
#include "tests/worker/model/autograd_oracle.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/triu.h>
#include <ATen/ops/zeros_like.h>

namespace mft::testing {

namespace {
at::Tensor Weight(View view, const WeightLeaves& trained) {
  const auto leaf = trained.find(view.data);
  return leaf == trained.end() ? ToTensor(view) : leaf->second;
}

at::Tensor RmsNorm(const at::Tensor& x,
                   const float* weight,
                   double eps,
                   const WeightLeaves& trained) {
  const View w = MatrixView(const_cast<float*>(weight), 1, x.size(1));
  return x * (x * x).mean(-1, true).add(eps).rsqrt() * Weight(w, trained);
}

// [T, heads, E] turned by each row's position.
at::Tensor Rotary(const at::Tensor& x, double theta) {
  const int64_t rows = x.size(0);
  const int64_t e = x.size(2);
  at::Tensor cosine = at::empty({rows, 1, e / 2}, at::kDouble);
  at::Tensor sine = at::empty({rows, 1, e / 2}, at::kDouble);
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < e / 2; ++j) {
      const double angle = static_cast<double>(i) *
                           std::pow(theta, -2.0 * static_cast<double>(j) / static_cast<double>(e));
      cosine.data_ptr<double>()[i * e / 2 + j] = std::cos(angle);
      sine.data_ptr<double>()[i * e / 2 + j] = std::sin(angle);
    }
  }
  const at::Tensor pairs = x.view({rows, x.size(1), e / 2, 2});
  const at::Tensor a = pairs.select(3, 0);
  const at::Tensor b = pairs.select(3, 1);
  return at::stack({a * cosine - b * sine, a * sine + b * cosine}, 3).view(x.sizes());
}

// One document: q [T, H, E], k and v [T, K, E] to [T, H E].
at::Tensor Attention(at::Tensor q, at::Tensor k, at::Tensor v, double theta) {
  const int64_t rows = q.size(0);
  const int64_t group = q.size(1) / k.size(1);
  q = Rotary(q, theta).transpose(0, 1);
  k = Rotary(k, theta).repeat_interleave(group, 1).transpose(0, 1);
  v = v.repeat_interleave(group, 1).transpose(0, 1);
  const at::Tensor mask = at::full({rows, rows}, -INFINITY, at::kDouble).triu(1);
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(2)));
  const at::Tensor p = (at::matmul(q, k.transpose(1, 2)) * scale + mask).softmax(-1);
  return at::matmul(p, v).transpose(0, 1).reshape({rows, -1});
}
}  // namespace

at::Tensor ToTensor(View view) {
  return at::from_blob(view.data, {view.rows, view.cols}, {view.stride, 1}, at::kFloat)
      .to(at::kDouble);
}

at::Tensor Leaf(View view) {
  return ToTensor(view).requires_grad_(true);
}

std::vector<float> ToFloats(const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kFloat).contiguous();
  return {values.data_ptr<float>(), values.data_ptr<float>() + values.numel()};
}

AdapterLeaves LeavesOf(LoraStore& store, int64_t layer) {
  AdapterLeaves leaves;
  const std::string prefix = "layers." + std::to_string(layer) + ".";
  for (const LoraStore::Tensor& tensor : store.tensors()) {
    if (tensor.name.starts_with(prefix)) {
      // "layers.0.attention.wq.lora_A.weight" -> "wq.lora_A.weight"
      const std::string name = tensor.name.substr(tensor.name.find('.', prefix.size()) + 1);
      leaves[name] =
          Leaf(MatrixView(store.master().data() + tensor.offset, tensor.rows, tensor.cols));
    }
  }
  return leaves;
}

at::Tensor BlockOracle(const ModelParams& params,
                       const BlockWeights& weights,
                       const AdapterLeaves& adapters,
                       double scale,
                       const at::Tensor& x,
                       std::span<const int32_t> cu_seqlens,
                       const WeightLeaves& trained) {
  const auto linear = [&](const std::string& module, const FrozenMat& w, const at::Tensor& input) {
    const at::Tensor y = at::matmul(input, Weight(w.data, trained).t());
    const auto a = adapters.find(module + ".lora_A.weight");
    if (a == adapters.end()) {
      return y;
    }
    const at::Tensor& b = adapters.at(module + ".lora_B.weight");
    return y + scale * at::matmul(at::matmul(input, a->second.t()), b.t());
  };
  const at::Tensor norm = RmsNorm(x, weights.attention_norm, params.norm_eps, trained);
  const auto heads = [&](const at::Tensor& y, int64_t count) {
    return y.view({y.size(0), count, params.head_dim});
  };
  const at::Tensor q = heads(linear("wq", weights.wq, norm), params.n_heads);
  const at::Tensor k = heads(linear("wk", weights.wk, norm), params.n_kv_heads);
  const at::Tensor v = heads(linear("wv", weights.wv, norm), params.n_kv_heads);
  std::vector<at::Tensor> documents;
  for (size_t s = 0; s + 1 < cu_seqlens.size(); ++s) {
    const int64_t begin = cu_seqlens[s];
    const int64_t count = cu_seqlens[s + 1] - begin;
    documents.push_back(Attention(q.narrow(0, begin, count),
                                  k.narrow(0, begin, count),
                                  v.narrow(0, begin, count),
                                  params.rope_theta));
  }
  const at::Tensor h = x + linear("wo", weights.wo, at::cat(documents));
  const at::Tensor n = RmsNorm(h, weights.ffn_norm, params.norm_eps, trained);
  const auto ffn = [&](const std::string& prefix, const auto& w) {
    const at::Tensor act =
        at::silu(linear(prefix + "w1", w.w1, n)) * linear(prefix + "w3", w.w3, n);
    return linear(prefix + "w2", w.w2, act);
  };
  if (!params.moe) {
    return h + ffn("", weights);
  }
  // Every expert on every row, and most of them masked: what the code under test never does.
  const at::Tensor logits = at::matmul(n, Weight(weights.router.data, trained).t());
  const auto [best, chosen] = logits.topk(params.moe->num_experts_per_tok);
  const at::Tensor share = at::zeros_like(logits).scatter(-1, chosen, at::softmax(best, -1));
  at::Tensor out = h;
  for (size_t e = 0; e < weights.experts.size(); ++e) {
    const std::string prefix = "experts." + std::to_string(e) + ".";
    out = out +
          share.select(1, static_cast<int64_t>(e)).unsqueeze(1) * ffn(prefix, weights.experts[e]);
  }
  return out;
}

at::Tensor LossOracle(const HeadWeights& head,
                      double eps,
                      const at::Tensor& hidden,
                      const LossRows& rows,
                      const WeightLeaves& trained) {
  const at::Tensor logits =
      at::matmul(RmsNorm(hidden, head.norm, eps, trained), Weight(head.output.data, trained).t());
  const at::Tensor log_p = at::log_softmax(logits, -1);
  at::Tensor sum = at::full({}, 0.0, at::kDouble);
  for (size_t i = 0; i < rows.index.size(); ++i) {
    sum = sum - log_p.select(0, rows.index[i]).select(0, rows.target[i]) *
                    static_cast<double>(rows.weight[i]);
  }
  return sum;
}

}  // namespace mft::testing
