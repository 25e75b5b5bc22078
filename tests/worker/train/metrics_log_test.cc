// SPDX-License-Identifier: Apache-2.0
#include "worker/train/metrics_log.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/strings.h"
#include "tests/support/fixtures.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

using testing::ReadJsonLines;
using testing::TempDir;

// A reader of its own, after the published descriptions of TFRecord and the protobuf wire format.
struct Event {
  double wall_time = 0;
  int64_t step = 0;
  std::string file_version;
  bool session_start = false;
  std::map<std::string, float> scalars;
};

template <typename T>
T Raw(std::string_view bytes) {
  T value{};
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

struct Field {
  uint64_t number = 0;
  uint64_t varint = 0;
  std::string_view bytes;
};

std::vector<Field> Fields(std::string_view message) {
  std::vector<Field> fields;
  const auto varint = [&] {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
      const auto byte = static_cast<uint8_t>(message.at(0));
      message.remove_prefix(1);
      value |= uint64_t{byte & 0x7fU} << shift;
      if (byte < 0x80) {
        return value;
      }
    }
  };
  while (!message.empty()) {
    const uint64_t key = varint();
    Field field{.number = key >> 3};
    size_t length = 0;
    switch (key & 7) {
      case 0:
        field.varint = varint();
        break;
      case 1:
        length = 8;
        break;
      case 2:
        length = varint();
        break;
      case 5:
        length = 4;
        break;
      default:
        ADD_FAILURE() << "wire type " << (key & 7);
    }
    field.bytes = message.substr(0, length);
    message.remove_prefix(length);
    fields.push_back(field);
  }
  return fields;
}

Event ParseEvent(std::string_view data) {
  Event event;
  for (const Field& field : Fields(data)) {
    switch (field.number) {
      case 1:
        event.wall_time = Raw<double>(field.bytes);
        break;
      case 2:
        event.step = static_cast<int64_t>(field.varint);
        break;
      case 3:
        event.file_version = field.bytes;
        break;
      case 5:
        for (const Field& value : Fields(field.bytes)) {
          const auto parts = Fields(value.bytes);
          EXPECT_EQ(parts.size(), 2U);
          event.scalars[std::string(parts.at(0).bytes)] = Raw<float>(parts.at(1).bytes);
        }
        break;
      case 7:
        event.session_start = Fields(field.bytes).at(0).varint == 1;
        break;
      default:
        ADD_FAILURE() << "field " << field.number;
    }
  }
  return event;
}

std::vector<Event> ReadEvents(const std::string& path) {
  const std::string file = ReadFile(path).value();
  std::string_view rest = file;
  std::vector<Event> events;
  while (!rest.empty()) {
    const auto length = Raw<uint64_t>(rest);
    EXPECT_EQ(Raw<uint32_t>(rest.substr(8)), MaskedCrc32c(rest.substr(0, 8)));
    const std::string_view data = rest.substr(12, length);
    EXPECT_EQ(Raw<uint32_t>(rest.substr(12 + length)), MaskedCrc32c(data));
    events.push_back(ParseEvent(data));
    rest.remove_prefix(16 + length);
  }
  return events;
}

// Paths of the event files of a kind, oldest first.
std::vector<std::string> EventFiles(const std::string& run_dir, std::string_view suffix) {
  std::vector<std::string> paths;
  const auto names = ListDir(run_dir + "/tb");
  for (const std::string& name : *names) {
    if (name.ends_with(suffix)) {
      paths.push_back(run_dir + "/tb/" + name);
    }
  }
  return paths;
}

constexpr int64_t kAt = 1'716'588'192'123'456;

std::unique_ptr<MetricsLog> Open(const MetricsLog::Options& options) {
  auto log = MetricsLog::Open(options);
  EXPECT_TRUE(log.ok()) << log.status().ToString();
  return std::move(log).value();
}

TEST(TensorBoard, ScalarsAreReadBack) {
  TempDir dir;
  const auto log = Open({.run_dir = dir.path(), .wall_micros = kAt});
  ASSERT_TRUE(
      log->Train({.step = 1, .max_steps = 4, .loss = 0.5, .grad_norm = std::nan("")}, kAt).ok());
  ASSERT_TRUE(log->Train({.step = 300, .max_steps = 400, .loss = 0.25}, kAt + 1'000'000).ok());
  const auto files = EventFiles(dir.path(), ".train");
  ASSERT_EQ(files.size(), 1U);
  EXPECT_NE(files[0].find("/tb/events.out.tfevents.1716588192."), std::string::npos) << files[0];
  const std::vector<Event> events = ReadEvents(files[0]);
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].file_version, "brain.Event:2");
  EXPECT_DOUBLE_EQ(events[1].wall_time, 1'716'588'192.123456);
  EXPECT_EQ(events[2].step, 300);
  EXPECT_EQ(events[2].scalars.at("train.loss"), 0.25F);
  EXPECT_EQ(events[2].scalars.at("train.percent_done"), 75.0F);
  EXPECT_TRUE(std::isnan(events[1].scalars.at("train.grad_norm")));
  EXPECT_FALSE(events[1].scalars.contains("train.step") || events[1].scalars.contains("train.at"));
  EXPECT_EQ(EventFiles(dir.path(), ".eval").size(), 1U);
}

TEST(TensorBoard, ResumingStartsAFileThatHidesLaterPoints) {
  TempDir dir;
  Open({.run_dir = dir.path(), .wall_micros = kAt, .with_eval = false});
  Open({.run_dir = dir.path(), .wall_micros = kAt, .with_eval = false, .resume_step = 7});
  const auto files = EventFiles(dir.path(), ".train");
  ASSERT_EQ(files.size(), 2U);
  int starts = 0;
  for (const std::string& file : files) {
    const auto events = ReadEvents(file);
    if (events.size() == 2) {
      starts += events[1].session_start && events[1].step == 8 ? 1 : 0;
    }
  }
  EXPECT_EQ(starts, 1);
  EXPECT_TRUE(EventFiles(dir.path(), ".eval").empty());
}

TEST(MetricsLog, WritesMistralFinetunesKeysInOrderAndOursBehindThem) {
  TempDir dir;
  const auto log = Open({.run_dir = dir.path(), .wall_micros = kAt});
  ASSERT_TRUE(log->Train({.step = 3,
                          .max_steps = 12,
                          .loss = 0.75,
                          .perplexity = 2.117,
                          .learning_rate = 1e-4,
                          .beta1 = 0.9,
                          .grad_norm = 1.5,
                          .loss_tokens = 63,
                          .tokens_per_second = 10,
                          .mean_tokens_per_second = 11,
                          .eta_seconds = std::nan(""),
                          .peak_memory_bytes = int64_t{3} << 30,
                          .memory_bytes = int64_t{1} << 30},
                         kAt)
                  .ok());
  ASSERT_TRUE(
      log->Eval({.step = 3, .eval_loss = 1, .perplexity = 2.7, .train_loss = 0.75}, kAt).ok());
  EXPECT_EQ(
      ReadFile(dir.File("metrics.train.jsonl")).value(),
      "{\"lr\":0.0001,\"step\":3,\"loss\":0.75,\"percent_done\":25.0,\"peak_allocated_mem\":3.0,"
      "\"allocated_mem\":1.0,\"wps\":10.0,\"avg_wps\":11.0,\"eta_in_seconds\":null,"
      "\"at\":\"2024-05-24T22:03:12.123456\",\"grad_norm\":1.5,\"beta1\":0.9,"
      "\"loss_tokens\":63,\"perplexity\":2.117}\n");
  EXPECT_EQ(ReadFile(dir.File("metrics.eval.jsonl")).value(),
            "{\"step\":3,\"train_loss\":0.75,\"perplexity\":2.7,\"eval_loss\":1.0,"
            "\"at\":\"2024-05-24T22:03:12.123456\",\"loss_tokens\":0}\n");
}

TEST(MetricsLog, TellsTheLoadOfExpertsBehindEverythingElse) {
  TempDir dir;
  const auto log = Open({.run_dir = dir.path(), .wall_micros = kAt});
  const StepRecord step{.step = 1, .expert_share = {0.25, 0.75}, .expert_imbalance = 1.5};
  ASSERT_TRUE(log->Train(step, kAt).ok());
  const std::string line = ReadFile(dir.File("metrics.train.jsonl")).value();
  EXPECT_TRUE(line.ends_with(",\"expert_imbalance\":1.5,\"expert_share\":[0.25,0.75]}\n")) << line;
  const auto scalars = ReadEvents(EventFiles(dir.path(), ".train").at(0)).at(1).scalars;
  EXPECT_EQ(scalars.at("train.expert_imbalance"), 1.5F);
  EXPECT_EQ(scalars.at("train.expert_share.1"), 0.75F);
  EXPECT_FALSE(scalars.contains("train.expert_share"));
}

TEST(MetricsLog, ResumingCutsBackToTheCheckpoint) {
  TempDir dir;
  MetricsLengths lengths;
  {
    const auto log = Open({.run_dir = dir.path(), .wall_micros = kAt});
    for (int64_t step = 1; step <= 5; ++step) {
      ASSERT_TRUE(log->Train({.step = step}, kAt).ok());
      if (step == 3) {
        lengths = log->lengths();
      }
    }
    ASSERT_TRUE(log->Eval({.step = 5}, kAt).ok());
  }
  const auto log =
      Open({.run_dir = dir.path(), .wall_micros = kAt, .resume_step = 3, .lengths = lengths});
  ASSERT_TRUE(log->Train({.step = 4}, kAt).ok());
  const auto lines = ReadJsonLines(dir.File("metrics.train.jsonl"));
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_EQ(lines[3]["step"], 4);
  EXPECT_EQ(ReadFile(dir.File("metrics.eval.jsonl")).value(), "");
  EXPECT_GT(log->lengths().train, lengths.train);
}

TEST(MetricsLog, AnUnwritableRunDirIsOneClearError) {
  const auto log = MetricsLog::Open({.run_dir = "/proc/nowhere", .wall_micros = kAt});
  ASSERT_FALSE(log.ok());
  EXPECT_NE(log.status().message().find("/proc/nowhere/metrics.train.jsonl"), std::string::npos)
      << log.status().message();
}

}  // namespace
}  // namespace mft
