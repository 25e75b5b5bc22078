// SPDX-License-Identifier: Apache-2.0
// mft-worker: one rank of a training job, or a model that answers.
#include <algorithm>
#include <functional>
#include <iostream>
#include <optional>
#include <string>
#include <thread>

#include <CLI/CLI.hpp>

#include "common/base/clock.h"
#include "common/base/json.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/config/job_file.h"
#include "common/journal/build.h"
#include "common/journal/record.h"
#include "worker/export/export_model.h"
#include "worker/export/extend_vocab.h"
#include "worker/infer/commands.h"
#include "worker/kernels/cpu_runtime.h"
#include "worker/kernels/cuda_library.h"
#include "worker/kernels/kernels.h"
#include "worker/model/status_error.h"
#include "worker/train/bench.h"
#include "worker/train/ranks.h"
#include "worker/train/reporter.h"
#include "worker/train/seeds.h"
#include "worker/train/session.h"
#include "worker/train/stop_signals.h"
#include "worker/train/train_context.h"
#include "worker/train/train_device.h"
#include "worker/train/trainer.h"

namespace mft {
namespace {

constexpr int kExitUsage = 2;
constexpr int kExitInterrupted = 130;

FinalRecord FinalOf(const Status& status, int64_t step) {
  // A full disk ends no job: the newest checkpoint is good, and somebody has to make room.
  const bool stopped = status.reason() == kReasonDiskFull || status.code() == Code::kCancelled;
  return {.outcome = stopped ? "stopped" : "failed",
          .step = step,
          .code = static_cast<int>(status.code()),
          .reason = status.reason(),
          .message = status.message()};
}

int ExitCodeOf(const FinalRecord& record) {
  if (record.outcome == "done") {
    return 0;
  }
  return record.code == 0 ? kExitInterrupted : ExitCodeFor(static_cast<Code>(record.code));
}

// The attempt's id, before anything else of its files is known to be readable.
std::string AttemptId(const TrainArgs& args) {
  const auto from_environment = ProcessGetenv("MFT_ATTEMPT");
  if (from_environment.has_value()) {
    return *from_environment;
  }
  const auto file = ReadAttemptFile(StrCat(args.attempt_dir, "/attempt.json"));
  return file.ok() ? file->attempt_id : std::string();
}

int Train(const TrainArgs& args) {
  StopSignals signals;
  const Clock& clock = SystemClock();
  const auto world = ReadWorld(ProcessGetenv);
  auto reporter = world.ok() ? Reporter::Open({.attempt_dir = args.attempt_dir,
                                               .attempt_id = AttemptId(args),
                                               .rank = world->rank},
                                              signals,
                                              clock)
                             : Result<std::unique_ptr<Reporter>>(world.status());
  if (!reporter.ok()) {
    LogError(reporter.status().message());
    return ExitCodeFor(reporter.status().code());
  }
  FinalRecord last;
  std::unique_ptr<Ranks> ranks;
  const Status status = RunCatching([&]() -> Status {
    MFT_RETURN_IF_ERROR((*reporter)->Phase(kPhaseStarting));
    MFT_RETURN_IF_ERROR(CheckBuildOfRunner());
    MFT_ASSIGN_OR_RETURN(TrainContext context, LoadTrainContext(args, ProcessGetenv));
    MFT_ASSIGN_OR_RETURN(ranks, MeetOtherRanks(context, signals));
    (*reporter)->FollowPlace([&ranks](int64_t step, std::string_view phase) {
      ranks->communicator().SetPlace(step, phase);
    });
    last = RunJob(context, *ranks, **reporter, signals, clock);
    return Status::Ok();
  });
  if (!status.ok()) {
    last = FinalOf(status, (*reporter)->last_step());
  }
  (*reporter)->Final(last);
  if (last.outcome == "failed") {
    // Destroyed it would say good-bye, and the others would go on until they need this rank.
    static_cast<void>(ranks.release());
  }
  return ExitCodeOf(last);
}

int Report(const Status& status) {
  if (!status.ok()) {
    LogError(status.message());
  }
  return ExitCodeFor(status.code());
}

// The CPU, then each GPU, or why there is none.
Json DevicesToJson() {
  Json devices = {{{"kind", "cpu"}, {"capability", CpuCapability()}}};
  const auto found = CudaDevices();
  if (!found.ok()) {
    devices.push_back({{"kind", "cuda"}, {"unusable", found.status().message()}});
    return devices;
  }
  for (const CudaDeviceInfo& device : *found) {
    devices.push_back({{"kind", "cuda"},
                       {"ordinal", device.ordinal},
                       {"name", device.name},
                       {"capability", StrCat(device.major, ".", device.minor)},
                       {"memory_bytes", device.memory_bytes}});
  }
  return devices;
}

// What the first GPU has for heads of the usual width, or why not; `bench` measures which is
// fastest.
Json AttentionToJson() {
  constexpr int64_t kHeadDim = 128;
  Json backends = Json::object();
  if (!CudaDevices().ok()) {
    return backends;
  }
  const auto device = OpenTrainDevice("cuda", 0);
  if (!device.ok()) {
    return {{"unusable", device.status().message()}};
  }
  for (const AttentionBackend& backend : (*LoadCuda())->attention_backends(kHeadDim)) {
    backends[backend.name] = backend.unusable.empty() ? "usable" : backend.unusable;
  }
  return backends;
}

int Info(const std::string& format) {
  const int threads = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  Json precisions = {"fp32"};
  if (CpuBf16Kernels() != nullptr) {
    precisions.push_back("bf16");
  }
  Json info = {{"program", "mft-worker"},
               {"build", std::string(BuildId())},
               {"torch", TorchVersion()},
               {"devices", DevicesToJson()},
               {"cpu_capability", CpuCapability()},
               {"kernels", std::string(CpuKernels().name)},
               {"precisions", precisions},
               {"cores", threads},
               {"memory_bytes", ReadProcessMemory().resident_bytes}};
  if (const Json attention = AttentionToJson(); !attention.empty()) {
    info["attention"] = attention;
  }
  if (format == "json") {
    std::cout << DumpJson(info) << '\n';
    return 0;
  }
  for (const auto& [key, value] : info.items()) {
    std::cout << key << ": " << (value.is_string() ? value.get<std::string>() : DumpJson(value))
              << '\n';
  }
  return 0;
}

void AddEngineOptions(CLI::App& command, EngineOptions& options, int& threads) {
  command.add_option("--model", options.model_dir, "Model directory")->required();
  command.add_option("--adapter", options.adapter, "lora.safetensors, or a checkpoint");
  command.add_option(
      "--scaling", options.scaling, "Of the adapter; default: its params.json, else 2");
  command.add_option("--context", options.context_tokens, "Most tokens of prompt and answer");
  command.add_option("--threads", threads, "CPU threads; default: OMP_NUM_THREADS, or all cores")
      ->check(CLI::PositiveNumber);
}

void AddTrainOptions(CLI::App& command, TrainArgs& args) {
  command.add_option("--job", args.job, "job.json, or a job file (.yaml)")->required();
  command.add_option("--attempt-dir", args.attempt_dir, "Of attempt.json and the journal");
  command.add_option("--data-cache", args.data_cache, "Token cache (mft-data prepare)");
}

CLI::App* AddBench(CLI::App& app, BenchArgs& args, int& threads) {
  CLI::App* bench =
      app.add_subcommand("bench", "Speed and memory of training steps on random tokens");
  bench->add_option("--model", args.model_dir, "Model directory")->required();
  bench->add_option("--documents", args.documents, "Documents of a step")
      ->check(CLI::PositiveNumber);
  bench->add_option("--document-tokens", args.document_tokens, "Tokens of each")
      ->check(CLI::PositiveNumber);
  bench->add_option("--lengths", args.lengths_file, "Or a file: the tokens of each document");
  bench->add_option("--rank", args.rank, "Of the adapters")->check(CLI::Range(1, 4096));
  bench->add_flag("--full", args.full, "Train every weight, without adapters");
  bench->add_option("--recompute", args.recompute, "nothing, mlp or block")
      ->check(CLI::IsMember({"nothing", "mlp", "block"}));
  bench->add_option("--precision", args.precision, "auto, fp32, bf16 or fp8")
      ->capture_default_str();
  bench->add_option("--device", args.device, "auto, cuda or cpu")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "cuda", "cpu"}));
  bench->add_flag("--random-weights", args.random_weights, "On CUDA, of a params.json alone");
  bench->add_option("--memory-gib", args.memory_gib, "Plan with no more memory than this")
      ->check(CLI::PositiveNumber);
  bench->add_option("--rounds", args.rounds, "Timed steps")->check(CLI::PositiveNumber);
  bench->add_flag("--phases", args.phases, "Time and FLOP/s of each operation");
  bench->add_option("-o,--output", args.output, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  bench->add_option("--threads", threads, "CPU threads; default: OMP_NUM_THREADS, or all cores")
      ->check(CLI::PositiveNumber);
  return bench;
}

void AddGenerateOptions(CLI::App& command, GenerateArgs& args, int& threads) {
  AddEngineOptions(command, args.engine, threads);
  CLI::Option* const prompt = command.add_option("--prompt", args.prompt, "The user's message");
  CLI::Option* const prompts =
      command.add_option("--prompts", args.prompts, "Or a file: a prompt a line, as JSON")
          ->excludes(prompt);
  command.add_option("--batch-size", args.batch_size, "Prompts answered at once")
      ->check(CLI::Range(1, 512))
      ->needs(prompts);
  command.add_flag("--compare", args.compare, "The base's answers beside the adapter's")
      ->needs(prompts);
  command.add_option("-o,--output", args.output, "With --prompts: text or json")
      ->check(CLI::IsMember({"text", "json"}))
      ->needs(prompts);
  command.add_option("--system-prompt", args.system_prompt, "The system's message");
  command.add_option("--max-tokens", args.max_tokens, "Of the answer")->check(CLI::PositiveNumber);
  command.add_option("--temperature", args.temperature, "0: the most likely token each time")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--top-p", args.top_p, "Share of the probability to choose from")
      ->check(CLI::Range(0.0, 1.0));
  command.add_option("--seed", args.seed, "Same seed, same answer");
}

void AddExportOptions(CLI::App& command, ExportArgs& args) {
  command.add_option("--model", args.model_dir, "Model directory of the base")->required();
  command.add_option("--adapter", args.adapter, "lora.safetensors, or a checkpoint")->required();
  command.add_option("--to", args.to, "Directory to be made")->required();
  command.add_option("--format", args.format, "mistral, peft, merged or hf")
      ->check(CLI::IsMember({"mistral", "peft", "merged", "hf"}));
  command.add_option("--scaling", args.scaling, "Of the adapter; default: its params.json, else 2")
      ->check(CLI::PositiveNumber);
  command.add_option("--dtype", args.dtype, "fp32 or bf16; default: the adapter's, or the base's")
      ->check(CLI::IsMember({"fp32", "bf16"}));
  command.add_option(
      "--base-name", args.base_name, "peft: base_model_name_or_path; default: --model");
  command.add_option("--max-shard-bytes", args.max_shard_bytes, "hf: most of a file of weights")
      ->check(CLI::PositiveNumber);
}

void AddExtendOptions(CLI::App& command, ExtendVocabArgs& args) {
  command.add_option("--model", args.model_dir, "Model directory with 32000 tokens")->required();
  command.add_option("--to", args.to, "Directory to be made, with 32768 tokens")->required();
  command.add_option("--tokenizer", args.tokenizer, "tokenizer.model.v3, to be put beside it");
  command.add_option("--seed", args.seed, "Of the new rows: same seed, same rows");
  command.add_option("--init", args.init, "New rows: random, or the mean of the old ones")
      ->check(CLI::IsMember({"random", "mean"}));
}

int Main(int argc, char** argv) {
  SetLogProgram("mft-worker");
  CLI::App app{"mft-worker: trains LoRA adapters for Mistral models, and answers with them"};
  app.require_subcommand(1);
  int threads = 0;

  TrainArgs train_args;
  CLI::App* train = app.add_subcommand("train", "Run one rank of a training job");
  AddTrainOptions(*train, train_args);

  GenerateArgs generate_args;
  CLI::App* generate = app.add_subcommand("generate", "Answer one prompt, or JSON lines on stdin");
  AddGenerateOptions(*generate, generate_args, threads);

  EngineOptions logits_options;
  CLI::App* logits =
      app.add_subcommand("logits", "Logits of every position of token ids, JSON lines on stdin");
  AddEngineOptions(*logits, logits_options, threads);

  BenchArgs bench_args;
  CLI::App* bench = AddBench(app, bench_args, threads);

  ExportArgs export_args;
  CLI::App* exported = app.add_subcommand("export", "Write an adapter, or the model with it");
  AddExportOptions(*exported, export_args);

  ExtendVocabArgs extend_args;
  CLI::App* extend =
      app.add_subcommand("extend-vocab", "Make a model of 32000 tokens fit for the v3 tokenizer");
  AddExtendOptions(*extend, extend_args);

  std::string format = "text";
  CLI::App* info = app.add_subcommand("info", "Build, devices, versions");
  info->add_option("-o,--output", format, "text or json")->check(CLI::IsMember({"text", "json"}));

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  if (train->parsed()) {
    return Train(train_args);
  }
  if (info->parsed()) {
    return Info(format);
  }
  if (threads > 0) {
    SetCpuThreads(threads);
  }
  return Report(RunCatching([&] {
    return exported->parsed()               ? RunExport(export_args)
           : extend->parsed()               ? RunExtendVocab(extend_args)
           : bench->parsed()                ? RunBench(bench_args, std::cout)
           : !generate_args.prompts.empty() ? RunPrompts(generate_args, std::cout)
           : generate->parsed()             ? RunGenerate(generate_args, std::cin, std::cout)
                                            : RunLogits(logits_options, std::cin, std::cout);
  }));
}

}  // namespace
}  // namespace mft

int main(int argc, char** argv) {
  return mft::Main(argc, argv);
}
