// SPDX-License-Identifier: Apache-2.0
#include "server/metrics/metrics.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/fake_clock.h"

namespace mft::server {
namespace {

using mft::testing::FakeClock;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMinute = 60'000'000;

class MetricsText : public ::testing::Test {
 protected:
  MetricsText()
      : metrics_({.address = "127.0.0.1:0",
                  .state_dir = "/",
                  .snapshot = [this] { return std::make_shared<const Snapshot>(snapshot_); },
                  .num_streams = [] { return 3; },
                  .clock = &clock_}) {}

  void Put(const Job& job) {
    auto view = std::make_shared<JobView>();
    view->job = job;
    snapshot_.jobs[job.id] = view;
  }
  static Job RunningJob() {
    Job job;
    job.id = "jaaaaaaaaaaa";
    job.state = JobState::kRunning;
    job.started_micros = 1;
    job.progress.step = 2;
    job.progress.max_steps = 10;
    job.progress.train_loss = 0.5;
    return job;
  }
  static v1::JobEvent Step(double seconds, bool nonfinite) {
    v1::JobEvent event;
    event.set_job_id("jaaaaaaaaaaa");
    event.set_attempt(1);
    event.mutable_step()->set_tokens(100);
    event.mutable_step()->set_step_seconds(seconds);
    event.mutable_step()->set_learning_rate(0.25);
    event.mutable_step()->set_grad_norm(nonfinite ? std::nan("") : 1.5);
    event.mutable_step()->set_nonfinite(nonfinite);
    return event;
  }

  FakeClock clock_;
  Snapshot snapshot_;
  Metrics metrics_;
};

TEST_F(MetricsText, EveryStateIsCountedAlsoWithoutJobs) {
  EXPECT_THAT(metrics_.Render(), HasSubstr("mftd_jobs{state=\"FAILED\"} 0\n"));
  Put(RunningJob());
  const std::string text = metrics_.Render();
  EXPECT_THAT(text, HasSubstr("mftd_jobs{state=\"RUNNING\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("# TYPE mftd_jobs gauge\n"));
  EXPECT_THAT(text, HasSubstr("mftd_event_streams 3\n"));
}

TEST_F(MetricsText, AJobTellsLossStepAndTokens) {
  Put(RunningJob());
  metrics_.OnEvent(Step(0.2, false));
  metrics_.OnEvent(Step(1000, false));
  const std::string text = metrics_.Render();
  EXPECT_THAT(text, HasSubstr("mftd_job_loss{mft_job=\"jaaaaaaaaaaa\",split=\"train\"} 0.5\n"));
  EXPECT_THAT(text, HasSubstr("mftd_job_step{mft_job=\"jaaaaaaaaaaa\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("mftd_job_tokens_total{mft_job=\"jaaaaaaaaaaa\"} 200\n"));
  EXPECT_THAT(text, HasSubstr("mftd_job_learning_rate{mft_job=\"jaaaaaaaaaaa\"} 0.25\n"));
  // Cumulative buckets: one step below 0.25 s, both below +Inf.
  EXPECT_THAT(text, HasSubstr("_bucket{mft_job=\"jaaaaaaaaaaa\",le=\"0.1\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{mft_job=\"jaaaaaaaaaaa\",le=\"0.25\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{mft_job=\"jaaaaaaaaaaa\",le=\"120\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("_bucket{mft_job=\"jaaaaaaaaaaa\",le=\"+Inf\"} 2\n"));
  EXPECT_THAT(text, Not(HasSubstr("split=\"eval\"")));  // there was no evaluation
}

TEST_F(MetricsText, OnlyAMixtureOfExpertsTellsItsImbalance) {
  Put(RunningJob());
  metrics_.OnEvent(Step(0.2, false));
  EXPECT_THAT(metrics_.Render(), Not(HasSubstr("mftd_job_expert_imbalance{")));
  v1::JobEvent step = Step(0.2, false);
  step.mutable_step()->set_expert_imbalance(1.75);
  metrics_.OnEvent(step);
  EXPECT_THAT(metrics_.Render(),
              HasSubstr("mftd_job_expert_imbalance{mft_job=\"jaaaaaaaaaaa\"} 1.75\n"));
}

TEST_F(MetricsText, WhatIsNotFiniteIsCountedAndNotExported) {
  Job job = RunningJob();
  job.progress.train_loss = std::numeric_limits<double>::infinity();
  Put(job);
  metrics_.OnEvent(Step(0.2, true));
  const std::string text = metrics_.Render();
  EXPECT_THAT(text, HasSubstr("mftd_job_nonfinite_total{mft_job=\"jaaaaaaaaaaa\"} 1\n"));
  EXPECT_THAT(text, Not(HasSubstr("mftd_job_loss{")));
  EXPECT_THAT(text, Not(HasSubstr("mftd_job_grad_norm{")));
  EXPECT_THAT(text, Not(HasSubstr("Nan")));
}

TEST_F(MetricsText, AJobsSeriesGoAwayFifteenMinutesAfterItsEnd) {
  Job job = RunningJob();
  job.state = JobState::kFailed;
  job.ended_micros = clock_.WallMicros();
  Put(job);
  v1::JobEvent end;
  end.set_job_id(job.id);
  end.mutable_state_changed()->set_to(v1::FAILED);
  end.mutable_state_changed()->set_reason("WORKER_FAILED");
  metrics_.OnEvent(end);
  clock_.Advance(14 * kMinute);
  EXPECT_THAT(metrics_.Render(), HasSubstr("mftd_job_step{"));
  clock_.Advance(2 * kMinute);
  const std::string text = metrics_.Render();
  EXPECT_THAT(text, Not(HasSubstr("mft_job=")));
  EXPECT_THAT(
      text, HasSubstr("mftd_jobs_finished_total{result=\"FAILED\",reason=\"WORKER_FAILED\"} 1\n"));
}

TEST_F(MetricsText, TheLongestWaitIsThatOfAJobThatHasNotRun) {
  Job job = RunningJob();
  job.state = JobState::kQueued;
  job.started_micros = 0;
  job.created_micros = clock_.WallMicros();
  Put(job);
  clock_.Advance(2 * kMinute);
  EXPECT_THAT(metrics_.Render(), HasSubstr("mftd_queue_longest_wait_seconds 120\n"));
}

TEST_F(MetricsText, PortZeroIsReportedAndATakenPortIsRefused) {
  ASSERT_TRUE(metrics_.Start().ok());
  EXPECT_THAT(metrics_.address(), ::testing::MatchesRegex("127\\.0\\.0\\.1:[1-9][0-9]*"));
  Metrics second({.address = metrics_.address(),
                  .state_dir = "/",
                  .snapshot = [this] { return std::make_shared<const Snapshot>(snapshot_); },
                  .num_streams = [] { return 0; }});
  const Status status = second.Start();
  EXPECT_EQ(status.code(), Code::kAlreadyExists);
  EXPECT_THAT(status.message(), HasSubstr(metrics_.address()));
}

}  // namespace
}  // namespace mft::server
