# SPDX-License-Identifier: Apache-2.0
"""A model with the shapes of Mistral 7B, bf16 zeros in a file with holes: how fast it opens, one step of 64 tokens, peak memory."""

import argparse
import json
import pathlib
import subprocess
import tempfile

PARAMS = {"dim": 4096, "n_layers": 32, "head_dim": 128, "hidden_dim": 14336, "n_heads": 32, "n_kv_heads": 8,
          "norm_eps": 1e-5, "vocab_size": 32768, "rope_theta": 1e6}  # fmt: skip


def shapes():
    dim, hidden, q, kv = (PARAMS["dim"], PARAMS["hidden_dim"], PARAMS["n_heads"] * PARAMS["head_dim"],
                          PARAMS["n_kv_heads"] * PARAMS["head_dim"])  # fmt: skip
    yield from (("tok_embeddings", (PARAMS["vocab_size"], dim)), ("output", (PARAMS["vocab_size"], dim)), ("norm", (dim,)))
    for layer in range(PARAMS["n_layers"]):
        for name, shape in (("attention.wq", (q, dim)), ("attention.wk", (kv, dim)), ("attention.wv", (kv, dim)),
                            ("attention.wo", (dim, q)), ("feed_forward.w1", (hidden, dim)), ("feed_forward.w2", (dim, hidden)),
                            ("feed_forward.w3", (hidden, dim)), ("attention_norm", (dim,)), ("ffn_norm", (dim,))):  # fmt: skip
            yield f"layers.{layer}.{name}", shape


def write_model(directory):
    header, end = {}, 0
    for name, shape in shapes():
        size = 2 * shape[0] * (shape[1] if len(shape) == 2 else 1)
        header[f"{name}.weight"] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(directory / "consolidated.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    (directory / "params.json").write_text(json.dumps(PARAMS))
    return end


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", default="build/release/bin/mft-worker")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        size = write_model(pathlib.Path(directory))
        done = subprocess.run([arguments.worker, "bench", "--model", directory, "--documents", "1", "--document-tokens", "64",
                               "--rounds", "1", "--recompute", "block", "-o", "json"], check=True, capture_output=True, text=True)  # fmt: skip
    report = json.loads(done.stdout)
    print(f"{size / 1e9:.1f} GB opened in {report['open_seconds']:.2f} s, a step of {report['tokens']} tokens in "
          f"{report['seconds']:.1f} s ({report['precision']}), peak {report['peak_bytes'] / 2**30:.1f} GiB")  # fmt: skip


if __name__ == "__main__":
    main()
