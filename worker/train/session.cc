// SPDX-License-Identifier: Apache-2.0
#include "worker/train/session.h"

#include <algorithm>
#include <utility>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/activation_plan.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "common/checkpoint/model_weights.h"
#include "common/config/yaml_reader.h"
#include "common/tokenizer/tokenizer.h"
#include "worker/kernels/cpu_runtime.h"
#include "worker/kernels/cuda_library.h"
#include "worker/model/device_weights.h"
#include "worker/model/status_error.h"
#include "worker/train/attention_trial.h"
#include "worker/train/chunks.h"
#include "worker/train/memory_planner.h"
#include "worker/train/numeric_plan.h"
#include "worker/train/session_restore.h"

namespace mft {

namespace {
// A full fine-tuning has no adapters.
std::vector<std::string> AdaptedModules(const JobSpec& spec) {
  return spec.lora.enable ? spec.mftd.target_modules : std::vector<std::string>();
}

double Dropout(const JobSpec& spec) {
  return spec.lora.enable ? spec.lora.dropout : 0;
}

// The device that the job says, and for several ranks what sums their gradients there.
void OpenDevice(Session& session) {
  const TrainContext& context = session.context;
  const JobSpec& spec = session.spec();
  const bool deterministic = spec.mftd.deterministic == "true";
  session.device =
      ValueOrThrow(OpenTrainDevice(context.device, context.world.local_rank, deterministic));
  session.ranks.ExpectSame("device", session.device.kind);
  if (session.device.is_cuda() && session.ranks.size() > 1) {
    session.ranks.MeetOnDevice(*ValueOrThrow(LoadCuda()), deterministic);
  }
  ThrowIfError(CheckPrecision(spec.mftd.precision, session.device).WithContext("mftd.precision"));
  if (spec.mftd.precision == "fp8" && !spec.lora.enable) {
    throw StatusError(FailedPrecondition(
        "mftd.precision fp8: without lora.enable no weight is frozen; use bf16"));
  }
}

// What memory is planned with; the numeric plan may keep another one of fp32 and bf16.
void ChoosePrecision(Session& session, const ModelWeights& files) {
  session.precision =
      ResolvePrecision(session.spec().mftd.precision, files.is_bf16(), session.device);
  if (session.quantises()) {
    ThrowIfError(CanQuantise(files.params(), session.kernels()).WithContext("mftd.precision"));
  }
}

void OpenRunDir(Session& session, Reporter& reporter) {
  const JobSpec& spec = session.spec();
  session.ranks.OnFirst([&]() -> Status {
    MFT_ASSIGN_OR_RETURN(RunDir run_dir, RunDir::Open(spec.run_dir, session.context.job.job_id));
    session.run_dir = std::make_unique<RunDir>(std::move(run_dir));
    return reporter.Persist(
        [&] { return WriteFileAtomic(JoinPath(spec.run_dir, "args.yaml"), JobSpecToYaml(spec)); });
  });
}

void OpenCache(Session& session, int64_t vocab_size) {
  const JobSpec& spec = session.spec();
  Result<std::unique_ptr<TokenCache>> cache = TokenCache::Open(session.context.data_cache);
  if (!cache.ok()) {  // the daemon prepares the data again
    throw StatusError(
        Status(cache.status().code(), std::string(kDataCacheGone), cache.status().message()));
  }
  session.cache = std::move(cache).value();
  ThrowIfError(session.cache->VerifyIndex());
  if (session.cache->vocab_size() > vocab_size) {
    throw StatusError(FailedPrecondition(StrCat(session.context.data_cache,
                                                ": made for a vocabulary of ",
                                                session.cache->vocab_size(),
                                                ", the model in ",
                                                spec.model_id_or_path,
                                                " has ",
                                                vocab_size)));
  }
}

// `base_weights`: ModelWeights::Fingerprint.
void DescribeData(Session& session, std::string base_weights) {
  const JobSpec& spec = session.spec();
  const int64_t ranks = session.ranks.size();
  session.state.ranks = ranks;
  session.state.data = {.cache = session.cache->content_key(),
                        .seed = spec.seed,
                        .seq_len = spec.seq_len,
                        .packs_per_step = spec.batch_size * spec.num_microbatches * ranks,
                        .packing = spec.mftd.packing,
                        .loss_norm = spec.mftd.loss_norm,
                        .shuffle_text = spec.data.shuffle,
                        .shuffle_instruct = spec.data.instruct.shuffle,
                        // What an adapter learns belongs to the weights under it; a full
                        // fine-tuning has its own.
                        .base_weights = spec.lora.enable ? std::move(base_weights) : ""};
  session.ranks.ExpectSame("data or weights", DescribeIdentity(session.state.data));
}

void MakeBatcher(Session& session) {
  session.batcher = ValueOrThrow(
      Batcher::Create(*session.cache,
                      ValueOrThrow(BatcherOptionsFor(session.spec(),
                                                     static_cast<int>(session.ranks.size()),
                                                     static_cast<int>(session.ranks.rank())))));
}

std::unique_ptr<WeightSource> WeightsOnDevice(Session& session,
                                              const ModelWeights& files,
                                              WeightPlacement placement) {
  const DeviceModel model{files.params(), session.kernels(), session.quantises()};
  const DeviceFill fill = FillFromFiles(files, session.kernels());
  switch (placement) {
    case WeightPlacement::kResident:
      return MakeDeviceWeights(model, fill);
    case WeightPlacement::kSharded:
      return MakeShardedDeviceWeights(model, fill, session.ranks.device_communicator());
    case WeightPlacement::kOffloaded:
      return MakeOffloadedDeviceWeights(model, fill);
  }
  throw StatusError(Internal("no such placement of weights"));
}

// `resumes`: what is trained comes from a checkpoint.
void MakeWeights(Session& session,
                 std::shared_ptr<const ModelWeights> files,
                 WeightPlacement placement,
                 bool resumes) {
  const KernelTable& kernels = session.kernels();
  if (session.spec().lora.enable) {
    session.placement = placement;
    if (kernels.memory != nullptr) {
      session.weights = WeightsOnDevice(session, *files, placement);
    } else if (placement == WeightPlacement::kSharded) {
      session.weights = MakeShardedWeights(std::move(files), session.ranks.communicator());
    } else if (placement == WeightPlacement::kOffloaded) {
      session.weights = MakeOffloadedWeights(std::move(files));
    } else {
      session.weights = MakeResidentWeights(std::move(files));
    }
    return;
  }
  session.full = resumes ? std::make_unique<FullStore>(files->params(), true, &kernels)
                         : std::make_unique<FullStore>(*files, &kernels);
  session.weights = session.full->AsWeights();
}

void MakeModel(Session& session, int64_t longest_segment, const RecomputePlan& policy) {
  const JobSpec& spec = session.spec();
  const ModelParams& params = session.weights->params();
  session.lora =
      std::make_unique<LoraStore>(params,
                                  LoraStoreOptions{.rank = spec.lora.rank,
                                                   .scaling = spec.lora.scaling,
                                                   .target_modules = AdaptedModules(spec),
                                                   .training = spec.lora.enable,
                                                   .kernels = &session.kernels()});
  session.model =
      std::make_unique<Transformer>(*session.weights,
                                    *session.lora,
                                    session.kernels(),
                                    TransformerOptions{.policy = policy,
                                                       .max_rows = session.chunk_rows,
                                                       .max_positions = longest_segment,
                                                       .dropout = Dropout(spec),
                                                       .seed = static_cast<uint64_t>(spec.seed),
                                                       .sizes = session.sizes});
}

std::string_view Placed(WeightPlacement placement, bool on_device) {
  switch (placement) {
    case WeightPlacement::kResident:
      return "";
    case WeightPlacement::kSharded:
      return "; the weights are sharded: each rank has its part of every block, which is gathered "
             "when it is worked with";
    case WeightPlacement::kOffloaded:
      return on_device ? "; the weights are offloaded: each block is copied from the host's memory "
                         "when it is worked with"
                       : "; the weights are offloaded: each block is read from the file when it is "
                         "worked with";
  }
  return "";
}

int64_t LeastOfRanks(Ranks& ranks, int64_t mine) {
  const std::vector<double> values = ranks.Gather(static_cast<double>(mine));
  return static_cast<int64_t>(*std::min_element(values.begin(), values.end()));
}

// Before anything large is allocated.
MemoryChoice PlanMemory(Session& session,
                        const ModelWeights& files,
                        int64_t longest_segment,
                        Reporter& reporter) {
  const JobSpec& spec = session.spec();
  const KernelTable* const device = session.device.is_cuda() ? &session.kernels() : nullptr;
  // Ranks of a host share its memory, and map the same pages; a GPU is one rank's.
  const int64_t local_size = session.context.world.local_size;
  const int64_t sharers = device == nullptr ? local_size : 1;
  const int64_t host_memory =
      device == nullptr ? 0
                        : LeastOfRanks(session.ranks, ValueOrThrow(AllowedMemory()) / local_size);
  WeightBytes weights = WeightBytesOf(files);
  weights.mapped /= sharers;
  const MemoryJob job{.params = files.params(),
                      .weights = weights,
                      .rank = spec.lora.rank,
                      .target_modules = AdaptedModules(spec),
                      .full = !spec.lora.enable,
                      .dropout = Dropout(spec),
                      .microbatch_rows = spec.seq_len * spec.batch_size,
                      .longest_document = longest_segment,
                      .mean_document = MeanSegment(*session.cache, spec.seq_len),
                      .deterministic = spec.mftd.deterministic == "true",
                      .world_size = session.ranks.size(),
                      .device = device,
                      .host_memory = host_memory,
                      .quantise = session.quantises()};
  const RecomputePolicy wish =
      spec.checkpoint ? RecomputePolicy::kBlock : RecomputePolicy::kNothing;
  const int64_t own = ValueOrThrow(AllowedMemory(device)) / sharers;
  session.device_memory = device == nullptr ? 0 : own;
  const int64_t allowed = LeastOfRanks(session.ranks, own);
  const MemoryChoice choice =
      session.ranks.ValueOfFirst<MemoryChoice>([&] { return ChooseMemory(job, wish, allowed); });
  session.sizes = choice.sizes;
  const bool wished_policy = choice.policy == RecomputePlan(wish);
  const bool as_wished = wished_policy && choice.placement == WeightPlacement::kResident;
  reporter.Message(as_wished ? LogLevel::kInfo : LogLevel::kWarning,
                   StrCat("memory: a peak of ",
                          FormatBytes(choice.forecast.peak()),
                          " is predicted; recomputed in the backward pass: ",
                          DescribePlan(choice.policy, job.params.n_layers),
                          wished_policy ? "" : ", since the memory does not allow less",
                          Placed(choice.placement, device != nullptr)));
  return choice;
}

void OpenEvaluation(Session& session) {
  const JobSpec& spec = session.spec();
  if (spec.no_eval) {
    return;
  }
  session.eval_chunks = ValueOrThrow(EvalBatches(*session.cache,
                                                 spec.seq_len,
                                                 session.chunk_rows,
                                                 static_cast<int>(session.ranks.size()),
                                                 static_cast<int>(session.ranks.rank())));
  for (const MicroBatch& chunk : session.eval_chunks) {
    session.eval_loss_tokens += chunk.loss_tokens;
  }
  auto of_all = static_cast<double>(session.eval_loss_tokens);
  session.ranks.Sum(std::span(&of_all, 1));
  session.eval_loss_tokens = static_cast<int64_t>(of_all);
  if (session.eval_loss_tokens == 0) {
    throw StatusError(FailedPrecondition(
        "no_eval is false, and no token of the evaluation data is one to be predicted: give "
        "data.eval_instruct_data samples with trained tokens, or say no_eval: true"));
  }
}

void OpenMetrics(const Session& session, Reporter& reporter, const Clock& clock) {
  const MetricsLog::Options options{.run_dir = session.spec().run_dir,
                                    .wall_micros = clock.WallMicros(),
                                    .with_eval = session.eval_loss_tokens > 0,
                                    .resume_step = session.state.step,
                                    .lengths = session.state.metrics};
  session.ranks.OnFirst(
      [&] { return reporter.Persist([&] { return reporter.OpenMetrics(options); }); });
}

// A killed attempt may not have come to it.
void PointAtBest(const Session& session) {
  const JobSpec& spec = session.spec();
  session.ranks.OnFirst([&] {
    return PathExists(CheckpointsDir(spec.run_dir))
               ? PointBestAt(spec.run_dir, spec.mftd.keep_best ? session.state.choice.best_step : 0)
               : Status::Ok();
  });
}

// Says what was chosen and why.
std::string MeasureAttention(const AttentionJob& job,
                             const AttentionWish& wish,
                             Reporter& reporter,
                             const Clock& clock) {
  const AttentionChoice choice = ValueOrThrow(ChooseCudaAttention(job, wish, clock));
  reporter.Message(choice.name == kExactAttention ? LogLevel::kWarning : LogLevel::kInfo,
                   DescribeAttention(choice, job));
  for (const std::string& line : choice.left_out) {
    reporter.Message(LogLevel::kInfo, StrCat("attention: left out: ", line));
  }
  return choice.name;
}

AttentionJob AttentionJobOf(const Session& session, const ModelParams& params, int64_t rows) {
  return {.heads = params.n_heads,
          .kv_heads = params.n_kv_heads,
          .head_dim = params.head_dim,
          .rows = rows,
          .document_rows = MeanSegment(*session.cache, session.spec().seq_len)};
}

// Rank 0's plan is everybody's.
void AgreeOnPlan(Session& session, const PlanWish& wish, const Json& previous) {
  const std::string text = session.ranks.TextOfFirst(
      [&]() -> Result<std::string> { return DumpJson(PlanToJson(ChoosePlan(wish, previous))); });
  session.plan = ValueOrThrow(ParseJson(text));
  session.chunk_rows = ValueOrThrow(GetInt(session.plan, "chunk_rows"));
  session.precision = ValueOrThrow(GetString(session.plan, "precision"));
  session.attention = StringOr(session.plan, "attention", "");
  ThrowIfError(CheckPrecision(session.precision, session.device)
                   .WithContext(StrCat("rank ", session.ranks.rank(), ", mftd.precision")));
  SetCpuThreads(static_cast<int>(ValueOrThrow(GetInt(session.plan, "threads"))));
}
}  // namespace

std::unique_ptr<Session> OpenSession(TrainContext context,
                                     Ranks& ranks,
                                     Reporter& reporter,
                                     const Clock& clock) {
  auto session = std::make_unique<Session>(std::move(context), ranks);
  const JobSpec& spec = session->spec();
  OpenDevice(*session);
  OpenRunDir(*session, reporter);

  ThrowIfError(reporter.Phase(kPhaseLoading, spec.model_id_or_path));
  const ModelParams params = ValueOrThrow(ReadModelParams(spec.model_id_or_path));
  OpenCache(*session, params.vocab_size);
  const int64_t longest_segment = LongestSegment(*session->cache, spec.seq_len);
  const std::shared_ptr<const ModelWeights> files =
      ValueOrThrow(ModelWeights::Open(spec.model_id_or_path, params));
  ChoosePrecision(*session, *files);
  const MemoryChoice memory = PlanMemory(*session, *files, longest_segment, reporter);
  DescribeData(*session, files->Fingerprint());
  session->tokenizer_file = ValueOrThrow(FindOptionalTokenizerFile(spec.model_id_or_path));
  session->schedule = {.peak_lr = spec.optim.lr,
                       .total_steps = spec.max_steps,
                       .pct_start = spec.optim.pct_start,
                       .cycle_beta1 = spec.mftd.beta1 == "cycle"};

  const ResumePoint point = FindBegin(*session);
  MakeBatcher(*session);
  const int64_t chunk_rows =
      ChunkRows(spec.seq_len * spec.batch_size, longest_segment, memory.sizes);
  AgreeOnPlan(*session,
              {.precision = spec.mftd.precision,
               .bf16_weights = files->is_bf16(),
               .chunk_rows = chunk_rows,
               .min_chunk_rows = longest_segment,
               .loss_chunk_rows = memory.sizes.head_rows,
               .ranks = ranks.size(),
               .threads = session->context.threads,
               .threads_fixed = spec.mftd.threads > 0,
               .device = session->device,
               .choose_attention =
                   [&](const std::string& of_checkpoint) {
                     return MeasureAttention(AttentionJobOf(*session, params, chunk_rows),
                                             {.deterministic = spec.mftd.deterministic == "true",
                                              .previous = of_checkpoint},
                                             reporter,
                                             clock);
                   }},
              point.plan);
  MakeWeights(*session, files, memory.placement, !point.checkpoint_dir.empty());
  MakeModel(*session, longest_segment, memory.policy);
  RestoreState(*session, point, reporter);
  session->trained().Upload();
  OpenEvaluation(*session);
  PointAtBest(*session);
  OpenMetrics(*session, reporter, clock);
  return session;
}

ProcessMemory MemoryInUse(const Session& session) {
  if (!session.device.is_cuda()) {
    return ReadProcessMemory();
  }
  // What the model takes it keeps, and LibTorch's cache gives nothing back.
  const int64_t used = session.device_memory - session.kernels().memory->free_bytes();
  return {.resident_bytes = used, .peak_bytes = used};
}

}  // namespace mft
