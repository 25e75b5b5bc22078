// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/safetensors.h"

#include <cstring>

#include <gtest/gtest.h>

#include "common/checkpoint/model_files.h"
#include "tests/support/temp_dir.h"

namespace mft {
namespace {

std::string File(uint64_t length, const std::string& header, const std::string& data) {
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + data;
}
std::string File(const std::string& header, const std::string& data) {
  return File(header.size(), header, data);
}

struct Hostile {
  const char* name;
  std::string content;
  const char* expected;  // part of the message
};

class HostileFile : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileFile, IsRefusedWithTheFileAndTheReason) {
  const testing::TempDir dir;
  const auto file = SafetensorsFile::Open(dir.Write("m.safetensors", GetParam().content));
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.status().code(), Code::kDataLoss);
  EXPECT_NE(file.status().message().find("m.safetensors"), std::string::npos);
  EXPECT_NE(file.status().message().find(GetParam().expected), std::string::npos)
      << file.status().message();
}

const std::string kZeros(16, '\0');
constexpr const char* kGood = R"({"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}})";

std::string Tensor(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"t":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets +
         "}}";
}

INSTANTIATE_TEST_SUITE_P(
    Safetensors,
    HostileFile,
    ::testing::Values(
        Hostile{"Empty", "", "shorter"},
        Hostile{"Short", "1234567", "shorter"},
        Hostile{"Header2To63", File(uint64_t{1} << 63, kGood, kZeros), "header of"},
        Hostile{"HeaderPastTheEnd", File(1000, kGood, kZeros), "header of"},
        Hostile{"HeaderWrapsAround", File(UINT64_MAX, kGood, kZeros), "header of"},
        Hostile{"NoUtf8", File("\xFF", ""), "header"},
        Hostile{"NoJson", File("{", ""), "header"},
        Hostile{"NoObject", File("[]", ""), "object"},
        Hostile{"Deep", File(std::string(100000, '['), ""), "nesting"},
        Hostile{"Truncated", File(kGood, kZeros.substr(2)), "outside"},
        Hostile{"Tail", File(kGood, kZeros + "x"), "tail"},
        Hostile{"Hole", File(Tensor("\"I32\"", "[2]", "[8,16]"), kZeros), "hole"},
        Hostile{
            "Overlap",
            File(
                R"({"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]},"b":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}})",
                kZeros),
            "overlap"},
        Hostile{
            "SameRangeTwice",
            File(
                R"({"a":{"dtype":"U8","shape":[16],"data_offsets":[0,16]},"b":{"dtype":"U8","shape":[16],"data_offsets":[0,16]}})",
                kZeros),
            "overlap"},
        Hostile{
            "DuplicateName",
            File(
                R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}})",
                kZeros),
            "duplicate key \"a\""},
        Hostile{"UnknownDtype", File(Tensor("\"F7\"", "[16]", "[0,16]"), kZeros), "F7"},
        Hostile{"ShapeOverflow",
                File(Tensor("\"I32\"", "[9007199254740992,9007199254740992]", "[0,16]"), kZeros),
                "overflow"},
        Hostile{"HugeShape",
                File(Tensor("\"I32\"", "[2,18446744073709551614]", "[0,16]"), kZeros),
                "not a size"},
        Hostile{"NegativeShape", File(Tensor("\"I32\"", "[-4]", "[0,16]"), kZeros), "not a size"},
        Hostile{
            "FractionalShape", File(Tensor("\"I32\"", "[4.0]", "[0,16]"), kZeros), "not a size"},
        Hostile{"ReversedOffsets", File(Tensor("\"I32\"", "[4]", "[16,0]"), kZeros), "outside"},
        Hostile{"WrongSize", File(Tensor("\"I32\"", "[2,2]", "[0,4]"), kZeros), "16 bytes"},
        Hostile{"ExtraField",
                File(R"({"t":{"dtype":"U8","shape":[16],"data_offsets":[0,16],"x":1}})", kZeros),
                "exactly"},
        Hostile{"MetadataNotText", File(R"({"__metadata__":{"a":1}})", ""), "__metadata__"}),
    [](const auto& test) { return test.param.name; });

TEST(Safetensors, ReadsWhatTheFormatAllows) {
  const testing::TempDir dir;
  EXPECT_TRUE(SafetensorsFile::Open(dir.Write("a", File(kGood, kZeros))).ok());
  EXPECT_TRUE(SafetensorsFile::Open(dir.Write("b", File("{}\r \t\n", ""))).ok());
  EXPECT_TRUE(
      SafetensorsFile::Open(dir.Write("c", File(Tensor("\"F32\"", "[2,0]", "[0,0]"), ""))).ok());
  EXPECT_TRUE(
      SafetensorsFile::Open(dir.Write("d", File(Tensor("\"F32\"", "[]", "[0,4]"), "1234"))).ok());
}

TEST(Safetensors, ReadsBackWhatItWrote) {
  const testing::TempDir dir;
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};
  const std::vector<uint8_t> b = {7};
  ASSERT_TRUE(WriteSafetensors(dir.File("x"),
                               {{"b", DType::kU8, {1}, std::as_bytes(std::span(b))},
                                {"a", DType::kF32, {2, 3}, std::as_bytes(std::span(a))}},
                               {{"k", "v"}})
                  .ok());
  const auto file = SafetensorsFile::Open(dir.File("x"));
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ((*file)->metadata().at("k"), "v");
  const TensorEntry* tensor = (*file)->Find("a");
  ASSERT_NE(tensor, nullptr);
  EXPECT_EQ(tensor->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(std::memcmp(tensor->data.data(), a.data(), 24), 0);
  EXPECT_EQ((*file)->Find("c"), nullptr);
}

TEST(CheckTensors, ListsWhatDoesNotFit) {
  const testing::TempDir dir;
  const auto file = SafetensorsFile::Open(dir.Write("m", File(kGood, kZeros)));
  ASSERT_TRUE(file.ok());
  const Status status = CheckTensors(**file, {{"norm.weight", {4}}, {"test", {4}}});
  EXPECT_NE(status.message().find("norm.weight is missing"), std::string::npos);
  EXPECT_NE(status.message().find("test has shape [2, 2], expected [4]"), std::string::npos);
  EXPECT_NE(CheckTensors(**file, {}).message().find("test has no place"), std::string::npos);
}

TEST(FindModelWeights, SaysWhatItCannotRead) {
  const testing::TempDir dir;
  EXPECT_EQ(FindModelWeights(dir.path()).status().code(), Code::kNotFound);
  dir.Write("consolidated.00.pth", "");
  EXPECT_EQ(FindModelWeights(dir.path()).status().code(), Code::kUnimplemented);
  dir.Write("consolidated.safetensors", "");
  EXPECT_EQ(FindModelWeights(dir.path()).value(), dir.File("consolidated.safetensors"));
}

}  // namespace
}  // namespace mft
