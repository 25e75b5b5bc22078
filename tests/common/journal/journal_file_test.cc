// SPDX-License-Identifier: Apache-2.0
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "common/journal/build.h"
#include "common/journal/ends.h"
#include "common/journal/heartbeat.h"
#include "common/journal/tailer.h"
#include "common/journal/writer.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

std::vector<TailedItem> ReadAll(JournalTailer& tailer) {
  std::vector<TailedItem> all;
  bool more = true;
  while (more) {
    auto items = tailer.Read(1, &more);
    EXPECT_TRUE(items.ok());
    all.insert(all.end(), items->begin(), items->end());
  }
  return all;
}

int64_t Seq(const TailedItem& item) {
  return std::get<Record>(item.item).seq;
}

void AppendRaw(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::app) << text;
}

class JournalFile : public ::testing::Test {
 protected:
  std::unique_ptr<JournalWriter> Open() {
    return JournalWriter::Open(path_, {.attempt_id = "a"}).value();
  }
  testing::TempDir dir_;
  std::string path_ = dir_.File("rank-0.jsonl");
};

TEST_F(JournalFile, ReaderSeesRecordsAsTheyAreWritten) {
  JournalTailer tailer(path_, {});
  EXPECT_TRUE(ReadAll(tailer).empty());
  const auto writer = Open();
  ASSERT_TRUE(writer->Append(MessageRecord{"info", "x"}).ok());
  EXPECT_EQ(ReadAll(tailer).size(), 2U);
  ASSERT_TRUE(writer->AppendSynced(FinalRecord{.outcome = "done"}).ok());
  const auto items = ReadAll(tailer);
  ASSERT_EQ(items.size(), 1U);
  EXPECT_EQ(Seq(items[0]), 3);
  EXPECT_EQ(items[0].end_offset, static_cast<int64_t>(std::filesystem::file_size(path_)));
}

TEST_F(JournalFile, ReaderContinuesFromAStoredPosition) {
  const auto writer = Open();
  JournalTailer first(path_, {});
  ReadAll(first);
  ASSERT_TRUE(writer->Append(PhaseRecord{"p", ""}).ok());
  JournalTailer second(path_, first.position());
  const auto items = ReadAll(second);
  ASSERT_EQ(items.size(), 1U);
  EXPECT_EQ(Seq(items[0]), 2);
}

TEST_F(JournalFile, WriterCutsATornLineAndGoesOnNumbering) {
  { ASSERT_TRUE(Open()->Append(PhaseRecord{"p", ""}).ok()); }
  AppendRaw(path_, R"({"seq":3,"at":1,"ty)");
  JournalTailer tailer(path_, {});
  EXPECT_EQ(ReadAll(tailer).size(), 2U);
  ASSERT_TRUE(Open()->Append(PhaseRecord{"q", ""}).ok());
  const auto items = ReadAll(tailer);
  ASSERT_EQ(items.size(), 1U);
  EXPECT_EQ(Seq(items[0]), 3);
}

TEST_F(JournalFile, DamageIsReportedOnceAndReadingGoesOn) {
  { Open(); }
  AppendRaw(path_, "garbage\n");
  AppendRaw(path_,
            EncodeRecord({.seq = 5, .at_micros = 0, .body = PhaseRecord{"late", ""}}) + "\n");
  AppendRaw(path_, std::string(200'000, 'x') + "\n");
  AppendRaw(path_, EncodeRecord({.seq = 6, .at_micros = 0, .body = PhaseRecord{"end", ""}}) + "\n");
  JournalTailer tailer(path_, {});
  const auto items = ReadAll(tailer);
  ASSERT_EQ(items.size(), 6U);
  EXPECT_EQ(Seq(items[0]), 1);
  EXPECT_TRUE(std::holds_alternative<JournalDamage>(items[1].item));
  EXPECT_NE(std::get<JournalDamage>(items[2].item).detail.find("2 to 4 are missing"),
            std::string::npos);
  EXPECT_EQ(Seq(items[3]), 5);
  EXPECT_NE(std::get<JournalDamage>(items[4].item).detail.find("longer"), std::string::npos);
  EXPECT_EQ(Seq(items[5]), 6);
}

TEST_F(JournalFile, ALostTailOfNulsIsNotARecord) {
  { Open(); }
  JournalTailer tailer(path_, {});
  ReadAll(tailer);
  AppendRaw(path_, std::string(100, '\0'));
  EXPECT_TRUE(ReadAll(tailer).empty());
  std::filesystem::resize_file(path_, 3);
  EXPECT_TRUE(ReadAll(tailer).empty());
}

TEST_F(JournalFile, AHugeLostTailOfNulsIsNotARecordEither) {
  { Open(); }
  AppendRaw(path_, std::string(1'000'000, '\0'));
  JournalTailer tailer(path_, {});
  EXPECT_EQ(ReadAll(tailer).size(), 1U);
  EXPECT_TRUE(ReadAll(tailer).empty());
  // A writer that goes on cuts it off.
  ASSERT_TRUE(Open()->Append(PhaseRecord{"p", ""}).ok());
  const auto items = ReadAll(tailer);
  ASSERT_EQ(items.size(), 1U);
  EXPECT_EQ(Seq(items[0]), 2);
}

TEST_F(JournalFile, BadLinesInARowAreOneDamage) {
  { Open(); }
  for (int i = 0; i < 1000; ++i) {
    AppendRaw(path_, "x\n");
  }
  JournalTailer tailer(path_, {});
  const auto items = ReadAll(tailer);
  ASSERT_EQ(items.size(), 2U);
  EXPECT_EQ(std::get<JournalDamage>(items[1].item).lines, 1000);
  EXPECT_EQ(items[1].end_offset, tailer.position().offset);
}

TEST_F(JournalFile, ReadingEndsExactlyAtALineEnd) {
  const auto writer = Open();
  while (std::filesystem::file_size(path_) < 3 * kMaxRecordBytes) {
    ASSERT_TRUE(writer->Append(MessageRecord{"info", std::string(997, 'x')}).ok());
  }
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path_));
  for (const size_t budget : {size_t{1}, size_t{100'000}, static_cast<size_t>(size)}) {
    JournalTailer tailer(path_, {});
    bool more = true;
    while (more) {
      ASSERT_TRUE(tailer.Read(budget, &more).ok());
    }
    EXPECT_EQ(tailer.position().offset, size) << budget;
  }
}

TEST_F(JournalFile, AnotherAttemptsJournalIsNotContinued) {
  { Open(); }
  const auto other = JournalWriter::Open(path_, {.attempt_id = "b"});
  EXPECT_EQ(other.status().code(), Code::kFailedPrecondition);
  AppendRaw(path_, "a bad line\n");
  ASSERT_TRUE(Open()->Append(PhaseRecord{"p", ""}).ok());
  EXPECT_EQ(ReadJournalEnds(path_)->last->seq, 2);
}

TEST_F(JournalFile, TakesOnlyWhatMattersBeyondItsLimit) {
  { Open(); }
  std::filesystem::resize_file(path_, kMaxJournalBytes);  // a hole: takes no space
  AppendRaw(path_,
            "\n" + EncodeRecord({.seq = 2, .at_micros = 0, .body = PhaseRecord{"p", ""}}) + "\n");
  const auto writer = Open();
  ASSERT_TRUE(writer->Append(StepRecord{.step = 1}).ok());
  ASSERT_TRUE(writer->Append(MessageRecord{"info", "x"}).ok());
  EXPECT_EQ(ReadJournalEnds(path_)->last->seq, 2);
  ASSERT_TRUE(writer->AppendSynced(FinalRecord{.outcome = "done"}).ok());
  EXPECT_EQ(ReadJournalEnds(path_)->last->seq, 3);
}

TEST_F(JournalFile, TheEndsAreFoundWithoutWhatIsBetween) {
  EXPECT_FALSE(ReadJournalEnds(path_)->header.has_value());
  const auto writer = Open();
  for (int i = 0; i < 500; ++i) {
    ASSERT_TRUE(writer->Append(MessageRecord{"info", std::string(2000, 'x')}).ok());
  }
  ASSERT_TRUE(writer->AppendSynced(FinalRecord{.outcome = "done"}).ok());
  AppendRaw(path_, R"({"seq":9)");
  const auto ends = ReadJournalEnds(path_);
  ASSERT_TRUE(ends.ok() && ends->header && ends->last);
  EXPECT_EQ(ends->header->attempt_id, "a");
  EXPECT_TRUE(std::holds_alternative<FinalRecord>(ends->last->body));
}

TEST_F(JournalFile, OnlyRanksOfTheRunnersBuildGoOn) {
  const std::string variable(kBuildVariable);
  unsetenv(variable.c_str());
  EXPECT_TRUE(CheckBuildOfRunner().ok());
  setenv(variable.c_str(), std::string(BuildId()).c_str(), 1);
  EXPECT_TRUE(CheckBuildOfRunner().ok());
  setenv(variable.c_str(), "another", 1);
  EXPECT_EQ(CheckBuildOfRunner().reason(), "BUILD_MISMATCH");
  EXPECT_NE(CheckBuildOfRunner().message().find("another"), std::string::npos);
  unsetenv(variable.c_str());
}

TEST_F(JournalFile, AFailedWriteLeavesWholeLines) {
  std::signal(SIGXFSZ, SIG_IGN);
  const auto writer = Open();
  const auto size = std::filesystem::file_size(path_);
  rlimit old_limit{};
  getrlimit(RLIMIT_FSIZE, &old_limit);
  const rlimit small{size + 20, old_limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const Status failed = writer->Append(MessageRecord{"info", "does not fit"});
  setrlimit(RLIMIT_FSIZE, &old_limit);
  EXPECT_EQ(failed.code(), Code::kResourceExhausted);
  EXPECT_EQ(std::filesystem::file_size(path_), size);
  ASSERT_TRUE(writer->Append(MessageRecord{"info", "fits"}).ok());
  JournalTailer tailer(path_, {});
  const auto items = ReadAll(tailer);
  ASSERT_EQ(items.size(), 2U);
  EXPECT_EQ(Seq(items[1]), 2);
}

TEST_F(JournalFile, HeartbeatReadsBackAndATornOneDoesNotCount) {
  const std::string path = dir_.File("beat");
  EXPECT_FALSE(ReadHeartbeat(path).has_value());
  HeartbeatWriter writer(path);
  EXPECT_FALSE(ReadHeartbeat(path).has_value());
  writer.Write({.step = 5, .wall_micros = 6, .memory_bytes = 7});
  ASSERT_TRUE(ReadHeartbeat(path).has_value());
  EXPECT_EQ(ReadHeartbeat(path)->step, 5);
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(8);
  file.put('\x7f');
  file.close();
  EXPECT_FALSE(ReadHeartbeat(path).has_value());
  HeartbeatWriter("/nonexistent/beat").Write({});
}

}  // namespace
}  // namespace mft
