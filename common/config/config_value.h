// SPDX-License-Identifier: Apache-2.0
// One value of the tree into one member, with its rule. Each function returns "" or what is wrong;
// the member keeps its default then.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "common/config/config_node.h"
#include "common/config/job_spec.h"

namespace mft {

std::string ReadValue(const ConfigNode& node, const FieldRule& rule, bool& out);
std::string ReadValue(const ConfigNode& node, const FieldRule& rule, int64_t& out);
std::string ReadValue(const ConfigNode& node, const FieldRule& rule, double& out);
std::string ReadValue(const ConfigNode& node, const FieldRule& rule, std::string& out);
std::string ReadValue(const ConfigNode& node, const FieldRule& rule, std::vector<std::string>& out);
std::string ReadValue(const ConfigNode& node, const FieldRule& rule, std::vector<int64_t>& out);

// One label: key and value as Kubernetes bounds them, roughly.
std::string ReadLabel(const std::string& key,
                      const ConfigNode& node,
                      std::map<std::string, std::string>& out);

}  // namespace mft
