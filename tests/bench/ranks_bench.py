# SPDX-License-Identifier: Apache-2.0
"""Two CPU ranks of one thread against one rank of two threads: the same steps of the same job, tokens/s of each, their ratio.

    /usr/bin/python3 tests/bench/ranks_bench.py [--bin build/release/bin] [--pairs 3] [--steps 6] [--precision fp32]

Each run is a real `mft-worker train` (ranks as torchrun would start them), in pairs right after each other; the figure of a run is the
median of its steps but the first. Model A of peft_bench.py: dim 512, 8 layers, vocab 32000, 4 packs of 512 tokens a step, LoRA rank 16.
"""

import argparse
import json
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
from harness import make_model, make_token_data  # noqa: E402

JOB = """\
data: {{instruct_data: {data}}}
model_id_or_path: {model}
run_dir: {run_dir}
seq_len: 512
batch_size: 1
num_microbatches: {micro}
max_steps: {steps}
log_freq: 1
no_ckpt: true
checkpoint: false
lora: {{rank: 16}}
mftd: {{device: cpu, precision: {precision}, threads: {threads}, loss_norm: token}}
"""
PACKS = 4


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bench:
    def __init__(self, args, directory):
        self.args, self.directory, self.runs = args, pathlib.Path(directory), 0
        self.model = make_model(self.directory / "model", vocab_size=32000, dim=512, layers=8, heads=8, kv_heads=4, head_dim=64, hidden=1408)
        self.data = make_token_data(self.directory / "data.jsonl", samples=400, vocab_size=32000, shortest=300, longest=510)

    def run(self, ranks, threads):
        """Tokens/s of the median step, and the losses."""
        self.runs += 1
        run_dir = self.directory / f"run{self.runs}"
        job = self.directory / f"job{self.runs}.yaml"
        job.write_text(JOB.format(data=self.data, model=self.model, run_dir=run_dir, micro=PACKS // ranks, steps=self.args.steps,
                                  threads=threads, precision=self.args.precision))
        cache = self.directory / "cache"
        if not cache.exists():
            subprocess.run([self.args.bin / "mft-data", "prepare", "--config", job, "--out", cache], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = str(free_port())
        processes = []
        for rank in range(ranks):
            environment = os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks),
                                        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            processes.append(subprocess.Popen([self.args.bin / "mft-worker", "train", "--job", job, "--data-cache", cache], env=environment,
                                              stderr=open(self.directory / f"log{self.runs}-{rank}", "wb")))
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit((self.directory / f"log{self.runs}-0").read_text()[-2000:])
        lines = [json.loads(line) for line in (run_dir / "metrics.train.jsonl").read_text().splitlines()]
        return statistics.median(line["wps"] for line in lines[1:]), [line["loss"] for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=HERE.parents[1] / "build" / "release" / "bin")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--precision", default="fp32")
    args = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(args, directory)
        for _ in range(args.pairs):
            one, losses = bench.run(1, 2)
            two, same = bench.run(2, 1)
            apart = max(abs(a / b - 1) for a, b in zip(losses, same))
            ratios.append(two / one)
            print(f"one rank, two threads: {one:.0f} tokens/s; two ranks of one thread: {two:.0f}; ratio {two / one:.3f}; "
                  f"losses apart by {apart:.1e}", flush=True)
    print(f"median ratio {statistics.median(ratios):.3f} ({args.precision})")


if __name__ == "__main__":
    main()
