// SPDX-License-Identifier: Apache-2.0
#include "worker/train/bench.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <ostream>
#include <utility>

#include "common/base/json.h"
#include "common/base/strings.h"
#include "worker/kernels/cpu_runtime.h"
#include "worker/model/device_weights.h"
#include "worker/model/full_store.h"
#include "worker/model/kernel_profile.h"
#include "worker/model/transformer.h"
#include "worker/train/attention_trial.h"
#include "worker/train/bench_lengths.h"
#include "worker/train/bench_yardstick.h"
#include "worker/train/chunks.h"
#include "worker/train/grad_clip.h"
#include "worker/train/memory_planner.h"
#include "worker/train/optimizer.h"
#include "worker/train/reporter.h"
#include "worker/train/session_restore.h"

namespace mft {

namespace {
constexpr double kGiga = 1e9;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Result<RecomputePolicy> PolicyNamed(const std::string& name) {
  for (const RecomputePolicy policy :
       {RecomputePolicy::kNothing, RecomputePolicy::kMlp, RecomputePolicy::kBlock}) {
    if (name == PolicyName(policy)) {
      return policy;
    }
  }
  return InvalidArgument(StrCat("--recompute ", name, ": nothing, mlp or block"));
}

// F of numerics.md for the whole step: 4 N + 6 P + 7 l (heads x head_dim) L a token, 6 N where N is
// trained, whatever is computed twice.
double StepFlops(const ModelParams& params,
                 const BenchArgs& args,
                 const std::vector<int64_t>& lengths) {
  double tokens = 0;
  double squares = 0;
  for (const int64_t length : lengths) {
    const auto n = static_cast<double>(length);
    tokens += n;
    squares += n * n;
  }
  const auto frozen = static_cast<double>(ActiveMatmulParameters(params));
  const auto adapters =
      static_cast<double>(ActiveLoraParameters(params, args.rank, args.target_modules));
  return tokens * (args.full ? 6 * frozen : 4 * frozen + 6 * adapters) +
         7 * squares * static_cast<double>(params.n_heads * params.head_dim * params.n_layers);
}

LoraStoreOptions AdaptersOf(const BenchArgs& args, const KernelTable& kernels) {
  return {.rank = args.rank,
          .target_modules = args.full ? std::vector<std::string>() : args.target_modules,
          .training = !args.full,
          .kernels = &kernels};
}

// A training step like Trainer::TrainStep, without its data and its reports.
class StepRunner {
 public:
  StepRunner(const BenchArgs& args,
             const MemoryChoice& memory,
             std::vector<int64_t> lengths,
             const KernelTable& kernels,
             FullStore* full,
             WeightSource& weights)
      : kernels_(kernels),
        lora_(weights.params(), AdaptersOf(args, kernels)),
        trained_(full != nullptr ? static_cast<ParamStore&>(*full) : lora_) {
    if (args.phases) {
      profile_.emplace(kernels, weights);
    }
    const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
    const int64_t rows = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    const int64_t chunk_rows = ChunkRows(rows, longest, memory.sizes);
    model_ = std::make_unique<Transformer>(weights,
                                           lora_,
                                           profile_ ? profile_->kernels() : kernels,
                                           TransformerOptions{.policy = memory.policy,
                                                              .max_rows = chunk_rows,
                                                              .max_positions = longest,
                                                              .sizes = memory.sizes});
    InitAdapter(1, false, lora_);
    lora_.Upload();
    chunks_ = SplitIntoChunks(RandomBatch(lengths, weights.params().vocab_size), chunk_rows);
  }

  // Its seconds.
  double Step() {
    const double begin = Now();
    trained_.ZeroGrad();
    for (const MicroBatch& chunk : chunks_) {
      model_->AddForwardBackward({.tokens = chunk.x,
                                  .targets = chunk.y,
                                  .row_weight = chunk.row_weight,
                                  .cu_seqlens = chunk.cu_seqlens,
                                  .pack = chunk.pack,
                                  .pack_row = chunk.pack_row});
    }
    loss_ = model_->TakeLoss();
    const double backward = Now();
    UpdateWeights(trained_,
                  {.lr = 1e-4,
                   .beta1 = 0.9,
                   .weight_decay = 0.1,
                   .grad_scale = ClipFactor(GradNorm(trained_), 1.0),
                   .update = ++updates_});
    if (kernels_.memory != nullptr) {
      kernels_.memory->synchronize();
    }
    update_seconds_ += Now() - backward;
    return Now() - begin;
  }

  double loss() const { return loss_; }  // of the last step

  void ResetProfile() {
    update_seconds_ = 0;
    if (profile_) {
      profile_->Reset();
    }
  }
  // Of all steps since ResetProfile, and what is left of their `seconds`.
  std::vector<OperationTime> Operations(int64_t steps, double seconds) const {
    std::vector<OperationTime> operations = profile_->Operations();
    operations.push_back({.name = "clip and AdamW", .calls = steps, .seconds = update_seconds_});
    double known = 0;
    for (const OperationTime& operation : operations) {
      known += operation.seconds;
    }
    operations.push_back({.name = "between kernels", .calls = steps, .seconds = seconds - known});
    return operations;
  }

 private:
  const KernelTable& kernels_;
  LoraStore lora_;
  ParamStore& trained_;
  std::optional<KernelProfile> profile_;
  std::unique_ptr<Transformer> model_;
  std::vector<MicroBatch> chunks_;
  double loss_ = 0;
  double update_seconds_ = 0;
  int64_t updates_ = 0;
};

// What a bench computes with. `files` null: random weights.
struct Bench {
  TrainDevice device;
  ModelParams params;
  std::shared_ptr<const ModelWeights> files;
  std::string precision;
  AttentionChoice attention;  // of CUDA in bf16
  const KernelTable& kernels() const { return KernelsFor(precision, device, attention.name); }
  bool quantises() const { return precision == "fp8"; }
};

Result<Bench> OpenBench(const BenchArgs& args) {
  Bench bench;
  MFT_ASSIGN_OR_RETURN(bench.device, OpenTrainDevice(args.device, 0));
  MFT_RETURN_IF_ERROR(CheckPrecision(args.precision, bench.device));
  MFT_ASSIGN_OR_RETURN(bench.params, ReadModelParams(args.model_dir));
  if (args.random_weights && (!bench.device.is_cuda() || args.full)) {
    return InvalidArgument("--random-weights: only on CUDA, and not with --full");
  }
  if (!args.random_weights) {
    MFT_ASSIGN_OR_RETURN(bench.files, ModelWeights::Open(args.model_dir, bench.params));
  }
  bench.precision = ResolvePrecision(
      args.precision, bench.files == nullptr || bench.files->is_bf16(), bench.device);
  if (bench.quantises()) {
    MFT_RETURN_IF_ERROR(CanQuantise(bench.params, bench.kernels()));
    if (args.full) {
      return InvalidArgument("--precision fp8: not with --full, whose weights are no frozen base");
    }
  }
  return bench;
}

std::unique_ptr<WeightSource> WeightsOf(const Bench& bench, const FullStore* full, bool offload) {
  if (full != nullptr) {
    return full->AsWeights();
  }
  if (!bench.device.is_cuda()) {
    return offload ? MakeOffloadedWeights(bench.files) : MakeResidentWeights(bench.files);
  }
  const DeviceModel model{bench.params, bench.kernels(), bench.quantises()};
  const DeviceFill fill =
      bench.files == nullptr ? FillWithRandom(model) : FillFromFiles(*bench.files, bench.kernels());
  return offload ? MakeOffloadedDeviceWeights(model, fill) : MakeDeviceWeights(model, fill);
}

Result<MemoryJob> MemoryJobOf(const BenchArgs& args,
                              const Bench& bench,
                              const std::vector<int64_t>& lengths) {
  MFT_ASSIGN_OR_RETURN(const int64_t host_memory, AllowedMemory());
  return MemoryJob{.params = bench.params,
                   .weights = bench.files == nullptr ? WeightBytes{} : WeightBytesOf(*bench.files),
                   .rank = args.rank,
                   .target_modules = AdaptersOf(args, bench.kernels()).target_modules,
                   .full = args.full,
                   .microbatch_rows = std::accumulate(lengths.begin(), lengths.end(), int64_t{0}),
                   .longest_document = *std::max_element(lengths.begin(), lengths.end()),
                   .mean_document = std::accumulate(lengths.begin(), lengths.end(), int64_t{0}) /
                                    static_cast<int64_t>(lengths.size()),
                   .device = bench.device.is_cuda() ? &bench.kernels() : nullptr,
                   .host_memory = host_memory,
                   .quantise = bench.quantises()};
}

Status MeasureAttention(const std::vector<int64_t>& lengths, int64_t chunk_rows, Bench& bench) {
  if (!bench.device.is_cuda() || bench.precision == "fp32") {
    return Status::Ok();
  }
  const auto documents = static_cast<int64_t>(lengths.size());
  const AttentionJob job{
      .heads = bench.params.n_heads,
      .kv_heads = bench.params.n_kv_heads,
      .head_dim = bench.params.head_dim,
      .rows = chunk_rows,
      .document_rows = std::accumulate(lengths.begin(), lengths.end(), int64_t{0}) / documents};
  MFT_ASSIGN_OR_RETURN(bench.attention, ChooseCudaAttention(job, {}, SystemClock()));
  return Status::Ok();
}

// One entry a round. `rates`: of the yardstick, the better of its two beside the step, FLOP/s.
struct Rounds {
  std::vector<double> seconds;
  std::vector<double> rates;
  std::vector<double> ratios;
};

Rounds TimeRounds(StepRunner& runner, int64_t count, double flops, const Bench& bench) {
  Rounds rounds;
  const bool bf16 = bench.precision == "bf16";
  double rate = YardstickFlopsPerSecond(bench.kernels(), bf16);
  for (int64_t round = 0; round < count; ++round) {
    rounds.seconds.push_back(runner.Step());
    const double after = YardstickFlopsPerSecond(bench.kernels(), bf16);
    rounds.rates.push_back(std::max(rate, after));
    rounds.ratios.push_back(flops / rounds.seconds.back() / rounds.rates.back());
    rate = after;
  }
  return rounds;
}

// The backend that was taken, what each took for both passes, and why others were left out.
Json AttentionToJson(const AttentionChoice& choice) {
  Json milliseconds = Json::object();
  for (const AttentionChoice::Time& time : choice.times) {
    milliseconds[time.name] = 1e3 * time.seconds;
  }
  return {{"taken", choice.name}, {"ms", milliseconds}, {"left_out", choice.left_out}};
}

Json OperationsToJson(const std::vector<OperationTime>& operations, double tokens) {
  Json list = Json::array();
  for (const OperationTime& operation : operations) {
    list.push_back({{"name", operation.name},
                    {"calls", operation.calls},
                    {"us_per_token", 1e6 * operation.seconds / tokens},
                    {"gflops", operation.flops / operation.seconds / kGiga}});
  }
  return list;
}

std::string Cell(const std::string& text, size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : text;
}

void PrintText(const Json& report, std::ostream& out) {
  const auto number = [&](const char* key, int digits) {
    return FormatFixed(report[key].get<double>(), digits);
  };
  out << report["tokens"] << " tokens a step, " << number("seconds", 3) << " s, "
      << number("tokens_per_second", 0) << " tokens/s, peak "
      << FormatBytes(report["peak_bytes"].get<int64_t>()) << ", model opened in "
      << number("open_seconds", 2) << " s\n"
      << number("gflops", 1) << " GFLOP/s, " << number("ratio", 3) << " of the rate of "
      << report["precision"].get<std::string>() << " matrices' product, "
      << number("matmul_gflops", 1) << " GFLOP/s\n";
  if (report.contains("attention")) {
    out << "attention: " << DumpJson(report["attention"]) << '\n';
  }
  if (!report.contains("operations")) {
    return;
  }
  out << Cell("us/token", 10) << Cell("GFLOP/s", 10) << Cell("calls", 8) << "  operation\n";
  for (const Json& operation : report["operations"]) {
    const double gflops = operation["gflops"].get<double>();
    out << Cell(FormatFixed(operation["us_per_token"].get<double>(), 2), 10)
        << Cell(gflops > 0 ? FormatFixed(gflops, 1) : "-", 10)
        << Cell(DumpJson(operation["calls"]), 8) << "  " << operation["name"].get<std::string>()
        << '\n';
  }
}

void Print(const Json& report, const std::string& format, std::ostream& out) {
  if (format == "json") {
    out << DumpJson(report) << '\n';
  } else {
    PrintText(report, out);
  }
}

int64_t Within(const BenchArgs& args, int64_t allowed) {
  return args.memory_gib > 0 ? std::min(allowed, args.memory_gib << 30) : allowed;
}
}  // namespace

Status RunBench(const BenchArgs& args, std::ostream& out) {
  MFT_ASSIGN_OR_RETURN(const std::vector<int64_t> lengths, BenchLengths(args));
  MFT_ASSIGN_OR_RETURN(const RecomputePolicy wish, PolicyNamed(args.recompute));
  const double begin = Now();
  MFT_ASSIGN_OR_RETURN(Bench bench, OpenBench(args));
  MFT_ASSIGN_OR_RETURN(const MemoryJob job, MemoryJobOf(args, bench, lengths));
  MFT_ASSIGN_OR_RETURN(const int64_t allowed, AllowedMemory(job.device));
  MFT_ASSIGN_OR_RETURN(const MemoryChoice memory, ChooseMemory(job, wish, Within(args, allowed)));
  const int64_t chunk_rows = ChunkRows(job.microbatch_rows, job.longest_document, memory.sizes);
  MFT_RETURN_IF_ERROR(MeasureAttention(lengths, chunk_rows, bench));
  const auto full =
      args.full ? std::make_unique<FullStore>(*bench.files, &bench.kernels()) : nullptr;
  const auto weights =
      WeightsOf(bench, full.get(), memory.placement == WeightPlacement::kOffloaded);
  const double open_seconds = Now() - begin;
  StepRunner runner(args, memory, lengths, bench.kernels(), full.get(), *weights);
  runner.Step();
  // Before the yardstick's own matrices.
  const int64_t peak = job.device == nullptr ? ReadProcessMemory().peak_bytes
                                             : allowed - job.device->memory->free_bytes();
  runner.ResetProfile();
  const double flops = StepFlops(bench.params, args, lengths);
  const Rounds rounds = TimeRounds(runner, args.rounds, flops, bench);
  const auto tokens =
      static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
  Json report = {{"tokens", static_cast<int64_t>(tokens)},
                 {"documents", lengths.size()},
                 {"length_felt", LengthFelt(lengths)},
                 {"device", bench.device.is_cuda() ? bench.device.name : bench.device.kind},
                 {"precision", bench.precision},
                 {"recompute", DescribePlan(memory.policy, bench.params.n_layers)},
                 {"chunk_rows", chunk_rows},
                 {"kernels", std::string(bench.kernels().name)},
                 {"threads", CpuThreads()},
                 {"open_seconds", open_seconds},
                 {"loss", runner.loss()},
                 {"seconds", Median(rounds.seconds)},
                 {"step_seconds", rounds.seconds},
                 {"tokens_per_second", tokens / Median(rounds.seconds)},
                 {"gflops", flops / Median(rounds.seconds) / kGiga},
                 {"matmul_gflops", Median(rounds.rates) / kGiga},
                 {"ratio", Median(rounds.ratios)},
                 {"peak_bytes", peak},
                 {"offloaded", memory.placement == WeightPlacement::kOffloaded},
                 {"predicted_bytes", memory.forecast.peak()}};
  if (!bench.attention.name.empty()) {
    report["attention"] = AttentionToJson(bench.attention);
  }
  if (args.phases) {
    const double sum = std::accumulate(rounds.seconds.begin(), rounds.seconds.end(), 0.0);
    report["operations"] = OperationsToJson(runner.Operations(args.rounds, sum),
                                            tokens * static_cast<double>(args.rounds));
  }
  Print(report, args.output, out);
  return Status::Ok();
}

}  // namespace mft
