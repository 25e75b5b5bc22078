// SPDX-License-Identifier: Apache-2.0
// The wire's JobSpec has exactly the fields of VisitFields, in that order and of those types.
#include <type_traits>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include "mft/v1/job_spec.pb.h"
#include "tests/common/config/config_testing.h"

namespace mft {
namespace {
using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;

template <typename T>
FieldDescriptor::CppType TypeOf() {
  if constexpr (std::is_same_v<T, bool>) {
    return FieldDescriptor::CPPTYPE_BOOL;
  } else if constexpr (std::is_same_v<T, int64_t> || std::is_same_v<T, std::vector<int64_t>>) {
    return FieldDescriptor::CPPTYPE_INT64;
  } else if constexpr (std::is_same_v<T, double>) {
    return FieldDescriptor::CPPTYPE_DOUBLE;
  } else {
    return FieldDescriptor::CPPTYPE_STRING;
  }
}

struct Compare {
  const Descriptor& message;
  int& index;

  const FieldDescriptor* Next(const char* key) {
    if (index >= message.field_count()) {
      ADD_FAILURE() << message.full_name() << " lacks " << key;
      return nullptr;
    }
    const FieldDescriptor* field = message.field(index++);
    EXPECT_EQ(field->name(), key) << message.full_name();
    return field->name() == key ? field : nullptr;
  }

  template <typename T>
  void operator()(const char* key, const T& /*value*/, const FieldRule& /*rule*/) {
    const FieldDescriptor* field = Next(key);
    if (field == nullptr) {
      return;
    }
    if constexpr (std::is_same_v<T, std::map<std::string, std::string>>) {
      EXPECT_TRUE(field->is_map()) << key;
    } else {
      EXPECT_EQ(field->cpp_type(), TypeOf<T>()) << key;
      EXPECT_EQ(
          field->is_repeated(),
          (std::is_same_v<T, std::vector<std::string>> || std::is_same_v<T, std::vector<int64_t>>))
          << key;
      EXPECT_TRUE(field->is_repeated() || field->has_presence())
          << key << " cannot tell unset from zero";
    }
  }
  template <typename Section>
  void operator()(const char* key, const Section& section) {
    const FieldDescriptor* field = Next(key);
    if (field == nullptr) {
      return;
    }
    ASSERT_EQ(field->cpp_type(), FieldDescriptor::CPPTYPE_MESSAGE) << key;
    int inner = 0;
    VisitFields(Compare{*field->message_type(), inner}, section);
    EXPECT_EQ(inner, field->message_type()->field_count())
        << key << " has fields that the structs lack";
  }
};

TEST(ProtoParity, JobSpecMirrorsVisitFields) {
  const Descriptor& message = *v1::JobSpec::descriptor();
  int index = 0;
  const JobSpec spec;
  VisitFields(Compare{message, index}, spec);
  EXPECT_EQ(index, message.field_count());
}

TEST(ProtoParity, ASpecSurvivesTheWire) {
  const JobSpec spec =
      testing::Parse("seed: 9007199254740993\nmftd.labels: {a: b}\nnum_ckpt_keep: null\n").spec;
  v1::JobSpec message;
  ASSERT_TRUE(
      google::protobuf::util::JsonStringToMessage(DumpJson(JobSpecToJson(spec)), &message).ok());
  std::string json;
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  ASSERT_TRUE(google::protobuf::util::MessageToJsonString(message, &json, options).ok());
  const JobSpecResult result = ParseJobJson(ParseJson(json).value());
  EXPECT_TRUE(result.violations.empty()) << FormatViolations(result.violations, "spec");
  EXPECT_EQ(JobSpecToJson(result.spec), JobSpecToJson(spec));
}

}  // namespace
}  // namespace mft
