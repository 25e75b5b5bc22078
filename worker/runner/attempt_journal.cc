// SPDX-License-Identifier: Apache-2.0
#include "worker/runner/attempt_journal.h"

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/journal/build.h"

namespace mft::runner {

namespace {
constexpr int64_t kSecond = 1'000'000;
constexpr int64_t kResultRetryMicros = kSecond;
constexpr int64_t kResultPatienceMicros = 10 * 60 * kSecond;
}  // namespace

Status AppendResult(JournalWriter& journal,
                    const ResultRecord& result,
                    Wakeup& wakeup,
                    const Clock& clock) {
  LogInfo(StrCat("result: ", result.outcome, " ", result.reason, " ", result.message));
  const int64_t give_up = clock.BoottimeMicros() + kResultPatienceMicros;
  while (true) {
    const Status status = journal.AppendSynced(result);
    if (status.code() != Code::kResourceExhausted || clock.BoottimeMicros() >= give_up) {
      return status;
    }
    LogIfError(status, "the result has to wait");
    MFT_RETURN_IF_ERROR(wakeup.Wait(clock.BoottimeMicros() + kResultRetryMicros).status());
  }
}

ResultRecord FailedResult(const Status& status) {
  ResultRecord result;
  result.outcome = "failed";
  result.code = static_cast<int>(status.code());
  result.reason = status.reason().empty() ? "START_FAILED" : status.reason();
  // A reason is told in words that stand for themselves.
  result.message =
      status.reason().empty() ? StrCat("mft-runner: ", status.message()) : status.message();
  return result;
}

Result<std::unique_ptr<JournalWriter>> OpenAttemptJournal(const std::string& dir,
                                                          const std::string& attempt_id,
                                                          const Clock& clock) {
  const std::string path = JoinPath(dir, "runner.jsonl");
  if (PathExists(path)) {
    return FailedPrecondition(StrCat(path, " is there: an attempt runs only once"));
  }
  return JournalWriter::Open(path,
                             {.version = kJournalVersion,
                              .attempt_id = attempt_id,
                              .rank = kRunnerRank,
                              .boot_id = BootId(),
                              .build = std::string(BuildId())},
                             clock);
}

}  // namespace mft::runner
