// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <utility>

#include "common/base/strings.h"
#include "common/config/config_node.h"
#include "common/config/config_value.h"
#include "common/config/spec_validate.h"
#include "common/config/yaml_reader.h"
#include "common/config/yaml_tree.h"

namespace mft {

namespace {
// A key of one level with what stands there. `key` may be dotted.
struct Entry {
  std::string key;
  const ConfigNode* node = nullptr;
  int line = 0;
  bool override = false;  // from --set: replaces the file's value
};
using Entries = std::vector<Entry>;

std::string JoinKey(const std::string& parent, std::string_view key) {
  return parent.empty() ? std::string(key) : StrCat(parent, ".", key);
}

struct PathCollector {
  std::vector<std::string>& paths;
  std::string prefix;

  template <typename T>
  void operator()(const char* key, const T& /*value*/, const FieldRule& /*rule*/) {
    paths.push_back(JoinKey(prefix, key));
  }
  template <typename T>
  void operator()(const char* key, const T& section) {
    VisitFields(PathCollector{paths, JoinKey(prefix, key)}, section);
  }
};

// Walks VisitFields and takes from the entries of each level what belongs to each field.
class SpecReader {
 public:
  explicit SpecReader(JobSpecResult& result) : result_(result) {}

  template <typename Section>
  void ReadSection(Section& section, const std::string& path, Entries entries) {
    std::vector<std::string> names;
    VisitFields(FieldVisitor{*this, path, entries, names}, section);
    for (const Entry& entry : entries) {
      ReportUnknown(path, entry, names);
    }
  }

  void Validate() {
    ValidateSpec({.line = [this](std::string_view path) { return LineOf(std::string(path)); },
                  .bad_paths = bad_paths_},
                 result_);
  }

  void Fail(const std::string& path, int line, std::string message) {
    bad_paths_.insert(path);
    result_.violations.push_back({.path = path, .line = line, .message = std::move(message)});
  }

 private:
  struct FieldVisitor {
    SpecReader& reader;
    const std::string& path;
    Entries& entries;
    std::vector<std::string>& names;

    template <typename T>
    void operator()(const char* key, T& value, const FieldRule& rule) {
      names.emplace_back(key);
      reader.ReadField(value, rule, JoinKey(path, key), Take(entries, key));
    }
    template <typename T>
    void operator()(const char* key, T& section) {
      names.emplace_back(key);
      reader.EnterSection(section, JoinKey(path, key), Take(entries, key));
    }
  };

  // Moves out the entries of `key`: itself (key becomes "") or a dotted path that begins with it
  // (key becomes the rest).
  static Entries Take(Entries& entries, std::string_view key) {
    Entries taken;
    Entries rest;
    for (Entry& entry : entries) {
      if (entry.key == key) {
        entry.key.clear();
        taken.push_back(std::move(entry));
      } else if (entry.key.size() > key.size() && entry.key.starts_with(key) &&
                 entry.key[key.size()] == '.') {
        entry.key.erase(0, key.size() + 1);
        taken.push_back(std::move(entry));
      } else {
        rest.push_back(std::move(entry));
      }
    }
    entries = std::move(rest);
    return taken;
  }

  // The entries inside a section, whether written nested or dotted.
  Entries Inside(const std::string& path, Entries taken) {
    Entries inside;
    for (Entry& entry : taken) {
      if (!entry.key.empty()) {
        inside.push_back(std::move(entry));
        continue;
      }
      lines_.emplace(path, entry.line);
      if (entry.node->kind == ConfigNode::Kind::kMap) {
        for (const ConfigNode::Member& member : entry.node->members) {
          inside.push_back({member.key, &member.value, member.line, entry.override});
        }
      } else if (entry.node->kind != ConfigNode::Kind::kNull) {
        Fail(path,
             entry.node->line,
             StrCat("must be a section of keys, not ", Describe(*entry.node)));
      } else if (path == "lora") {
        Fail(path,
             entry.line,
             "is null; leave the section out for its defaults, or say lora.enable: false for full "
             "fine-tuning");
      }
    }
    return inside;
  }

  template <typename T>
  void EnterSection(T& section, const std::string& path, Entries taken) {
    Entries inside = Inside(path, std::move(taken));
    if constexpr (std::is_same_v<T, WandbSpec>) {
      TakeWandbKey(inside);
    }
    ReadSection(section, path, std::move(inside));
  }

  // The value that counts: the last --set, else the file's. Several in the file are a violation.
  const Entry* Choose(const std::string& path, const Entries& taken) {
    const Entry* chosen = nullptr;
    const bool overridden =
        std::any_of(taken.begin(), taken.end(), [](const Entry& entry) { return entry.override; });
    for (const Entry& entry : taken) {
      if (entry.override != overridden) {
        continue;
      }
      if (chosen != nullptr && !overridden) {
        Fail(path, entry.line, StrCat("is given twice (first in line ", chosen->line, ")"));
        return nullptr;
      }
      chosen = &entry;
    }
    return chosen;
  }

  template <typename T>
  void ReadField(T& value, const FieldRule& rule, const std::string& path, Entries taken) {
    std::erase_if(taken, [&](const Entry& entry) {
      const bool below = !entry.key.empty();
      if (below) {
        Fail(JoinKey(path, entry.key),
             entry.line,
             StrCat("unknown key: ", path, " has no keys below it"));
      }
      return below;
    });
    const Entry* entry = Choose(path, taken);
    if (entry != nullptr) {
      lines_.emplace(path, entry->line);
      const std::string problem = ReadValue(*entry->node, rule, value);
      if (!problem.empty()) {
        Fail(path, entry->line, problem);
        return;
      }
    }
    if constexpr (std::is_same_v<T, std::string>) {
      if (rule.required && value.empty() && !bad_paths_.contains(path)) {
        Fail(path, LineOf(path), entry == nullptr ? "is required" : "is required and empty");
      }
    }
  }

  void ReadField(std::map<std::string, std::string>& value,
                 const FieldRule& /*rule*/,
                 const std::string& path,
                 Entries taken) {
    std::map<std::string, Entries> by_key;
    for (Entry& entry : Inside(path, std::move(taken))) {
      by_key[entry.key].push_back(std::move(entry));
    }
    for (const auto& [key, entries] : by_key) {
      const Entry* entry = Choose(JoinKey(path, key), entries);
      if (entry == nullptr) {
        continue;
      }
      const std::string problem = ReadLabel(key, *entry->node, value);
      if (!problem.empty()) {
        Fail(JoinKey(path, key), entry->line, problem);
      }
    }
  }

  // mistral-finetune had wandb.key until 2026-06; its value is a secret and appears nowhere.
  void TakeWandbKey(Entries& entries) {
    for (const Entry& entry : Take(entries, "key")) {
      std::string key;
      const std::string problem =
          entry.key.empty() ? ReadValue(*entry.node, Nullable(), key) : "is not text";
      if (!problem.empty()) {
        Fail("wandb.key", entry.line, "must be text");
      } else if (!key.empty()) {
        result_.wandb_key = key;
        result_.warnings.emplace_back(
            "wandb.key: taken out of the job file, because it is a secret; WANDB_API_KEY is the "
            "better way");
      }
    }
  }

  void ReportUnknown(const std::string& path,
                     const Entry& entry,
                     const std::vector<std::string>& names) {
    const std::string head = entry.key.substr(0, entry.key.find('.'));
    std::string message = path.empty() ? "unknown key" : StrCat("unknown key in section ", path);
    std::string meant = Suggest(head, names);
    if (!meant.empty()) {
      meant = JoinKey(path, meant);
    } else {
      for (const std::string& known : JobKeyPaths()) {  // the right key at the wrong level
        if (meant.empty() && (known == entry.key || known.ends_with(StrCat(".", entry.key)))) {
          meant = known;
        }
      }
    }
    if (!meant.empty()) {
      message += StrCat("; did you mean ", meant, "?");
    }
    Fail(JoinKey(path, Printable(entry.key, 80)), entry.line, message);
  }

  int LineOf(const std::string& path) const {
    const auto found = lines_.find(path);
    return found == lines_.end() ? 0 : found->second;
  }

  JobSpecResult& result_;
  std::map<std::string, int> lines_;
  std::set<std::string> bad_paths_;
};

Entries EntriesOf(const ConfigNode& root) {
  Entries entries;
  for (const ConfigNode::Member& member : root.members) {
    entries.push_back({member.key, &member.value, member.line, false});
  }
  return entries;
}

void ClearLines(ConfigNode& node) {
  node.line = 0;
  for (ConfigNode& item : node.items) {
    ClearLines(item);
  }
  for (ConfigNode::Member& member : node.members) {
    member.line = 0;
    ClearLines(member.value);
  }
}

// "KEY=VALUE"; false without a key. A VALUE that is no YAML is text.
bool ParseOverride(const std::string& text, std::string& key, ConfigNode& value) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    return false;
  }
  key = std::string(Trim(std::string_view(text).substr(0, equals)));
  const std::string raw(Trim(std::string_view(text).substr(equals + 1)));
  YamlTree tree = ParseYamlTree(raw);
  value = std::move(tree.root);
  if (!tree.error.empty()) {
    value = {.kind = ConfigNode::Kind::kScalar, .text = raw};
  }
  ClearLines(value);
  value.raw = raw;
  return !key.empty();
}

JobSpecResult ReadSpec(const ConfigNode& root, Overrides overrides) {
  JobSpecResult result;
  SpecReader reader(result);
  Entries entries;
  std::deque<ConfigNode> values;  // stable addresses
  if (root.kind == ConfigNode::Kind::kMap) {
    entries = EntriesOf(root);
  } else if (root.kind != ConfigNode::Kind::kNull) {
    reader.Fail("", root.line, StrCat("a job file is a section of keys, not ", Describe(root)));
    return result;
  }
  for (const std::string& text : overrides) {
    std::string key;
    ConfigNode& value = values.emplace_back();
    if (ParseOverride(text, key, value)) {
      entries.push_back({key, &value, 0, true});
    } else {
      reader.Fail("--set", 0, StrCat("expected KEY=VALUE, not \"", Printable(text, 80), "\""));
    }
  }
  reader.ReadSection(result.spec, "", std::move(entries));
  reader.Validate();
  std::stable_sort(result.violations.begin(),
                   result.violations.end(),
                   [](const Violation& a, const Violation& b) {
                     return std::pair(a.line == 0, a.line) < std::pair(b.line == 0, b.line);
                   });
  return result;
}
}  // namespace

std::vector<std::string> JobKeyPaths() {
  std::vector<std::string> paths;
  const JobSpec spec;
  VisitFields(PathCollector{paths, ""}, spec);
  return paths;
}

JobSpecResult ParseJobYaml(std::string_view text, Overrides overrides) {
  const YamlTree tree = ParseYamlTree(text);
  if (!tree.error.empty()) {
    JobSpecResult result;
    result.violations.push_back({.path = "", .line = tree.error_line, .message = tree.error});
    return result;
  }
  return ReadSpec(tree.root, overrides);
}

JobSpecResult ParseJobJson(const Json& json) {
  JobSpecResult result;
  if (!json.is_object()) {
    result.violations.push_back({.path = "", .line = 0, .message = "a job is a JSON object"});
    return result;
  }
  const Result<ConfigNode> root = ConfigNodeFromJson(json);
  if (!root.ok()) {
    result.violations.push_back({.path = "", .line = 0, .message = root.status().message()});
    return result;
  }
  return ReadSpec(*root, {});
}

std::string FormatViolations(std::span<const Violation> violations, std::string_view file) {
  std::string text;
  for (const Violation& violation : violations) {
    text += violation.line > 0 ? StrCat(file, ":", violation.line, ": ") : StrCat(file, ": ");
    text += violation.path.empty() ? StrCat(violation.message, "\n")
                                   : StrCat(violation.path, ": ", violation.message, "\n");
  }
  return text;
}

}  // namespace mft
