// SPDX-License-Identifier: Apache-2.0
#include "worker/train/attention_trial.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <optional>
#include <span>
#include <utility>

#include "common/base/strings.h"
#include "worker/kernels/bf16_element.h"
#include "worker/kernels/cuda_library.h"
#include "worker/model/device_buffer.h"

namespace mft {

namespace {
// Rows of the documents that outputs are compared on: one alone, tiles of 64 and 128 that are full,
// almost full and just begun.
constexpr int32_t kCompared[] = {1, 7, 64, 130, 1, 255, 300};

std::vector<int32_t> OffsetsOf(std::span<const int32_t> lengths) {
  std::vector<int32_t> offsets = {0};
  for (const int32_t length : lengths) {
    offsets.push_back(offsets.back() + length);
  }
  return offsets;
}

// Documents of the mean length, the last one shorter.
std::vector<int32_t> MeasuredOffsets(const AttentionJob& job) {
  std::vector<int32_t> offsets = {0};
  const int64_t step = std::clamp<int64_t>(job.document_rows, 1, job.rows);
  while (offsets.back() < job.rows) {
    offsets.push_back(static_cast<int32_t>(std::min(job.rows, offsets.back() + step)));
  }
  return offsets;
}

// Random rows, and room for what both passes make of them.
class Problem {
 public:
  Problem(const AttentionJob& job, std::vector<int32_t> offsets, const KernelTable& kernels)
      : offsets_(std::move(offsets)) {
    const int64_t rows = offsets_.back();
    const int64_t q = job.heads * job.head_dim;
    const int64_t kv = job.kv_heads * job.head_dim;
    const auto random = [&](int64_t cols, uint64_t seed) {
      const View view = Take(kernels, rows, cols, kernels.type);
      kernels.fill_random(view, seed, std::sqrt(3.0F));  // of variance 1
      return view;
    };
    grad_.q = random(q, 1);
    grad_.k = random(kv, 2);
    grad_.v = random(kv, 3);
    grad_.d_out = random(q, 4);
    grad_.out = Take(kernels, rows, q, kernels.type);
    grad_.lse = Take(kernels, rows, job.heads, ElementType::kF32);
    grad_.dq = Take(kernels, rows, q, kernels.type);
    grad_.dk = Take(kernels, rows, kv, kernels.type);
    grad_.dv = Take(kernels, rows, kv, kernels.type);
    const auto count = static_cast<int64_t>(offsets_.size());
    // As wide as fp32.
    const View cu = Take(kernels, 1, count, ElementType::kF32);
    kernels.memory->upload(cu.data, offsets_.data(), offsets_.size() * sizeof(int32_t));
    const auto* const device = static_cast<const int32_t*>(cu.data);
    shape_ = {.heads = job.heads,
              .kv_heads = job.kv_heads,
              .head_dim = job.head_dim,
              .cu_q = offsets_,
              .cu_k = offsets_,
              .device_cu_q = device,
              .device_cu_k = device};
  }

  void Run(const KernelTable& kernels) const {
    kernels.attention(grad_.out, grad_.lse, grad_.q, grad_.k, grad_.v, shape_);
    kernels.attention_backward(grad_, shape_);
    kernels.memory->synchronize();
  }

  // What is not written is zero.
  std::vector<std::vector<float>> Outputs(const KernelTable& kernels) const {
    const View all[] = {grad_.out, grad_.dq, grad_.dk, grad_.dv};
    for (const View& view : all) {
      kernels.zero(view);
    }
    Run(kernels);
    std::vector<std::vector<float>> outputs;
    for (const View& view : all) {
      outputs.push_back(Download(kernels, view));
    }
    return outputs;
  }

 private:
  View Take(const KernelTable& kernels, int64_t rows, int64_t cols, ElementType type) {
    const auto bytes = static_cast<size_t>(rows * cols * ElementBytes(type));
    buffers_.push_back(AllocateOnDevice(*kernels.memory, bytes, "the choice of attention"));
    return TypedView(buffers_.back().get(), rows, cols, type);
  }

  static std::vector<float> Download(const KernelTable& kernels, View view) {
    std::vector<float> values(static_cast<size_t>(view.rows * view.cols));
    if (view.type == ElementType::kF32) {
      kernels.memory->download(values.data(), view.data, values.size() * sizeof(float));
      return values;
    }
    std::vector<uint16_t> bits(values.size());
    kernels.memory->download(bits.data(), view.data, bits.size() * sizeof(uint16_t));
    std::ranges::transform(bits, values.begin(), [](uint16_t b) { return Bf16::FromBits(b); });
    return values;
  }

  std::vector<int32_t> offsets_;
  std::vector<DeviceBuffer> buffers_;
  KernelTable::AttentionGrad grad_;
  AttentionShape shape_;
};

// What all candidates are tried on.
class Trial {
 public:
  explicit Trial(const AttentionJob& job) : job_(job) {}

  std::vector<std::vector<float>> Outputs(const KernelTable& kernels) {
    if (!compared_) {
      compared_.emplace(job_, OffsetsOf(kCompared), kernels);
    }
    return compared_->Outputs(kernels);
  }
  void Run(const KernelTable& kernels) {
    if (!measured_) {
      measured_.emplace(job_, MeasuredOffsets(job_), kernels);
    }
    measured_->Run(kernels);
  }

 private:
  const AttentionJob job_;
  std::optional<Problem> compared_;
  std::optional<Problem> measured_;
};

// Why a backend of the device is not tried; "": it is. The exact one is what others are held to.
std::string WhyNot(const AttentionBackend& backend) {
  const char* const only = std::getenv(kAttentionVariable);
  if (only != nullptr && backend.name != kExactAttention && backend.name != only) {
    return StrCat(kAttentionVariable, " is ", only);
  }
  return backend.unusable;
}

std::string Milliseconds(double seconds) {
  return StrCat(FormatFixed(1e3 * seconds, 3), " ms");
}
}  // namespace

std::vector<AttentionCandidate> AttentionCandidates(const AttentionJob& job,
                                                    const std::vector<NamedKernels>& backends) {
  const auto trial = std::make_shared<Trial>(job);
  std::vector<AttentionCandidate> candidates;
  for (const NamedKernels& backend : backends) {
    const KernelTable& kernels = *backend.kernels;
    candidates.push_back({.name = backend.name,
                          .deterministic = backend.deterministic,
                          .last_resort = backend.name == kExactAttention,
                          .outputs = [trial, &kernels] { return trial->Outputs(kernels); },
                          .run = [trial, &kernels] { trial->Run(kernels); }});
  }
  return candidates;
}

Result<AttentionChoice> ChooseCudaAttention(const AttentionJob& job,
                                            const AttentionWish& wish,
                                            const Clock& clock) {
  MFT_ASSIGN_OR_RETURN(const CudaApi* api, LoadCuda());
  std::vector<NamedKernels> backends;
  std::vector<std::string> unusable;
  for (const AttentionBackend& backend : api->attention_backends(job.head_dim)) {
    std::string why = WhyNot(backend);
    if (why.empty()) {
      try {
        backends.push_back(
            {backend.name, backend.deterministic, &api->kernels(true, backend.name)});
        continue;
      } catch (const std::exception& error) {
        why = error.what();
      }
    }
    unusable.push_back(StrCat(backend.name, ": ", why));
  }
  Result<AttentionChoice> choice = ChooseAttention(AttentionCandidates(job, backends), wish, clock);
  api->release_cached();
  if (choice.ok()) {
    choice->left_out.insert(choice->left_out.begin(), unusable.begin(), unusable.end());
    return choice;
  }
  unusable.push_back(
      StrCat("after a fault of the GPU all others fail too: with the environment variable ",
             kAttentionVariable,
             " (flash, say) one alone is tried"));
  return Status(choice.status().code(),
                StrCat(choice.status().message(), "; ", Join(unusable, "; ")));
}

std::string DescribeAttention(const AttentionChoice& choice, const AttentionJob& job) {
  if (choice.times.empty()) {
    return StrCat("attention: ", choice.name, ", as the checkpoint says");
  }
  std::string text = StrCat("attention: ",
                            choice.name,
                            ", ",
                            Milliseconds(choice.times.front().seconds),
                            " for forward and backward pass of ",
                            job.rows,
                            " rows in documents of ",
                            job.document_rows);
  for (size_t i = 1; i < choice.times.size(); ++i) {
    text += StrCat("; ", choice.times[i].name, " ", Milliseconds(choice.times[i].seconds));
  }
  return text;
}

}  // namespace mft
