// SPDX-License-Identifier: Apache-2.0
// What a journal record means for its job.
#pragma once

#include <string>

#include "common/journal/record.h"
#include "common/journal/tailer.h"
#include "server/control/changes.h"

namespace mft::server {

// Appends the record's event, if readers see it, and moves the job on: the training phase makes it
// RUNNING, a step its progress, the data cache what preparation made; the runner's result is kept
// with the attempt until it ends. `rank`: of the journal, kRunnerRank for the runner's.
void ApplyRecord(Changes& changes, const std::string& attempt_id, int rank, const Record& record);

// A damaged place of a journal becomes one event.
void ApplyDamage(Changes& changes,
                 const std::string& attempt_id,
                 const std::string& file,
                 const JournalDamage& damage);

}  // namespace mft::server
