// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include <array>
#include <chrono>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "tests/worker/comm/comm_testing.h"
#include "worker/comm/communicator.h"
#include "worker/comm/rendezvous.h"
#include "worker/comm/tcp_socket.h"

namespace mft {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Meeting;

constexpr const char* kHost = "127.0.0.1";

int FreePort() {
  return PortOf(ListenForRanks(kHost, 0).value().get()).value();
}

RankOptions Options(int64_t rank, int64_t world_size, int port) {
  return {.rank = rank,
          .world_size = world_size,
          .address = kHost,
          .port = port,
          .token = "a job",
          .meet_ms = 20'000,
          .leave_ms = 0};
}

TEST(RanksMeeting, ARankThatDoesNotComeIsNamed) {
  RankOptions options = Options(0, 4, FreePort());
  options.meet_ms = 300;
  std::thread second([port = options.port] {
    RankOptions mine = Options(2, 4, port);
    mine.meet_ms = 300;
    const auto comm = MakeCommunicator(mine);
    // It has met rank 0, which then gives up on the others.
    if (comm.ok()) {
      EXPECT_EQ((*comm)->Barrier().reason(), kReasonRankLost);
    }
  });
  const Status status = MakeCommunicator(options).status();
  second.join();
  EXPECT_EQ(status.code(), Code::kDeadlineExceeded);
  EXPECT_EQ(status.reason(), "RANKS_DID_NOT_MEET");
  EXPECT_THAT(status.message(), AllOf(HasSubstr("rank 1, 3 of 4"), HasSubstr("127.0.0.1")));
  RankOptions alone = Options(1, 2, options.port);
  alone.meet_ms = 200;
  const Status nobody = MakeCommunicator(alone).status();
  EXPECT_EQ(nobody.reason(), "RANKS_DID_NOT_MEET");
  EXPECT_THAT(nobody.message(), HasSubstr("rank 1 did not meet rank 0"));
}

TEST(RanksMeeting, WaitingEndsWhenItIsAskedTo) {
  for (const int64_t rank : {0, 1}) {
    RankOptions options = Options(rank, 2, FreePort());
    options.stop = [] { return true; };
    EXPECT_EQ(MakeCommunicator(options).status().code(), Code::kCancelled);
  }
}

TEST(RanksMeeting, StrangersAreSentAwayAndTheRanksMeet) {
  const int port = FreePort();
  std::thread strangers([port] {
    RankOptions other_job = Options(1, 2, port);
    other_job.token = "another job";
    EXPECT_THAT(MakeCommunicator(other_job).status().message(), HasSubstr("another job"));
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    const UniqueFd rude = ConnectToRank("127.0.0.1", port, deadline, {}).value();
    std::array<std::byte, 1000> noise{};
    EXPECT_TRUE(SendAll(rude.get(), noise).ok());
    const auto comm = MakeCommunicator(Options(1, 2, port));
    ASSERT_TRUE(comm.ok()) << comm.status().ToString();
    EXPECT_TRUE((*comm)->Barrier().ok());
  });
  const auto comm = MakeCommunicator(Options(0, 2, port));
  ASSERT_TRUE(comm.ok()) << comm.status().ToString();
  EXPECT_TRUE((*comm)->Barrier().ok());
  strangers.join();
}

TEST(RanksMeeting, AnotherNumberOfRanksIsAnErrorOnBothSides) {
  const int port = FreePort();
  std::thread other([port] {
    EXPECT_THAT(MakeCommunicator(Options(1, 3, port)).status().message(),
                HasSubstr("one of 3 ranks, rank 0 as one of 2"));
  });
  const Status status = MakeCommunicator(Options(0, 2, port)).status();
  other.join();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("rank 1 was started as one of 3 ranks"));
  EXPECT_EQ(MakeCommunicator(Options(0, 2, 0)).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(MakeCommunicator(Options(2, 2, 1)).status().code(), Code::kInvalidArgument);
}

void ExpectBarrier(const RankOptions& options) {
  const auto comm = MakeCommunicator(options);
  ASSERT_TRUE(comm.ok()) << comm.status().ToString();
  EXPECT_TRUE((*comm)->Barrier().ok());
}

TEST(RanksMeeting, WhatAnEarlierAttemptLeftInTheFileIsNotFollowed) {
  const Meeting meeting;
  const std::string file = meeting.Options(0, 2).rendezvous_file;
  // The earlier attempt's rank 0 even listens still.
  const UniqueFd other = ListenForRanks(kHost, 0).value();
  const Endpoint stale{.address = kHost, .port = PortOf(other.get()).value()};
  ASSERT_TRUE(PublishEndpoint(file, "an earlier attempt", stale).ok());
  std::thread second([&] { ExpectBarrier(meeting.Options(1, 2)); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  ExpectBarrier(meeting.Options(0, 2));
  second.join();
  EXPECT_FALSE(PathExists(file)) << "nobody listens there any more";
}

TEST(RanksMeeting, AnAddressThatNobodyListensAtIsReadAgain) {
  const Meeting meeting;
  const std::string file = meeting.Options(0, 2).rendezvous_file;
  ASSERT_TRUE(PublishEndpoint(file, "a job", {.address = kHost, .port = FreePort()}).ok());
  std::thread second([&] { ExpectBarrier(meeting.Options(1, 2)); });
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  ExpectBarrier(meeting.Options(0, 2));
  second.join();
}

TEST(RanksMeeting, WithoutAFileIsOverWhenItIsTime) {
  const Meeting meeting;
  RankOptions options = meeting.Options(1, 2);
  options.meet_ms = 100;
  const Status status = MakeCommunicator(options).status();
  EXPECT_EQ(status.reason(), "RANKS_DID_NOT_MEET");
  EXPECT_THAT(status.message(), HasSubstr(options.rendezvous_file));
  options.stop = [] { return true; };
  EXPECT_EQ(MakeCommunicator(options).status().code(), Code::kCancelled);
}

TEST(Rendezvous, FileIsTheOwnersAndOfOneJob) {
  const testing::TempDir dir;
  const std::string file = dir.File("rendezvous.json");
  EXPECT_EQ(ReadEndpoint(file, "a job").status().code(), Code::kNotFound);
  ASSERT_TRUE(PublishEndpoint(file, "a job", {.address = "node-1", .port = 4711}).ok());
  const Endpoint endpoint = ReadEndpoint(file, "a job").value();
  EXPECT_EQ(endpoint.address, "node-1");
  EXPECT_EQ(endpoint.port, 4711);
  EXPECT_EQ(ReadEndpoint(file, "another job").status().code(), Code::kNotFound);
  struct stat info {};
  ASSERT_EQ(stat(file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600);
  for (const char* text : {"", "{", "[1]", "null", "{\"token\": 7}"}) {
    ASSERT_TRUE(WriteFileAtomic(file, text).ok());
    EXPECT_EQ(ReadEndpoint(file, "a job").status().code(), Code::kNotFound) << text;
  }
}

}  // namespace
}  // namespace mft
