// SPDX-License-Identifier: Apache-2.0
// Attention by cuDNN's graphs: packed rows, causal, grouped heads. Letters: T rows, H query heads,
// K key heads, E head width, B segments, S rows of the longest.
//
// LibTorch's own operator (_cudnn_attention_forward) builds its plan anew in every call with
// variable lengths (2.11; pytorch #191576: 42 ms), so graphs are made here. A graph fixes B, S and
// the most rows; the rest are offsets in the device's memory. B, S and T are rounded up to buckets
// and the segments that are not there have no rows, so that a job needs few plans.
#include "worker/kernels/cuda/cudnn_attention.h"

#include <cudnn_frontend.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <unordered_map>
#include <utility>
#include <vector>

#include "worker/kernels/cuda/runtime.h"
#include "worker/kernels/cuda/segment_lists.h"

namespace cudnn_frontend {
// The frontend calls what it finds in this library (NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING).
void* cudnn_dlhandle = nullptr;
}  // namespace cudnn_frontend

namespace mft::cuda {

namespace {
namespace fe = cudnn_frontend;
using Graph = fe::graph::Graph;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

constexpr const char* kLibrary = "libcudnn.so.9";
constexpr size_t kMinVersion = 90600;  // grouped heads with variable lengths
constexpr int64_t kHeadMultiple = 16;  // of the packed workspace of the backward pass
constexpr int64_t kMaxHead = 128;
constexpr int64_t kMinSegments = 8;
constexpr int64_t kMinLongest = 128;
constexpr int64_t kRowBucket = 2048;

enum Uid : int64_t {
  kQ = 1,
  kK,
  kV,
  kOut,
  kLse,
  kDOut,
  kDQ,
  kDK,
  kDV,
  kLengthsQ,
  kLengthsK,
  kOffsetsQ,
  kOffsetsK,
  kOffsetsV,
  kOffsetsOut,
  kOffsetsLse
};
using Pointers = std::unordered_map<int64_t, void*>;

// What a graph is built for.
struct PlanKey {
  int64_t segments = 0;  // B
  int64_t longest = 0;   // S
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  auto operator<=>(const PlanKey&) const = default;
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(head_dim)); }
};

void Check(fe::error_t error, const char* call) {
  if (error.is_bad()) {
    throw std::runtime_error(std::string("cuDNN attention: ") + call + ": " + error.get_message());
  }
}

Tensor List(Graph& graph, Uid uid, const char* name, int64_t size) {
  return graph.tensor(fe::graph::Tensor_attributes()
                          .set_uid(uid)
                          .set_name(name)
                          .set_dim({size, 1, 1, 1})
                          .set_stride({1, 1, 1, 1})
                          .set_data_type(fe::DataType_t::INT32));
}

// A packed matrix [T, heads E] as [B, heads, S, E] whose segments begin at `offsets`.
void Describe(Tensor& tensor, Uid uid, int64_t heads, const PlanKey& key, const Tensor& offsets) {
  const int64_t row = heads * key.head_dim;
  tensor->set_uid(uid)
      .set_dim({key.segments, heads, key.longest, key.head_dim})
      .set_stride({key.longest * row, key.head_dim, row, 1})
      .set_ragged_offset(offsets);
}

void DescribeLse(Tensor& lse, const PlanKey& key, const Tensor& offsets) {
  lse->set_uid(kLse)
      .set_dim({key.segments, key.heads, key.longest, 1})
      .set_stride({key.longest * key.heads, 1, key.heads, 1})
      .set_data_type(fe::DataType_t::FLOAT)
      .set_ragged_offset(offsets);
}

// What both passes' graphs have in common.
struct Inputs {
  explicit Inputs(const PlanKey& key) : graph(std::make_unique<Graph>()) {
    graph->set_io_data_type(fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    lengths_q = List(*graph, kLengthsQ, "lengths of queries", key.segments);
    lengths_k = List(*graph, kLengthsK, "lengths of keys", key.segments);
    offsets_q = List(*graph, kOffsetsQ, "offsets of queries", key.segments + 1);
    offsets_k = List(*graph, kOffsetsK, "offsets of keys", key.segments + 1);
    offsets_v = List(*graph, kOffsetsV, "offsets of values", key.segments + 1);
    offsets_out = List(*graph, kOffsetsOut, "offsets of outputs", key.segments + 1);
    offsets_lse = List(*graph, kOffsetsLse, "offsets of lse", key.segments + 1);
    q = Packed(kQ, "q", key.heads, key, offsets_q);
    k = Packed(kK, "k", key.kv_heads, key, offsets_k);
    v = Packed(kV, "v", key.kv_heads, key, offsets_v);
  }

  Tensor Packed(
      Uid uid, const char* name, int64_t heads, const PlanKey& key, const Tensor& offsets) const {
    Tensor tensor = graph->tensor(fe::graph::Tensor_attributes().set_name(name));
    Describe(tensor, uid, heads, key, offsets);
    return tensor;
  }

  std::unique_ptr<Graph> graph;
  Tensor lengths_q, lengths_k;
  Tensor offsets_q, offsets_k, offsets_v, offsets_out, offsets_lse;
  Tensor q, k, v;
};

std::unique_ptr<Graph> ForwardGraph(const PlanKey& key) {
  Inputs in(key);
  auto [out, lse] = in.graph->sdpa(in.q,
                                   in.k,
                                   in.v,
                                   fe::graph::SDPA_attributes()
                                       .set_name("attention")
                                       .set_generate_stats(true)
                                       .set_causal_mask(true)
                                       .set_attn_scale(key.scale())
                                       .set_padding_mask(true)
                                       .set_seq_len_q(in.lengths_q)
                                       .set_seq_len_kv(in.lengths_k));
  out->set_output(true);
  Describe(out, kOut, key.heads, key, in.offsets_out);
  lse->set_output(true);
  DescribeLse(lse, key, in.offsets_lse);
  return std::move(in.graph);
}

std::unique_ptr<Graph> BackwardGraph(const PlanKey& key) {
  Inputs in(key);
  const Tensor out = in.Packed(kOut, "out", key.heads, key, in.offsets_out);
  const Tensor d_out = in.Packed(kDOut, "d_out", key.heads, key, in.offsets_out);
  Tensor lse = in.graph->tensor(fe::graph::Tensor_attributes().set_name("lse"));
  DescribeLse(lse, key, in.offsets_lse);
  auto [dq, dk, dv] = in.graph->sdpa_backward(in.q,
                                              in.k,
                                              in.v,
                                              out,
                                              d_out,
                                              lse,
                                              fe::graph::SDPA_backward_attributes()
                                                  .set_name("attention backward")
                                                  .set_causal_mask(true)
                                                  .set_attn_scale(key.scale())
                                                  .set_padding_mask(true)
                                                  .set_seq_len_q(in.lengths_q)
                                                  .set_seq_len_kv(in.lengths_k)
                                                  .set_max_total_seq_len_q(key.rows)
                                                  .set_max_total_seq_len_kv(key.rows));
  dq->set_output(true);
  Describe(dq, kDQ, key.heads, key, in.offsets_q);
  dk->set_output(true);
  Describe(dk, kDK, key.kv_heads, key, in.offsets_k);
  dv->set_output(true);
  Describe(dv, kDV, key.kv_heads, key, in.offsets_v);
  return std::move(in.graph);
}

// The library, its plans and the memory that they use. Lives until the process ends, as CUDA's own
// context does.
class Cudnn {
 public:
  static Cudnn& Opened() {
    if (g_cudnn == nullptr) {
      g_cudnn = new Cudnn();
    }
    return *g_cudnn;
  }
  static void ReleaseWorkspace() {
    if (g_cudnn != nullptr) {
      g_cudnn->workspace_.Release();
    }
  }

  void Forward(const PlanKey& key, Pointers pointers, std::span<const int32_t> cu) {
    Run(PlanOf(forward_, key, ForwardGraph), key, std::move(pointers), cu);
  }
  void Backward(const PlanKey& key, Pointers pointers, std::span<const int32_t> cu) {
    Run(PlanOf(backward_, key, BackwardGraph), key, std::move(pointers), cu);
  }

 private:
  static inline Cudnn* g_cudnn = nullptr;
  using Plans = std::map<PlanKey, std::unique_ptr<Graph>>;

  Cudnn() {
    if (fe::detail::create_handle(&handle_) != CUDNN_STATUS_SUCCESS ||
        fe::detail::set_stream(handle_, ComputeStream()) != CUDNN_STATUS_SUCCESS) {
      throw std::runtime_error("cuDNN attention: cudnnCreate fails on this GPU");
    }
  }

  // A graph that is not built to the end is not kept.
  Graph& PlanOf(Plans& plans, const PlanKey& key, std::unique_ptr<Graph> (*make)(const PlanKey&)) {
    const auto known = plans.find(key);
    if (known != plans.end()) {
      return *known->second;
    }
    std::unique_ptr<Graph> graph = make(key);
    Check(graph->validate(), "validate");
    Check(graph->build_operation_graph(handle_), "build_operation_graph");
    Check(graph->create_execution_plans({fe::HeurMode_t::A}), "create_execution_plans");
    Check(graph->check_support(), "check_support");
    Check(graph->build_plans(), "build_plans");
    return *plans.emplace(key, std::move(graph)).first->second;
  }

  void Run(Graph& graph, const PlanKey& key, Pointers pointers, std::span<const int32_t> cu) {
    const SegmentLists::Pieces lists = lists_.Upload(
        cu, key.segments, {key.heads * key.head_dim, key.kv_heads * key.head_dim, key.heads});
    pointers[kLengthsQ] = pointers[kLengthsK] = lists.lengths;
    pointers[kOffsetsQ] = pointers[kOffsetsOut] = lists.offsets[0];
    pointers[kOffsetsK] = pointers[kOffsetsV] = lists.offsets[1];
    pointers[kOffsetsLse] = lists.offsets[2];
    int64_t bytes = 0;
    Check(graph.get_workspace_size(bytes), "get_workspace_size");
    void* const workspace = workspace_.AtLeast(static_cast<size_t>(bytes));
    Check(graph.execute(handle_, pointers, workspace), "execute");
  }

  cudnnHandle_t handle_ = nullptr;
  Plans forward_;
  Plans backward_;
  SegmentLists lists_{Memory()};
  GrowingBuffer workspace_{Memory(), "a workspace of attention"};
};

int64_t PowerOfTwo(int64_t value, int64_t least) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max(value, least))));
}

PlanKey KeyOf(int64_t rows, const AttentionShape& shape) {
  if (!std::ranges::equal(shape.cu_q, shape.cu_k)) {
    throw std::invalid_argument("cuDNN attention: queries and keys have other segments");
  }
  const int64_t widest = shape.heads * shape.head_dim;
  if (rows * widest > std::numeric_limits<int32_t>::max()) {
    throw std::invalid_argument("cuDNN attention: " + std::to_string(rows) +
                                " rows are more than its offsets can count");
  }
  int64_t longest = 0;
  for (size_t i = 0; i + 1 < shape.cu_q.size(); ++i) {
    longest = std::max<int64_t>(longest, shape.cu_q[i + 1] - shape.cu_q[i]);
  }
  return {.segments = PowerOfTwo(static_cast<int64_t>(shape.cu_q.size()) - 1, kMinSegments),
          .longest = PowerOfTwo(longest, kMinLongest),
          .rows = (rows + kRowBucket - 1) / kRowBucket * kRowBucket,
          .heads = shape.heads,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim};
}

void* WithoutGaps(View view, const char* name) {
  if (view.stride != view.cols) {
    throw std::invalid_argument(std::string("cuDNN attention: the rows of ") + name + " have gaps");
  }
  return view.data;
}

std::string OpenLibrary() {
  void* const library = dlopen(kLibrary, RTLD_NOW);
  if (library == nullptr) {
    return dlerror();
  }
  fe::cudnn_dlhandle = library;
  const size_t version = fe::detail::get_backend_version();
  return version >= kMinVersion
             ? ""
             : std::string(kLibrary) + " is of version " + std::to_string(version);
}
}  // namespace

std::string WhyNoCudnnAttention(int64_t head_dim) {
  if (head_dim % kHeadMultiple != 0 || head_dim > kMaxHead) {
    return "heads are " + std::to_string(head_dim) + " elements wide";
  }
  const int major = ComputeCapability() / 10;
  if (major != 9 && major != 10) {
    return "only Hopper and data-center Blackwell GPUs have it for packed rows";
  }
  static const std::string why = OpenLibrary();
  return why;
}

void CudnnAttention(View out, View lse, View q, View k, View v, const AttentionShape& shape) {
  Cudnn::Opened().Forward(KeyOf(q.rows, shape),
                          {{kQ, WithoutGaps(q, "q")},
                           {kK, WithoutGaps(k, "k")},
                           {kV, WithoutGaps(v, "v")},
                           {kOut, WithoutGaps(out, "out")},
                           {kLse, WithoutGaps(lse, "lse")}},
                          shape.cu_q);
}

void CudnnAttentionBackward(const KernelTable::AttentionGrad& g, const AttentionShape& shape) {
  Cudnn::Opened().Backward(KeyOf(g.q.rows, shape),
                           {{kQ, WithoutGaps(g.q, "q")},
                            {kK, WithoutGaps(g.k, "k")},
                            {kV, WithoutGaps(g.v, "v")},
                            {kOut, WithoutGaps(g.out, "out")},
                            {kLse, WithoutGaps(g.lse, "lse")},
                            {kDOut, WithoutGaps(g.d_out, "d_out")},
                            {kDQ, WithoutGaps(g.dq, "dq")},
                            {kDK, WithoutGaps(g.dk, "dk")},
                            {kDV, WithoutGaps(g.dv, "dv")}},
                           shape.cu_q);
}

void ReleaseCudnnWorkspace() {
  Cudnn::ReleaseWorkspace();
}

}  // namespace mft::cuda
