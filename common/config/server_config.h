// SPDX-License-Identifier: Apache-2.0
// The daemon's configuration file (configs/mftd.yaml documents every key). Flags of mftd override
// it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/status.h"
#include "common/config/job_spec.h"
#include "common/config/yaml_reader.h"

namespace mft {

struct ServerConfig {
  std::string state_dir;  // "": $XDG_STATE_HOME/mftd, else ~/.local/state/mftd
  std::string listen;     // unix:PATH or HOST:PORT; "": the default socket
  std::string metrics = "127.0.0.1:9464";
  std::string program_dir;  // where mft-runner and the others are; "": beside mftd
  std::string cache_dir;    // token caches; "": <state_dir>/cache
  int64_t cache_gib = 64;   // token caches beyond that go, those unused for longest first
  int64_t cores = 0;        // shared out between CPU jobs; 0: those that the daemon may run on
  int64_t prepare_slots = 2;
  int64_t grace_seconds = 120;             // from SIGTERM to SIGKILL of an attempt
  std::string tracker_python = "python3";  // interpreter that has the clients of W&B and MLflow
  std::string log_level = "info";
};

template <typename Visitor>
void VisitFields(Visitor&& visit, auto& self) requires
    std::is_same_v<std::remove_cvref_t<decltype(self)>, ServerConfig> {
  visit("state_dir", self.state_dir, FieldRule{});
  visit("listen", self.listen, FieldRule{});
  visit("metrics", self.metrics, FieldRule{});
  visit("program_dir", self.program_dir, FieldRule{});
  visit("cache_dir", self.cache_dir, FieldRule{});
  visit("cache_gib", self.cache_gib, Between(1, int64_t{1} << 20));
  visit("cores", self.cores, Between(0, 65536));
  visit("prepare_slots", self.prepare_slots, Between(1, 64));
  visit("grace_seconds", self.grace_seconds, Between(1, 86'400));
  visit("tracker_python", self.tracker_python, FieldRule{});
  visit("log_level", self.log_level, OneOf({"debug", "info", "warning", "error"}));
}

struct ServerConfigResult {
  ServerConfig config;  // valid only if `violations` is empty
  std::vector<Violation> violations;
};

// Unknown keys and wrong values are violations with their lines.
ServerConfigResult ParseServerConfig(std::string_view yaml);

}  // namespace mft
