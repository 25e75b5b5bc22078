// SPDX-License-Identifier: Apache-2.0
#include "client/watch_follower.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/client/fake_daemon.h"

namespace mft::client {
namespace {

using mft::testing::DaemonError;
using mft::testing::FakeDaemon;
using mft::testing::Script;
using mft::testing::StateEvent;
using mft::testing::StepEvent;
using std::chrono::milliseconds;
using ::testing::ElementsAre;

constexpr const char* kJob = "jaaaaaaaaaaa";

class Follower : public ::testing::Test {
 protected:
  // `steps` step events and the terminal one.
  void Fill(int64_t steps) {
    daemon_.Edit([steps](Script& script) {
      for (int64_t step = 1; step <= steps; ++step) {
        script.events.push_back(StepEvent(step));
      }
      script.events.push_back(StateEvent(v1::SUCCEEDED));
    });
  }
  Result<FollowEnd> Run(FollowOptions options = {}) {
    options.retry = milliseconds(5);
    Connection connection(daemon_.endpoint());
    WatchFollower follower(connection, kJob, options);
    return follower.Run([this](const v1::JobEvent& event) { seen_.push_back(event.sequence()); },
                        why_);
  }

  FakeDaemon daemon_;
  std::vector<int64_t> seen_;
  std::string why_;
};

TEST_F(Follower, EndsWithTheTerminalEvent) {
  Fill(3);
  EXPECT_EQ(Run().value(), FollowEnd::kTerminal);
  EXPECT_THAT(seen_, ElementsAre(1, 2, 3, 4));
}

TEST_F(Follower, BrokenStreamsLoseAndRepeatNothing) {
  Fill(9);
  daemon_.Edit([](Script& script) {
    script.break_after = [](int n) { return n < 8 ? n % 3 : -1; };
    script.repeat_last = true;
    script.bookmarks = true;
  });
  EXPECT_EQ(Run().value(), FollowEnd::kTerminal);
  EXPECT_THAT(seen_, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_GE(daemon_.num_streams(), 8);
  EXPECT_EQ(daemon_.watch_requests().back().epoch(), 7);
}

TEST_F(Follower, GoesOnWithARestartedDaemon) {
  daemon_.Edit([](Script& script) { script.events = {StepEvent(1), StepEvent(2)}; });
  std::thread restart([this] {
    while (daemon_.num_streams() == 0) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    daemon_.Kill();
    daemon_.Edit([](Script& script) {
      script.events.push_back(StepEvent(3));
      script.events.push_back(StateEvent(v1::FAILED, "WORKER_FAILED"));
    });
    daemon_.Start();
  });
  EXPECT_EQ(Run().value(), FollowEnd::kTerminal);
  restart.join();
  EXPECT_THAT(seen_, ElementsAre(1, 2, 3, 4));
}

TEST_F(Follower, StopsWhereItIsAskedTo) {
  Fill(9);
  EXPECT_EQ(Run({.after_sequence = 2, .until_sequence = 5}).value(), FollowEnd::kUntil);
  EXPECT_THAT(seen_, ElementsAre(3, 4, 5));
}

TEST_F(Follower, AnEndBeforeTheTerminalEventIsALostStream) {
  daemon_.Edit([](Script& script) {
    script.events = {StepEvent(1)};
    script.end_early = true;
  });
  EXPECT_EQ(Run().value(), FollowEnd::kLost);
  EXPECT_THAT(seen_, ElementsAre(1));
  EXPECT_FALSE(why_.empty());
}

TEST_F(Follower, GivesUpOnADaemonThatStaysAway) {
  daemon_.Kill();
  EXPECT_EQ(Run({.give_up = milliseconds(50)}).value(), FollowEnd::kLost);
  EXPECT_NE(why_.find(daemon_.endpoint()), std::string::npos) << why_;
}

TEST_F(Follower, WhatTheDaemonRefusesIsNotTriedAgain) {
  daemon_.Edit([](Script& script) {
    script.watch_error =
        DaemonError(grpc::StatusCode::OUT_OF_RANGE, "EVENTS_REBUILT", "the history was rebuilt");
  });
  const auto end = Run();
  ASSERT_FALSE(end.ok());
  EXPECT_EQ(end.status().code(), Code::kOutOfRange);
  EXPECT_EQ(end.status().reason(), "EVENTS_REBUILT");
  EXPECT_EQ(daemon_.num_streams(), 1);
}

TEST_F(Follower, AnEventThatIsMissingIsAskedForAgain) {
  Fill(6);
  daemon_.Edit([](Script& script) {
    script.leave_out = [](int n, int64_t sequence) { return n == 1 && sequence == 3; };
  });
  EXPECT_EQ(Run().value(), FollowEnd::kTerminal);
  EXPECT_THAT(seen_, ElementsAre(1, 2, 3, 4, 5, 6, 7));
}

TEST_F(Follower, AnEventThatStaysMissingIsALostStream) {
  Fill(6);
  daemon_.Edit([](Script& script) {
    script.leave_out = [](int, int64_t sequence) { return sequence == 3; };
  });
  EXPECT_EQ(Run().value(), FollowEnd::kLost);
  EXPECT_THAT(seen_, ElementsAre(1, 2));
  EXPECT_NE(why_.find("event 3"), std::string::npos) << why_;
}

TEST_F(Follower, AnOverloadedDaemonIsAskedAgain) {
  Fill(2);
  daemon_.Edit([](Script& script) {
    script.watch_error =
        DaemonError(grpc::StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", "too many streams");
    script.watch_errors = 3;
  });
  EXPECT_EQ(Run().value(), FollowEnd::kTerminal);
  EXPECT_THAT(seen_, ElementsAre(1, 2, 3));
}

TEST_F(Follower, AnUnknownJobIsNotFound) {
  daemon_.Edit([](Script& script) { script.job.set_id("jbbbbbbbbbbb"); });
  EXPECT_EQ(Run().status().code(), Code::kNotFound);
}

}  // namespace
}  // namespace mft::client
