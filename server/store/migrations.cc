// SPDX-License-Identifier: Apache-2.0
#include "server/store/migrations.h"

#include <unistd.h>

#include <array>

#include "common/base/strings.h"

namespace mft::server {

namespace {

constexpr int64_t kApplicationId = 0x6D667464;  // "mftd"

// Step N leads from user_version N to N + 1. Steps are only ever added.
constexpr std::array kSteps = {
    R"sql(
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

CREATE TABLE jobs (
  id TEXT PRIMARY KEY,
  state TEXT NOT NULL,
  reason TEXT NOT NULL,
  message TEXT NOT NULL,
  created INTEGER NOT NULL,          -- times: microseconds since 1970 UTC, 0 for not yet
  started INTEGER NOT NULL,
  ended INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  prepare_attempt INTEGER NOT NULL,
  retries_used INTEGER NOT NULL,
  intent INTEGER NOT NULL,
  data_cache TEXT NOT NULL,
  progress TEXT NOT NULL,            -- JSON
  estimate BLOB NOT NULL,            -- mft.v1.Estimate
  last_sequence INTEGER NOT NULL,
  compacted_sequence INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE attempts (
  id TEXT PRIMARY KEY,               -- MFT_ATTEMPT
  job_id TEXT NOT NULL REFERENCES jobs(id),
  kind TEXT NOT NULL,
  number INTEGER NOT NULL,
  boot_id TEXT NOT NULL,
  pid INTEGER NOT NULL,
  pid_start INTEGER NOT NULL,
  created INTEGER NOT NULL,
  created_boot INTEGER NOT NULL,     -- CLOCK_BOOTTIME
  ended INTEGER NOT NULL,
  stop_requested_boot INTEGER NOT NULL,
  grace_ms INTEGER NOT NULL,
  time_limit_ms INTEGER NOT NULL,
  result TEXT NOT NULL,              -- the runner's last record
  outcome TEXT NOT NULL,
  UNIQUE (job_id, kind, number)
) WITHOUT ROWID;
CREATE INDEX attempts_open ON attempts(id) WHERE ended = 0;

CREATE TABLE leases (
  attempt_id TEXT NOT NULL REFERENCES attempts(id),
  device TEXT NOT NULL,
  uuid TEXT NOT NULL,
  cores INTEGER NOT NULL,
  PRIMARY KEY (attempt_id, device)
) WITHOUT ROWID;
-- No GPU is given to two attempts, whatever the scheduler believes.
CREATE UNIQUE INDEX leases_gpu ON leases(uuid) WHERE uuid <> '';

CREATE TABLE events (
  job_id TEXT NOT NULL REFERENCES jobs(id),
  seq INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  at INTEGER NOT NULL,
  type TEXT NOT NULL,
  body BLOB NOT NULL,                -- mft.v1.JobEvent, only the oneof
  PRIMARY KEY (job_id, seq)
) WITHOUT ROWID;

CREATE TABLE journals (
  attempt_id TEXT NOT NULL REFERENCES attempts(id),
  file TEXT NOT NULL,
  offset INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (attempt_id, file)
) WITHOUT ROWID;

CREATE TABLE requests (
  request_id TEXT PRIMARY KEY,
  hash TEXT NOT NULL,
  job_id TEXT NOT NULL REFERENCES jobs(id),
  at INTEGER NOT NULL
) WITHOUT ROWID;
)sql",
    R"sql(
ALTER TABLE attempts ADD COLUMN executor TEXT NOT NULL DEFAULT 'local';  -- local | slurm
ALTER TABLE attempts ADD COLUMN slurm_job TEXT NOT NULL DEFAULT '';      -- id in Slurm, once known
)sql",
};

Status BackUp(Database& database, int64_t version) {
  const std::string copy = StrCat(database.path(), ".before-v", version + 1);
  // Of a migration that did not end; VACUUM INTO refuses an existing file.
  unlink(copy.c_str());
  return database.Run("VACUUM INTO ?", copy).WithContext(StrCat("copying to ", copy));
}

Status Step(Database& database, int64_t version) {
  MFT_RETURN_IF_ERROR(database.Script("BEGIN IMMEDIATE"));
  const Status status = database.Script(StrCat(kSteps[static_cast<size_t>(version)],
                                               "PRAGMA application_id=",
                                               kApplicationId,
                                               "; PRAGMA user_version=",
                                               version + 1,
                                               "; COMMIT"));
  if (!status.ok()) {
    // The first error is the one to tell; a failed COMMIT may have rolled back already.
    static_cast<void>(database.Script("ROLLBACK"));
  }
  return status;
}

}  // namespace

int SchemaVersion() {
  return static_cast<int>(kSteps.size());
}

Status Migrate(Database& database) {
  MFT_ASSIGN_OR_RETURN(const int64_t application, database.QueryInt("PRAGMA application_id"));
  MFT_ASSIGN_OR_RETURN(int64_t version, database.QueryInt("PRAGMA user_version"));
  MFT_ASSIGN_OR_RETURN(const int64_t tables,
                       database.QueryInt("SELECT count(*) FROM sqlite_schema"));
  if (tables > 0 && application != kApplicationId) {
    return FailedPrecondition(StrCat(database.path(), ": is not a database of mftd"));
  }
  if (version > SchemaVersion()) {
    return FailedPrecondition(StrCat(database.path(),
                                     ": has schema version ",
                                     version,
                                     ", this mftd knows versions up to ",
                                     SchemaVersion(),
                                     "; start the newer mftd again"));
  }
  for (const int64_t from = version; version < SchemaVersion(); ++version) {
    if (from > 0 && version == from) {
      MFT_RETURN_IF_ERROR(BackUp(database, version));
    }
    MFT_RETURN_IF_ERROR(
        Step(database, version).WithContext(StrCat("migrating to schema version ", version + 1)));
  }
  return Status::Ok();
}

}  // namespace mft::server
