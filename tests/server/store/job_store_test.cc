// SPDX-License-Identifier: Apache-2.0
#include "server/store/job_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "server/store/migrations.h"
#include "tests/support/temp_dir.h"

namespace mft::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kEpoch = 1'700'000'000'000'000;

class JobStoreTest : public ::testing::Test {
 protected:
  JobStoreTest() { Reopen(); }
  void Reopen() {
    store_.reset();
    Result<std::unique_ptr<JobStore>> store = JobStore::Open(path_, kEpoch);
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    store_ = std::move(store).value();
  }
  void Commit(const StoreBatch& batch) {
    const Status status = store_->Commit(batch);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }
  StoredState Load() { return store_->Load().value(); }
  std::vector<int64_t> Sequences(const std::string& job_id, int64_t after = 0, int max = 1000) {
    const auto reader = EventReader::Open(path_).value();
    const std::vector<StoredEvent> events = reader->Read(job_id, after, max).value();
    std::vector<int64_t> sequences;
    for (const StoredEvent& event : events) {
      sequences.push_back(event.sequence);
    }
    return sequences;
  }

  testing::TempDir temp_;
  const std::string path_ = temp_.File("mftd.db");
  std::unique_ptr<JobStore> store_;
};

Job MakeJob(const std::string& id) {
  Job job;
  job.id = id;
  job.created_micros = 5;
  return job;
}

StoredEvent MakeEvent(const std::string& job_id, int64_t sequence, std::string type = "step") {
  return {.job_id = job_id,
          .sequence = sequence,
          .attempt = 1,
          .at_micros = 10 + sequence,
          .type = std::move(type),
          .body = std::string("\0body", 5)};
}

Attempt MakeAttempt(const std::string& id,
                    const std::string& job_id,
                    int number,
                    std::vector<Lease> leases = {}) {
  Attempt attempt;
  attempt.id = id;
  attempt.job_id = job_id;
  attempt.number = number;
  attempt.boot_id = "boot";
  attempt.created_micros = 6;
  attempt.leases = std::move(leases);
  return attempt;
}

TEST_F(JobStoreTest, GivesAJobBackAfterAReopen) {
  Job job = MakeJob("j1");
  job.state = JobState::kRunning;
  job.reason = "TRAINING";
  job.message = "it's \"fine\" \xC3\xA9";
  job.started_micros = 7;
  job.attempt = 2;
  job.prepare_attempt = 1;
  job.retries_used = 1;
  job.intent = Intent::kCancel;
  job.data_cache = "/cache/abc";
  job.progress = {.step = 4,
                  .max_steps = 10,
                  .train_loss = 1.25,
                  .eval_loss = std::nullopt,
                  .tokens_per_second = 100.5,
                  .eta_seconds = 3,
                  .phase = "training",
                  .last_checkpoint_step = 2};
  job.estimate = std::string("\x08\x01\0", 3);
  job.last_sequence = 17;
  job.compacted_sequence = 3;
  Commit({.jobs = {job}});
  Reopen();
  const StoredState state = Load();
  ASSERT_EQ(state.jobs.size(), 1u);
  const Job& back = state.jobs[0];
  EXPECT_EQ(back.id, "j1");
  EXPECT_EQ(back.state, JobState::kRunning);
  EXPECT_EQ(back.reason, job.reason);
  EXPECT_EQ(back.message, job.message);
  EXPECT_EQ(back.created_micros, 5);
  EXPECT_EQ(back.started_micros, 7);
  EXPECT_EQ(back.ended_micros, 0);
  EXPECT_EQ(back.attempt, 2);
  EXPECT_EQ(back.prepare_attempt, 1);
  EXPECT_EQ(back.retries_used, 1);
  EXPECT_EQ(back.intent, Intent::kCancel);
  EXPECT_EQ(back.data_cache, "/cache/abc");
  EXPECT_EQ(back.progress.train_loss, 1.25);
  EXPECT_EQ(back.progress.eval_loss, std::nullopt);
  EXPECT_EQ(back.progress.tokens_per_second, 100.5);
  EXPECT_EQ(back.progress.last_checkpoint_step, 2);
  EXPECT_EQ(back.estimate, job.estimate);
  EXPECT_EQ(back.last_sequence, 17);
  EXPECT_EQ(back.compacted_sequence, 3);
}

TEST_F(JobStoreTest, TheEpochIsThatOfTheNewDatabase) {
  store_.reset();
  const auto later = JobStore::Open(path_, kEpoch + 1).value();
  EXPECT_EQ(later->Load()->epoch, kEpoch);
}

TEST_F(JobStoreTest, OpenAttemptsComeBackWithLeasesOffsetsAndResult) {
  Attempt attempt = MakeAttempt("a1", "j1", 1, {{.id = "gpu:0", .uuid = "GPU-0", .cores = 0}});
  ResultRecord result;
  result.outcome = "failed";
  result.message = "why";
  attempt.result = result;
  attempt.pid = 77;
  attempt.pid_start_ticks = 88;
  attempt.stop_requested_boot_micros = 99;
  Commit({.jobs = {MakeJob("j1")},
          .attempts = {attempt},
          .offsets = {{.attempt_id = "a1", .file = "rank-0.jsonl", .offset = 100, .seq = 3}}});
  Commit({.offsets = {{.attempt_id = "a1", .file = "rank-0.jsonl", .offset = 200, .seq = 6}}});
  Reopen();
  StoredState state = Load();
  ASSERT_EQ(state.open_attempts.size(), 1u);
  const Attempt& back = state.open_attempts[0];
  EXPECT_EQ(back.kind, AttemptKind::kTrain);
  EXPECT_EQ(back.pid, 77);
  EXPECT_EQ(back.pid_start_ticks, 88);
  EXPECT_EQ(back.stop_requested_boot_micros, 99);
  EXPECT_EQ(back.leases, attempt.leases);
  ASSERT_TRUE(back.result);
  EXPECT_EQ(back.result->message, "why");
  ASSERT_EQ(state.offsets.size(), 1u);
  EXPECT_EQ(state.offsets[0].offset, 200);
  EXPECT_EQ(state.offsets[0].seq, 6);

  attempt.ended_micros = 123;
  Commit({.attempts = {attempt}});
  state = Load();
  EXPECT_TRUE(state.open_attempts.empty());
  EXPECT_TRUE(state.offsets.empty());
}

TEST_F(JobStoreTest, OneGpuIsNeverLeasedTwice) {
  const std::vector<Lease> gpu = {{.id = "gpu:0", .uuid = "GPU-0", .cores = 0}};
  Attempt first = MakeAttempt("a1", "j1", 1, gpu);
  Commit({.jobs = {MakeJob("j1"), MakeJob("j2")}, .attempts = {first}});
  const StoreBatch second{.attempts = {MakeAttempt("a2", "j2", 1, gpu)}};
  EXPECT_FALSE(store_->Commit(second).ok());
  EXPECT_EQ(Load().open_attempts.size(), 1u);
  first.ended_micros = 9;
  Commit({.attempts = {first}});
  Commit(second);
}

TEST_F(JobStoreTest, CpuLeasesOfSeveralJobsStandSideBySide) {
  const std::vector<Lease> share = {{.id = "cpu:0", .uuid = "", .cores = 1}};
  Commit({.jobs = {MakeJob("j1"), MakeJob("j2")},
          .attempts = {MakeAttempt("a1", "j1", 1, share), MakeAttempt("a2", "j2", 1, share)}});
  EXPECT_EQ(Load().open_attempts.size(), 2u);
}

TEST_F(JobStoreTest, ABatchIsWrittenWholeOrNotAtAll) {
  Commit({.jobs = {MakeJob("j1")}, .events = {MakeEvent("j1", 1)}});
  Job changed = MakeJob("j1");
  changed.state = JobState::kCancelled;
  // The sequence is taken already: the whole batch is refused.
  EXPECT_FALSE(
      store_->Commit({.jobs = {changed, MakeJob("j2")}, .events = {MakeEvent("j1", 1)}}).ok());
  const StoredState state = Load();
  ASSERT_EQ(state.jobs.size(), 1u);
  EXPECT_EQ(state.jobs[0].state, JobState::kQueued);
}

TEST_F(JobStoreTest, ReadersSeeEventsInOrderFromAnywhere) {
  StoreBatch batch{.jobs = {MakeJob("j1"), MakeJob("j2")}};
  for (int64_t sequence = 1; sequence <= 9; ++sequence) {
    batch.events.push_back(MakeEvent("j1", sequence));
  }
  batch.events.push_back(MakeEvent("j2", 1));
  Commit(batch);
  EXPECT_THAT(Sequences("j1", 0, 3), ElementsAre(1, 2, 3));
  EXPECT_THAT(Sequences("j1", 7), ElementsAre(8, 9));
  EXPECT_THAT(Sequences("j1", 9), ElementsAre());
  EXPECT_THAT(Sequences("nobody"), ElementsAre());
  const auto reader = EventReader::Open(path_).value();
  EXPECT_EQ(reader->Read("j1", 0, 100, 1).value().size(), 1u) << "the byte limit still gives one";
  EXPECT_EQ(reader->Read("j1", 0, 1).value()[0].body, std::string("\0body", 5));
}

TEST_F(JobStoreTest, AReaderDoesNotSeeWhatIsNotCommittedYet) {
  Commit({.jobs = {MakeJob("j1")}});
  const auto reader = EventReader::Open(path_).value();
  EXPECT_TRUE(reader->Read("j1", 0, 10).value().empty());
  Commit({.events = {MakeEvent("j1", 1)}});
  EXPECT_EQ(reader->Read("j1", 0, 10).value().size(), 1u);
}

TEST_F(JobStoreTest, RequestsAreForgottenByAge) {
  Commit({.jobs = {MakeJob("j1")},
          .requests = {{.request_id = "old", .hash = "h", .job_id = "j1", .at_micros = 10},
                       {.request_id = "new", .hash = "h", .job_id = "j1", .at_micros = 20}}});
  ASSERT_TRUE(store_->DeleteRequestsBefore(20).ok());
  const StoredState state = Load();
  ASSERT_EQ(state.requests.size(), 1u);
  EXPECT_EQ(state.requests[0].request_id, "new");
}

TEST_F(JobStoreTest, CompactionTakesStepsOnly) {
  Commit({.jobs = {MakeJob("j1")},
          .events = {MakeEvent("j1", 1, "state_changed"),
                     MakeEvent("j1", 2),
                     MakeEvent("j1", 3, "checkpoint"),
                     MakeEvent("j1", 4),
                     MakeEvent("j1", 5, "state_changed")}});
  EXPECT_EQ(store_->LastStepSequence("j1").value(), 4);
  Commit({.compact_steps = {"j1"}});
  EXPECT_THAT(Sequences("j1"), ElementsAre(1, 3, 5));
  EXPECT_EQ(store_->LastStepSequence("j1").value(), 0);
}

// A page limit stands in for a full disk: SQLite reports both as SQLITE_FULL.
TEST(FullDisk, RefusesTheBatchWholeAndPasses) {
  const testing::TempDir temp;
  std::unique_ptr<Database> opened =
      Database::Open(temp.File("mftd.db"), Database::Mode::kReadWrite).value();
  Database& database = *opened;
  const std::unique_ptr<JobStore> store = JobStore::Create(std::move(opened), kEpoch).value();
  ASSERT_TRUE(store->Commit({.jobs = {MakeJob("j1")}}).ok());
  StoreBatch large{.jobs = {MakeJob("j2")}};
  for (int64_t sequence = 1; sequence <= 100; ++sequence) {
    large.events.push_back(MakeEvent("j1", sequence));
    large.events.back().body = std::string(4000, 'x');
  }
  ASSERT_TRUE(database.Script("PRAGMA max_page_count=30").ok());
  const Status full = store->Commit(large);
  EXPECT_EQ(full.reason(), kStateDiskFull) << full.ToString();
  EXPECT_EQ(full.code(), Code::kResourceExhausted);
  EXPECT_FALSE(IsFatalStoreError(full));
  EXPECT_EQ(store->Load()->jobs.size(), 1u);
  EXPECT_EQ(database.QueryInt("SELECT count(*) FROM events").value(), 0);
  ASSERT_TRUE(database.Script("PRAGMA max_page_count=1000000").ok());
  EXPECT_TRUE(store->Probe().ok());
  EXPECT_TRUE(store->Commit(large).ok());
  EXPECT_EQ(database.QueryInt("SELECT count(*) FROM events").value(), 100);
}

TEST(Migrations, AttemptsOfTheFirstSchemaAreLocal) {
  const testing::TempDir temp;
  const std::string path = temp.File("mftd.db");
  {
    const auto store = JobStore::Open(path, 1).value();
    ASSERT_TRUE(
        store->Commit({.jobs = {MakeJob("j1")}, .attempts = {MakeAttempt("a1", "j1", 1)}}).ok());
    const auto database = Database::Open(path, Database::Mode::kReadWrite).value();
    ASSERT_TRUE(database
                    ->Script("ALTER TABLE attempts DROP COLUMN executor; ALTER TABLE attempts DROP "
                             "COLUMN slurm_job; PRAGMA user_version=1")
                    .ok());
  }
  const auto store = JobStore::Open(path, 1).value();
  StoredState state = store->Load().value();
  ASSERT_EQ(state.open_attempts.size(), 1u);
  EXPECT_EQ(state.open_attempts[0].executor, Executor::kLocal);
  EXPECT_TRUE(PathExists(path + ".before-v2"));

  Attempt attempt = MakeAttempt("a2", "j1", 2);
  attempt.executor = Executor::kSlurm;
  ASSERT_TRUE(store->Commit({.attempts = {attempt}}).ok());
  attempt.slurm_job = "17";
  ASSERT_TRUE(store->Commit({.attempts = {attempt}}).ok());
  state = store->Load().value();
  ASSERT_EQ(state.open_attempts.size(), 2u);
  EXPECT_EQ(state.open_attempts[1].executor, Executor::kSlurm);
  EXPECT_EQ(state.open_attempts[1].slurm_job, "17");
}

TEST(Migrations, RefuseADatabaseOfANewerProgram) {
  const testing::TempDir temp;
  const std::string path = temp.File("mftd.db");
  ASSERT_TRUE(JobStore::Open(path, 1).ok());
  {
    const auto database = Database::Open(path, Database::Mode::kReadWrite).value();
    ASSERT_TRUE(database->Script(StrCat("PRAGMA user_version=", SchemaVersion() + 1)).ok());
  }
  const Status status = JobStore::Open(path, 1).status();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("start the newer mftd again"));
}

TEST(Migrations, RefuseAForeignDatabaseAndLeaveItAlone) {
  const testing::TempDir temp;
  const std::string path = temp.File("other.db");
  {
    const auto database = Database::Open(path, Database::Mode::kReadWrite).value();
    ASSERT_TRUE(database->Script("CREATE TABLE mine (x)").ok());
  }
  EXPECT_THAT(JobStore::Open(path, 1).status().message(), HasSubstr("is not a database of mftd"));
  const auto database = Database::Open(path, Database::Mode::kReadOnly).value();
  EXPECT_EQ(database->QueryInt("SELECT count(*) FROM sqlite_schema").value(), 1);
}

TEST(JobStoreFile, SomethingElseInItsPlaceIsOneClearError) {
  const testing::TempDir temp;
  const std::string path = temp.Write("mftd.db", std::string(5000, 'x'));
  const Status status = JobStore::Open(path, 1).status();
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr("mftd.db"));
  EXPECT_EQ(ReadFile(path).value(), std::string(5000, 'x'));
}

TEST(JobStoreFile, IsInWalModeWithFullSync) {
  const testing::TempDir temp;
  const auto database = Database::Open(temp.File("x.db"), Database::Mode::kReadWrite).value();
  std::string mode;
  ASSERT_TRUE(
      database->Query("PRAGMA journal_mode", [&](const Row& row) { mode = row.Text(0); }).ok());
  EXPECT_EQ(mode, "wal");
  EXPECT_EQ(database->QueryInt("PRAGMA synchronous").value(), 2);
  EXPECT_EQ(database->QueryInt("PRAGMA foreign_keys").value(), 1);
}

}  // namespace
}  // namespace mft::server
