// SPDX-License-Identifier: Apache-2.0
#include <charconv>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

#include "common/base/files.h"
#include "common/base/log.h"
#include "common/base/strings.h"
#include "common/journal/record.h"
#include "worker/runner/rank_keeper.h"
#include "worker/runner/runner.h"

namespace {

constexpr int kUsageExit = 2;
constexpr std::string_view kUsage =
    "usage: mft-runner --attempt-dir DIR [--lock-fd N] [--secret-fd N] [--bin-dir DIR]\n"
    "       mft-runner rank --attempt-dir DIR [--bin-dir DIR]\n"
    "Runs one attempt of a job; mftd starts it. DIR holds attempt.json, DIR/../../job.json is the\n"
    "job. N is an inherited descriptor that holds the lock of DIR/lock; that\n"
    "of --secret-fd is the file with the key for the job's W&B tracker. mft-worker, mft-data and\n"
    "mft-track are looked for in --bin-dir, by default the folder of this program.\n"
    "rank: keeps one rank of it, as a task of srun, which the runner starts.\n";

mft::Status SetOption(std::string_view name, const char* value, mft::runner::RunnerOptions& out) {
  const std::string_view text(value);
  if (name == "--attempt-dir") {
    out.attempt_dir = text;
  } else if (name == "--bin-dir") {
    out.bin_dir = text;
  } else if (name == "--lock-fd" || name == "--secret-fd") {
    int& fd = name == "--lock-fd" ? out.lock_fd : out.secret_fd;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), fd);
    if (error != std::errc() || end != text.data() + text.size() || fd < 3) {
      return mft::InvalidArgument(
          mft::StrCat(name, " must be a descriptor from 3 on, not \"", text, "\""));
    }
  } else {
    return mft::InvalidArgument(mft::StrCat("unknown option ", name));
  }
  return mft::Status::Ok();
}

mft::Result<mft::runner::RunnerOptions> ParseOptions(std::span<char*> arguments) {
  mft::runner::RunnerOptions options{
      .attempt_dir = "", .lock_fd = -1, .secret_fd = -1, .bin_dir = mft::ExecutableDir()};
  for (size_t i = 0; i < arguments.size(); i += 2) {
    if (i + 1 == arguments.size()) {
      return mft::InvalidArgument(mft::StrCat(arguments[i], " needs a value"));
    }
    MFT_RETURN_IF_ERROR(SetOption(arguments[i], arguments[i + 1], options));
  }
  if (options.attempt_dir.empty()) {
    return mft::InvalidArgument("--attempt-dir is missing");
  }
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  mft::SetLogProgram("mft-runner");
  const std::span<char*> arguments(argv + 1, static_cast<size_t>(argc - 1));
  if (arguments.size() == 1 && std::string_view(arguments[0]) == "--help") {
    std::fputs(std::string(kUsage).c_str(), stdout);
    return 0;
  }
  if (arguments.size() == 1 && std::string_view(arguments[0]) == "--version") {
    std::puts(mft::StrCat("mft-runner ", mft::BuildId()).c_str());
    return 0;
  }
  const bool keep_rank = !arguments.empty() && std::string_view(arguments[0]) == "rank";
  const auto options = ParseOptions(keep_rank ? arguments.subspan(1) : arguments);
  if (!options.ok()) {
    std::fputs(mft::StrCat("mft-runner: ", options.status().message(), "\n", kUsage).c_str(),
               stderr);
    return kUsageExit;
  }
  const mft::Status status = keep_rank
                                 ? mft::runner::KeepRank(options->attempt_dir, options->bin_dir)
                                 : mft::runner::RunAttempt(*options);
  if (!status.ok()) {
    mft::LogError(status.message());
  }
  return mft::ExitCodeFor(status.code());
}
