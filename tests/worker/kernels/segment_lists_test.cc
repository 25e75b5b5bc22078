// SPDX-License-Identifier: Apache-2.0
#include "worker/kernels/cuda/segment_lists.h"

#include <cstdlib>
#include <cstring>

#include <gtest/gtest.h>

namespace mft::cuda {
namespace {

int g_uploads = 0;
int g_allocations = 0;
bool g_full = false;

const DeviceMemory& ProcessMemory() {
  static constexpr DeviceMemory memory = {.allocate = [](size_t bytes) -> void* {
                                            ++g_allocations;
                                            return g_full ? nullptr : std::malloc(bytes);
                                          },
                                          .release = [](void* data) { std::free(data); },
                                          .upload =
                                              [](void* to, const void* from, size_t bytes) {
                                                ++g_uploads;
                                                std::memcpy(to, from, bytes);
                                              },
                                          .download = nullptr,
                                          .synchronize = [] {},
                                          .free_bytes = nullptr};
  return memory;
}

std::vector<int32_t> Values(const int32_t* data, size_t count) {
  return {data, data + count};
}

class SegmentListsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    g_uploads = g_allocations = 0;
    g_full = false;
  }
  SegmentLists lists_{ProcessMemory()};
};

TEST_F(SegmentListsTest, SegmentsThatAreNotThereHaveNoRows) {
  const std::vector<int32_t> cu = {0, 1, 1, 8};
  const SegmentLists::Pieces pieces = lists_.Upload(cu, 5, {100, 10, 1});
  EXPECT_EQ(Values(pieces.lengths, 5), (std::vector<int32_t>{1, 0, 7, 0, 0}));
  EXPECT_EQ(Values(pieces.offsets[0], 6), (std::vector<int32_t>{0, 100, 100, 800, 800, 800}));
  EXPECT_EQ(Values(pieces.offsets[1], 6), (std::vector<int32_t>{0, 10, 10, 80, 80, 80}));
  EXPECT_EQ(Values(pieces.offsets[2], 6), (std::vector<int32_t>{0, 1, 1, 8, 8, 8}));
}

TEST_F(SegmentListsTest, GoUpOnceForAllLayersOfAChunk) {
  const std::vector<int32_t> cu = {0, 5, 8};
  const SegmentLists::Pieces first = lists_.Upload(cu, 2, {8, 4, 2});
  EXPECT_EQ(lists_.Upload(cu, 2, {8, 4, 2}).lengths, first.lengths);
  EXPECT_EQ(g_uploads, 1);
  const std::vector<int32_t> other = {0, 6, 8};
  EXPECT_EQ(Values(lists_.Upload(other, 2, {8, 4, 2}).lengths, 2), (std::vector<int32_t>{6, 2}));
  EXPECT_EQ(g_uploads, 2);
}

TEST_F(SegmentListsTest, AreWholeWhereTheyGrow) {
  const std::vector<int32_t> cu = {0, 5, 8};
  lists_.Upload(cu, 2, {8, 4, 2});
  const SegmentLists::Pieces pieces = lists_.Upload(cu, 500, {8, 4, 2});
  EXPECT_EQ(g_allocations, 2);
  EXPECT_EQ(pieces.lengths[1], 3);
  EXPECT_EQ(pieces.offsets[2][500], 16);
}

TEST_F(SegmentListsTest, WithoutMemorySayWhatIsMissing) {
  g_full = true;
  const std::vector<int32_t> cu = {0, 5};
  EXPECT_THROW(lists_.Upload(cu, 1, {8, 4, 2}), DeviceOutOfMemory);
  g_full = false;
  lists_.Upload(cu, 1, {8, 4, 2});
  g_full = true;
  EXPECT_THROW(lists_.Upload(cu, 500, {8, 4, 2}), DeviceOutOfMemory);
  g_full = false;
  EXPECT_EQ(lists_.Upload(cu, 1, {8, 4, 2}).lengths[0], 5);
  EXPECT_EQ(g_uploads, 2);
}

TEST(GrowingBuffer, KeepsWhatIsEnough) {
  g_allocations = 0;
  g_full = false;
  GrowingBuffer buffer(ProcessMemory(), "a test");
  void* const data = buffer.AtLeast(100);
  EXPECT_EQ(buffer.AtLeast(50), data);
  EXPECT_EQ(g_allocations, 1);
  buffer.Release();
  EXPECT_NE(buffer.AtLeast(50), nullptr);
  EXPECT_EQ(g_allocations, 2);
}

}  // namespace
}  // namespace mft::cuda
