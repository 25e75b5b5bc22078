# SPDX-License-Identifier: Apache-2.0
"""Functions, headers and sources stay short; no to-do marks, no preprocessor variants."""

import re

import tree

MAX_FUNCTION, MAX_HEADER, MAX_SOURCE, MAX_TEST = 60, 250, 400, 600
NOT_A_FUNCTION = re.compile(r"^\s*(?:inline\s+)?(?:namespace|class|struct|union|enum|extern)\b(?![^{]*\()|=\s*$|^\s*$")


def functions(code):
    """(first line, last line) of every outermost function body."""
    depth_of_body, stack, statement_start = None, [], 0
    for at, char in enumerate(code):
        if char in ";":
            if depth_of_body is None:
                statement_start = at + 1
        elif char == "{":
            head = code[statement_start:at].strip()
            is_body = depth_of_body is None and "(" in head and not NOT_A_FUNCTION.match(head)
            stack.append((statement_start, is_body))
            if is_body:
                depth_of_body = len(stack)
            elif depth_of_body is None:
                statement_start = at + 1
        elif char == "}" and stack:
            start, is_body = stack.pop()
            if is_body:
                first = start + len(code[start:]) - len(code[start:].lstrip())
                yield code.count("\n", 0, first) + 1, code.count("\n", 0, at) + 1
                depth_of_body = None
            if depth_of_body is None:
                statement_start = at + 1


def main():
    problems, checked = [], 0
    for path in tree.sources(".h", ".cc", ".cu"):
        raw = tree.text(path)
        lines = raw.count("\n")
        limit = MAX_TEST if str(path).startswith("tests/") else MAX_HEADER if path.suffix == ".h" else MAX_SOURCE
        if lines > limit:
            problems.append(f"{path}:1: {lines} lines, the limit is {limit}: split by responsibility")
        if "SPDX-License-Identifier: Apache-2.0" not in raw.split("\n", 1)[0]:
            problems.append(f"{path}:1: the first line is not the SPDX line")
        if path.suffix == ".h" and "#pragma once" not in raw:
            problems.append(f"{path}:1: no #pragma once")
        code = tree.without_comments_and_strings(raw)
        code = re.sub(r"(?m)^\s*#.*(?:\\\n.*)*$", lambda m: re.sub(r"[^\n]", " ", m.group(0)), code)
        for first, last in functions(code):
            checked += 1
            if last - first + 1 > MAX_FUNCTION:
                problems.append(f"{path}:{first}: function of {last - first + 1} lines, the limit is {MAX_FUNCTION}")
        for number, line in enumerate(raw.splitlines(), 1):
            if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
                problems.append(f"{path}:{number}: a to-do mark belongs into an issue")
            if re.match(r"\s*#\s*(ifdef|ifndef|if)\b", line):
                problems.append(f"{path}:{number}: variants are files, not preprocessor conditions")
    tree.finish(problems, checked)


main()
