# SPDX-License-Identifier: Apache-2.0
"""README.md's table lists exactly the metrics of server/metrics/names.h."""

import re

import tree


def main():
    source = re.sub(r"\s+", " ", tree.text("server/metrics/names.h"))
    named = set(re.findall(r'\{ ?"(mftd_\w+)"', source))
    listed = set(re.findall(r"^\| `(mftd_\w+)` \|", tree.text("README.md"), re.M))
    problems = [f"README.md: {name} is not in the table" for name in sorted(named - listed)]
    problems += [f"README.md: {name} is no metric" for name in sorted(listed - named)]
    tree.finish(problems, len(named))


main()
