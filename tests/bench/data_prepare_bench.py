#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Memory and speed of mft-data prepare on a large file of synthetic chats.

  PYTHONPATH=.deps/python /usr/bin/python3 tests/bench/data_prepare_bench.py [--megabytes 1000] [--short | --one-line]

Generates the file in a temporary directory (needs about 2.5 times its size), prepares it, and prints the peak of the resident memory
(VmHWM) and the throughput, hashing and publishing included. --short: one question and answer of a few words a line. --one-line: one
chat of so many megabytes (67 at most, the limit is 64 MiB).
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

import chat_data

ROOT = pathlib.Path(__file__).resolve().parents[2]
SPM_V3 = ROOT / ".deps/mistral_common/data/mistral_instruct_tokenizer_240323.model.v3"
MODEL = {"dim": 32, "n_layers": 2, "head_dim": 8, "hidden_dim": 48, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5, "vocab_size": 32768}
BLOCK_MEGABYTES = 32
LIMIT_MIB = 300


def short_lines(count):
    words = random.Random(1)
    for _ in range(count):
        messages = [{"role": role, "content": " ".join(words.choices(("red", "green", "blue", "yes", "no", "why"), k=4))} for role in ("user", "assistant")]
        yield (json.dumps({"messages": messages}) + "\n").encode()


def one_line(megabytes):
    words = random.Random(1)
    text = " ".join(words.choices(("The", "quick", "brown", "fox", "jumps", "over", "42", "lazy", "dogs.\n", "\u00e9t\u00e9"), k=200_000))
    text *= int(megabytes * 1_000_000 / len(text.encode()) - 0.1)
    return (json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}]}, ensure_ascii=False) + "\n").encode()


def make_data(path, megabytes, short, single):
    """A block of synthetic text, again and again: making 1 GB of it would take minutes."""
    if single:
        return path.write_bytes(one_line(megabytes))
    block = path.with_suffix(".block")
    if short:
        block.write_bytes(b"".join(short_lines(50_000)))
    else:
        chat_data.write(block, SPM_V3, min(megabytes, BLOCK_MEGABYTES), 1)
    content = block.read_bytes()
    block.unlink()
    size = 0
    with open(path, "wb") as out:
        while size < megabytes * 1_000_000:
            size += out.write(content)
    return size


def peak_mib(pid):
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--short", action="store_true")
    form.add_argument("--one-line", action="store_true")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        size = make_data(folder / "chats.jsonl", arguments.megabytes, arguments.short, arguments.one_line)
        (folder / "model").mkdir()
        (folder / "model/params.json").write_text(json.dumps(MODEL))
        (folder / "model/tokenizer.model.v3").symlink_to(SPM_V3)
        (folder / "job.yaml").write_text(f"data: {{instruct_data: {folder}/chats.jsonl}}\nmodel_id_or_path: {folder}/model\n"
                                         f"run_dir: {folder}/run\nseq_len: 8192\nmax_steps: 10\nmftd: {{device: cpu, precision: fp32}}\n")
        begin = time.perf_counter()
        process = subprocess.Popen([arguments.build / "bin/mft-data", "prepare", "--config", folder / "job.yaml", "--out", folder / "cache"])
        peak = 0
        while process.poll() is None:
            peak = max(peak, peak_mib(process.pid))
            time.sleep(0.01)
        seconds = time.perf_counter() - begin
    print(f"mft-data prepare of {size / 1e6:.0f} MB: exit {process.returncode}, peak of resident memory {peak:.0f} MiB (limit {LIMIT_MIB}),"
          f" {seconds:.1f} s, {size / seconds / 1e6:.1f} MB/s")
    return 0 if process.returncode == 0 and 0 < peak <= LIMIT_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
