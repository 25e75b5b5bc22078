# SPDX-License-Identifier: Apache-2.0
"""`mft-worker bench` against PEFT and transformers on the CPU: tokens/s, peak memory, and the share of the matmul rate.

    PYTHONPATH=TORCH:.deps/python python3 tests/bench/peft_bench.py [--worker build/release/bin/mft-worker] [--pairs 3] [--models A B]

Both train LoRA of rank 16 on all seven projections of the same model, in fp32 or in bf16, on random tokens, with two threads, each in a
process of its own, in pairs right after each other; the figures are medians over the pairs of the ratio within a pair.
Versions: transformers and peft as deploy/wheels-tests.txt pins them, torch 2.11.0 (its own Python wheel; Debian's 1.13 runs too, with
--attention eager, but is slower). PEFT has no padding-free attention on the CPU: chats of uneven lengths are sorted by length
and padded, and its best batch size is searched first.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

import peft_model

HERE = pathlib.Path(__file__).resolve().parent
DOCUMENTS = {"A": [512] * 4, "B": [1024]}
THREADS = 2


def run(command, environment):
    result = subprocess.run([str(part) for part in command], env=environment, stdout=subprocess.PIPE, check=True)
    return json.loads(result.stdout)


class Bench:
    def __init__(self, args, directory):
        self.args, self.directory = args, pathlib.Path(directory)
        # The worker finds its own LibTorch.
        self.worker_environment = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}

    def ours(self, model, lengths, precision):
        directory = self.directory / model / ("mistral-bf16" if precision == "bf16" else "mistral")
        return run([self.args.worker, "bench", "--model", directory, "--lengths", lengths, "--threads", THREADS,
                    "--precision", precision, "--rounds", self.args.rounds, "--output", "json"], self.worker_environment)

    def peft(self, model, lengths, batch, precision, adapters="fp32", rounds=None):
        return run([sys.executable, HERE / "peft_step.py", "--model", self.directory / model / "hf", "--lengths", lengths, "--batch", batch,
                    "--precision", precision, "--adapters", adapters, "--attention", self.args.attention, "--threads", THREADS,
                    "--rounds", rounds or self.args.rounds], os.environ)

    def compare(self, model, lengths, batch, own_precision, precision, adapters="fp32"):
        title = f"model {model}, {lengths.stem}, ours in {own_precision}, PEFT in {precision} ({adapters} adapters), batches of {batch}"
        speed, memory, rate = [], [], []
        for _ in range(self.args.pairs):
            ours = self.ours(model, lengths, own_precision)
            theirs = self.peft(model, lengths, batch, precision, adapters)
            speed.append(ours["tokens_per_second"] / theirs["tokens_per_second"])
            memory.append(ours["peak_bytes"] / theirs["peak_bytes"])
            rate.append(ours["ratio"])
            print(f"  pair: {ours['tokens_per_second']:.0f} and {theirs['tokens_per_second']:.0f} tokens/s, "
                  f"{ours['peak_bytes'] >> 20} and {theirs['peak_bytes'] >> 20} MiB, ratio {speed[-1]:.2f}, of {own_precision} matmul {rate[-1]:.2f} "
                  f"({ours['matmul_gflops']:.0f} GFLOP/s)", flush=True)
        print(f"{title}: {statistics.median(speed):.2f} x PEFT's tokens/s, {statistics.median(memory):.2f} of its memory, {statistics.median(rate):.2f} of the {own_precision} matmul rate; "
              f"torch {theirs['torch']}, transformers {theirs['transformers']}, peft {theirs['peft']}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", default="build/release/bin/mft-worker")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of a process")
    parser.add_argument("--models", nargs="*", default=["A", "B"], choices=["A", "B"])
    parser.add_argument("--parts", nargs="*", default=["fp32", "bf16", "chat"], choices=["fp32", "bf16", "chat"])
    parser.add_argument("--attention", choices=["sdpa", "eager"], default="sdpa")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(args, directory)
        for model in args.models:
            peft_model.write_models(bench.directory / model, model)
            lengths = bench.directory / f"{model}.txt"
            lengths.write_text(" ".join(map(str, DOCUMENTS[model])), encoding="ascii")
            batch = len(DOCUMENTS[model])
            if "fp32" in args.parts:
                bench.compare(model, lengths, batch, "fp32", "fp32")
            if "bf16" in args.parts:
                # Its best setting: adapters in fp32, or in bf16 too.
                adapters = max(["fp32", "bf16"], key=lambda a: bench.peft(model, lengths, batch, "bf16", a, 1)["tokens_per_second"])
                bench.compare(model, lengths, batch, "bf16", "bf16", adapters)
                bench.compare(model, lengths, batch, "bf16", "fp32")
        if "chat" in args.parts and "A" in args.models:
            chats = HERE / "chat_lengths.txt"
            batch = max([1, 2, 4, 8], key=lambda b: bench.peft("A", chats, b, "fp32", rounds=1)["tokens_per_second"])
            bench.compare("A", chats, batch, "fp32", "fp32")


if __name__ == "__main__":
    main()
