// SPDX-License-Identifier: Apache-2.0
#include "server/jobs/estimate.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <utility>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/activation_plan.h"
#include "common/checkpoint/training_cost.h"
#include "common/config/source_list.h"

namespace mft::server {

namespace {
constexpr int64_t kBytesPerToken = 4;  // of chat JSON Lines, with its keys
constexpr size_t kLineSampleBytes = size_t{1} << 20;
constexpr int64_t kCacheBytesPerToken = 5;             // int32 id and a mask byte
constexpr int64_t kSavedStateBytes = 3 * 4;            // fp32 master, two moments
constexpr int64_t kRuntimeBytes = int64_t{300} << 20;  // libraries, allocator, token cache pages

// Lines of a file by their density in its first MiB.
Result<int64_t> EstimateLines(const std::string& path, int64_t size) {
  MFT_ASSIGN_OR_RETURN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  std::string head(std::min(kLineSampleBytes, static_cast<size_t>(size)), '\0');
  const ssize_t got = read(fd.get(), head.data(), head.size());
  if (got < 0) {
    return ErrnoStatus(errno, path);
  }
  head.resize(static_cast<size_t>(got));
  const auto lines = std::count(head.begin(), head.end(), '\n');
  if (got == 0 || got >= size) {
    return lines + (got > 0 && head.back() != '\n' ? 1 : 0);
  }
  return std::llround(static_cast<double>(lines) * static_cast<double>(size) /
                      static_cast<double>(got));
}

Status AddSources(const std::string& text, DataFacts& facts) {
  MFT_ASSIGN_OR_RETURN(const std::vector<DataSource> sources, ParseSources(text));
  for (const DataSource& source : sources) {
    MFT_ASSIGN_OR_RETURN(const std::vector<std::string> files, ExpandSource(source));
    for (const std::string& file : files) {
      MFT_ASSIGN_OR_RETURN(const int64_t size, FileSize(file));
      MFT_ASSIGN_OR_RETURN(const int64_t lines, EstimateLines(file, size));
      facts.samples += lines;
      facts.tokens += (size + kBytesPerToken - 1) / kBytesPerToken;
    }
  }
  return Status::Ok();
}

int64_t ElementBytes(const NodeFacts& node) {
  return node.precision == "bf16" ? 2 : 4;
}

// Weights + LoRA state + what the forward pass keeps + one block at work + one chunk of logits.
int64_t PeakMemory(const JobSpec& spec,
                   const ModelParams& params,
                   const NodeFacts& node,
                   const JobEstimate& estimate) {
  const int64_t element = ElementBytes(node);
  // Until the data is read its longest document may be as long as seq_len.
  const int64_t rows = ChunkRows(spec.batch_size * spec.seq_len, spec.seq_len);
  const LoraColumns columns =
      spec.lora.enable ? LoraInnerColumns(params, spec.lora.rank, spec.mftd.target_modules)
                       : LoraColumns{};
  const RecomputePolicy policy =
      spec.checkpoint ? RecomputePolicy::kBlock : RecomputePolicy::kNothing;
  const int64_t kept = KeptBytesPerToken(policy, params, columns, element) * params.n_layers;
  const int64_t head = kHeadRows * (3 * params.dim + HeadColumns(params)) * element;
  const int64_t work = WorkBytes(policy, params, columns, element, TileRows(rows, spec.seq_len));
  // Of a full fine-tuning the weights are what is trained.
  return (spec.lora.enable ? estimate.weights_bytes : 0) +
         estimate.trainable_parameters * (kTrainedStateBytes + (element == 2 ? 2 : 0)) +
         rows * kept + std::max(work, head) + kRuntimeBytes;
}

int64_t CheckpointBytes(const JobSpec& spec,
                        const ModelParams& params,
                        const NodeFacts& node,
                        int64_t trainable) {
  if (spec.no_ckpt) {
    return 0;
  }
  const int64_t element = ElementBytes(node);
  const int64_t weights =
      spec.save_adapters ? trainable * element : TotalParameters(params) * element;
  const int64_t written =
      spec.ckpt_freq > 0 ? (spec.max_steps + spec.ckpt_freq - 1) / spec.ckpt_freq : 1;
  // A new checkpoint is complete before an old one goes; the best stays beside the newest.
  const int64_t best = spec.mftd.keep_best ? 1 : 0;
  const int64_t held =
      best + (spec.num_ckpt_keep > 0 ? std::min(written, spec.num_ckpt_keep + 1) : written);
  return TotalRuns(spec) * held * (weights + trainable * kSavedStateBytes);
}

// In fp8 are all but embeddings and head, which are bf16.
int64_t LoadedWeightBytes(const ModelParams& params, const NodeFacts& node, bool fp8) {
  const int64_t outside = (params.tied_embeddings ? 1 : 2) * params.vocab_size * params.dim;
  return fp8 ? TotalParameters(params) + outside : TotalParameters(params) * ElementBytes(node);
}

void EstimateTime(const JobSpec& spec,
                  const ModelParams& params,
                  const NodeFacts& node,
                  JobEstimate& estimate) {
  double rate = node.flops_per_second;
  if (rate <= 0 && node.device == "cpu") {
    rate = kCpuFlopsPerCore * std::max(node.cores, 1);
    estimate.notes.push_back(StrCat("time assumes ",
                                    FormatFixed(kCpuFlopsPerCore / 1e9, 0),
                                    " GFLOP/s on each of ",
                                    std::max(node.cores, 1),
                                    " cores, without evaluation"));
  }
  if (rate <= 0) {
    estimate.notes.emplace_back("time is unknown until the first steps are done");
    return;
  }
  estimate.seconds = TrainingSeconds(spec, params, rate);
}
}  // namespace

Result<DataFacts> DataFactsFromFiles(const JobSpec& spec) {
  DataFacts facts;
  MFT_RETURN_IF_ERROR(AddSources(spec.data.data, facts).WithContext("data.data"));
  MFT_RETURN_IF_ERROR(AddSources(spec.data.instruct_data, facts).WithContext("data.instruct_data"));
  return facts;
}

JobEstimate EstimateJob(const JobSpec& spec,
                        const ModelParams& params,
                        const DataFacts& data,
                        const NodeFacts& node,
                        int64_t weights_bytes) {
  JobEstimate estimate;
  estimate.exact = data.exact;
  estimate.samples = data.samples;
  estimate.tokens = data.tokens;
  estimate.loss_tokens = data.loss_tokens;
  estimate.tokens_per_step =
      spec.mftd.ranks * spec.batch_size * spec.num_microbatches * spec.seq_len;
  if (data.tokens > 0) {
    estimate.steps_per_epoch =
        static_cast<double>(data.tokens) / static_cast<double>(estimate.tokens_per_step);
    estimate.epochs = static_cast<double>(spec.max_steps) / estimate.steps_per_epoch;
  }
  // The CPU uses bf16 and fp32 matrices where the mapped file has them.
  const bool mapped = node.device == "cpu" && weights_bytes > 0;
  const bool fp8 = spec.mftd.precision == "fp8";
  estimate.weights_bytes = mapped ? weights_bytes : LoadedWeightBytes(params, node, fp8);
  estimate.trainable_parameters =
      spec.lora.enable ? LoraParameters(params, spec.lora.rank, spec.mftd.target_modules)
                       : TotalParameters(params);
  estimate.memory_bytes = PeakMemory(spec, params, node, estimate);
  estimate.disk_bytes = CheckpointBytes(spec, params, node, estimate.trainable_parameters) +
                        data.tokens * kCacheBytesPerToken;
  if (!data.exact) {
    estimate.notes.push_back(
        StrCat("tokens are derived from file sizes, at ", kBytesPerToken, " bytes each"));
  }
  if (spec.mftd.packing == "whole") {
    estimate.notes.emplace_back(
        "steps count full packs; packing whole samples leaves a few percent unused");
  }
  estimate.notes.push_back(StrCat("memory assumes ",
                                  mapped ? "mapped"
                                  : fp8  ? spec.mftd.precision
                                         : node.precision,
                                  " weights and ",
                                  spec.checkpoint ? "recomputed" : "kept",
                                  " activations of ",
                                  spec.batch_size * spec.seq_len,
                                  " tokens"));
  EstimateTime(spec, params, node, estimate);
  return estimate;
}

}  // namespace mft::server
