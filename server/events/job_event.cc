// SPDX-License-Identifier: Apache-2.0
#include "server/events/job_event.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/time_util.h>

#include "common/base/strings.h"

namespace mft::server {

namespace {

using google::protobuf::util::TimeUtil;

void Fill(const PhaseRecord& from, v1::Phase& to) {
  to.set_phase(from.phase);
  to.set_detail(from.detail);
}

void Fill(const StepRecord& from, v1::Step& to) {
  to.set_step(from.step);
  to.set_max_steps(from.max_steps);
  to.set_loss(from.loss);
  to.set_perplexity(from.perplexity);
  to.set_learning_rate(from.learning_rate);
  to.set_beta1(from.beta1);
  to.set_grad_norm(from.grad_norm);
  to.set_loss_tokens(from.loss_tokens);
  to.set_tokens(from.tokens);
  to.set_step_seconds(from.step_seconds);
  to.set_tokens_per_second(from.tokens_per_second);
  to.set_mean_tokens_per_second(from.mean_tokens_per_second);
  to.set_eta_seconds(from.eta_seconds);
  to.set_peak_memory_bytes(from.peak_memory_bytes);
  to.set_memory_bytes(from.memory_bytes);
  to.set_nonfinite(from.nonfinite);
  to.set_skipped(from.skipped);
  to.mutable_expert_share()->Assign(from.expert_share.begin(), from.expert_share.end());
  if (from.expert_imbalance) {
    to.set_expert_imbalance(*from.expert_imbalance);
  }
}

void Fill(const EvalRecord& from, v1::Eval& to) {
  to.set_step(from.step);
  to.set_eval_loss(from.eval_loss);
  to.set_perplexity(from.perplexity);
  to.set_train_loss(from.train_loss);
  to.set_loss_tokens(from.loss_tokens);
  to.set_seconds(from.seconds);
}

void Fill(const CheckpointRecord& from, v1::CheckpointWritten& to) {
  to.set_step(from.step);
  to.set_path(from.path);
  to.set_size_bytes(from.size_bytes);
  to.set_seconds(from.seconds);
  for (const std::string& removed : from.removed) {
    to.add_removed(removed);
  }
}

void Fill(const DataPreparedRecord& from, v1::DataPrepared& to) {
  to.set_samples(from.samples);
  to.set_tokens(from.tokens);
  to.set_loss_tokens(from.loss_tokens);
  to.set_eval_samples(from.eval_samples);
  to.set_problems(from.problems);
  to.set_steps_per_epoch(from.steps_per_epoch);
  to.set_epochs(from.epochs);
}

// One overload a record type, so that a new record does not compile until it is decided what
// readers see of it. False: nothing.
struct Visitor {
  v1::JobEvent& event;
  int rank;

  bool operator()(const HeaderRecord&) const { return false; }
  bool operator()(const ResumeRecord&) const { return false; }
  bool operator()(const FinalRecord&) const { return false; }
  bool operator()(const ResultRecord&) const { return false; }
  bool operator()(const PhaseRecord& record) const {
    // The ranks move together: rank 0 speaks for all.
    return rank <= 0 && (Fill(record, *event.mutable_phase()), true);
  }
  bool operator()(const StepRecord& record) const {
    return Fill(record, *event.mutable_step()), true;
  }
  bool operator()(const EvalRecord& record) const {
    return Fill(record, *event.mutable_eval()), true;
  }
  bool operator()(const CheckpointRecord& record) const {
    return Fill(record, *event.mutable_checkpoint()), true;
  }
  bool operator()(const DataPreparedRecord& record) const {
    return Fill(record, *event.mutable_data_prepared()), true;
  }
  bool operator()(const MessageRecord& record) const {
    event.mutable_message()->set_level(record.level);
    event.mutable_message()->set_text(record.text);
    event.mutable_message()->set_rank(rank);
    return true;
  }
};

}  // namespace

std::optional<v1::JobEvent> EventOfRecord(const Record& record, int rank) {
  v1::JobEvent event;
  if (!std::visit(Visitor{.event = event, .rank = rank}, record.body)) {
    return std::nullopt;
  }
  return event;
}

std::string_view EventType(const v1::JobEvent& event) {
  if (event.event_case() == v1::JobEvent::EVENT_NOT_SET) {
    return "";
  }
  return v1::JobEvent::descriptor()->FindFieldByNumber(event.event_case())->name();
}

StoredEvent ToStoredEvent(const v1::JobEvent& event) {
  v1::JobEvent body = event;
  body.clear_sequence();
  body.clear_job_id();
  body.clear_time();
  body.clear_attempt();
  body.clear_epoch();
  return StoredEvent{.job_id = event.job_id(),
                     .sequence = event.sequence(),
                     .attempt = event.attempt(),
                     .at_micros = TimeUtil::TimestampToMicroseconds(event.time()),
                     .type = std::string(EventType(event)),
                     .body = body.SerializeAsString()};
}

Result<v1::JobEvent> ToJobEvent(const StoredEvent& stored, int64_t epoch) {
  v1::JobEvent event;
  if (!event.ParseFromString(stored.body)) {
    return DataLoss(StrCat(
        "event ", stored.sequence, " of job ", stored.job_id, " is damaged in the database"));
  }
  event.set_job_id(stored.job_id);
  event.set_sequence(stored.sequence);
  event.set_attempt(stored.attempt);
  event.set_epoch(epoch);
  *event.mutable_time() = TimeUtil::MicrosecondsToTimestamp(stored.at_micros);
  return event;
}

}  // namespace mft::server
