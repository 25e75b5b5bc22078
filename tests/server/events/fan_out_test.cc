// SPDX-License-Identifier: Apache-2.0
#include "server/events/fan_out.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mft::server {
namespace {

using ::testing::ElementsAre;

std::vector<EventPtr> Events(int64_t first, int64_t last, size_t padding = 0) {
  std::vector<EventPtr> events;
  for (int64_t sequence = first; sequence <= last; ++sequence) {
    auto event = std::make_shared<v1::JobEvent>();
    event->set_sequence(sequence);
    event->mutable_message()->set_text(std::string(padding, 'x'));
    events.push_back(event);
  }
  return events;
}

std::vector<int64_t> Sequences(const std::optional<std::vector<EventPtr>>& events) {
  std::vector<int64_t> sequences;
  for (const EventPtr& event : events.value()) {
    sequences.push_back(event->sequence());
  }
  return sequences;
}

TEST(FanOut, ReadsOnFromWhatWasDelivered) {
  FanOut fan_out;
  fan_out.Publish("j", Events(5, 9), false);
  EXPECT_THAT(Sequences(fan_out.Read("j", 6, 2)), ElementsAre(7, 8));
  EXPECT_THAT(Sequences(fan_out.Read("j", 4, 100)), ElementsAre(5, 6, 7, 8, 9));
  EXPECT_THAT(Sequences(fan_out.Read("j", 9, 100)), ElementsAre());
}

TEST(FanOut, SendsReadersOfOlderHistoryToTheDatabase) {
  FanOut fan_out;
  EXPECT_EQ(fan_out.Read("j", 0, 10), std::nullopt);
  fan_out.Publish("j", Events(5, 9), false);
  EXPECT_EQ(fan_out.Read("j", 3, 10), std::nullopt);
}

TEST(FanOut, KeepsABoundedTailOfEachJobWithoutGaps) {
  FanOut fan_out(1000, 10'000);
  for (int64_t i = 1; i <= 100; ++i) {
    fan_out.Publish("j", Events(i, i, 90), false);
  }
  EXPECT_EQ(fan_out.Read("j", 50, 10), std::nullopt);
  EXPECT_THAT(Sequences(fan_out.Read("j", 95, 10)), ElementsAre(96, 97, 98, 99, 100));
}

TEST(FanOut, DropsTheTailThatWasQuietLongestWhenAllTogetherAreTooMuch) {
  FanOut fan_out(1000, 2500);
  fan_out.Publish("a", Events(1, 9, 90), false);
  fan_out.Publish("b", Events(1, 9, 90), false);
  fan_out.Publish("c", Events(1, 9, 90), false);
  EXPECT_EQ(fan_out.Read("a", 0, 10), std::nullopt);
  EXPECT_EQ(Sequences(fan_out.Read("b", 0, 10)).size(), 9u);
  EXPECT_EQ(Sequences(fan_out.Read("c", 0, 10)).size(), 9u);
  EXPECT_THAT(Sequences(fan_out.Read("a", 9, 10)), ElementsAre());
}

TEST(FanOut, WakesTheJobsSubscribersUntilTheyLeave) {
  FanOut fan_out;
  std::vector<std::pair<int64_t, bool>> wakes;
  {
    const FanOut::Subscription subscription =
        fan_out.Subscribe("j", [&](int64_t last, bool final) { wakes.emplace_back(last, final); });
    EXPECT_EQ(fan_out.num_subscriptions(), 1);
    fan_out.Publish("other", Events(1, 1), false);
    fan_out.Publish("j", Events(1, 3), false);
    fan_out.Publish("j", Events(4, 4), true);
  }
  fan_out.Publish("j", Events(5, 5), false);
  EXPECT_THAT(wakes, ElementsAre(std::pair(int64_t{3}, false), std::pair(int64_t{4}, true)));
  EXPECT_EQ(fan_out.num_subscriptions(), 0);
}

TEST(FanOut, ListenersSeeEveryEventOfEveryJob) {
  FanOut fan_out;
  int seen = 0;
  fan_out.AddListener([&seen](const EventPtr&) { ++seen; });
  fan_out.Publish("a", Events(1, 3), false);
  fan_out.Publish("b", Events(1, 2), false);
  EXPECT_EQ(seen, 5);
}

TEST(FanOut, AReaderInAnotherThreadMissesNothing) {
  FanOut fan_out;
  constexpr int64_t kLast = 2000;
  std::atomic<int64_t> published{0};
  const FanOut::Subscription subscription = fan_out.Subscribe("j", [&](int64_t last, bool) {
    published = last;
    published.notify_one();
  });
  std::thread publisher([&fan_out] {
    for (int64_t i = 1; i <= kLast; ++i) {
      fan_out.Publish("j", Events(i, i), i == kLast);
    }
  });
  int64_t delivered = 0;
  while (delivered < kLast) {
    const auto events = fan_out.Read("j", delivered, 64);
    if (!events || events->empty()) {
      published.wait(delivered);
      continue;
    }
    for (const EventPtr& event : *events) {
      ASSERT_EQ(event->sequence(), ++delivered);
    }
  }
  publisher.join();
}

}  // namespace
}  // namespace mft::server
