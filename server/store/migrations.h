// SPDX-License-Identifier: Apache-2.0
// The schema and its history.
#pragma once

#include "common/base/status.h"
#include "server/store/sqlite.h"

namespace mft::server {

// Brings the database to the newest schema, one transaction a step, after a copy beside it
// (mftd.db.before-vN) where there is something to lose. FAILED_PRECONDITION if it is newer than
// this program or not a database of mftd.
Status Migrate(Database& database);

int SchemaVersion();  // PRAGMA user_version of the newest schema

}  // namespace mft::server
