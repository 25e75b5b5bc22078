// SPDX-License-Identifier: Apache-2.0
#include "common/config/yaml_tree.h"

#include <map>
#include <sstream>
#include <utility>

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include "common/base/strings.h"

namespace mft {

namespace {
struct TreeError {
  int line;
  std::string message;
};

bool IsPlainNull(const std::string& text) {
  return text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL";
}

int CountNodes(const ConfigNode& node) {
  int count = 1;
  for (const ConfigNode& item : node.items) {
    count += CountNodes(item);
  }
  for (const ConfigNode::Member& member : node.members) {
    count += CountNodes(member.value);
  }
  return count;
}

// Builds the tree from parse events. The parser recurses only after an On...Start returned, so the
// depth limit thrown there bounds its stack too.
class TreeBuilder : public YAML::EventHandler {
 public:
  ConfigNode TakeRoot() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& /*mark*/) override {}
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    Finish({.line = mark.line + 1}, anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) {
      throw TreeError{mark.line + 1, "an alias refers to a value that contains it"};
    }
    ConfigNode copy = found->second.node;
    if (static_cast<int>(frames_.size()) + found->second.depth > kMaxConfigDepth) {
      ThrowTooDeep(mark);
    }
    Charge(CountNodes(copy), mark);
    Finish(std::move(copy), YAML::NullAnchor);
  }

  void OnScalar(const YAML::Mark& mark,
                const std::string& tag,
                YAML::anchor_t anchor,
                const std::string& value) override {
    Charge(1, mark);
    CheckTag(mark, tag);
    ConfigNode node{.kind = ConfigNode::Kind::kScalar, .line = mark.line + 1};
    node.text = value;
    node.quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    if (!node.quoted && IsPlainNull(value)) {
      node.kind = ConfigNode::Kind::kNull;
    }
    Finish(std::move(node), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark,
                       const std::string& tag,
                       YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    Open(mark, tag, anchor, ConfigNode::Kind::kList);
  }

  void OnMapStart(const YAML::Mark& mark,
                  const std::string& tag,
                  YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    Open(mark, tag, anchor, ConfigNode::Kind::kMap);
  }

  void OnSequenceEnd() override { Close(); }
  void OnMapEnd() override { Close(); }

 private:
  struct Frame {
    ConfigNode node;
    YAML::anchor_t anchor = YAML::NullAnchor;
    int depth = 1;  // levels of this value, itself included
    bool has_key = false;
  };
  struct Anchored {
    ConfigNode node;
    int depth = 0;
  };

  [[noreturn]] static void ThrowTooDeep(const YAML::Mark& mark) {
    throw TreeError{mark.line + 1, StrCat("nested deeper than ", kMaxConfigDepth, " levels")};
  }

  void Charge(int nodes, const YAML::Mark& mark) {
    num_nodes_ += nodes;
    if (num_nodes_ > kMaxConfigNodes) {
      throw TreeError{
          mark.line + 1,
          StrCat("more than ", kMaxConfigNodes, " values (aliases count as what they stand for)")};
    }
  }

  static void CheckTag(const YAML::Mark& mark, const std::string& tag) {
    constexpr std::string_view kCore = "tag:yaml.org,2002:";
    const std::string_view name =
        tag.starts_with(kCore) ? std::string_view(tag).substr(kCore.size()) : "";
    if (!tag.empty() && tag != "?" && tag != "!" && name != "str" && name != "int" &&
        name != "float" && name != "bool" && name != "null" && name != "map" && name != "seq") {
      throw TreeError{mark.line + 1, StrCat("the tag ", Printable(tag, 80), " is not supported")};
    }
  }

  void Open(const YAML::Mark& mark,
            const std::string& tag,
            YAML::anchor_t anchor,
            ConfigNode::Kind kind) {
    Charge(1, mark);
    CheckTag(mark, tag);
    if (static_cast<int>(frames_.size()) >= kMaxConfigDepth) {
      ThrowTooDeep(mark);
    }
    frames_.push_back({.node = {.kind = kind, .line = mark.line + 1}, .anchor = anchor});
  }

  void Close() {
    Frame frame = std::move(frames_.back());
    frames_.pop_back();
    depth_of_last_ = frame.depth;
    Finish(std::move(frame.node), frame.anchor);
  }

  void Finish(ConfigNode node, YAML::anchor_t anchor) {
    const bool container =
        node.kind == ConfigNode::Kind::kMap || node.kind == ConfigNode::Kind::kList;
    const int depth = container ? depth_of_last_ : 0;
    if (anchor != YAML::NullAnchor) {
      anchors_[anchor] = {.node = node, .depth = depth};
    }
    if (frames_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& parent = frames_.back();
    parent.depth = std::max(parent.depth, depth + 1);
    if (parent.node.kind == ConfigNode::Kind::kList) {
      parent.node.items.push_back(std::move(node));
    } else if (parent.has_key) {
      parent.node.members.back().value = std::move(node);
      parent.has_key = false;
    } else if (container) {
      throw TreeError{node.line, "a key must be a name, not a list or a section"};
    } else {
      parent.node.members.push_back({.key = std::move(node.text), .line = node.line, .value = {}});
      parent.has_key = true;
    }
  }

  ConfigNode root_;
  std::vector<Frame> frames_;
  std::map<YAML::anchor_t, Anchored> anchors_;
  int num_nodes_ = 0;
  int depth_of_last_ = 0;
};
}  // namespace

YamlTree ParseYamlTree(std::string_view text) {
  if (text.size() > kMaxConfigBytes) {
    return {.root = {},
            .error = StrCat("larger than ", FormatBytes(kMaxConfigBytes), ", no job file")};
  }
  if (!IsValidUtf8(text) || text.find('\0') != std::string_view::npos) {
    return {.root = {}, .error = "not UTF-8 text"};
  }
  YamlTree tree;
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    TreeBuilder builder;
    if (parser.HandleNextDocument(builder)) {
      tree.root = builder.TakeRoot();
      TreeBuilder ignored;
      if (parser.HandleNextDocument(ignored)) {
        tree.error = "more than one YAML document";
      }
    }
  } catch (const TreeError& error) {
    tree.error = error.message;
    tree.error_line = error.line;
  } catch (const YAML::Exception& error) {
    tree.error = StrCat("invalid YAML: ", error.msg, " (column ", error.mark.column + 1, ")");
    tree.error_line = error.mark.line + 1;
  } catch (const std::exception& error) {
    tree.error = StrCat("invalid YAML: ", error.what());
  }
  return tree;
}

}  // namespace mft
