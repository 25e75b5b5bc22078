// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <utility>

#include "common/base/files.h"
#include "common/base/strings.h"
#include "common/config/source_list.h"
#include "common/config/yaml_reader.h"

namespace mft {

namespace {
std::string Absolute(const std::string& path, const std::string& directory) {
  std::string absolute =
      std::filesystem::path(JoinPath(directory, path)).lexically_normal().native();
  while (absolute.size() > 1 && absolute.back() == '/') {
    absolute.pop_back();
  }
  return absolute;
}

void CheckSources(const char* key, const std::string& text, std::vector<Violation>& out) {
  const auto sources = ParseSources(text);
  if (!sources.ok()) {
    out.push_back({.path = key, .line = 0, .message = sources.status().message()});
    return;
  }
  for (const DataSource& source : *sources) {
    const auto files = ExpandSource(source);
    if (!files.ok()) {
      out.push_back({.path = key, .line = 0, .message = files.status().message()});
      continue;
    }
    for (const std::string& file : *files) {
      if (access(file.c_str(), R_OK) != 0) {
        out.push_back({.path = key, .line = 0, .message = ErrnoStatus(errno, file).message()});
      }
    }
  }
}

void CheckRunDir(const std::string& run_dir, std::vector<Violation>& out) {
  std::filesystem::path nearest = AbsolutePath(run_dir);
  while (!PathExists(nearest.native()) && nearest.has_relative_path()) {
    nearest = nearest.parent_path();
  }
  const std::string& existing = nearest.native();
  if (!IsDirectory(existing)) {
    out.push_back(
        {.path = "run_dir", .line = 0, .message = StrCat(existing, " is not a directory")});
  } else if (access(existing.c_str(), W_OK | X_OK) != 0) {
    out.push_back({.path = "run_dir",
                   .line = 0,
                   .message = ErrnoStatus(errno, StrCat("cannot write to ", existing)).message()});
  }
}
}  // namespace

Status MakePathsAbsolute(JobSpec& spec, const std::string& directory) {
  for (std::string* path :
       {&spec.model_id_or_path, &spec.run_dir, &spec.mftd.init_adapter, &spec.mftd.resume_from}) {
    if (!path->empty()) {
      *path = Absolute(*path, directory);
    }
  }
  for (const auto& [key, text] :
       {std::pair("data.data", &spec.data.data),
        std::pair("data.instruct_data", &spec.data.instruct_data),
        std::pair("data.eval_instruct_data", &spec.data.eval_instruct_data)}) {
    auto sources = ParseSources(*text);
    if (!sources.ok()) {
      return sources.status().WithContext(key);
    }
    for (DataSource& source : *sources) {
      source.path = Absolute(source.path, directory);
    }
    *text = FormatSources(*sources);
  }
  if (spec.mftd.name.empty()) {
    spec.mftd.name = std::filesystem::path(spec.run_dir).filename().native();
  }
  return Status::Ok();
}

std::vector<Violation> CheckPaths(const JobSpec& spec) {
  std::vector<Violation> violations;
  const std::string& model = spec.model_id_or_path;
  if (!IsDirectory(model)) {
    violations.push_back(
        {.path = "model_id_or_path", .line = 0, .message = StrCat(model, " is not a directory")});
  } else if (!PathExists(JoinPath(model, "params.json"))) {
    violations.push_back(
        {.path = "model_id_or_path",
         .line = 0,
         .message = StrCat(model, " has no params.json: not a Mistral model directory")});
  }
  CheckSources("data.data", spec.data.data, violations);
  CheckSources("data.instruct_data", spec.data.instruct_data, violations);
  if (!spec.no_eval) {
    CheckSources("data.eval_instruct_data", spec.data.eval_instruct_data, violations);
  }
  for (const auto& [key, path] : {std::pair("mftd.init_adapter", &spec.mftd.init_adapter),
                                  std::pair("mftd.resume_from", &spec.mftd.resume_from)}) {
    if (!path->empty() && !PathExists(*path)) {
      violations.push_back({.path = key, .line = 0, .message = StrCat(*path, " does not exist")});
    }
  }
  CheckRunDir(spec.run_dir, violations);
  return violations;
}

}  // namespace mft
