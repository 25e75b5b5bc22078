# SPDX-License-Identifier: Apache-2.0
"""Writes a small Mistral-architecture model directory with random weights.

    make_model.py DIR TOKENIZER

The base stays frozen in LoRA training, so its random parts must leave room for an answer: the output head's rows have
norm 2, so that a hidden state that points at one row gives it a logit of 2 * sqrt(dim) = 22.6 against a log-sum of the
others near 12.4; embeddings are small, so that what the adapters add to the residual stream weighs more than they do, and
the frozen projections that write to that stream are scaled down for the same reason.
"""

import json
import pathlib
import shutil
import struct
import sys

import numpy

DIM, LAYERS, HEADS, KV_HEADS, HEAD_DIM, HIDDEN, VOCAB = 128, 4, 4, 2, 32, 384, 32768
HEAD_ROW_NORM = 2.0
EMBEDDING_STD = 0.25
RESIDUAL_SCALE = 0.3


def make_tensors():
    rng = numpy.random.RandomState(3)  # its streams never change between numpy versions

    def matrix(rows, columns, std):
        return (rng.standard_normal((rows, columns)) * std).astype("<f4")

    tensors = {"tok_embeddings.weight": matrix(VOCAB, DIM, EMBEDDING_STD),
               "output.weight": matrix(VOCAB, DIM, HEAD_ROW_NORM / DIM ** 0.5),
               "norm.weight": numpy.ones(DIM, "<f4")}
    for i in range(LAYERS):
        shapes = {"attention.wq": (HEADS * HEAD_DIM, DIM), "attention.wk": (KV_HEADS * HEAD_DIM, DIM),
                  "attention.wv": (KV_HEADS * HEAD_DIM, DIM), "attention.wo": (DIM, HEADS * HEAD_DIM),
                  "feed_forward.w1": (HIDDEN, DIM), "feed_forward.w2": (DIM, HIDDEN), "feed_forward.w3": (HIDDEN, DIM)}
        for name, (rows, columns) in shapes.items():
            scale = RESIDUAL_SCALE if name in ("attention.wo", "feed_forward.w2") else 1.0
            tensors[f"layers.{i}.{name}.weight"] = matrix(rows, columns, scale / columns ** 0.5)
        for name in ("attention_norm", "ffn_norm"):
            tensors[f"layers.{i}.{name}.weight"] = numpy.ones(DIM, "<f4")
    return tensors


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name in sorted(tensors):
        end = offset + tensors[name].nbytes
        header[name] = {"dtype": "F32", "shape": list(tensors[name].shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(tensors):
            file.write(tensors[name].tobytes())


def main():
    directory, tokenizer = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    params = {"dim": DIM, "n_layers": LAYERS, "head_dim": HEAD_DIM, "hidden_dim": HIDDEN, "n_heads": HEADS,
              "n_kv_heads": KV_HEADS, "norm_eps": 1e-5, "vocab_size": VOCAB, "rope_theta": 10000.0}
    (directory / "params.json").write_text(json.dumps(params, indent=2) + "\n")
    shutil.copyfile(tokenizer, directory / "tokenizer.model.v3")
    write_safetensors(directory / "consolidated.safetensors", make_tensors())


if __name__ == "__main__":
    main()
