// SPDX-License-Identifier: Apache-2.0
// runner.jsonl: opened once for an attempt, ended by its result.
#pragma once

#include <memory>
#include <string>

#include "common/base/clock.h"
#include "common/base/status.h"
#include "common/journal/record.h"
#include "common/journal/writer.h"
#include "worker/runner/process_setup.h"

namespace mft::runner {

// FAILED_PRECONDITION if the attempt has one already.
Result<std::unique_ptr<JournalWriter>> OpenAttemptJournal(const std::string& dir,
                                                          const std::string& attempt_id,
                                                          const Clock& clock);

// The result of an attempt that got no further than `status`.
ResultRecord FailedResult(const Status& status);

// Synced. A full disk may get space again, so it is tried every second for ten minutes; without a
// result the attempt counts as lost.
Status AppendResult(JournalWriter& journal,
                    const ResultRecord& result,
                    Wakeup& wakeup,
                    const Clock& clock);

}  // namespace mft::runner
