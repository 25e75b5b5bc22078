# SPDX-License-Identifier: Apache-2.0
"""The adapter that a job leaves, merged into its base by plain PyTorch in float32, gives mft-worker's logits."""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

import numpy
import torch

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(os.environ.get("MFT_BIN_DIR", ROOT / "build" / "release" / "bin"))
FIXTURES = ROOT / "tests" / "fixtures" / "train"
JOB = """\
data: {{instruct_data: {data}, instruct: {{shuffle: false, dynamic_chunk_fn_call: false}}}}
model_id_or_path: {model}
run_dir: {run_dir}
seq_len: 64
max_steps: 10
lora: {{rank: 4, scaling: {scaling}}}
optim: {{lr: 0.01}}
mftd: {{device: cpu, precision: fp32, threads: 1, target_modules: {modules}}}
"""


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        if name != "__metadata__":
            assert entry["dtype"] == "F32", (name, entry)
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            tensors[name] = torch.from_numpy(numpy.frombuffer(data[begin:end], "<f4").reshape(entry["shape"]).copy())
    return tensors


def merge(base, adapter, scaling):
    merged = dict(base)
    for name, a in adapter.items():
        if name.endswith(".lora_A.weight"):
            stem = name[:-len(".lora_A.weight")]
            merged[stem + ".weight"] = base[stem + ".weight"] + scaling * adapter[stem + ".lora_B.weight"] @ a
    return merged


def swiglu(layer, module, x):
    gate = torch.nn.functional.silu(x @ layer[f"{module}.w1"].T)
    return (gate * (x @ layer[f"{module}.w3"].T)) @ layer[f"{module}.w2"].T


def feed_forward(layer, moe, x):
    if moe is None:
        return swiglu(layer, "feed_forward", x)
    logits = x @ layer["feed_forward.gate"].T
    best, chosen = logits.topk(moe["num_experts_per_tok"])
    share = torch.zeros_like(logits).scatter(-1, chosen, best.softmax(-1))
    return sum(share[:, e:e + 1] * swiglu(layer, f"feed_forward.experts.{e}", x) for e in range(moe["num_experts"]))


def forward(weights, params, tokens):
    """Mistral's architecture as Hugging Face and mistral-inference define it, written down once more."""
    heads, kv_heads, width = params["n_heads"], params["n_kv_heads"], params["head_dim"]
    count = len(tokens)

    def norm(x, weight):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + params["norm_eps"]) * weight

    angles = torch.outer(torch.arange(count).double(),
                         params["rope_theta"] ** (-torch.arange(0, width, 2).double() / width))
    turn = torch.polar(torch.ones_like(angles), angles).to(torch.complex64)[:, None, :]

    def rotate(x):
        return torch.view_as_real(torch.view_as_complex(x.reshape(count, x.shape[1], -1, 2)) * turn).flatten(-2)

    hidden = weights["tok_embeddings.weight"][tokens]
    mask = torch.full((count, count), float("-inf")).triu(1)
    for i in range(params["n_layers"]):
        layer = {name[len(f"layers.{i}."):-len(".weight")]: w for name, w in weights.items() if name.startswith(f"layers.{i}.")}
        x = norm(hidden, layer["attention_norm"])
        q = rotate((x @ layer["attention.wq"].T).reshape(count, heads, width))
        k = rotate((x @ layer["attention.wk"].T).reshape(count, kv_heads, width)).repeat_interleave(heads // kv_heads, 1)
        v = (x @ layer["attention.wv"].T).reshape(count, kv_heads, width).repeat_interleave(heads // kv_heads, 1)
        scores = torch.einsum("qhe,khe->hqk", q, k) / width ** 0.5 + mask
        mixed = torch.einsum("hqk,khe->qhe", scores.softmax(-1), v).reshape(count, -1)
        hidden = hidden + mixed @ layer["attention.wo"].T
        x = norm(hidden, layer["ffn_norm"])
        hidden = hidden + feed_forward(layer, params["moe"], x)
    return norm(hidden, weights["norm.weight"]) @ weights["output.weight"].T


class AdapterLogits(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="mft-logits-"))
        self.addCleanup(shutil.rmtree, self.dir)

    def run_program(self, name, *arguments, stdin=""):
        done = subprocess.run([BIN / name, *map(str, arguments)], input=stdin, capture_output=True, text=True,
                              timeout=120, check=False)
        self.assertEqual(done.returncode, 0, f"{name}: {done.stderr}")
        return done.stdout

    def train(self, fixture, scaling, modules):
        job = self.dir / "job.yaml"
        job.write_text(JOB.format(data=FIXTURES / fixture / "data.jsonl", model=FIXTURES / fixture / "model",
                                  run_dir=self.dir / "run", scaling=scaling, modules=modules))
        self.run_program("mft-data", "prepare", "--config", job, "--out", self.dir / "cache")
        self.run_program("mft-worker", "train", "--job", job, "--data-cache", self.dir / "cache")
        return self.dir / "run" / "checkpoints" / "checkpoint_000010" / "consolidated"

    def check(self, fixture, scaling, modules):
        model = FIXTURES / fixture / "model"
        consolidated = self.train(fixture, scaling, modules)
        params = json.loads((consolidated / "params.json").read_text())
        self.assertEqual(params["lora"]["scaling"], scaling)
        adapter = read_safetensors(consolidated / "lora.safetensors")
        self.assertGreater(max(t.abs().max().item() for name, t in adapter.items() if "lora_B" in name), 0.01)
        base = read_safetensors(model / "consolidated.safetensors")
        merged = merge(base, adapter, scaling)
        samples = [json.loads(line)["tokens"] for line in (FIXTURES / fixture / "data.jsonl").read_text().splitlines()[:6]]
        answers = self.run_program("mft-worker", "logits", "--model", model, "--adapter", consolidated / "lora.safetensors",
                                   stdin="".join(json.dumps(tokens) + "\n" for tokens in samples))
        changed = 0.0
        for tokens, line in zip(samples, answers.splitlines(), strict=True):
            actual = torch.tensor(json.loads(line)["logits"])
            expected = forward(merged, params, torch.tensor(tokens))
            self.assertLess((actual - expected).abs().max().item(), 1e-4)
            changed = max(changed, (actual - forward(base, params, torch.tensor(tokens))).abs().max().item())
        self.assertGreater(changed, 0.1)  # the adapter does something

    def test_all_projections(self):
        self.check("dense", 2.0, "[wq, wk, wv, wo, w1, w2, w3]")

    def test_some_projections_and_another_head_width(self):
        self.check("dense-headdim", 0.5, "[wq, wv, w2]")

    def test_experts(self):
        self.check("moe", 2.0, "[wq, wk, wv, wo, w1, w2, w3]")


if __name__ == "__main__":
    unittest.main(verbosity=2)
