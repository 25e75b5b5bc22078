// SPDX-License-Identifier: Apache-2.0
// A job file as structs. Member initialisers are the defaults (finetune-spec 1.1, design.md 4.2);
// `VisitFields` is the one list of fields: YAML, job.json, unknown-key errors, ranges and the
// parity test against proto/mft/v1/job_spec.proto all walk it. configs/7B.yaml documents each key
// for users.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "common/config/field_rule.h"

namespace mft {

struct InstructSpec {
  bool shuffle = true;
  bool dynamic_chunk_fn_call =
      true;  // every assistant turn of a tool conversation becomes a sample of its own
};

struct DataSpec {
  std::string data;           // sources of text samples: "path[:weight],..."
  bool shuffle = false;       // of the text samples
  std::string instruct_data;  // sources of conversations
  std::string eval_instruct_data;
  InstructSpec instruct;
};

struct OptimSpec {
  double lr = 1e-4;           // peak of the OneCycle schedule
  double weight_decay = 0.1;  // decoupled, on A and B
  double pct_start = 0.05;    // share of the steps that warm up
};

struct LoraSpec {
  bool enable = true;  // false: every parameter is trained
  int64_t rank = 16;
  double dropout = 0.0;
  double scaling = 2.0;  // multiplies B(A(x)) as it is; PEFT's alpha / rank
};

struct WandbSpec {
  std::string project;
  bool offline = false;
  std::string run_name;
};

struct MlflowSpec {
  std::string tracking_uri;
  std::string experiment_name;
};

// Ends a run whose evaluation no longer improves.
struct EarlyStopSpec {
  int64_t patience = 0;  // evaluations without improvement before it ends; 0: never
  double min_delta = 0;  // an improvement is an eval loss lower by more than this
};

// The section `mftd:`.
struct MftdSpec {
  std::string name;  // "" becomes the last component of run_dir
  std::map<std::string, std::string> labels;
  std::string device = "auto";
  int64_t ranks = 1;
  std::string precision = "auto";
  std::string packing = "whole";
  std::string loss_norm = "token";
  std::string beta1 = "cycle";
  std::string init_adapter;
  std::string resume_from;
  std::vector<std::string> target_modules = {"wq", "wk", "wv", "wo", "w1", "w2", "w3"};
  std::vector<std::string> export_formats = {"mistral"};  // key "export"
  bool keep_best = false;  // the checkpoint with the lowest eval loss stays beside the newest
  EarlyStopSpec early_stop;
  std::vector<int64_t> seeds;  // not empty: a run for each, instead of `seed`, the best kept
  std::string nonfinite = "fail";
  std::string deterministic = "auto";
  std::string priority = "normal";
  int64_t retries = 2;
  int64_t time_limit = 0;  // s of an attempt's run time; 0: none
  int64_t threads = 0;     // per rank; 0: cores / ranks
};

struct JobSpec {
  DataSpec data;
  std::string model_id_or_path;
  std::string run_dir;
  OptimSpec optim;
  int64_t seed = 0;
  int64_t num_microbatches = 1;
  int64_t seq_len = 2048;
  int64_t batch_size = 1;  // packs per rank and microbatch
  double max_norm = 1.0;
  int64_t max_steps = 100;
  int64_t log_freq = 1;
  int64_t ckpt_freq = 0;  // <= 0: after the last step only
  bool save_adapters = true;
  bool no_ckpt = false;
  int64_t num_ckpt_keep = 3;  // 0 (null in YAML): all
  int64_t eval_freq = 0;      // <= 0: after the last step only
  bool no_eval = true;
  bool checkpoint = true;  // recompute activations
  int64_t world_size = 0;  // informational
  WandbSpec wandb;
  MlflowSpec mlflow;
  LoraSpec lora;
  MftdSpec mftd;
};

// A run for each of mftd.seeds, or one.
inline int64_t TotalRuns(const JobSpec& spec) {
  return spec.mftd.seeds.empty() ? 1 : static_cast<int64_t>(spec.mftd.seeds.size());
}
inline int64_t TotalSteps(const JobSpec& spec) {
  return TotalRuns(spec) * spec.max_steps;
}

// visitor(key, member, rule) for values, visitor(key, member) for sections.
// `Self` is the struct, const or not.
template <typename Visitor>
void VisitFields(Visitor&& visit, auto& self) requires
    std::is_same_v<std::remove_cvref_t<decltype(self)>, InstructSpec> {
  visit("shuffle", self.shuffle, FieldRule{});
  visit("dynamic_chunk_fn_call", self.dynamic_chunk_fn_call, FieldRule{});
}

template <typename Visitor>
void VisitFields(Visitor&& visit, auto& self) requires
    std::is_same_v<std::remove_cvref_t<decltype(self)>, DataSpec> {
  visit("data", self.data, FieldRule{});
  visit("shuffle", self.shuffle, FieldRule{});
  visit("instruct_data", self.instruct_data, FieldRule{});
  visit("eval_instruct_data", self.eval_instruct_data, FieldRule{});
  visit("instruct", self.instruct);
}

template <typename Visitor>
void VisitFields(Visitor&& visit, auto& self) requires
    std::is_same_v<std::remove_cvref_t<decltype(self)>, OptimSpec> {
  visit("lr", self.lr, Positive());
  visit("weight_decay", self.weight_decay, AtLeast(0));
  visit("pct_start", self.pct_start, Between(0, 1));
}

template <typename Visitor>
void VisitFields(Visitor&& visit, auto& self) requires
    std::is_same_v<std::remove_cvref_t<decltype(self)>, LoraSpec> {
  visit("enable", self.enable, FieldRule{});
  visit("rank", self.rank, Between(1, 4096));
  visit("dropout", self.dropout, Between(0, 0.999));
  visit("scaling", self.scaling, Positive());
}

template <typename Visitor>
void VisitFields(Visitor&& visit, auto& self) requires
    std::is_same_v<std::remove_cvref_t<decltype(self)>, WandbSpec> {
  visit("project", self.project, Nullable());
  visit("offline", self.offline, FieldRule{});
  visit("run_name", self.run_name, Nullable());
}

template <typename Visitor>
void VisitFields(Visitor&& visit, auto& self) requires
    std::is_same_v<std::remove_cvref_t<decltype(self)>, MlflowSpec> {
  visit("tracking_uri", self.tracking_uri, Nullable());
  visit("experiment_name", self.experiment_name, Nullable());
}

template <typename Visitor>
void VisitFields(Visitor&& visit, auto& self) requires
    std::is_same_v<std::remove_cvref_t<decltype(self)>, EarlyStopSpec> {
  visit("patience", self.patience, Between(0, 1'000'000));
  visit("min_delta", self.min_delta, AtLeast(0));
}

template <typename Visitor>
void VisitFields(Visitor&& visit, auto& self) requires
    std::is_same_v<std::remove_cvref_t<decltype(self)>, MftdSpec> {
  visit("name", self.name, Nullable());
  visit("labels", self.labels, FieldRule{});
  visit("device", self.device, OneOf({"auto", "cuda", "cpu"}));
  visit("ranks", self.ranks, Between(1, 1024));
  visit("precision", self.precision, OneOf({"auto", "fp32", "bf16", "fp8"}));
  visit("packing", self.packing, OneOf({"whole", "reference"}));
  visit("loss_norm", self.loss_norm, OneOf({"token", "reference"}));
  visit("beta1", self.beta1, OneOf({"cycle", "fixed"}));
  visit("init_adapter", self.init_adapter, Nullable());
  visit("resume_from", self.resume_from, Nullable());
  visit("target_modules", self.target_modules, OneOf({"wq", "wk", "wv", "wo", "w1", "w2", "w3"}));
  visit("export", self.export_formats, OneOf({"mistral", "peft", "merged", "hf"}));
  visit("keep_best", self.keep_best, FieldRule{});
  visit("early_stop", self.early_stop);
  visit("seeds", self.seeds, AtLeast(0));
  visit("nonfinite", self.nonfinite, OneOf({"fail", "pause", "skip"}));
  visit("deterministic", self.deterministic, OneOf({"auto", "true", "false"}));
  visit("priority", self.priority, OneOf({"urgent", "normal", "low"}));
  visit("retries", self.retries, Between(0, 100));
  visit("time_limit", self.time_limit, Nullable(AtLeast(0)));
  visit("threads", self.threads, Nullable(Between(0, 4096)));
}

template <typename Visitor>
void VisitFields(Visitor&& visit,
                 auto& self) requires std::is_same_v<std::remove_cvref_t<decltype(self)>, JobSpec> {
  visit("data", self.data);
  visit("model_id_or_path", self.model_id_or_path, Required());
  visit("run_dir", self.run_dir, Required());
  visit("optim", self.optim);
  visit("seed", self.seed, AtLeast(0));
  visit("num_microbatches", self.num_microbatches, Between(1, 1 << 20));
  visit("seq_len", self.seq_len, Between(1, 128'000));
  visit("batch_size", self.batch_size, Between(1, 1 << 20));
  visit("max_norm", self.max_norm, Positive());
  visit("max_steps", self.max_steps, Between(1, 1'000'000'000));
  visit("log_freq", self.log_freq, AtLeast(1));
  visit("ckpt_freq", self.ckpt_freq, FieldRule{});
  visit("save_adapters", self.save_adapters, FieldRule{});
  visit("no_ckpt", self.no_ckpt, FieldRule{});
  visit("num_ckpt_keep", self.num_ckpt_keep, Nullable(AtLeast(0)));
  visit("eval_freq", self.eval_freq, FieldRule{});
  visit("no_eval", self.no_eval, FieldRule{});
  visit("checkpoint", self.checkpoint, FieldRule{});
  visit("world_size", self.world_size, Nullable());
  visit("wandb", self.wandb);
  visit("mlflow", self.mlflow);
  visit("lora", self.lora);
  visit("mftd", self.mftd);
}

}  // namespace mft
