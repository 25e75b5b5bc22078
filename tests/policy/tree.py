# SPDX-License-Identifier: Apache-2.0
"""The checkout as the policy tests see it."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCE_FOLDERS = ("common", "server", "client", "worker", "tests")


def sources(*suffixes, folders=SOURCE_FOLDERS):
    """Source files below `folders`, sorted, as paths relative to the root."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in suffixes and path.is_file():
                yield path.relative_to(ROOT)


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def without_comments_and_strings(code):
    """The code with comments and literals blanked out; line numbers stay."""
    pattern = re.compile(
        r'R"(?P<tag>[^()\\ ]*)\(.*?\)(?P=tag)"|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)

    def blank(match):
        found = match.group(0)
        # 1'000'000 is a number, not a character literal.
        if found[0] == "'" and match.start() > 0 and code[match.start() - 1].isalnum():
            return found
        return re.sub(r"[^\n]", " ", found)

    return pattern.sub(blank, code)


def finish(problems, checked):
    """Prints the problems as file:line: text and ends the test."""
    for problem in problems:
        print(problem)
    if checked == 0:
        print("nothing was checked")
    print(f"{checked} checked, {len(problems)} problems")
    sys.exit(1 if problems or checked == 0 else 0)
