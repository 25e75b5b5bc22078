// SPDX-License-Identifier: Apache-2.0
#include "common/checkpoint/safetensors.h"

#include <array>
#include <cstring>
#include <filesystem>

#include <gtest/gtest.h>

#include "common/base/files.h"
#include "common/checkpoint/model_params.h"
#include "tests/support/fixtures.h"
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

std::string Repeat(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) {
    out += text;
  }
  return out;
}

INSTANTIATE_TEST_SUITE_P(
    Safetensors,
    HostileFile,
    ::testing::Values(
        Hostile{"Empty", "", "too short"},
        Hostile{"Short", "1234567", "too short"},
        Hostile{"Header2To63",
                File(uint64_t{1} << 63, kGood, kZeros),
                "header length 9223372036854775808"},
        Hostile{"HeaderPastTheEnd", File(1000, kGood, kZeros), "header of"},
        Hostile{"HeaderWrapsAround", File(UINT64_MAX, kGood, kZeros), "over the limit"},
        Hostile{"NoUtf8", File("\xFF", ""), "UTF-8"},
        Hostile{"NoJson", File("{", ""), "not valid JSON at its byte 2"},
        Hostile{"NoObject", File("[]", ""), "object"},
        Hostile{"Deep", File(std::string(100000, '['), ""), "must be a JSON object, not a list"},
        Hostile{"Truncated", File(kGood, kZeros.substr(2)), "outside"},
        Hostile{"Tail", File(kGood, kZeros + "x"), "foreign bytes"},
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
            "\"a\" twice"},
        Hostile{"UnknownDtype",
                File(Tensor("\"F7\"", "[16]", "[0,16]"), kZeros),
                "unknown dtype \"F7\""},
        Hostile{"ShapeOverflow",
                File(Tensor("\"I32\"", "[9007199254740992,9007199254740992]", "[0,16]"), kZeros),
                "more bytes than a 64-bit"},
        Hostile{"HugeShape",
                File(Tensor("\"I32\"", "[2,18446744073709551614]", "[0,16]"), kZeros),
                "[2, 18446744073709551614]"},
        Hostile{
            "NegativeShape", File(Tensor("\"I32\"", "[-4]", "[0,16]"), kZeros), "-4 at \"shape\""},
        Hostile{"FractionalShape",
                File(Tensor("\"I32\"", "[4.0]", "[0,16]"), kZeros),
                "4.0 at \"shape\""},
        Hostile{"ReversedOffsets", File(Tensor("\"I32\"", "[4]", "[16,0]"), kZeros), "outside"},
        Hostile{"WrongSize", File(Tensor("\"I32\"", "[2,2]", "[0,4]"), kZeros), "16 bytes"},
        Hostile{"ExtraField",
                File(R"({"t":{"dtype":"U8","shape":[16],"data_offsets":[0,16],"x":1}})", kZeros),
                "has 1 at \"x\""},
        Hostile{"NoShape",
                File(R"({"t":{"dtype":"U8","data_offsets":[0,16]}})", kZeros),
                "has no \"shape\""},
        Hostile{
            "DtypeTwice",
            File(R"({"t":{"dtype":"U8","dtype":"U8","shape":[16],"data_offsets":[0,16]}})", kZeros),
            "\"dtype\" twice"},
        Hostile{"ThreeOffsets", File(Tensor("\"U8\"", "[16]", "[0,8,16]"), kZeros), "3 numbers"},
        Hostile{"OffsetsOverflow",
                File(Tensor("\"U8\"", "[16]", "[0,99999999999999999999]"), kZeros),
                "99999999999999999999"},
        Hostile{"ManyDimensions",
                File(Tensor("\"U8\"", "[1" + Repeat(",1", 99) + "]", "[0,1]"), "x"),
                "more than 64"},
        Hostile{"NestedShape", File(Tensor("\"U8\"", "[[16]]", "[0,16]"), kZeros), "a list"},
        Hostile{"TensorIsNumber", File(R"({"t":16})", kZeros), "16 at \"t\""},
        Hostile{"TextBehindTheHeader", File("{} {}", ""), "not valid JSON"},
        Hostile{"MetadataTwice", File(R"({"__metadata__":{},"__metadata__":{}})", ""), "twice"},
        Hostile{"MetadataKeyTwice", File(R"({"__metadata__":{"a":"","a":""}})", ""), "twice"},
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

TEST(Safetensors, ReadsAHugeHeaderInLinearTime) {
  const testing::TempDir dir;
  std::string header = "{";
  constexpr int kTensors = 300'000;
  for (int i = 0; i < kTensors; ++i) {
    header += (i == 0 ? "\"" : ",\"") + std::to_string(i) +
              R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]})";
  }
  const auto file = SafetensorsFile::Open(dir.Write("m", File(header + "}", "")));
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ((*file)->tensors().size(), kTensors);
}

TEST(Safetensors, WritesEveryTensorAligned) {
  const testing::TempDir dir;
  const std::array<std::byte, 8> bytes{};
  ASSERT_TRUE(WriteSafetensors(dir.File("x"),
                               {{"a", DType::kU8, {3}, std::span(bytes).first(3)},
                                {"b", DType::kBF16, {1}, std::span(bytes).first(2)},
                                {"d", DType::kF32, {2}, bytes},
                                {"c", DType::kI64, {1}, bytes}})
                  .ok());
  const auto file = SafetensorsFile::Open(dir.File("x"));
  ASSERT_TRUE(file.ok()) << file.status().message();
  for (const TensorEntry& tensor : (*file)->tensors()) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data.data()) % DTypeSize(tensor.dtype), 0U)
        << tensor.name;
  }
}

TEST(Safetensors, RefusesToWriteWhatItWouldNotRead) {
  const testing::TempDir dir;
  const std::array<std::byte, 4> bytes{};
  const auto write = [&](std::vector<TensorToWrite> tensors) {
    return WriteSafetensors(dir.File("x"), std::move(tensors));
  };
  const TensorToWrite good{"a", DType::kF32, {1}, bytes};
  EXPECT_NE(write({good, good}).message().find("\"a\" is given twice"), std::string::npos);
  EXPECT_NE(write({{"a", DType::kF32, {2}, bytes}}).message().find("shape [2] of F32"),
            std::string::npos);
  EXPECT_FALSE(write({{"a", DType::kF32, {-1}, bytes}}).ok());
  EXPECT_FALSE(write({{"\xff", DType::kF32, {1}, bytes}}).ok());
  EXPECT_FALSE(write({{"__metadata__", DType::kF32, {1}, bytes}}).ok());
  EXPECT_TRUE(ListDir(dir.path())->empty());
}

TEST(Safetensors, AFullDiskKeepsItsErrnoAndLeavesNoFile) {
  const testing::TempDir dir;
  std::filesystem::create_symlink("/dev/full", dir.File("x"));
  const std::array<std::byte, 4> bytes{};
  const Status status = WriteSafetensors(dir.File("x"), {{"a", DType::kF32, {1}, bytes}});
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_NE(status.message().find("No space left on device"), std::string::npos);
  EXPECT_TRUE(ListDir(dir.path())->empty());
}

TEST(WriteSafetensors, MakesOneTensorAtATime) {
  const testing::TempDir dir;
  const std::string path = dir.path() + "/m.safetensors";
  int64_t made_after_size = 0;  // bytes of the file when the second tensor was made
  std::vector<TensorToWrite> tensors;
  for (const char* name : {"a", "b"}) {
    tensors.push_back({.name = name,
                       .dtype = DType::kF32,
                       .shape = {1 << 18},
                       .data = {},
                       .produce = [&, name]() -> Result<std::vector<std::byte>> {
                         made_after_size = FileSize(path).value();
                         return std::vector<std::byte>(1 << 20, std::byte(name[0]));
                       }});
  }
  ASSERT_TRUE(WriteSafetensors(path, tensors).ok());
  EXPECT_GT(made_after_size, 1 << 20);
  const auto file = SafetensorsFile::Open(path).value();
  EXPECT_EQ(file->Find("b")->data[7], std::byte('b'));
  EXPECT_EQ(file->Find("a")->data[(1 << 20) - 1], std::byte('a'));
}

TEST(WriteSafetensors, LeavesNothingWhereATensorCannotBeMade) {
  const testing::TempDir dir;
  const std::string path = dir.path() + "/m.safetensors";
  TensorToWrite tensor{.name = "a", .dtype = DType::kF32, .shape = {2}, .data = {}};
  tensor.produce = [] { return Result<std::vector<std::byte>>(Internal("cannot")); };
  EXPECT_EQ(WriteSafetensors(path, {tensor}).code(), Code::kInternal);
  tensor.produce = [] { return Result<std::vector<std::byte>>(std::vector<std::byte>(7)); };
  const Status wrong = WriteSafetensors(path, {tensor});
  EXPECT_EQ(wrong.code(), Code::kInvalidArgument);
  EXPECT_NE(wrong.message().find("7 bytes"), std::string::npos);
  tensor.shape = {-1};
  EXPECT_EQ(WriteSafetensors(path, {tensor}).code(), Code::kInvalidArgument);
  EXPECT_FALSE(PathExists(path));
}

}  // namespace
}  // namespace mft
