# SPDX-License-Identifier: Apache-2.0
"""What `mft-worker export` writes, read by the real transformers and PEFT: the same logits as mft-worker's own."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402
from peft import PeftModel, get_peft_model_state_dict  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MixtralConfig  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = pathlib.Path(os.environ.get("MFT_BIN_DIR", ROOT / "build" / "release" / "bin"))
DEPS = pathlib.Path(os.environ.get("MFT_DEPS_DIR", ROOT / ".deps"))
FIXTURES = ROOT / "tests" / "fixtures" / "train"
MODULES = {"wq": "self_attn.q_proj", "wk": "self_attn.k_proj", "wv": "self_attn.v_proj", "wo": "self_attn.o_proj",
           "w1": "mlp.gate_proj", "w2": "mlp.down_proj", "w3": "mlp.up_proj"}


def hf_name(name):
    """formats.md 6.2, written down once more."""
    outside = {"tok_embeddings.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight",
               "output.weight": "lm_head.weight"}
    if name in outside:
        return outside[name]
    _, layer, *rest, module, weight = name.split(".")
    prefix = f"model.layers.{layer}."
    if module in ("attention_norm", "ffn_norm"):
        return prefix + {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}[module] + "." + weight
    if module == "gate" or "experts" in rest:
        return ".".join([prefix + "block_sparse_moe", *rest[1:], module, weight])
    return prefix + MODULES[module] + "." + weight


def hf_rows(name, tensor, params):
    heads = params["n_heads"] if ".wq." in name else params["n_kv_heads"] if ".wk." in name else 0
    if not heads:
        return tensor
    return tensor.reshape(heads, params["head_dim"] // 2, 2, -1).transpose(1, 2).reshape(tensor.shape).contiguous()


def hf_config(params):
    sizes = {"vocab_size": params["vocab_size"], "hidden_size": params["dim"], "intermediate_size": params["hidden_dim"],
             "num_hidden_layers": params["n_layers"], "num_attention_heads": params["n_heads"],
             "num_key_value_heads": params["n_kv_heads"], "head_dim": params["head_dim"],
             "rms_norm_eps": params["norm_eps"], "rope_theta": params["rope_theta"], "sliding_window": None}
    if params.get("moe"):
        return MixtralConfig(**sizes, num_local_experts=params["moe"]["num_experts"],
                             num_experts_per_tok=params["moe"]["num_experts_per_tok"], architectures=["MixtralForCausalLM"])
    return MistralConfig(**sizes, architectures=["MistralForCausalLM"])


class Export(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="mft-export-"))
        self.addCleanup(shutil.rmtree, self.dir)

    def run_program(self, name, *arguments, stdin="", code=0):
        done = subprocess.run([BIN / name, *map(str, arguments)], input=stdin, capture_output=True, text=True,
                              timeout=120, check=False)
        self.assertEqual(done.returncode, code, f"{name}: {done.stderr}")
        return done.stdout if code == 0 else done.stderr

    def export(self, fixture, form, *options):
        to = self.dir / f"{fixture}-{form}-{len(list(self.dir.iterdir()))}"
        self.run_program("mft-worker", "export", "--model", FIXTURES / fixture / "model", "--adapter",
                         FIXTURES / fixture / "final.token.safetensors", "--to", to, "--format", form, *options)
        return to

    def params(self, fixture):
        return json.loads((FIXTURES / fixture / "model" / "params.json").read_text())

    def base_in_hf_layout(self, fixture):
        params, directory = self.params(fixture), self.dir / "base"
        weights = load_file(FIXTURES / fixture / "model" / "consolidated.safetensors")
        directory.mkdir()
        save_file({hf_name(n): hf_rows(n, t, params) for n, t in weights.items()}, directory / "model.safetensors",
                  metadata={"format": "pt"})
        hf_config(params).save_pretrained(directory)
        return directory

    def expect_same_logits(self, fixture, model, scaling=None):
        lines = (FIXTURES / fixture / "data.jsonl").read_text().splitlines()[:5]
        samples = [json.loads(line)["tokens"] for line in lines]
        answers = {}
        for adapter in ([], ["--adapter", FIXTURES / fixture / "final.token.safetensors"]):
            if adapter and scaling:
                adapter = [*adapter, "--scaling", scaling]
            output = self.run_program("mft-worker", "logits", "--model", FIXTURES / fixture / "model", *adapter,
                                      stdin="".join(json.dumps(tokens) + "\n" for tokens in samples))
            answers[bool(adapter)] = [torch.tensor(json.loads(line)["logits"]) for line in output.splitlines()]
        self.assertEqual(len(answers[True]), len(samples))
        model.eval()
        changed = 0.0
        for tokens, base, expected in zip(samples, answers[False], answers[True], strict=True):
            with torch.no_grad():
                actual = model(torch.tensor([tokens])).logits[0]
            self.assertLess((actual - expected).abs().max().item(), 1e-4)
            changed = max(changed, (actual - base).abs().max().item())
        self.assertGreater(changed, 0.01)  # the adapter does something

    def check_peft(self, fixture, scaling=None):
        options = [] if scaling is None else ["--scaling", scaling]
        directory = self.export(fixture, "peft", "--base-name", "mistralai/base", *options)
        self.assertEqual(sorted(p.name for p in directory.iterdir()), ["adapter_config.json", "adapter_model.safetensors"])
        config = json.loads((directory / "adapter_config.json").read_text())
        self.assertEqual((config["r"], config["lora_alpha"], config["base_model_name_or_path"]),
                         (self.rank(fixture), self.rank(fixture) * (scaling or 2.0), "mistralai/base"))
        base = AutoModelForCausalLM.from_pretrained(self.base_in_hf_layout(fixture), torch_dtype=torch.float32)
        model = PeftModel.from_pretrained(base, directory)
        written = load_file(directory / "adapter_model.safetensors")
        wanted = get_peft_model_state_dict(model)
        self.assertEqual({n: (t.shape, t.dtype) for n, t in written.items()},
                         {n: (t.shape, t.dtype) for n, t in wanted.items()})
        with safe_open(directory / "adapter_model.safetensors", "pt") as file:
            self.assertEqual(file.metadata(), {"format": "pt"})
        self.expect_same_logits(fixture, model, scaling)

    def rank(self, fixture):
        return json.loads((FIXTURES / fixture / "config.json").read_text())["lora"]["rank"]

    def test_peft_reads_the_adapter(self):
        self.check_peft("dense")

    def test_peft_reads_an_adapter_of_another_head_width_and_scaling(self):
        self.check_peft("dense-headdim", 0.3)

    def test_peft_reads_an_adapter_of_experts(self):
        self.check_peft("moe")

    def check_hf(self, fixture, *options):
        directory = self.export(fixture, "hf", *options)
        model, info = AutoModelForCausalLM.from_pretrained(directory, torch_dtype=torch.float32, output_loading_info=True)
        self.assertEqual({key: list(value) for key, value in info.items() if value}, {})
        self.assertEqual(model.generation_config.eos_token_id, 2)
        self.expect_same_logits(fixture, model)
        return directory

    def test_transformers_reads_the_merged_model(self):
        directory = self.check_hf("dense")
        self.assertEqual(sorted(p.name for p in directory.iterdir()),
                         ["config.json", "generation_config.json", "model.safetensors"])

    def test_transformers_reads_a_merged_model_of_another_head_width(self):
        self.check_hf("dense-headdim")

    def test_transformers_reads_shards_of_a_mixture(self):
        directory = self.check_hf("moe", "--max-shard-bytes", 100_000)
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        files = sorted(directory.glob("model-*.safetensors"))
        self.assertGreater(len(files), 2)
        self.assertEqual(files[0].name, f"model-00001-of-{len(files):05}.safetensors")
        tensors = {name: (tensor, path.name) for path in files for name, tensor in load_file(path).items()}
        self.assertEqual(index["weight_map"], {name: file for name, (_, file) in tensors.items()})
        self.assertEqual(index["metadata"]["total_size"], sum(t.numel() * t.element_size() for t, _ in tensors.values()))
        weights = load_file(FIXTURES / "moe" / "model" / "consolidated.safetensors")
        self.assertEqual({n: t.shape for n, (t, _) in tensors.items()}, {hf_name(n): t.shape for n, t in weights.items()})

    def test_the_merged_model_is_the_reference_s(self):
        directory = self.export("dense", "merged")
        expected = load_file(FIXTURES / "dense" / "merged.safetensors")
        actual = load_file(directory / "consolidated.safetensors")
        self.assertEqual(sorted(actual), sorted(expected))
        for name, tensor in expected.items():
            self.assertEqual((actual[name].dtype, actual[name].shape), (tensor.dtype, tensor.shape), name)
            self.assertLess((actual[name] - tensor).abs().max().item(), 1e-6, name)
        self.assertEqual(json.loads((directory / "params.json").read_text()), self.params("dense"))

    def test_bf16_is_the_fp32_model_rounded_once(self):
        exact = load_file(self.export("dense", "merged") / "consolidated.safetensors")
        rounded = load_file(self.export("dense", "merged", "--dtype", "bf16") / "consolidated.safetensors")
        for name, tensor in exact.items():
            self.assertTrue(torch.equal(rounded[name], tensor.to(torch.bfloat16)), name)
        config = json.loads((self.export("dense", "hf", "--dtype", "bf16") / "config.json").read_text())
        self.assertEqual(config["torch_dtype"], "bfloat16")

    def test_mistral_s_adapter_is_the_adapter(self):
        directory = self.export("moe", "mistral", "--scaling", 1.5)
        before = load_file(FIXTURES / "moe" / "final.token.safetensors")
        after = load_file(directory / "lora.safetensors")
        self.assertEqual(sorted(after), sorted(before))
        self.assertTrue(all(torch.equal(after[name], tensor) for name, tensor in before.items()))
        lora = json.loads((directory / "params.json").read_text())["lora"]
        self.assertEqual((lora["scaling"], lora["rank"]), (1.5, self.rank("moe")))

    def test_the_tokenizer_goes_along(self):
        model = self.dir / "model"
        shutil.copytree(FIXTURES / "dense" / "model", model)
        shutil.copy(DEPS / "mistral_common" / "data" / "mistral_instruct_tokenizer_240323.model.v3", model / "tokenizer.model.v3")
        for form in ("merged", "hf"):
            self.run_program("mft-worker", "export", "--model", model, "--adapter", FIXTURES / "dense" /
                             "final.token.safetensors", "--to", self.dir / form, "--format", form)
            self.assertEqual((self.dir / form / "tokenizer.model.v3").read_bytes(), (model / "tokenizer.model.v3").read_bytes())
        tokenizer = AutoTokenizer.from_pretrained(self.dir / "hf", use_fast=False)
        for text in ("Hello, world!", "Die Größe  der Übung\n\n42", "def f(x):\n    return x ** 2"):
            ids = self.run_program("mft-data", "encode", "--tokenizer", model / "tokenizer.model.v3", "--raw",
                                   stdin=json.dumps(text) + "\n")
            self.assertEqual(tokenizer(text)["input_ids"], [1, *json.loads(ids)["tokens"]], text)

    def test_what_is_there_stays(self):
        taken = self.dir / "taken"
        taken.mkdir()
        common = ["export", "--model", FIXTURES / "dense" / "model", "--to", taken, "--adapter"]
        self.run_program("mft-worker", *common, FIXTURES / "dense" / "final.token.safetensors")  # an empty one is taken
        message = self.run_program("mft-worker", *common, FIXTURES / "dense" / "final.token.safetensors", code=6)
        self.assertIn(f"{taken}: is there already", message)
        shutil.rmtree(taken)
        message = self.run_program("mft-worker", *common, FIXTURES / "moe" / "final.token.safetensors", code=3)
        self.assertIn("final.token.safetensors", message)
        self.assertEqual(list(self.dir.iterdir()), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
