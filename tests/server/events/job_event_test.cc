// SPDX-License-Identifier: Apache-2.0
#include "server/events/job_event.h"

#include <set>

#include <google/protobuf/descriptor.h>
#include <gtest/gtest.h>

namespace mft::server {
namespace {

std::optional<v1::JobEvent> From(RecordBody body, int rank = 0) {
  return EventOfRecord(
      Record{.seq = 7, .at_micros = 1'700'000'000'000'000, .body = std::move(body)}, rank);
}

TEST(EventOfRecord, CopiesEveryFieldOfAStep) {
  StepRecord step;
  step.step = 3;
  step.max_steps = 10;
  step.loss = 1.5;
  step.perplexity = 4.48;
  step.learning_rate = 1e-4;
  step.beta1 = 0.9;
  step.grad_norm = 0.5;
  step.loss_tokens = 100;
  step.tokens = 200;
  step.step_seconds = 0.25;
  step.tokens_per_second = 800;
  step.mean_tokens_per_second = 790;
  step.eta_seconds = 12;
  step.peak_memory_bytes = 1 << 20;
  step.memory_bytes = 1 << 19;
  step.nonfinite = true;
  step.skipped = true;
  step.expert_share = {0.25, 0.75};
  step.expert_imbalance = 1.5;
  const auto event = From(step);
  ASSERT_TRUE(event);
  EXPECT_EQ(EventType(*event), "step");
  // No field of the message was forgotten: each has a value that is not its default.
  const auto* reflection = event->step().GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> set;
  reflection->ListFields(event->step(), &set);
  EXPECT_EQ(static_cast<int>(set.size()), v1::Step::descriptor()->field_count());
  EXPECT_EQ(event->step().learning_rate(), 1e-4);
  EXPECT_EQ(event->step().loss_tokens(), 100);
  EXPECT_EQ(event->step().expert_share(1), 0.75);
  EXPECT_FALSE(From(StepRecord{.step = 1})->step().has_expert_imbalance());
}

TEST(EventOfRecord, CopiesTheOtherRecordsThatReadersSee) {
  const auto eval = From(EvalRecord{.step = 2,
                                    .eval_loss = 1,
                                    .perplexity = 2.7,
                                    .train_loss = 1.1,
                                    .loss_tokens = 9,
                                    .seconds = 3});
  EXPECT_EQ(eval->eval().train_loss(), 1.1);
  const auto checkpoint = From(CheckpointRecord{
      .step = 4, .path = "checkpoints/c", .size_bytes = 5, .seconds = 1, .removed = {"old"}});
  EXPECT_EQ(checkpoint->checkpoint().removed(0), "old");
  const auto message = From(MessageRecord{.level = "warning", .text = "slow"}, 3);
  EXPECT_EQ(message->message().rank(), 3);
  EXPECT_EQ(message->message().level(), "warning");
  DataPreparedRecord data;
  data.samples = 4;
  data.epochs = 1.5;
  EXPECT_EQ(From(data)->data_prepared().epochs(), 1.5);
}

TEST(EventOfRecord, TellsPhasesOfRankZeroOnly) {
  EXPECT_TRUE(From(PhaseRecord{.phase = std::string(kPhaseLoading), .detail = ""}, 0));
  EXPECT_TRUE(From(PhaseRecord{.phase = std::string(kPhaseStarting), .detail = ""}, kRunnerRank));
  EXPECT_FALSE(From(PhaseRecord{.phase = std::string(kPhaseLoading), .detail = ""}, 1));
}

TEST(EventOfRecord, KeepsTheDaemonsOwnRecordsFromReaders) {
  EXPECT_FALSE(From(HeaderRecord{}));
  EXPECT_FALSE(From(ResumeRecord{}));
  EXPECT_FALSE(From(FinalRecord{}));
  EXPECT_FALSE(From(ResultRecord{}));
}

TEST(StoredEvent, GivesTheSameEventBack) {
  v1::JobEvent event;
  event.set_sequence(12);
  event.set_job_id("jabc");
  event.set_attempt(2);
  event.set_epoch(99);
  event.mutable_time()->set_seconds(1'700'000'000);
  event.mutable_time()->set_nanos(123'456'000);
  event.mutable_state_changed()->set_to(v1::RUNNING);
  event.mutable_state_changed()->set_reason("TRAINING");
  const StoredEvent stored = ToStoredEvent(event);
  EXPECT_EQ(stored.type, "state_changed");
  EXPECT_EQ(stored.at_micros, 1'700'000'000'123'456);
  const Result<v1::JobEvent> back = ToJobEvent(stored, 99);
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->SerializeAsString(), event.SerializeAsString());
}

TEST(StoredEvent, ADamagedBodyIsDataLossThatNamesTheEvent) {
  const StoredEvent stored{.job_id = "j1", .sequence = 5, .type = "step", .body = "\xff\xff\xff"};
  const Status status = ToJobEvent(stored, 1).status();
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_EQ(status.message(), "event 5 of job j1 is damaged in the database");
}

}  // namespace
}  // namespace mft::server
