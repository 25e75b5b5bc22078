// SPDX-License-Identifier: Apache-2.0
// Everything that a training attempt holds from its first to its last step.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/base/json.h"
#include "common/dataset/batcher.h"
#include "common/dataset/token_cache.h"
#include "worker/model/full_store.h"
#include "worker/model/transformer.h"
#include "worker/train/memory_planner.h"
#include "worker/train/ranks.h"
#include "worker/train/reporter.h"
#include "worker/train/run_dir.h"
#include "worker/train/run_state.h"
#include "worker/train/schedule.h"
#include "worker/train/train_context.h"
#include "worker/train/train_device.h"

namespace mft {

struct Session {
  Session(TrainContext the_context, Ranks& the_ranks)
      : context(std::move(the_context)), ranks(the_ranks) {}

  TrainContext context;
  Ranks& ranks;
  std::unique_ptr<RunDir> run_dir;  // rank 0's: the others write nothing
  std::unique_ptr<TokenCache> cache;
  std::unique_ptr<Batcher> batcher;
  std::vector<MicroBatch> eval_chunks;  // this rank's
  int64_t eval_loss_tokens = 0;         // of all ranks; 0: nothing to evaluate
  std::unique_ptr<WeightSource> weights;
  WeightPlacement placement = WeightPlacement::kResident;  // of `weights`
  std::unique_ptr<LoraStore> lora;  // without a tensor where `full` is trained
  std::unique_ptr<FullStore> full;  // lora.enable: false; `weights` are views of it
  std::unique_ptr<Transformer> model;
  std::string tokenizer_file;  // copied into checkpoints; "" where the model has none
  ScheduleOptions schedule;
  int64_t chunk_rows = 0;
  TrainDevice device;
  int64_t device_memory = 0;  // bytes of a GPU that were free before the model came
  ExecutionSizes sizes;       // of the memory plan
  std::string precision;      // of the plan
  std::string attention;      // of the plan; "" before it, and of the CPU
  Json plan;                  // the numeric plan, as stored in checkpoints
  RunState state;             // where the run stands
  int64_t saved_step = 0;     // step of the newest checkpoint of this run_dir; 0: none

  const JobSpec& spec() const { return context.job.spec; }
  // All steps are done, or evaluation no longer improves.
  bool IsComplete() const {
    return state.step >= spec().max_steps || state.choice.ShouldStop(spec().mftd.early_stop);
  }
  // Of the checkpoint that is the result.
  int64_t result_step() const {
    return spec().mftd.keep_best && state.choice.best_step > 0 ? state.choice.best_step
                                                               : state.step;
  }
  // What is trained.
  ParamStore& trained() { return full != nullptr ? static_cast<ParamStore&>(*full) : *lora; }
  const KernelTable& kernels() const { return KernelsFor(precision, device, attention); }
  // The frozen base is in fp8.
  bool quantises() const { return precision == "fp8" && context.job.spec.lora.enable; }
  // Of the files of what is trained: what the kernels multiply.
  DType trained_dtype() const { return precision == "fp32" ? DType::kF32 : DType::kBF16; }
};

// Takes run_dir, loads model and data, finds where to begin and restores that state: the same on
// every rank. Throws StatusError naming what is wrong. `ranks` must outlive the session.
std::unique_ptr<Session> OpenSession(TrainContext context,
                                     Ranks& ranks,
                                     Reporter& reporter,
                                     const Clock& clock);

// Of this process; on a GPU of its memory, which nobody else is expected to use.
ProcessMemory MemoryInUse(const Session& session);

}  // namespace mft
