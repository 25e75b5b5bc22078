// SPDX-License-Identifier: Apache-2.0
#include "server/exec/slurm_client.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "server/exec/run_command.h"

namespace mft::server {

namespace {

constexpr size_t kMaxErrorBytes = 500;
constexpr std::string_view kScriptName = "slurm.sh";

bool IsProgram(const std::string& path) {
  return access(path.c_str(), X_OK) == 0 && !IsDirectory(path);
}

}  // namespace

Status SlurmClient::CheckPrograms() const {
  const char* search = std::getenv("PATH");
  const std::vector<std::string> folders = config_.bin_dir.empty()
                                               ? Split(search == nullptr ? "" : search, ':')
                                               : std::vector<std::string>{config_.bin_dir};
  for (const std::string name : {"sbatch", "squeue", "scancel"}) {
    const auto has_it = [&name](const std::string& folder) {
      return IsProgram(JoinPath(folder, name));
    };
    if (std::none_of(folders.begin(), folders.end(), has_it)) {
      return NotFound(StrCat("executor is slurm, but there is no program ",
                             name,
                             " in ",
                             config_.bin_dir.empty() ? "PATH" : config_.bin_dir,
                             " (slurm.bin_dir)"));
    }
  }
  return Status::Ok();
}

Result<std::string> SlurmClient::Run(const std::string& program,
                                     std::vector<std::string> words,
                                     const std::stop_token& stop) const {
  words.insert(words.begin(),
               config_.bin_dir.empty() ? program : JoinPath(config_.bin_dir, program));
  MFT_ASSIGN_OR_RETURN(CommandOutput output, RunCommand(std::move(words), kSlurmDeadlineMs, stop));
  if (output.exit_code != 0) {
    const std::string said = Printable(Trim(output.err), kMaxErrorBytes);
    return Unavailable(StrCat(
        program, " ended with exit code ", output.exit_code, said.empty() ? "" : ": ", said));
  }
  return std::move(output.out);
}

Result<std::string> SlurmClient::Submit(const SlurmRequest& request,
                                        const std::stop_token& stop) const {
  const std::string script = JoinPath(request.attempt_dir, kScriptName);
  MFT_RETURN_IF_ERROR(WriteFileAtomic(script, SlurmScript(request), 0700));
  MFT_ASSIGN_OR_RETURN(const std::string out,
                       Run("sbatch", SbatchArguments(config_, request, script), stop));
  return ParseSbatch(out);
}

Result<SlurmJobs> SlurmClient::List(const std::stop_token& stop) const {
  MFT_ASSIGN_OR_RETURN(const std::string out, Run("squeue", SqueueArguments(), stop));
  return ParseSqueue(out);
}

Status SlurmClient::Signal(SlurmSignal signal,
                           const std::string& attempt_id,
                           const std::string& job_id,
                           const std::stop_token& stop) const {
  return Run("scancel", ScancelArguments(signal, attempt_id, job_id), stop).status();
}

}  // namespace mft::server
