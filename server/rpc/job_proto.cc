// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/job_proto.h"

#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/time_util.h>

#include "common/base/strings.h"

namespace mft::server {

namespace util = google::protobuf::util;

JobSpecResult SpecFromProto(const v1::JobSpec& proto) {
  std::string text;
  util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  const auto printed = util::MessageToJsonString(proto, &text, options);
  auto json = printed.ok() ? ParseJson(text) : Result<Json>(Internal(printed.ToString()));
  if (!json.ok()) {
    JobSpecResult result;
    result.violations.push_back({"spec", 0, json.status().message()});
    return result;
  }
  return ParseJobJson(*json);
}

v1::JobSpec SpecToProto(const JobSpec& spec) {
  v1::JobSpec proto;
  const auto parsed = util::JsonStringToMessage(DumpJson(JobSpecToJson(spec)), &proto);
  MFT_CHECK(parsed.ok(), parsed.ToString());  // the parity test holds the two lists together
  return proto;
}

v1::Job JobToProto(const JobView& view) {
  const Job& job = view.job;
  v1::Job proto;
  proto.set_id(job.id);
  proto.set_state(static_cast<v1::JobState>(job.state));
  proto.set_reason(job.reason);
  proto.set_message(job.message.empty() ? view.waiting : job.message);
  if (job.file != nullptr) {
    proto.set_name(job.file->spec.mftd.name);
    proto.set_owner(job.file->owner);
    *proto.mutable_spec() = SpecToProto(job.file->spec);
  }
  *proto.mutable_create_time() = util::TimeUtil::MicrosecondsToTimestamp(job.created_micros);
  if (job.started_micros > 0) {
    *proto.mutable_start_time() = util::TimeUtil::MicrosecondsToTimestamp(job.started_micros);
  }
  if (job.ended_micros > 0) {
    *proto.mutable_end_time() = util::TimeUtil::MicrosecondsToTimestamp(job.ended_micros);
  }
  proto.set_attempt(job.attempt);
  v1::JobProgress& progress = *proto.mutable_progress();
  progress.set_step(job.progress.step);
  progress.set_max_steps(job.progress.max_steps);
  if (job.progress.train_loss) {
    progress.set_train_loss(*job.progress.train_loss);
  }
  if (job.progress.eval_loss) {
    progress.set_eval_loss(*job.progress.eval_loss);
  }
  progress.set_tokens_per_second(job.progress.tokens_per_second);
  *progress.mutable_eta() =
      util::TimeUtil::MillisecondsToDuration(static_cast<int64_t>(job.progress.eta_seconds * 1000));
  progress.set_phase(job.progress.phase);
  progress.set_last_checkpoint_step(job.progress.last_checkpoint_step);
  *proto.mutable_estimate() = view.estimate;
  proto.set_last_sequence(job.last_sequence);
  proto.set_job_dir(view.job_dir);
  for (const Lease& lease : view.devices) {
    v1::DeviceLease& device = *proto.add_devices();
    device.set_id(lease.id);
    device.set_uuid(lease.uuid);
  }
  return proto;
}

v1::Estimate EstimateToProto(const JobEstimate& estimate) {
  v1::Estimate proto;
  proto.set_exact(estimate.exact);
  proto.set_samples(estimate.samples);
  proto.set_tokens(estimate.tokens);
  proto.set_loss_tokens(estimate.loss_tokens);
  proto.set_tokens_per_step(estimate.tokens_per_step);
  proto.set_steps_per_epoch(estimate.steps_per_epoch);
  proto.set_epochs(estimate.epochs);
  proto.set_weights_bytes(estimate.weights_bytes);
  proto.set_trainable_parameters(estimate.trainable_parameters);
  proto.set_memory_bytes(estimate.memory_bytes);
  proto.set_disk_bytes(estimate.disk_bytes);
  proto.set_seconds(estimate.seconds);
  for (const std::string& note : estimate.notes) {
    proto.add_notes(note);
  }
  return proto;
}

}  // namespace mft::server
