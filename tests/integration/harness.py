# SPDX-License-Identifier: Apache-2.0
"""Runs the real programs: a private daemon on port 0 with temporary directories, small models, and mftctl."""

import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("MFT_BIN_DIR", ROOT / "build" / "release" / "bin"))
DEPS = pathlib.Path(os.environ.get("MFT_DEPS_DIR", ROOT / ".deps"))
TOKENIZER_V3 = DEPS / "mistral_common" / "data" / "mistral_instruct_tokenizer_240323.model.v3"
WAIT_S = 120


def write_safetensors(path, tensors):
    """tensors: name -> float32 array."""
    header, offset = {}, 0
    for name in sorted(tensors):
        size = tensors[name].nbytes
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            file.write(numpy.ascontiguousarray(tensors[name], dtype="<f4").tobytes())


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    kinds = {"F32": "<f4", "F64": "<f8", "I64": "<i8"}
    return {name: numpy.frombuffer(data[8 + length + h["data_offsets"][0]:8 + length + h["data_offsets"][1]],
                                   dtype=kinds[h["dtype"]]).reshape(h["shape"]) for name, h in header.items()}


def make_model(directory, vocab_size=512, dim=64, layers=2, heads=4, kv_heads=2, head_dim=16, hidden=96, tokenizer=False, seed=1):
    """A random Mistral-architecture model directory."""
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    rng = numpy.random.default_rng(seed)
    if tokenizer:
        vocab_size = 32768
        shutil.copy(TOKENIZER_V3, directory / "tokenizer.model.v3")
    params = {"dim": dim, "n_layers": layers, "head_dim": head_dim, "hidden_dim": hidden, "n_heads": heads,
              "n_kv_heads": kv_heads, "norm_eps": 1e-5, "vocab_size": vocab_size, "rope_theta": 10000.0}
    (directory / "params.json").write_text(json.dumps(params))
    shapes = {"tok_embeddings": (vocab_size, dim), "output": (vocab_size, dim), "norm": (dim,)}
    for i in range(layers):
        shapes |= {f"layers.{i}.attention.wq": (heads * head_dim, dim), f"layers.{i}.attention.wk": (kv_heads * head_dim, dim),
                   f"layers.{i}.attention.wv": (kv_heads * head_dim, dim), f"layers.{i}.attention.wo": (dim, heads * head_dim),
                   f"layers.{i}.feed_forward.w1": (hidden, dim), f"layers.{i}.feed_forward.w3": (hidden, dim),
                   f"layers.{i}.feed_forward.w2": (dim, hidden), f"layers.{i}.attention_norm": (dim,), f"layers.{i}.ffn_norm": (dim,)}
    tensors = {name + ".weight": numpy.ones(shape, "<f4") if len(shape) == 1 else
               rng.standard_normal(shape, dtype="<f4") / numpy.float32(shape[1] ** 0.5) for name, shape in shapes.items()}
    write_safetensors(directory / "consolidated.safetensors", tensors)
    return directory


def make_token_data(path, samples=200, vocab_size=512, shortest=8, longest=60, seed=2):
    """Pre-tokenised samples: they need no tokenizer."""
    rng = numpy.random.default_rng(seed)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(samples):
            count = int(rng.integers(shortest, longest))
            tokens = [1] + rng.integers(3, vocab_size, count).tolist() + [2]
            mask = [False] * (count // 3) + [True] * (len(tokens) - count // 3)
            file.write(json.dumps({"tokens": tokens, "mask": mask}) + "\n")
    return path


def make_chat_data(path, samples=40, seed=3):
    rng = numpy.random.default_rng(seed)
    with open(path, "w", encoding="utf-8") as file:
        for i in range(samples):
            a, b = (int(n) for n in rng.integers(0, 100, 2))
            messages = [{"role": "user", "content": f"What is {a} plus {b}?"}, {"role": "assistant", "content": f"It is {a + b}."}]
            if i % 5 == 0:
                messages.insert(0, {"role": "system", "content": "You add numbers."})
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


JOB = """\
data:
  instruct_data: {data}
model_id_or_path: {model}
run_dir: {run_dir}
seq_len: 64
batch_size: 1
num_microbatches: 1
max_steps: {steps}
log_freq: 1
ckpt_freq: {ckpt_freq}
lora: {{rank: 4}}
optim: {{lr: 0.003}}
mftd: {{device: cpu, precision: fp32, threads: 1}}
"""


class Daemon:
    """One mftd on its own state directory and socket."""

    def __init__(self, directory, extra=()):
        self.directory = pathlib.Path(directory)
        self.state = self.directory / "state"
        self.socket = self.directory / "s"
        self.extra = list(extra)
        self.process = None
        self.ready = ""
        self.log = open(self.directory / "mftd.log", "ab")

    def start(self):
        self.process = subprocess.Popen(
            [BIN / "mftd", "--state-dir", self.state, "--listen", f"unix:{self.socket}", "--metrics", "127.0.0.1:0", *self.extra],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        for line in self.process.stdout:
            if line.startswith("ready"):
                self.ready = line.strip()
                return self
        raise AssertionError(f"mftd ended with {self.process.wait()} before it was ready:\n{self.log_text()}")

    def log_text(self):
        return (self.directory / "mftd.log").read_text(errors="replace")[-4000:]

    @property
    def metrics_address(self):
        return re.search(r"metrics=(\S+)", self.ready).group(1)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError("mftd did not stop within 30 s of SIGTERM\n" + self.log_text()) from None
        if self.process:
            self.process.stdout.close()
        return self.process.returncode if self.process else None


class Case(unittest.TestCase):
    """A temporary directory with a model and data, and a daemon that is stopped at the end."""

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="mft-it-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.environment = os.environ | {"NO_COLOR": "1", "HOME": str(self.dir), "XDG_RUNTIME_DIR": str(self.dir / "run")}
        self.environment.pop("MFT_ENDPOINT", None)
        self.daemon = None
        self.run_count = 0

    def start_daemon(self, extra=()):
        self.daemon = Daemon(self.dir, extra)
        self.addCleanup(self.end)
        self.daemon.start()
        self.environment["MFT_ENDPOINT"] = f"unix:{self.daemon.socket}"

    def end(self):
        """Stops the daemon and, should a test have failed half-way, every process it left."""
        self.daemon.stop()
        self.daemon.log.close()
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if str(self.dir).encode() in command and int(entry.name) != os.getpid():
                    try:
                        os.kill(int(entry.name), signal.SIGKILL)
                    except ProcessLookupError:
                        pass

    def program(self, name, *arguments, expect=0, **options):
        """Runs a program; returns the finished process. `expect` None accepts any exit code."""
        done = subprocess.run([BIN / name, *map(str, arguments)], env=self.environment, capture_output=True, text=True,
                              timeout=options.pop("timeout", WAIT_S), check=False, stdin=options.pop("stdin", subprocess.DEVNULL),
                              **options)
        if expect is not None and done.returncode != expect:
            self.fail(f"{name} {' '.join(map(str, arguments))}: exit {done.returncode}, expected {expect}\n"
                      f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}\n{self.daemon.log_text() if self.daemon else ''}")
        return done

    def ctl(self, *arguments, **options):
        return self.program("mftctl", *arguments, **options)

    def job_file(self, steps=20, ckpt_freq=0, model=None, data=None, run_dir=None, extra=""):
        self.run_count += 1
        model = model or make_model(self.dir / "model")
        data = data or make_token_data(self.dir / "data.jsonl")
        run_dir = run_dir or self.dir / f"run{self.run_count}"
        path = self.dir / f"job{self.run_count}.yaml"
        path.write_text(JOB.format(model=model, data=data, run_dir=run_dir, steps=steps, ckpt_freq=ckpt_freq) + extra)
        return path, run_dir

    def submit(self, path, *arguments):
        job = self.ctl("submit", path, *arguments).stdout.strip()
        self.assertRegex(job, r"^j[a-z2-7]{11}$")
        return job

    def describe(self, job):
        return json.loads(self.ctl("describe", job, "-o", "json").stdout)

    def wait_for(self, what, condition, seconds=WAIT_S):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.05)
        self.fail(f"waited {seconds} s for {what}\n{self.daemon.log_text() if self.daemon else ''}")

    def wait_for_state(self, job, *states):
        def reached():
            described = self.describe(job)
            state = described["state"]
            if state not in states and state in ("FAILED", "CANCELLED", "SUCCEEDED"):
                self.fail(f"{job} is {state}: {described.get('message')}\n{self.daemon.log_text()}")
            return described if state in states else None
        return self.wait_for(f"{job} to be {states}", reached)

    def events(self, job):
        return [json.loads(line) for line in self.ctl("events", job, "-o", "json").stdout.splitlines()]
