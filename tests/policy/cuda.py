# SPDX-License-Identifier: Apache-2.0
"""Where nvcc is, the CUDA library is built, for every GPU generation it is to run on. Usage: cuda.py BIN_DIR NVCC WITH_CUDA
(NVCC empty or NOTFOUND: there is none.)"""

import pathlib
import struct
import sys

import tree

ARCHITECTURES = {80, 90, 100}  # A100; H100 and H200; B200
FATBIN_MAGIC = 0xBA55ED50
KIND_MACHINE_CODE = 2


def section(data, wanted):
    """The bytes of an ELF file's section; empty where it has none."""
    table, = struct.unpack_from("<Q", data, 40)
    size, count, names_at = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQ", data, table + i * size) for i in range(count)]
    names = data[headers[names_at][4]:]
    for name, _, _, _, offset, length in headers:
        if names[name:names.index(b"\0", name)].decode() == wanted:
            return data[offset:offset + length]
    return b""


def architectures(library):
    """For each file of kernels, the architectures of its machine code (what cuobjdump --list-elf lists)."""
    blob, at, found = section(library, ".nv_fatbin"), 0, []
    while at + 16 <= len(blob):
        magic, _, header, size = struct.unpack_from("<IHHQ", blob, at)
        if magic != FATBIN_MAGIC:
            at += 8  # padding
            continue
        entry, end, kinds = at + header, at + header + size, set()
        while entry < end:
            kind, _, entry_header, entry_size = struct.unpack_from("<HHIQ", blob, entry)
            if kind == KIND_MACHINE_CODE:
                kinds.add(struct.unpack_from("<I", blob, entry + 28)[0])
            entry += entry_header + entry_size
        found.append(kinds)
        at = end
    return found


def main():
    problems = []
    bin_dir, nvcc, with_cuda = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if not nvcc or nvcc.endswith("NOTFOUND"):
        print("not run: there is no nvcc here, so that nothing of CUDA is built")
        tree.finish(problems, 0)
        return
    library = bin_dir / "libmft_cuda.so"
    if with_cuda != "ON" or not library.exists():
        problems.append(f"{library}: not built, though {nvcc} is there (MFT_WITH_CUDA {with_cuda})")
    else:
        files = architectures(library.read_bytes())
        if not files:
            problems.append(f"{library}: has no kernels")
        for kinds in files:
            for missing in sorted(ARCHITECTURES - kinds):
                problems.append(f"{library}: a file of kernels has no machine code for sm_{missing}")
    tree.finish(problems, 1)


main()
