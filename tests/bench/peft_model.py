# SPDX-License-Identifier: Apache-2.0
"""One random Mistral model as two directories: Mistral's own files and Hugging Face's."""

import json
import pathlib

import torch
from safetensors.torch import save_file

VOCABULARY = 32000
SHAPES = {
    "A": {"dim": 512, "n_layers": 8, "n_heads": 8, "n_kv_heads": 4, "head_dim": 64, "hidden_dim": 1408},
    "B": {"dim": 1024, "n_layers": 8, "n_heads": 16, "n_kv_heads": 8, "head_dim": 64, "hidden_dim": 2816},
}
NAMES = {"attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj",
         "attention.wo": "self_attn.o_proj", "feed_forward.w1": "mlp.gate_proj", "feed_forward.w2": "mlp.down_proj",
         "feed_forward.w3": "mlp.up_proj"}


def mistral_tensors(shape):
    torch.manual_seed(1)
    dim, hidden = shape["dim"], shape["hidden_dim"]
    queries, keys = shape["n_heads"] * shape["head_dim"], shape["n_kv_heads"] * shape["head_dim"]
    sizes = {"attention.wq": (queries, dim), "attention.wk": (keys, dim), "attention.wv": (keys, dim), "attention.wo": (dim, queries),
             "feed_forward.w1": (hidden, dim), "feed_forward.w2": (dim, hidden), "feed_forward.w3": (hidden, dim)}
    tensors = {"tok_embeddings.weight": torch.randn(VOCABULARY, dim), "norm.weight": torch.ones(dim),
               "output.weight": torch.randn(VOCABULARY, dim) / dim**0.5}
    for layer in range(shape["n_layers"]):
        for name, size in sizes.items():
            tensors[f"layers.{layer}.{name}.weight"] = torch.randn(*size) / size[1]**0.5
        tensors[f"layers.{layer}.attention_norm.weight"] = torch.ones(dim)
        tensors[f"layers.{layer}.ffn_norm.weight"] = torch.ones(dim)
    return tensors


def permuted(weight, heads):
    """Mistral rotates pairs of neighbours, Hugging Face the two halves of a head."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns).contiguous()


def hugging_face_tensors(tensors, shape):
    out = {"model.embed_tokens.weight": tensors["tok_embeddings.weight"], "model.norm.weight": tensors["norm.weight"],
           "lm_head.weight": tensors["output.weight"]}
    for layer in range(shape["n_layers"]):
        for ours, theirs in NAMES.items():
            weight = tensors[f"layers.{layer}.{ours}.weight"]
            if ours in ("attention.wq", "attention.wk"):
                weight = permuted(weight, shape["n_heads"] if ours == "attention.wq" else shape["n_kv_heads"])
            out[f"model.layers.{layer}.{theirs}.weight"] = weight
        out[f"model.layers.{layer}.input_layernorm.weight"] = tensors[f"layers.{layer}.attention_norm.weight"]
        out[f"model.layers.{layer}.post_attention_layernorm.weight"] = tensors[f"layers.{layer}.ffn_norm.weight"]
    return out


def write_models(directory, name):
    """Writes <directory>/mistral and <directory>/hf, fp32, and <directory>/mistral-bf16."""
    shape = SHAPES[name]
    tensors = mistral_tensors(shape)
    mistral, hf = pathlib.Path(directory, "mistral"), pathlib.Path(directory, "hf")
    mistral.mkdir(parents=True)
    hf.mkdir(parents=True)
    save_file(tensors, mistral / "consolidated.safetensors")
    (mistral / "params.json").write_text(json.dumps({**shape, "norm_eps": 1e-5, "vocab_size": VOCABULARY, "rope_theta": 10000.0}))
    narrow = pathlib.Path(directory, "mistral-bf16")
    narrow.mkdir()
    save_file({key: tensor.to(torch.bfloat16) for key, tensor in tensors.items()}, narrow / "consolidated.safetensors")
    (narrow / "params.json").write_text((mistral / "params.json").read_text())
    save_file(hugging_face_tensors(tensors, shape), hf / "model.safetensors", metadata={"format": "pt"})
    (hf / "config.json").write_text(json.dumps({
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_size": shape["dim"], "intermediate_size": shape["hidden_dim"],
        "num_hidden_layers": shape["n_layers"], "num_attention_heads": shape["n_heads"], "num_key_value_heads": shape["n_kv_heads"],
        "head_dim": shape["head_dim"], "vocab_size": VOCABULARY, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": None,
        "max_position_embeddings": 4096, "tie_word_embeddings": False, "hidden_act": "silu", "torch_dtype": "float32"}))
