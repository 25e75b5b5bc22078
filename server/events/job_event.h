// SPDX-License-Identifier: Apache-2.0
// The one place where journal records and rows of the event table become mft.v1.JobEvent.
#pragma once

#include <optional>
#include <string_view>

#include "common/base/status.h"
#include "common/journal/record.h"
#include "mft/v1/job.pb.h"
#include "server/store/event_reader.h"

namespace mft::server {

// The event that a journal record of `rank` (kRunnerRank: the runner) tells to readers; none for
// records that only the daemon needs (header, resume, final, result). Sequence, job, time and
// attempt are not set.
std::optional<v1::JobEvent> EventOfRecord(const Record& record, int rank);

// The oneof's field name, e.g. "step"; "" if no event is set.
std::string_view EventType(const v1::JobEvent& event);

// A row for the event table. `event` has its sequence, job, time and attempt set.
StoredEvent ToStoredEvent(const v1::JobEvent& event);
// The inverse. DATA_LOSS names job and sequence if the body does not parse.
Result<v1::JobEvent> ToJobEvent(const StoredEvent& stored, int64_t epoch);

}  // namespace mft::server
