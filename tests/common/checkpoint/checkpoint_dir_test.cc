// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/checkpoint_dir.h"

#include <array>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/checkpoint/safetensors.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

namespace fs = std::filesystem;

class Checkpoints : public ::testing::Test {
 protected:
  Result<int64_t> Publish(int64_t step) {
    return PublishCheckpoint(dir_.path(),
                             {.step = step, .attempt = 2, .job_id = "j", .plan = {{"threads", 1}}},
                             [](const std::string& directory) {
                               MFT_RETURN_IF_ERROR(MakeDirs(directory + "/consolidated"));
                               return WriteFileAtomic(directory + "/consolidated/lora.safetensors",
                                                      "weights");
                             });
  }
  std::string Dir(int64_t step) { return CheckpointDir(dir_.path(), step); }
  testing::TempDir dir_;
};

TEST_F(Checkpoints, AppearWholeAndVerify) {
  ASSERT_TRUE(Publish(100).ok());
  EXPECT_TRUE(Dir(100).ends_with("/checkpoints/checkpoint_000100"));
  EXPECT_TRUE(VerifyCheckpoint(Dir(100)).ok());
  const Manifest manifest = ReadManifest(Dir(100)).value();
  EXPECT_EQ(manifest.step, 100);
  EXPECT_EQ(manifest.attempt, 2);
  EXPECT_EQ(manifest.plan["threads"], 1);
  ASSERT_EQ(manifest.files.size(), 1U);
  EXPECT_EQ(manifest.files[0].path, "consolidated/lora.safetensors");
  EXPECT_EQ(ListDir(CheckpointsDir(dir_.path())).value().size(), 1U);
  EXPECT_EQ(Publish(100).status().code(), Code::kAlreadyExists);
}

TEST_F(Checkpoints, AFailureLeavesNothingBehind) {
  const auto failed = PublishCheckpoint(dir_.path(), {.step = 1}, [](const std::string&) {
    return ResourceExhausted("No space left on device");
  });
  EXPECT_EQ(failed.status().code(), Code::kResourceExhausted);
  EXPECT_TRUE(ListDir(CheckpointsDir(dir_.path())).value().empty());
}

TEST_F(Checkpoints, ScanKeepsTheGoodAndNamesTheBad) {
  for (const int64_t step : {10, 20, 30, 1'000'000}) {
    ASSERT_TRUE(Publish(step).ok());
  }
  std::ofstream(Dir(20) + "/consolidated/lora.safetensors") << "WEIGHTS";
  fs::remove(Dir(30) + "/state/MANIFEST");
  fs::create_directories(CheckpointsDir(dir_.path()) + "/tmp.abc/state");
  fs::create_directories(CheckpointsDir(dir_.path()) + "/notes");
  const CheckpointScan scan = ScanCheckpoints(dir_.path(), "att").value();
  EXPECT_EQ(scan.good, (std::vector<int64_t>{10, 1'000'000}));
  ASSERT_EQ(scan.renamed.size(), 2U);
  EXPECT_NE(scan.renamed[0].find("checkpoint_000020.bad-att"), std::string::npos);
  EXPECT_FALSE(fs::exists(CheckpointsDir(dir_.path()) + "/tmp.abc"));
  EXPECT_TRUE(fs::exists(CheckpointsDir(dir_.path()) + "/notes"));
  EXPECT_TRUE(ScanCheckpoints(dir_.path(), "again")->renamed.empty());
  EXPECT_TRUE(ScanCheckpoints("/nonexistent", "x")->good.empty());
}

TEST_F(Checkpoints, RetentionKeepsTheNewestSteps) {
  for (const int64_t step : {1, 2, 3, 4}) {
    ASSERT_TRUE(Publish(step).ok());
  }
  EXPECT_TRUE(RemoveOldCheckpoints(dir_.path(), 0).empty());
  EXPECT_EQ(RemoveOldCheckpoints(dir_.path(), 2),
            (std::vector<std::string>{"checkpoint_000001", "checkpoint_000002"}));
  EXPECT_EQ(ListCheckpointSteps(dir_.path()), (std::vector<int64_t>{3, 4}));
}

TEST_F(Checkpoints, AnExceptionLeavesNothingBehind) {
  EXPECT_THROW(static_cast<void>(PublishCheckpoint(dir_.path(),
                                                   {.step = 1},
                                                   [](const std::string&) -> Status {
                                                     throw std::runtime_error("out of memory");
                                                   })),
               std::runtime_error);
  EXPECT_TRUE(ListDir(CheckpointsDir(dir_.path())).value().empty());
}

TEST_F(Checkpoints, ErrorsThatSayNothingAboutTheDataRenameNothing) {
  ASSERT_TRUE(Publish(1).ok());
  const std::string manifest = ReadFile(Dir(1) + "/state/MANIFEST").value();
  std::string newer = manifest;
  newer.replace(newer.find("\"version\": 1"), 12, "\"version\": 2");
  std::ofstream(Dir(1) + "/state/MANIFEST") << newer;
  const auto scan = ScanCheckpoints(dir_.path(), "att");
  EXPECT_EQ(scan.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(scan.status().message().find("version 2"), std::string::npos);
  EXPECT_TRUE(fs::exists(Dir(1)));
}

TEST_F(Checkpoints, EveryKindOfDamageIsFound) {
  const std::string file = "/consolidated/lora.safetensors";
  const std::vector<std::function<void()>> damages = {
      [&] { fs::remove(Dir(1) + file); },
      [&] { fs::resize_file(Dir(1) + file, 3); },
      [&] { std::ofstream(Dir(1) + file) << "weightx"; },
      [&] { std::ofstream(Dir(1) + "/state/MANIFEST") << "{"; },
      [&] { fs::resize_file(Dir(1) + "/state/MANIFEST", 0); },
      [&] {
        fs::rename(Dir(1) + file, Dir(1) + "/elsewhere");
        fs::create_symlink("../elsewhere", Dir(1) + file);
      },
      [&] { fs::rename(Dir(1), Dir(7)); },
  };
  for (size_t i = 0; i < damages.size(); ++i) {
    fs::remove_all(CheckpointsDir(dir_.path()));
    ASSERT_TRUE(Publish(1).ok());
    damages[i]();
    const auto scan = ScanCheckpoints(dir_.path(), "att");
    ASSERT_TRUE(scan.ok()) << scan.status().message();
    EXPECT_TRUE(scan->good.empty()) << "damage " << i;
    EXPECT_FALSE(scan->renamed.empty()) << "damage " << i;
  }
}

TEST_F(Checkpoints, AScanCutShortCanBeRepeatedUnderTheSameName) {
  ASSERT_TRUE(Publish(1).ok());
  fs::create_directories(Dir(1) + ".bad-att");
  fs::remove(Dir(1) + "/state/MANIFEST");
  const auto scan = ScanCheckpoints(dir_.path(), "att");
  ASSERT_TRUE(scan.ok()) << scan.status().message();
  EXPECT_TRUE(fs::exists(Dir(1) + ".bad-att-2"));
}

TEST_F(Checkpoints, AFullDiskKeepsItsErrnoAndLeavesNothingBehind) {
  const auto failed = PublishCheckpoint(dir_.path(), {.step = 1}, [](const std::string& directory) {
    fs::create_symlink("/dev/full", directory + "/state/x");
    const std::array<std::byte, 4> bytes{};
    return WriteSafetensors(directory + "/state/x", {{"a", DType::kF32, {1}, bytes}});
  });
  EXPECT_EQ(failed.status().code(), Code::kResourceExhausted);
  EXPECT_NE(failed.status().message().find("No space left on device"), std::string::npos);
  EXPECT_TRUE(ListDir(CheckpointsDir(dir_.path())).value().empty());
}

TEST_F(Checkpoints, AnEmptyDirectoryInTheWayIsNotReplaced) {
  fs::create_directories(Dir(5));
  EXPECT_EQ(Publish(5).status().code(), Code::kAlreadyExists);
  EXPECT_TRUE(fs::is_empty(Dir(5)));
}

TEST_F(Checkpoints, AManifestCannotPointOutside) {
  ASSERT_TRUE(Publish(1).ok());
  std::ofstream(Dir(1) + "/state/MANIFEST")
      << R"({"version":1,"step":1,"attempt":1,"job_id":"","plan":{},"files":[{"path":"../../x","size":1,"sha256":""}]})";
  EXPECT_EQ(VerifyCheckpoint(Dir(1)).code(), Code::kDataLoss);
  EXPECT_NE(VerifyCheckpoint(Dir(1)).message().find("leaves the checkpoint"), std::string::npos);
}

TEST(BestCheckpoint, IsWhatTheLinkLeadsTo) {
  const testing::TempDir dir;
  const std::string link = dir.File("checkpoints/best");
  EXPECT_EQ(BestCheckpointStep(dir.path()), 0);
  for (const int64_t step : {7, 1234567}) {
    ASSERT_TRUE(MakeDirs(CheckpointDir(dir.path(), step)).ok());
    ASSERT_TRUE(PointBestAt(dir.path(), step).ok());
    EXPECT_EQ(BestCheckpointStep(dir.path()), step);
  }
  const auto changed = [&] { return std::filesystem::last_write_time(dir.File("checkpoints")); };
  const auto before = changed();
  ASSERT_TRUE(PointBestAt(dir.path(), 1234567).ok());
  EXPECT_EQ(changed(), before);  // it leads there already
  ASSERT_TRUE(RemoveTree(CheckpointDir(dir.path(), 1234567)).ok());
  EXPECT_EQ(BestCheckpointStep(dir.path()), 0);
  EXPECT_TRUE(PathExists(CheckpointDir(dir.path(), 7)));
  ASSERT_TRUE(PointBestAt(dir.path(), 0).ok());
  EXPECT_FALSE(std::filesystem::is_symlink(link));
  ASSERT_TRUE(PointBestAt(dir.path(), 0).ok());
  EXPECT_EQ(ListDir(dir.File("checkpoints"))->size(), 1U);  // nothing temporary
}

// Somebody's own folder of that name is neither followed nor removed.
TEST(BestCheckpoint, LeavesWhatIsNoLinkAlone) {
  const testing::TempDir dir;
  dir.Write("checkpoints/best/notes.txt", "mine");
  EXPECT_TRUE(PointBestAt(dir.path(), 0).ok());
  EXPECT_FALSE(PointBestAt(dir.path(), 5).ok());
  EXPECT_EQ(BestCheckpointStep(dir.path()), 0);
  EXPECT_EQ(ReadFile(dir.File("checkpoints/best/notes.txt")).value(), "mine");
  EXPECT_EQ(ListDir(dir.File("checkpoints")).value(), std::vector<std::string>{"best"});
}

TEST(BestCheckpoint, IsSparedByRetention) {
  const testing::TempDir dir;
  for (const int64_t step : {1, 2, 3, 4}) {
    ASSERT_TRUE(MakeDirs(CheckpointDir(dir.path(), step)).ok());
  }
  EXPECT_EQ(RemoveOldCheckpoints(dir.path(), 1, 2).size(), 2U);
  EXPECT_EQ(ListCheckpointSteps(dir.path()), (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(RemoveOldCheckpoints(dir.path(), 1).size(), 1U);
}

}  // namespace
}  // namespace mft
