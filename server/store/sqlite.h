// SPDX-License-Identifier: Apache-2.0
// SQLite behind Status and RAII: the one home of sqlite3.h.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/status.h"

struct sqlite3;
struct sqlite3_stmt;

namespace mft::server {

// Why a write failed: a full disk passes, anything else in the store does not (durability.md,
// "Database").
inline constexpr std::string_view kStateDiskFull = "STATE_DISK_FULL";  // RESOURCE_EXHAUSTED
inline constexpr std::string_view kStateBusy =
    "STATE_BUSY";  // UNAVAILABLE: somebody else holds the file
inline constexpr std::string_view kStateFailed = "STATE_FAILED";  // DATA_LOSS

// A blob parameter; text is a string_view.
struct Blob {
  std::string_view bytes;
};

// A result row. Lifetime: until the callback returns; text and blobs are copied.
class Row {
 public:
  explicit Row(sqlite3_stmt* statement) : statement_(statement) {}
  int64_t Int(int column) const;
  double Double(int column) const;
  std::string Text(int column) const;  // also blobs; NULL is ""
  bool IsNull(int column) const;

 private:
  sqlite3_stmt* statement_;
};

// One connection. Threads: one at a time.
class Database {
 public:
  enum class Mode { kReadWrite, kReadOnly };
  static Result<std::unique_ptr<Database>> Open(const std::string& path, Mode mode);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // Statements without parameters, separated by ';'.
  Status Script(const std::string& sql);
  // One statement with parameters; compiled once per text, so `sql` should be a literal.
  template <typename... Args>
  Status Run(std::string_view sql, const Args&... args) {
    return Query(
        sql, [](const Row&) {}, args...);
  }
  template <typename... Args>
  Status Query(std::string_view sql,
               const std::function<void(const Row&)>& on_row,
               const Args&... args) {
    Result<sqlite3_stmt*> statement = Compile(sql);
    if (!statement.ok()) {
      return statement.status();
    }
    int index = 0;
    bool bound = true;
    ((bound = Bind(*statement, ++index, args) && bound), ...);
    return Finish(*statement, bound, on_row);
  }
  Result<int64_t> QueryInt(std::string_view sql);
  const std::string& path() const { return path_; }

 private:
  Database(sqlite3* handle, std::string path);
  Result<sqlite3_stmt*> Compile(std::string_view sql);
  static bool Bind(sqlite3_stmt* statement, int index, int64_t value);
  static bool Bind(sqlite3_stmt* statement, int index, int value) {
    return Bind(statement, index, int64_t{value});
  }
  static bool Bind(sqlite3_stmt* statement, int index, double value);
  static bool Bind(sqlite3_stmt* statement, int index, std::string_view value);
  static bool Bind(sqlite3_stmt* statement, int index, const std::string& value) {
    return Bind(statement, index, std::string_view(value));
  }
  static bool Bind(sqlite3_stmt* statement, int index, const char* value) {
    return Bind(statement, index, std::string_view(value));
  }
  static bool Bind(sqlite3_stmt* statement, int index, const Blob& value);
  Status Finish(sqlite3_stmt* statement, bool bound, const std::function<void(const Row&)>& on_row);
  Status Failure(int code, std::string_view what);

  sqlite3* handle_;
  std::string path_;
  std::map<std::string, sqlite3_stmt*, std::less<>> statements_;
};

std::string SqliteVersion();

}  // namespace mft::server
