# SPDX-License-Identifier: Apache-2.0
"""Includes follow the arrows of the design: a folder includes only what it may."""

import re

import tree

# folder: the folders it may include, besides itself. The longest matching prefix counts.
COMMON = ["common/base", "common/config", "common/journal", "common/tokenizer", "common/dataset", "common/checkpoint"]
ARROWS = {
    "common/base": [],
    "common/config": ["common/base"],
    "common/journal": ["common/base"],
    "common/tokenizer": ["common/base"],
    "common/checkpoint": ["common/base", "common/config"],
    "common/dataset": ["common/base", "common/config", "common/tokenizer"],
    "server/jobs": COMMON,
    "server/exec": COMMON,
    "server/store": COMMON + ["server/jobs"],
    "server/events": COMMON + ["proto", "server/jobs", "server/store"],
    "server/metrics": COMMON + ["proto", "server/jobs", "server/events", "server/store"],
    "server/control": COMMON + ["proto", "server/jobs", "server/exec", "server/store", "server/events"],
    "server/rpc": COMMON + ["proto", "server/control", "server/jobs", "server/exec", "server/store", "server/events", "server/metrics"],
    "server": COMMON + ["proto", "server"],
    "client": COMMON + ["proto"],
    "worker/runner": COMMON,
    "worker/data": COMMON,
    "worker/kernels": COMMON,
    "worker/kernels/cuda": COMMON + ["worker/kernels", "worker/comm"],
    "worker/comm": COMMON,
    "worker/model": COMMON + ["worker/kernels", "worker/comm"],
    "worker/export": COMMON + ["worker/model", "worker/kernels"],
    "worker/train": COMMON + ["worker/export", "worker/model", "worker/kernels", "worker/comm"],
    "worker/infer": COMMON + ["worker/model", "worker/kernels", "worker/comm"],
    "worker": COMMON + ["worker"],
}

# Headers that may stand only below these folders: one home each.
HOMES = {
    r"(ATen|c10|torch)/.*": ["worker/model", "worker/kernels", "worker/comm", "worker/train", "worker/infer", "worker/main.cc", "tests/worker", "tests/bench"],
    r"sqlite3\.h": ["server/store", "tests/server"],
    r"yaml-cpp/.*": ["common/config", "client"],
    r"sentencepiece.*": ["common/tokenizer"],
    r"prometheus/.*": ["server/metrics", "tests/server"],
    r"(grpcpp|google/protobuf|google/rpc|mft/v1)/.*": ["server", "client", "tests"],
    r"(spdlog|fmt)/.*": ["server", "client", "tests/server"],
    r"nccl\.h": ["worker/comm"],
    r"(cuda|cublas).*\.h": ["worker/kernels/cuda", "worker/comm/nccl.cc"],
}
BANNED = re.compile(r"torch/torch\.h|ATen/ATen\.h|torch/nn.*|torch/optim.*|torch/script\.h|torch/extension\.h")


def folder_of(path, folders):
    matching = [f for f in folders if str(path).startswith(f + "/")]
    return max(matching, key=len) if matching else None


def main():
    problems, checked = [], 0
    for path in tree.sources(".h", ".cc", ".cu"):
        home = folder_of(path, ARROWS)
        for number, line in enumerate(tree.text(path).splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+(["<])([^">]+)[">]', line)
            if not match:
                continue
            checked += 1
            quoted, header = match.group(1) == '"', match.group(2)
            where = f"{path}:{number}"
            if BANNED.fullmatch(header):
                problems.append(f"{where}: {header} is banned: include per-operator ATen headers")
            for pattern, homes in HOMES.items():
                if re.fullmatch(pattern, header) and not any(str(path).startswith(h) for h in homes):
                    problems.append(f"{where}: {header} may be included only below {', '.join(homes)}")
            target = folder_of(header, ARROWS)
            if quoted and home and not target and not header.startswith(("mft/v1/", "google/rpc/")):
                problems.append(f"{where}: {header}: include by the path from the root")
            if quoted and home and target and target != home and target not in ARROWS[home]:
                if not (home in ("server", "worker") and target.startswith(home + "/")):
                    problems.append(f"{where}: {home} may not include {target}")
    tree.finish(problems, checked)


main()
