// SPDX-License-Identifier: Apache-2.0
#include "common/base/strings.h"

#include <gtest/gtest.h>

namespace mft {
namespace {

TEST(StrCat, JoinsTextNumbersAndBooleans) {
  EXPECT_EQ(StrCat("a", 1, ' ', 2.5, " ", true), "a1 2.5 true");
}

TEST(Suggest, FindsTheKeyThatWasMeant) {
  const std::vector<std::string> keys = {"seq_len", "max_steps", "batch_size"};
  EXPECT_EQ(Suggest("seqlen", keys), "seq_len");
  EXPECT_EQ(Suggest("max_step", keys), "max_steps");
  EXPECT_EQ(Suggest("zzz", keys), "");
}

TEST(Utf8, RefusesOverlongSurrogateAndTruncatedSequences) {
  EXPECT_TRUE(IsValidUtf8("a\xC3\xA9\xF0\x9F\x99\x82"));
  EXPECT_FALSE(IsValidUtf8("\xC0\x80"));
  EXPECT_FALSE(IsValidUtf8("\xED\xA0\x80"));
  EXPECT_FALSE(IsValidUtf8("\xF4\x90\x80\x80"));
  EXPECT_FALSE(IsValidUtf8("abc\xE2\x82"));
}

TEST(IsValidUtf8, FindsABadByteAnywhere) {
  for (size_t i = 0; i < 40; ++i) {
    std::string text(40, 'a');
    EXPECT_TRUE(IsValidUtf8(text));
    text[i] = '\x80';
    EXPECT_FALSE(IsValidUtf8(text)) << i;
  }
}

TEST(Printable, ReplacesBadBytesAndCutsAtACharacter) {
  EXPECT_EQ(Printable("a\xFF"
                      "b",
                      10),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(Printable("\xC3\xA9\xC3\xA9", 3), "\xC3\xA9...");
}

TEST(Format, PrintsBytesAndDurations) {
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes(3), "3 B");
  EXPECT_EQ(FormatDuration(3.21), "3.2 s");
  EXPECT_EQ(FormatDuration(3720), "1 h 02 min");
}

TEST(SplitJoin, AreInverses) {
  EXPECT_EQ(Split("a,,b", ','), (std::vector<std::string>{"a", "", "b"}));
  EXPECT_EQ(Join(Split("a,,b", ','), ","), "a,,b");
  EXPECT_EQ(Trim(" \ta b\n"), "a b");
}

}  // namespace
}  // namespace mft
