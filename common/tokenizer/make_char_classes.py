#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes char_classes_table.cc: the character classes that Tekken's pattern distinguishes, of Unicode 16.
Needs the package unicodedata2==16.0.0. Usage: make_char_classes.py > char_classes_table.cc"""
import unicodedata2

assert unicodedata2.unidata_version == "16.0.0", unicodedata2.unidata_version

CLASSES = {"Lu": 1, "Lt": 1, "Ll": 2, "Lm": 3, "Lo": 3, "Mn": 4, "Mc": 4, "Me": 4, "Nd": 5, "Nl": 5, "No": 5}
WHITE_SPACE = [0x09, 0x0B, 0x0C, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]
LINE_ENDS = [0x0A, 0x0D]


def class_of(code):
    if code in LINE_ENDS:
        return 7
    if code in WHITE_SPACE:
        return 6
    if 0xD800 <= code < 0xE000:
        return 0
    return CLASSES.get(unicodedata2.category(chr(code)), 0)


def main():
    runs, previous = [], None
    for code in range(0x110000):
        kind = class_of(code)
        if kind != previous:
            runs.append(code << 4 | kind)
            previous = kind
    print("// SPDX-License-Identifier: Apache-2.0\n// Written by make_char_classes.py from Unicode 16.0.0; not edited by hand.\n// clang-format off")
    print('#include "common/tokenizer/char_classes.h"\n\nnamespace mft {\n')
    print(f"static constexpr uint32_t kRuns[] = {{  // first code point << 4 | class; a run ends where the next begins")
    for i in range(0, len(runs), 14):
        print("  " + "".join(f"0x{run:x}," for run in runs[i:i + 14]))
    print("};\n\nstd::span<const uint32_t> CharClassRuns() {\n  return kRuns;\n}\n\n}  // namespace mft")


main()
