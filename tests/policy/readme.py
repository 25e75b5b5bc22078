# SPDX-License-Identifier: Apache-2.0
"""What the READMEs name exists, the top level holds what the design says, and documents stay short."""

import re

import tree

TOP_LEVEL = {"CMakeLists.txt", "CMakePresets.json", "README.md", "LICENSE", "proto", "server", "worker", "client",
             "common", "deploy", "tests", "configs", "build"}
NAMED = re.compile(r"`((?:common|server|client|worker|deploy|tests|configs|proto)/[\w./*{},-]*)`|\]\(([^)#:]+)\)")


def expand(name):
    match = re.search(r"\{([^{}]*)\}", name)
    if not match:
        return [name]
    return [n for part in match.group(1).split(",") for n in expand(name[:match.start()] + part + name[match.end():])]


def main():
    problems, checked = [], 0
    for entry in tree.ROOT.iterdir():
        if not entry.name.startswith(".") and entry.name not in TOP_LEVEL:
            problems.append(f"{entry.name}: not a part of the top level")
    readmes = [p.relative_to(tree.ROOT) for p in sorted(tree.ROOT.rglob("README.md"))
               if not {"build", ".deps"} & set(p.relative_to(tree.ROOT).parts)]
    for path in readmes:
        lines = tree.text(path).splitlines()
        limit = 200 if str(path) == "README.md" else 120
        if len(lines) > limit:
            problems.append(f"{path}:1: {len(lines)} lines, the limit is {limit}")
        for number, line in enumerate(lines, 1):
            for match in NAMED.finditer(line):
                for name in expand(match.group(1) or match.group(2)):
                    checked += 1
                    base = tree.ROOT if match.group(1) else (tree.ROOT / path).parent
                    if not (list(base.glob(name)) if "*" in name else (base / name).exists()):
                        problems.append(f"{path}:{number}: {name} does not exist")
    tree.finish(problems, checked)


main()
