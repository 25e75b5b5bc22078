// SPDX-License-Identifier: Apache-2.0
#include "worker/train/session_restore.h"

#include <string>

#include "common/base/strings.h"
#include "worker/model/adapter_file.h"
#include "worker/model/status_error.h"
#include "worker/train/checkpointer.h"
#include "worker/train/lora_init.h"

namespace mft {

namespace {
Status ReadInitAdapter(Session& session, Reporter& reporter) {
  const JobSpec& spec = session.spec();
  MFT_RETURN_IF_ERROR(
      ReadAdapter(spec.mftd.init_adapter, *session.lora).WithContext("mftd.init_adapter"));
  MFT_ASSIGN_OR_RETURN(const AdapterInfo info,
                       InspectAdapter(spec.mftd.init_adapter, session.weights->params()));
  if (info.scaling.has_value() && *info.scaling != spec.lora.scaling) {
    reporter.Message(LogLevel::kWarning,
                     StrCat("mftd.init_adapter was trained with scaling ",
                            *info.scaling,
                            ", this job has lora.scaling ",
                            spec.lora.scaling));
  }
  return Status::Ok();
}

void Resume(Session& session, const ResumePoint& point, Reporter& reporter) {
  ThrowIfError(reporter.Phase(kPhaseResuming, point.checkpoint_dir));
  ParamStore& trained = session.trained();
  session.ranks.OnFirst([&] { return ReadOptimizerState(point.checkpoint_dir, trained); });
  for (const std::span<float> arena : {trained.master(), trained.moment1(), trained.moment2()}) {
    session.ranks.FromFirst(arena);
  }
  session.saved_step = point.own ? point.state.step : 0;
  const std::string differences = DescribePlanDifferences(point.plan, session.plan);
  if (!differences.empty()) {
    reporter.Message(LogLevel::kWarning,
                     StrCat("the remaining steps are equal to an undisturbed run up to rounding, "
                            "not bit by bit: ",
                            differences));
  }
}
}  // namespace

ResumePoint FindBegin(Session& session) {
  const std::string text = session.ranks.TextOfFirst([&]() -> Result<std::string> {
    MFT_ASSIGN_OR_RETURN(
        const ResumePoint point,
        FindResumePoint(session.spec(), session.state, session.context.attempt_id));
    return DumpJson(ResumePointToJson(point));
  });
  ResumePoint point = ValueOrThrow(ResumePointFromJson(ValueOrThrow(ParseJson(text))));
  session.context.job.spec.num_microbatches = point.num_microbatches;
  return point;
}

void InitAdapter(int64_t seed, bool bf16, LoraStore& lora) {
  for (const LoraStore::Tensor& tensor : lora.tensors()) {
    if (tensor.name.ends_with(".lora_A.weight")) {
      InitLoraA(seed,
                tensor.name,
                tensor.cols,
                bf16,
                lora.master().subspan(static_cast<size_t>(tensor.offset),
                                      static_cast<size_t>(tensor.rows * tensor.cols)));
    }
  }
}

void RestoreState(Session& session, const ResumePoint& point, Reporter& reporter) {
  for (const std::string& note : point.notes) {
    reporter.Message(LogLevel::kWarning, note);
  }
  session.state = point.state;
  if (!point.checkpoint_dir.empty()) {
    Resume(session, point, reporter);
  } else if (session.full != nullptr) {
    reporter.Message(LogLevel::kInfo, "lora.enable is false: every weight of the model is trained");
  } else if (session.spec().mftd.init_adapter.empty()) {
    InitAdapter(session.spec().seed, session.precision != "fp32", *session.lora);
  } else {
    session.ranks.OnFirst([&] { return ReadInitAdapter(session, reporter); });
    session.ranks.FromFirst(session.lora->master());
  }
  ThrowIfError(reporter.Resumed(session.state.step));
}

}  // namespace mft
