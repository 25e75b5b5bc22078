// SPDX-License-Identifier: Apache-2.0
#include "worker/train/bench.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <ostream>
#include <sstream>
#include <system_error>
#include <utility>

#include "common/base/files.h"
#include "common/base/json.h"
#include "common/base/strings.h"
#include "worker/kernels/cpu_runtime.h"
#include "worker/model/full_store.h"
#include "worker/model/kernel_profile.h"
#include "worker/model/transformer.h"
#include "worker/train/adamw.h"
#include "worker/train/chunks.h"
#include "worker/train/grad_clip.h"
#include "worker/train/memory_planner.h"
#include "worker/train/numeric_plan.h"
#include "worker/train/reporter.h"
#include "worker/train/session.h"

namespace mft {

namespace {
constexpr int64_t kMatmulSize = 2048;
constexpr int64_t kMaxTokens = int64_t{1} << 26;  // of a step
constexpr double kGiga = 1e9;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Result<std::vector<int64_t>> Lengths(const BenchArgs& args) {
  std::vector<int64_t> lengths;
  if (args.lengths_file.empty()) {
    if (args.documents > kMaxTokens / args.document_tokens) {
      return InvalidArgument(StrCat("--documents ",
                                    args.documents,
                                    " of ",
                                    args.document_tokens,
                                    " tokens: a step has at most ",
                                    kMaxTokens,
                                    " tokens"));
    }
    lengths.assign(static_cast<size_t>(args.documents), args.document_tokens);
    return lengths;
  }
  MFT_ASSIGN_OR_RETURN(const std::string text, ReadFile(args.lengths_file));
  std::istringstream words(text);
  int64_t sum = 0;
  for (std::string word; words >> word;) {
    int64_t length = 0;
    const char* end = word.data() + word.size();
    const auto [rest, error] = std::from_chars(word.data(), end, length);
    if (error != std::errc() || rest != end || length < 1 || length > kMaxTokens - sum) {
      return InvalidArgument(StrCat(args.lengths_file,
                                    ": ",
                                    word,
                                    ": lengths are whole numbers from 1, of at most ",
                                    kMaxTokens,
                                    " tokens together"));
    }
    sum += length;
    lengths.push_back(length);
  }
  if (lengths.empty()) {
    return InvalidArgument(StrCat(args.lengths_file, ": no lengths"));
  }
  return lengths;
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

// All documents of a step, every token with loss.
MicroBatch RandomBatch(const std::vector<int64_t>& lengths, int64_t vocab_size) {
  const auto rows =
      static_cast<size_t>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
  MicroBatch batch{.x = std::vector<int32_t>(rows),
                   .y = std::vector<int32_t>(rows),
                   .mask = std::vector<uint8_t>(rows, 1),
                   .row_weight = std::vector<float>(rows, 1.0F / static_cast<float>(rows)),
                   .cu_seqlens = {0},
                   .loss_tokens = static_cast<int64_t>(rows)};
  uint64_t state = 1;
  for (size_t i = 0; i < rows; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    batch.x[i] = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(vocab_size));
    batch.y[i > 0 ? i - 1 : rows - 1] = batch.x[i];
  }
  for (const int64_t length : lengths) {
    batch.pack.push_back(static_cast<int64_t>(batch.pack.size()));
    batch.pack_row.push_back(0);
    batch.cu_seqlens.push_back(batch.cu_seqlens.back() + static_cast<int32_t>(length));
  }
  return batch;
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

LoraStoreOptions AdaptersOf(const BenchArgs& args) {
  return {.rank = args.rank,
          .target_modules = args.full ? std::vector<std::string>() : args.target_modules,
          .training = !args.full};
}

// A training step like Trainer::TrainStep, without its data and its reports.
class StepRunner {
 public:
  StepRunner(const BenchArgs& args,
             const RecomputePlan& policy,
             std::vector<int64_t> lengths,
             const KernelTable& kernels,
             FullStore* full,
             WeightSource& weights)
      : lora_(weights.params(), AdaptersOf(args)),
        trained_(full != nullptr ? static_cast<ParamStore&>(*full) : lora_) {
    if (args.phases) {
      profile_.emplace(kernels, weights);
    }
    const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
    const int64_t rows = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    const int64_t chunk_rows = ChunkRows(rows, longest);
    model_ = std::make_unique<Transformer>(
        weights,
        lora_,
        profile_ ? profile_->kernels() : kernels,
        TransformerOptions{.policy = policy, .max_rows = chunk_rows, .max_positions = longest});
    InitAdapter(1, false, lora_);
    chunks_ = SplitIntoChunks(RandomBatch(lengths, weights.params().vocab_size), chunk_rows);
  }

  // Its seconds.
  double Step() {
    const double begin = Now();
    trained_.ZeroGrad();
    for (const MicroBatch& chunk : chunks_) {
      loss_ += model_->ForwardBackward({.tokens = chunk.x,
                                        .targets = chunk.y,
                                        .row_weight = chunk.row_weight,
                                        .cu_seqlens = chunk.cu_seqlens,
                                        .pack = chunk.pack,
                                        .pack_row = chunk.pack_row});
    }
    const double backward = Now();
    const double norm = std::sqrt(SumOfSquares(trained_.grad()));
    AdamWUpdate({trained_.master(), trained_.grad(), trained_.moment1(), trained_.moment2()},
                {.lr = 1e-4,
                 .beta1 = 0.9,
                 .weight_decay = 0.1,
                 .grad_scale = ClipFactor(norm, 1.0),
                 .update = ++updates_});
    update_seconds_ += Now() - backward;
    return Now() - begin;
  }

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
  LoraStore lora_;
  ParamStore& trained_;
  std::optional<KernelProfile> profile_;
  std::unique_ptr<Transformer> model_;
  std::vector<MicroBatch> chunks_;
  double loss_ = 0;
  double update_seconds_ = 0;
  int64_t updates_ = 0;
};

MemoryJob MemoryJobOf(const BenchArgs& args,
                      const ModelWeights& files,
                      const std::vector<int64_t>& lengths) {
  return {.params = files.params(),
          .weights = WeightBytesOf(files),
          .rank = args.rank,
          .target_modules = AdaptersOf(args).target_modules,
          .full = args.full,
          .microbatch_rows = std::accumulate(lengths.begin(), lengths.end(), int64_t{0}),
          .longest_document = *std::max_element(lengths.begin(), lengths.end())};
}

// One entry a round. `rates`: of the yardstick, the better of its two beside the step, FLOP/s.
struct Rounds {
  std::vector<double> seconds;
  std::vector<double> rates;
  std::vector<double> ratios;
};

Rounds TimeRounds(StepRunner& runner, int64_t count, double flops, bool bf16) {
  Rounds rounds;
  double rate = MatmulFlopsPerSecond(kMatmulSize, bf16);
  for (int64_t round = 0; round < count; ++round) {
    rounds.seconds.push_back(runner.Step());
    const double after = MatmulFlopsPerSecond(kMatmulSize, bf16);
    rounds.rates.push_back(std::max(rate, after));
    rounds.ratios.push_back(flops / rounds.seconds.back() / rounds.rates.back());
    rate = after;
  }
  return rounds;
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
      << number("gflops", 1) << " GFLOP/s, " << number("ratio", 3)
      << " of the rate of LibTorch's product of " << report["precision"].get<std::string>()
      << " matrices, " << number("matmul_gflops", 1) << " GFLOP/s\n";
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
}  // namespace

Status RunBench(const BenchArgs& args, std::ostream& out) {
  MFT_ASSIGN_OR_RETURN(const std::vector<int64_t> lengths, Lengths(args));
  MFT_RETURN_IF_ERROR(CheckPrecision(args.precision));
  MFT_ASSIGN_OR_RETURN(const RecomputePolicy wish, PolicyNamed(args.recompute));
  const double begin = Now();
  MFT_ASSIGN_OR_RETURN(const ModelParams params, ReadModelParams(args.model_dir));
  MFT_ASSIGN_OR_RETURN(const auto files, ModelWeights::Open(args.model_dir, params));
  MFT_ASSIGN_OR_RETURN(const int64_t allowed, AllowedMemory());
  MFT_ASSIGN_OR_RETURN(const MemoryChoice memory,
                       ChooseMemory(MemoryJobOf(args, *files, lengths), wish, allowed));
  const auto full = args.full ? std::make_unique<FullStore>(*files) : nullptr;
  const auto weights = args.full        ? full->AsWeights()
                       : memory.offload ? MakeOffloadedWeights(files)
                                        : MakeResidentWeights(files);
  const double open_seconds = Now() - begin;
  const std::string precision = ResolvePrecision(args.precision, files->is_bf16());
  StepRunner runner(args, memory.policy, lengths, KernelsFor(precision), full.get(), *weights);
  runner.Step();
  const int64_t peak = ReadProcessMemory().peak_bytes;  // before the yardstick's own matrices
  runner.ResetProfile();
  const double flops = StepFlops(weights->params(), args, lengths);
  const Rounds rounds = TimeRounds(runner, args.rounds, flops, precision == "bf16");
  const auto tokens =
      static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0}));
  Json report = {{"tokens", static_cast<int64_t>(tokens)},
                 {"documents", lengths.size()},
                 {"precision", precision},
                 {"recompute", DescribePlan(memory.policy, files->params().n_layers)},
                 {"kernels", std::string(KernelsFor(precision).name)},
                 {"threads", CpuThreads()},
                 {"open_seconds", open_seconds},
                 {"seconds", Median(rounds.seconds)},
                 {"step_seconds", rounds.seconds},
                 {"tokens_per_second", tokens / Median(rounds.seconds)},
                 {"gflops", flops / Median(rounds.seconds) / kGiga},
                 {"matmul_gflops", Median(rounds.rates) / kGiga},
                 {"ratio", Median(rounds.ratios)},
                 {"peak_bytes", peak},
                 {"offloaded", memory.offload},
                 {"predicted_bytes", memory.forecast.peak()}};
  if (args.phases) {
    const double sum = std::accumulate(rounds.seconds.begin(), rounds.seconds.end(), 0.0);
    report["operations"] = OperationsToJson(runner.Operations(args.rounds, sum),
                                            tokens * static_cast<double>(args.rounds));
  }
  if (args.output == "json") {
    out << DumpJson(report) << '\n';
  } else {
    PrintText(report, out);
  }
  return Status::Ok();
}

}  // namespace mft
