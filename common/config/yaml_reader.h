// SPDX-License-Identifier: Apache-2.0
// Job files: YAML text or JSON in, a valid JobSpec or every violation out.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/json.h"
#include "common/base/status.h"
#include "common/config/job_spec.h"

namespace mft {

// One thing wrong with a job file. `line` counts from 1; 0 where the text has no such place (a
// missing key, a value from --set, a proto message).
struct Violation {
  std::string path;  // "lora.rank"
  int line = 0;
  std::string message;  // names the value and what is accepted
};

struct JobSpecResult {
  JobSpec spec;                       // valid only if `violations` is empty
  std::vector<Violation> violations;  // by line
  std::vector<std::string> warnings;
  std::string wandb_key;  // taken out of the file: a secret, never stored in the spec
};

// "KEY=VALUE" of --set: a dotted path and a YAML scalar or flow value; applied after the file.
using Overrides = std::span<const std::string>;

// Reads YAML by the rules of design.md 4.2 and finetune-spec 1.2: dotted keys mean nested ones,
// unknown keys are violations with a suggestion, numbers may be quoted, an empty wandb.project
// means none. Cross-field rules are checked too. Relative paths stay as they are. Threads: safe
// from any thread. Text above 1 MiB, deep nesting and alias bombs are violations.
JobSpecResult ParseJobYaml(std::string_view text, Overrides overrides = {});

// The same for a JSON object of the same shape (job.json, the proto's JSON mapping: integers may be
// strings).
JobSpecResult ParseJobJson(const Json& json);

// The dotted path of every key ("optim.lr"), in VisitFields order.
std::vector<std::string> JobKeyPaths();

// Every field, in VisitFields order, so that ParseJobJson gives an equal spec back.
Json JobSpecToJson(const JobSpec& spec);

// YAML that ParseJobYaml reads back: run_dir/args.yaml, `--print-config`. Keys sorted at each
// level, as mistral-finetune writes them.
std::string JobSpecToYaml(const JobSpec& spec);

// Makes model_id_or_path, run_dir, init_adapter, resume_from and the sources of `data` absolute
// against `directory`, and fills in an empty mftd.name.
Status MakePathsAbsolute(JobSpec& spec, const std::string& directory);

// The rules that depend on the device that mftd.device `auto` became (cpu | cuda). Parsing applies
// them itself to a device that the file names.
std::vector<Violation> CheckDevice(const JobSpec& spec, std::string_view device);

// The rules that need the file system: model directory, data sources, run_dir's parent. Separate
// from parsing, because the client checks the text and the daemon's node has the files.
std::vector<Violation> CheckPaths(const JobSpec& spec);

// "job.yaml:12: lora.rank: ..." lines.
std::string FormatViolations(std::span<const Violation> violations, std::string_view file);

}  // namespace mft
