// SPDX-License-Identifier: Apache-2.0
#include "common/config/spec_validate.h"

#include <algorithm>
#include <initializer_list>
#include <map>
#include <utility>

#include "common/base/strings.h"
#include "common/config/source_list.h"

namespace mft {

namespace {
class Validator {
 public:
  Validator(const ValidationContext& context, JobSpecResult& result)
      : context_(context), result_(result), spec_(result.spec) {}

  void Run() {
    CheckSources();
    CheckData();
    CheckAdapters();
    CheckChoice();
    CheckTrackers();
    CheckPrecisionAndDevice();
  }

 private:
  // One violation at `path`, unless one of the keys it depends on is wrong already.
  void Add(const std::string& path,
           std::initializer_list<const char*> depends_on,
           std::string message) {
    if (IsBad(path) || std::any_of(depends_on.begin(), depends_on.end(), [&](const char* p) {
          return IsBad(p);
        })) {
      return;
    }
    result_.violations.push_back(
        {.path = path, .line = context_.line(path), .message = std::move(message)});
  }

  bool IsBad(const std::string& path) const { return context_.bad_paths.contains(path); }

  void CheckSources() {
    std::map<std::string, std::string> seen;  // path of a training source -> key that names it
    for (const auto& [key, text] :
         {std::pair("data.data", &spec_.data.data),
          std::pair("data.instruct_data", &spec_.data.instruct_data),
          std::pair("data.eval_instruct_data", &spec_.data.eval_instruct_data)}) {
      const auto sources = ParseSources(*text);
      if (!sources.ok()) {
        Add(key, {}, sources.status().message());
        continue;
      }
      if (std::string_view(key) == "data.eval_instruct_data") {
        continue;  // evaluating on training data is allowed
      }
      for (const DataSource& source : *sources) {
        if (!seen.emplace(source.path, key).second && seen[source.path] != key) {
          Add(key,
              {},
              StrCat(source.path,
                     " seems to be duplicated (also in ",
                     seen[source.path],
                     "). Make sure to only add it once."));
        }
      }
    }
  }

  static bool HasSource(const std::string& text) {
    const auto sources = ParseSources(text);
    return !sources.ok() || !sources->empty();  // a wrong list has its own violation
  }

  void CheckData() {
    const DataSpec& data = spec_.data;
    if (!HasSource(data.data) && !HasSource(data.instruct_data)) {
      Add("data.instruct_data",
          {"data", "data.data"},
          "no training data: set data.instruct_data or data.data");
    }
    if (!spec_.no_eval && !HasSource(data.eval_instruct_data)) {
      Add("no_eval",
          {"data", "data.eval_instruct_data"},
          "Either set `no_eval` to True or provide evaluation samples under "
          "`data.eval_instruct_data`");
    }
    if (!data.instruct.shuffle && data.instruct.dynamic_chunk_fn_call) {
      Add("data.instruct.shuffle",
          {"data.instruct.dynamic_chunk_fn_call"},
          "Make sure to either enable `data.instruct.shuffle=True` or "
          "`data.instruct.dynamic_chunk_fn_call=False`. "
          "Dynamic chunking is only possible if data is loaded and shuffled before training.");
    }
  }

  void CheckAdapters() {
    if (!spec_.lora.enable) {
      if (spec_.save_adapters) {
        Add("save_adapters",
            {"lora.enable"},
            "must be false when lora.enable is false: there is no adapter to save");
      }
      CheckFullFineTuning();
    } else if (!spec_.save_adapters) {
      result_.warnings.emplace_back(
          "You have disabled `save_adapters` and are thus merging the trained LoRA checkpoint into "
          "the base model "
          "upon checkpointing. This might lead to OOM errors - make sure you have enough CPU and "
          "GPU memory.");
    }
    if (!spec_.mftd.init_adapter.empty() && !spec_.mftd.resume_from.empty()) {
      Add("mftd.init_adapter",
          {"mftd.resume_from"},
          "cannot be combined with mftd.resume_from, whose checkpoint has an adapter of its own");
    }
  }

  void CheckFullFineTuning() {
    if (!spec_.mftd.init_adapter.empty()) {
      Add("mftd.init_adapter", {"lora.enable"}, "must be empty when lora.enable is false");
    }
    for (const std::string& format : spec_.mftd.export_formats) {
      if (format == "peft") {
        Add("mftd.export",
            {"lora.enable"},
            "\"peft\" is an adapter, and lora.enable is false: use hf or merged");
      } else if (format != "mistral" && spec_.no_ckpt) {
        Add("mftd.export",
            {"no_ckpt"},
            StrCat(
                "\"",
                format,
                "\" of a full fine-tuning is made from its last checkpoint, and no_ckpt is true"));
      }
    }
  }

  // What is chosen by evaluation needs one, and what is kept needs checkpoints.
  void CheckChoice() {
    if (spec_.no_eval && spec_.mftd.keep_best) {
      Add("mftd.keep_best", {"no_eval"}, "needs evaluations, and no_eval is true");
    }
    if (spec_.no_eval && spec_.mftd.early_stop.patience > 0) {
      Add("mftd.early_stop.patience", {"no_eval"}, "needs evaluations, and no_eval is true");
    }
    if (spec_.mftd.early_stop.min_delta > 0 && spec_.mftd.early_stop.patience == 0) {
      Add("mftd.early_stop.min_delta",
          {"mftd.early_stop.patience"},
          "does nothing without mftd.early_stop.patience");
    }
    if (!spec_.mftd.seeds.empty()) {
      if (spec_.no_eval) {
        Add("mftd.seeds", {"no_eval"}, "needs evaluations to choose by, and no_eval is true");
      }
      if (spec_.no_ckpt) {
        Add("mftd.seeds", {"no_ckpt"}, "needs checkpoints, and no_ckpt is true");
      }
      if (!spec_.mftd.resume_from.empty()) {
        Add("mftd.seeds",
            {"mftd.resume_from"},
            "cannot be combined with mftd.resume_from, whose checkpoint has a seed of its own");
      }
    }
    if (spec_.no_ckpt && spec_.mftd.keep_best) {
      Add("mftd.keep_best", {"no_ckpt"}, "needs checkpoints, and no_ckpt is true");
    }
  }

  void CheckTrackers() {
    if (!spec_.mlflow.tracking_uri.empty() && spec_.mlflow.experiment_name.empty()) {
      Add("mlflow.experiment_name",
          {"mlflow.tracking_uri"},
          "If `mlflow.tracking_uri` is set, `mlflow.experiment_name` must be set as well.");
    }
  }

  void CheckPrecisionAndDevice() {
    if (spec_.mftd.precision == "fp8" && !spec_.lora.enable) {
      Add("mftd.precision",
          {"lora.enable"},
          "\"fp8\" is for frozen weights, and without `lora.enable` none is; use bf16");
    }
    if (spec_.mftd.device != "auto" && !IsBad("mftd.ranks")) {
      for (Violation& violation : CheckDevice(spec_, spec_.mftd.device)) {
        Add(violation.path, {"mftd.device"}, std::move(violation.message));
      }
    }
  }

  const ValidationContext& context_;
  JobSpecResult& result_;
  const JobSpec& spec_;
};
}  // namespace

void ValidateSpec(const ValidationContext& context, JobSpecResult& result) {
  Validator(context, result).Run();
}

std::vector<Violation> CheckDevice(const JobSpec& spec, std::string_view device) {
  std::vector<Violation> violations;
  if (device == "cpu" && spec.mftd.precision == "fp8") {
    violations.push_back({.path = "mftd.precision",
                          .line = 0,
                          .message = "\"fp8\" needs a CUDA device, and this is the CPU"});
  }
  return violations;
}

}  // namespace mft
