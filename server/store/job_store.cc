// SPDX-License-Identifier: Apache-2.0
#include "server/store/job_store.h"

#include "common/base/json.h"
#include "common/base/strings.h"
#include "server/store/migrations.h"

namespace mft::server {

namespace {

std::string EncodeProgress(const Progress& progress) {
  Json json = {{"step", progress.step},
               {"max_steps", progress.max_steps},
               {"tokens_per_second", progress.tokens_per_second},
               {"eta_seconds", progress.eta_seconds},
               {"phase", progress.phase},
               {"last_checkpoint_step", progress.last_checkpoint_step}};
  if (progress.train_loss) {
    json["train_loss"] = *progress.train_loss;
  }
  if (progress.eval_loss) {
    json["eval_loss"] = *progress.eval_loss;
  }
  return DumpJson(json);
}

Progress DecodeProgress(const std::string& text) {
  Progress progress;
  const Result<Json> json = ParseJson(text);
  if (!json.ok() || !json->is_object()) {
    return progress;  // for people only: a job without progress is still a job
  }
  progress.step = IntOr(*json, "step", 0);
  progress.max_steps = IntOr(*json, "max_steps", 0);
  progress.tokens_per_second = DoubleOr(*json, "tokens_per_second", 0);
  progress.eta_seconds = DoubleOr(*json, "eta_seconds", 0);
  progress.phase = StringOr(*json, "phase", "");
  progress.last_checkpoint_step = IntOr(*json, "last_checkpoint_step", 0);
  // A loss that is not finite was written as null.
  const auto optional_double = [&json](const char* key) -> std::optional<double> {
    const auto it = json->find(key);
    return it != json->end() && it->is_number() ? std::optional(it->get<double>()) : std::nullopt;
  };
  progress.train_loss = optional_double("train_loss");
  progress.eval_loss = optional_double("eval_loss");
  return progress;
}

std::string EncodeResult(const std::optional<ResultRecord>& result) {
  return result ? EncodeRecord(Record{.seq = 1, .at_micros = 0, .body = *result}) : "";
}

std::optional<ResultRecord> DecodeResult(const std::string& text) {
  const Result<Record> record = DecodeRecord(text);
  if (!record.ok() || !std::holds_alternative<ResultRecord>(record->body)) {
    return std::nullopt;
  }
  return std::get<ResultRecord>(record->body);
}

constexpr std::string_view kJobColumns =
    "SELECT id, state, reason, message, created, started, ended, attempt, prepare_attempt, "
    "retries_used, intent,"
    " data_cache, progress, estimate, last_sequence, compacted_sequence FROM jobs";

Result<Job> DecodeJob(const Row& row) {
  Job job;
  job.id = row.Text(0);
  const std::optional<JobState> state = ParseJobState(row.Text(1));
  if (!state) {
    return DataLoss(StrCat("job ", job.id, " has the unknown state '", row.Text(1), "'"));
  }
  job.state = *state;
  job.reason = row.Text(2);
  job.message = row.Text(3);
  job.created_micros = row.Int(4);
  job.started_micros = row.Int(5);
  job.ended_micros = row.Int(6);
  job.attempt = static_cast<int>(row.Int(7));
  job.prepare_attempt = static_cast<int>(row.Int(8));
  job.retries_used = static_cast<int>(row.Int(9));
  job.intent = static_cast<Intent>(row.Int(10));
  job.data_cache = row.Text(11);
  job.progress = DecodeProgress(row.Text(12));
  job.estimate = row.Text(13);
  job.last_sequence = row.Int(14);
  job.compacted_sequence = row.Int(15);
  return job;
}

constexpr std::string_view kSlurm = "slurm";  // attempts.executor
constexpr std::string_view kLocal = "local";

constexpr std::string_view kAttemptColumns =
    "SELECT id, job_id, kind, number, boot_id, pid, pid_start, created, created_boot, "
    "stop_requested_boot, grace_ms,"
    " time_limit_ms, result, executor, slurm_job FROM attempts WHERE ended = 0";

Attempt DecodeAttempt(const Row& row) {
  Attempt attempt;
  attempt.id = row.Text(0);
  attempt.job_id = row.Text(1);
  attempt.kind = row.Text(2) == AttemptKindName(AttemptKind::kPrepare) ? AttemptKind::kPrepare
                                                                       : AttemptKind::kTrain;
  attempt.number = static_cast<int>(row.Int(3));
  attempt.boot_id = row.Text(4);
  attempt.pid = static_cast<int>(row.Int(5));
  attempt.pid_start_ticks = row.Int(6);
  attempt.created_micros = row.Int(7);
  attempt.created_boot_micros = row.Int(8);
  attempt.stop_requested_boot_micros = row.Int(9);
  attempt.grace_ms = row.Int(10);
  attempt.time_limit_ms = row.Int(11);
  attempt.result = DecodeResult(row.Text(12));
  attempt.executor = row.Text(13) == kSlurm ? Executor::kSlurm : Executor::kLocal;
  attempt.slurm_job = row.Text(14);
  return attempt;
}

}  // namespace

Result<std::unique_ptr<JobStore>> JobStore::Open(const std::string& path, int64_t new_epoch) {
  MFT_ASSIGN_OR_RETURN(std::unique_ptr<Database> database,
                       Database::Open(path, Database::Mode::kReadWrite));
  return Create(std::move(database), new_epoch);
}

Result<std::unique_ptr<JobStore>> JobStore::Create(std::unique_ptr<Database> database,
                                                   int64_t new_epoch) {
  MFT_RETURN_IF_ERROR(Migrate(*database));
  std::string check;
  MFT_RETURN_IF_ERROR(
      database->Query("PRAGMA quick_check(1)", [&check](const Row& row) { check = row.Text(0); }));
  if (check != "ok") {
    return DataLoss(StrCat(database->path(), ": the database is damaged: ", check));
  }
  MFT_RETURN_IF_ERROR(
      database->Run("INSERT OR IGNORE INTO meta (key, value) VALUES ('epoch', ?)", new_epoch));
  return std::unique_ptr<JobStore>(new JobStore(std::move(database)));
}

Result<StoredState> JobStore::Load() {
  StoredState state;
  Status bad;
  MFT_ASSIGN_OR_RETURN(state.epoch,
                       database_->QueryInt("SELECT value FROM meta WHERE key = 'epoch'"));
  MFT_RETURN_IF_ERROR(database_->Query(kJobColumns, [&](const Row& row) {
    Result<Job> job = DecodeJob(row);
    if (job.ok()) {
      state.jobs.push_back(std::move(job).value());
    } else {
      bad = job.status();
    }
  }));
  MFT_RETURN_IF_ERROR(bad);
  std::map<std::string, size_t> index;
  MFT_RETURN_IF_ERROR(database_->Query(kAttemptColumns, [&](const Row& row) {
    state.open_attempts.push_back(DecodeAttempt(row));
    index[state.open_attempts.back().id] = state.open_attempts.size() - 1;
  }));
  MFT_RETURN_IF_ERROR(
      database_->Query("SELECT attempt_id, device, uuid, cores FROM leases", [&](const Row& row) {
        if (const auto it = index.find(row.Text(0)); it != index.end()) {
          state.open_attempts[it->second].leases.push_back(
              Lease{.id = row.Text(1), .uuid = row.Text(2), .cores = static_cast<int>(row.Int(3))});
        }
      }));
  MFT_RETURN_IF_ERROR(
      database_->Query("SELECT j.attempt_id, j.file, j.offset, j.seq FROM journals j JOIN attempts "
                       "a ON a.id = j.attempt_id"
                       " WHERE a.ended = 0",
                       [&](const Row& row) {
                         state.offsets.push_back(JournalOffset{.attempt_id = row.Text(0),
                                                               .file = row.Text(1),
                                                               .offset = row.Int(2),
                                                               .seq = row.Int(3)});
                       }));
  MFT_RETURN_IF_ERROR(
      database_->Query("SELECT request_id, hash, job_id, at FROM requests", [&](const Row& row) {
        state.requests.push_back(StoredRequest{.request_id = row.Text(0),
                                               .hash = row.Text(1),
                                               .job_id = row.Text(2),
                                               .at_micros = row.Int(3)});
      }));
  return state;
}

Status JobStore::Commit(const StoreBatch& batch) {
  MFT_RETURN_IF_ERROR(database_->Run("BEGIN IMMEDIATE"));
  Status status = Write(batch);
  if (status.ok()) {
    status = database_->Run("COMMIT");
  }
  if (!status.ok()) {
    // SQLite may have rolled back by itself (a full disk): then there is nothing left to do.
    static_cast<void>(database_->Run("ROLLBACK"));
  }
  return status;
}

Status JobStore::Write(const StoreBatch& batch) {
  for (const Job& job : batch.jobs) {
    MFT_RETURN_IF_ERROR(WriteJob(job));
  }
  for (const Attempt& attempt : batch.attempts) {
    MFT_RETURN_IF_ERROR(WriteAttempt(attempt));
  }
  for (const StoredEvent& event : batch.events) {
    // A plain INSERT: a sequence that is given twice is an error, never a silent overwrite.
    MFT_RETURN_IF_ERROR(database_->Run(
        "INSERT INTO events (job_id, seq, attempt, at, type, body) VALUES (?,?,?,?,?,?)",
        event.job_id,
        event.sequence,
        event.attempt,
        event.at_micros,
        event.type,
        Blob{event.body}));
  }
  for (const JournalOffset& journal : batch.offsets) {
    MFT_RETURN_IF_ERROR(database_->Run(
        "INSERT INTO journals (attempt_id, file, offset, seq) VALUES (?,?,?,?)"
        " ON CONFLICT (attempt_id, file) DO UPDATE SET offset=excluded.offset, seq=excluded.seq",
        journal.attempt_id,
        journal.file,
        journal.offset,
        journal.seq));
  }
  for (const StoredRequest& request : batch.requests) {
    MFT_RETURN_IF_ERROR(
        database_->Run("INSERT INTO requests (request_id, hash, job_id, at) VALUES (?,?,?,?)",
                       request.request_id,
                       request.hash,
                       request.job_id,
                       request.at_micros));
  }
  for (const std::string& job_id : batch.compact_steps) {
    MFT_RETURN_IF_ERROR(
        database_->Run("DELETE FROM events WHERE job_id = ? AND type = 'step'", job_id));
  }
  return Status::Ok();
}

Status JobStore::WriteJob(const Job& job) {
  return database_->Run(
      "INSERT INTO jobs (id, state, reason, message, created, started, ended, attempt, "
      "prepare_attempt, retries_used,"
      " intent, data_cache, progress, estimate, last_sequence, compacted_sequence)"
      " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
      " ON CONFLICT (id) DO UPDATE SET state=excluded.state, reason=excluded.reason, "
      "message=excluded.message,"
      " started=excluded.started, ended=excluded.ended, attempt=excluded.attempt,"
      " prepare_attempt=excluded.prepare_attempt, retries_used=excluded.retries_used, "
      "intent=excluded.intent,"
      " data_cache=excluded.data_cache, progress=excluded.progress, estimate=excluded.estimate,"
      " last_sequence=excluded.last_sequence, compacted_sequence=excluded.compacted_sequence",
      job.id,
      JobStateName(job.state),
      job.reason,
      job.message,
      job.created_micros,
      job.started_micros,
      job.ended_micros,
      job.attempt,
      job.prepare_attempt,
      job.retries_used,
      static_cast<int>(job.intent),
      job.data_cache,
      EncodeProgress(job.progress),
      Blob{job.estimate},
      job.last_sequence,
      job.compacted_sequence);
}

Status JobStore::WriteAttempt(const Attempt& attempt) {
  MFT_RETURN_IF_ERROR(
      database_->Run("INSERT INTO attempts (id, job_id, kind, number, boot_id, pid, pid_start, "
                     "created, created_boot, ended,"
                     " stop_requested_boot, grace_ms, time_limit_ms, result, outcome, executor, "
                     "slurm_job) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"
                     " ON CONFLICT (id) DO UPDATE SET pid=excluded.pid, "
                     "pid_start=excluded.pid_start, ended=excluded.ended,"
                     " stop_requested_boot=excluded.stop_requested_boot, result=excluded.result, "
                     "outcome=excluded.outcome, slurm_job=excluded.slurm_job",
                     attempt.id,
                     attempt.job_id,
                     AttemptKindName(attempt.kind),
                     attempt.number,
                     attempt.boot_id,
                     attempt.pid,
                     attempt.pid_start_ticks,
                     attempt.created_micros,
                     attempt.created_boot_micros,
                     attempt.ended_micros,
                     attempt.stop_requested_boot_micros,
                     attempt.grace_ms,
                     attempt.time_limit_ms,
                     EncodeResult(attempt.result),
                     attempt.outcome,
                     attempt.executor == Executor::kSlurm ? kSlurm : kLocal,
                     attempt.slurm_job));
  if (attempt.ended_micros != 0) {
    return database_->Run("DELETE FROM leases WHERE attempt_id = ?", attempt.id);
  }
  for (const Lease& lease : attempt.leases) {
    MFT_RETURN_IF_ERROR(
        database_->Run("INSERT INTO leases (attempt_id, device, uuid, cores) VALUES (?,?,?,?) ON "
                       "CONFLICT (attempt_id, device) DO NOTHING",
                       attempt.id,
                       lease.id,
                       lease.uuid,
                       lease.cores));
  }
  return Status::Ok();
}

Status JobStore::Probe() {
  return database_->Run("INSERT OR REPLACE INTO meta (key, value) VALUES ('probe', random())");
}

Status JobStore::DeleteRequestsBefore(int64_t before_micros) {
  return database_->Run("DELETE FROM requests WHERE at < ?", before_micros);
}

Result<int64_t> JobStore::LastStepSequence(const std::string& job_id) {
  int64_t last = 0;
  MFT_RETURN_IF_ERROR(database_->Query(
      "SELECT max(seq) FROM events WHERE job_id = ? AND type = 'step'",
      [&last](const Row& row) { last = row.Int(0); },
      job_id));
  return last;
}

bool IsFatalStoreError(const Status& status) {
  return !status.ok() && status.reason() != kStateDiskFull && status.reason() != kStateBusy;
}

}  // namespace mft::server
