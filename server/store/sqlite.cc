// SPDX-License-Identifier: Apache-2.0
#include "server/store/sqlite.h"

#include <linux/magic.h>
#include <sqlite3.h>
#include <sys/statfs.h>

#include <cerrno>

#include "common/base/strings.h"

namespace mft::server {

namespace {

// Nobody else writes; somebody who does by hand must not hold up the control thread.
constexpr int kBusyTimeoutMs = 250;

// WAL needs shared memory between all users of the file: no network file system has it.
Status RefuseNetworkFilesystem(const std::string& path) {
  const std::string directory = path.substr(0, path.rfind('/'));
  struct statfs info {};
  if (statfs(directory.c_str(), &info) != 0) {
    return ErrnoStatus(errno, directory);
  }
  constexpr unsigned kCifs = 0xFF534D42, kSmb2 = 0xFE534D42;
  const auto type = static_cast<unsigned>(info.f_type);
  if (type == NFS_SUPER_MAGIC || type == SMB_SUPER_MAGIC || type == kCifs || type == kSmb2) {
    return FailedPrecondition(StrCat(
        directory, ": is on a network file system; the state directory must be on a local disk"));
  }
  return Status::Ok();
}

}  // namespace

int64_t Row::Int(int column) const {
  return sqlite3_column_int64(statement_, column);
}
double Row::Double(int column) const {
  return sqlite3_column_double(statement_, column);
}
bool Row::IsNull(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

std::string Row::Text(int column) const {
  const void* data = sqlite3_column_blob(statement_, column);
  const int size = sqlite3_column_bytes(statement_, column);
  return data == nullptr ? ""
                         : std::string(static_cast<const char*>(data), static_cast<size_t>(size));
}

Database::Database(sqlite3* handle, std::string path) : handle_(handle), path_(std::move(path)) {}

Database::~Database() {
  for (const auto& [sql, statement] : statements_) {
    sqlite3_finalize(statement);
  }
  sqlite3_close(handle_);
}

Result<std::unique_ptr<Database>> Database::Open(const std::string& path, Mode mode) {
  MFT_RETURN_IF_ERROR(RefuseNetworkFilesystem(path));
  const int flags =
      mode == Mode::kReadWrite ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &handle, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<Database> database(new Database(handle, path));
  if (code != SQLITE_OK) {
    return database->Failure(code, "opening");
  }
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, kBusyTimeoutMs);
  if (mode == Mode::kReadWrite) {
    // FULL: an acknowledged submit survives a power cut. The size limit keeps the WAL of a burst
    // from staying.
    MFT_RETURN_IF_ERROR(
        database->Script("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
                         "PRAGMA journal_size_limit=67108864;"));
  }
  return database;
}

Status Database::Script(const std::string& sql) {
  const int code = sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? Status::Ok() : Failure(code, sql.substr(0, 60));
}

Result<int64_t> Database::QueryInt(std::string_view sql) {
  int64_t value = 0;
  MFT_RETURN_IF_ERROR(Query(sql, [&value](const Row& row) { value = row.Int(0); }));
  return value;
}

Result<sqlite3_stmt*> Database::Compile(std::string_view sql) {
  if (const auto it = statements_.find(sql); it != statements_.end()) {
    return it->second;
  }
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(handle_,
                                      sql.data(),
                                      static_cast<int>(sql.size()),
                                      SQLITE_PREPARE_PERSISTENT,
                                      &statement,
                                      nullptr);
  if (code != SQLITE_OK) {
    return Failure(code, sql);
  }
  statements_.emplace(std::string(sql), statement);
  return statement;
}

bool Database::Bind(sqlite3_stmt* statement, int index, int64_t value) {
  return sqlite3_bind_int64(statement, index, value) == SQLITE_OK;
}

bool Database::Bind(sqlite3_stmt* statement, int index, double value) {
  return sqlite3_bind_double(statement, index, value) == SQLITE_OK;
}

bool Database::Bind(sqlite3_stmt* statement, int index, std::string_view value) {
  const char* data = value.data() == nullptr ? "" : value.data();
  return sqlite3_bind_text(
             statement, index, data, static_cast<int>(value.size()), SQLITE_TRANSIENT) == SQLITE_OK;
}

bool Database::Bind(sqlite3_stmt* statement, int index, const Blob& value) {
  const char* data = value.bytes.data() == nullptr ? "" : value.bytes.data();
  const auto size = static_cast<int>(value.bytes.size());
  return sqlite3_bind_blob(statement, index, data, size, SQLITE_TRANSIENT) == SQLITE_OK;
}

Status Database::Finish(sqlite3_stmt* statement,
                        bool bound,
                        const std::function<void(const Row&)>& on_row) {
  int code = bound ? SQLITE_ROW : sqlite3_errcode(handle_);
  Status status;
  while (code == SQLITE_ROW) {
    code = sqlite3_step(statement);
    if (code == SQLITE_ROW) {
      on_row(Row(statement));
    }
  }
  if (code != SQLITE_DONE) {
    status = Failure(code, sqlite3_sql(statement));
  }
  sqlite3_reset(statement);
  sqlite3_clear_bindings(statement);
  return status;
}

Status Database::Failure(int code, std::string_view what) {
  const std::string message = StrCat(
      path_, ": ", what, ": ", handle_ == nullptr ? sqlite3_errstr(code) : sqlite3_errmsg(handle_));
  const int system_errno = handle_ == nullptr ? 0 : sqlite3_system_errno(handle_);
  const int primary = code & 0xFF;
  const bool no_space = system_errno == ENOSPC || system_errno == EDQUOT;
  // After a failed fsync nobody knows what is on the disk, whatever the errno.
  const bool sync_failed = code == SQLITE_IOERR_FSYNC || code == SQLITE_IOERR_DIR_FSYNC;
  if (primary == SQLITE_FULL || (primary == SQLITE_IOERR && no_space && !sync_failed)) {
    return {Code::kResourceExhausted, std::string(kStateDiskFull), message};
  }
  if (primary == SQLITE_BUSY || primary == SQLITE_LOCKED) {
    return {Code::kUnavailable, std::string(kStateBusy), message};
  }
  if (primary == SQLITE_PERM || primary == SQLITE_READONLY ||
      (primary == SQLITE_CANTOPEN && system_errno == EACCES)) {
    return {Code::kPermissionDenied, std::string(kStateFailed), message};
  }
  return {Code::kDataLoss, std::string(kStateFailed), message};
}

std::string SqliteVersion() {
  return sqlite3_libversion();
}

}  // namespace mft::server
