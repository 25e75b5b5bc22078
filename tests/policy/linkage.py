# SPDX-License-Identifier: Apache-2.0
"""No program loads a library that the design keeps away from it. Usage: linkage.py BIN_DIR"""

import pathlib
import re
import subprocess
import sys

import tree

NEVER = {
    "mftd": r"libtorch|libc10|libcuda|libcudart|libnccl|libsentencepiece|libgomp",
    "mftctl": r"libtorch|libc10|libcuda|libcudart|libnccl|libsentencepiece|libsqlite3|libgomp",
    "mft-runner": r"libtorch|libc10|libcuda|libcudart|libgrpc|libprotobuf|libsqlite3|libsentencepiece|libyaml-cpp",
    # LibTorch's CPU library itself needs libcudart and libcupti.
    "mft-worker": r"libmft_cuda|libcuda\.so|libcublas|libcudnn|libnccl|libtorch_cuda|libc10_cuda|libgrpc|libprotobuf\b|libprotobuf\.so|libfmt|libspdlog|libsqlite3|libabsl",
    "mft-data": r"libtorch|libc10|libcuda|libcudart|libgrpc|libprotobuf\.so|libsqlite3|libfmt|libspdlog",
}


def main():
    problems = []
    for program, never in NEVER.items():
        path = pathlib.Path(sys.argv[1]) / program
        if not path.exists():
            problems.append(f"{path}: not built")
            continue
        listing = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            if re.search(never, line.split("=>")[0]) or "not found" in line:
                problems.append(f"{program}: {line.strip()}")
    tree.finish(problems, len(NEVER))


main()
