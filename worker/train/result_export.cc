// SPDX-License-Identifier: Apache-2.0
#include "worker/train/result_export.h"

#include <filesystem>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/checkpoint/checkpoint_dir.h"
#include "common/checkpoint/publish_dir.h"
#include "worker/export/export_model.h"
#include "worker/model/status_error.h"
#include "worker/train/checkpointer.h"

namespace mft {

namespace {
// The lock of run_dir keeps everybody else away: what is temporary was left by a killed attempt.
Status RemoveTemporaries(const std::string& directory) {
  if (!PathExists(directory)) {
    return Status::Ok();
  }
  MFT_ASSIGN_OR_RETURN(const auto names, ListDir(directory));
  for (const std::string& name : names) {
    if (name.starts_with(kTemporaryPrefix)) {
      MFT_RETURN_IF_ERROR(RemoveTree(JoinPath(directory, name)));
    }
  }
  return Status::Ok();
}

std::string ExportsDir(const std::string& run_dir, int64_t step) {
  const std::filesystem::path checkpoint(CheckpointDir(run_dir, step));
  return JoinPath(run_dir, JoinPath("exports", checkpoint.filename().string()));
}
}  // namespace

void ExportResult(Session& session, Reporter& reporter, bool trained) {
  const JobSpec& spec = session.spec();
  session.trained().Download();
  // A full fine-tuning's last checkpoint is the model to export, and there is no adapter.
  const std::string model_dir =
      session.full == nullptr
          ? spec.model_id_or_path
          : JoinPath(CheckpointDir(spec.run_dir, session.result_step()), "consolidated");
  const ExportSource source{.adapters = *session.lora,
                            .model = session.weights->params(),
                            .model_dir = model_dir,
                            .base_name = spec.model_id_or_path,
                            .dropout = spec.lora.dropout,
                            .adapter_dtype = session.trained_dtype(),
                            .tokenizer_file = session.tokenizer_file};
  const std::string parent = ExportsDir(spec.run_dir, session.result_step());
  ThrowIfError(RemoveTemporaries(parent));
  bool loaded = session.result_step() == session.state.step;
  for (const std::string& format : spec.mftd.export_formats) {
    const std::string target = JoinPath(parent, format);
    if (format == "mistral" || (!trained && PathExists(target))) {
      continue;
    }
    if (!loaded && session.full == nullptr) {  // the run is over: its weights are in a checkpoint
      ThrowIfError(ReadOptimizerState(CheckpointDir(spec.run_dir, session.result_step()),
                                      session.trained()));
    }
    loaded = true;
    ThrowIfError(reporter.Phase(kPhaseSaving, target));
    ThrowIfError(reporter.Persist([&] {
      return PublishDirectory(target, IfThere::kReplace, [&](const std::string& directory) {
        return WriteExport(format, source, directory);
      });
    }));
    reporter.Message(LogLevel::kInfo, StrCat("exported ", target));
  }
}

}  // namespace mft
