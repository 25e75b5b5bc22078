# SPDX-License-Identifier: Apache-2.0
"""`mft-worker extend-vocab`: the rows that mistral-finetune's utils/extend_model_vocab.py makes."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import numpy

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/integration"))
from harness import BIN, TOKENIZER_V3, make_model, read_safetensors  # noqa: E402

MATRICES = ("tok_embeddings.weight", "output.weight")
OLD, NEW, ADDED = 32000, 32768, 768


class ExtendVocab(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="mft-extend-"))
        self.addCleanup(shutil.rmtree, self.dir)

    def run_program(self, *arguments, stdin="", code=0):
        done = subprocess.run([BIN / "mft-worker", *map(str, arguments)], input=stdin, capture_output=True, text=True,
                              timeout=120, check=False)
        self.assertEqual(done.returncode, code, done.stderr)
        return done.stdout if code == 0 else done.stderr

    def model(self, **options):
        return make_model(self.dir / "model", **({"vocab_size": OLD, "dim": 32, "heads": 2, "kv_heads": 1, "hidden": 48} | options))

    def extended(self, model, name="new", *options):
        self.run_program("extend-vocab", "--model", model, "--to", self.dir / name, *options)
        return read_safetensors(self.dir / name / "consolidated.safetensors")

    def test_old_rows_move_and_new_ones_are_random(self):
        model = self.model()
        old = read_safetensors(model / "consolidated.safetensors")
        new = self.extended(model)
        self.assertEqual(set(new), set(old))
        for name in set(old) - set(MATRICES):
            numpy.testing.assert_array_equal(new[name], old[name])
        for name in MATRICES:
            self.assertEqual(new[name].shape, (NEW, 32))
            numpy.testing.assert_array_equal(new[name][:3], old[name][:3])
            numpy.testing.assert_array_equal(new[name][3 + ADDED:], old[name][3:])
            rows = new[name][3:3 + ADDED].astype(float) * 32 ** 0.5  # standard normal
            self.assertLess(abs(rows.mean()), 4 / rows.size ** 0.5)
            self.assertLess(abs(rows.std() - 1), 4 / (2 * rows.size) ** 0.5)
            for bound, share in ((1, 0.6827), (2, 0.9545), (3, 0.9973)):
                self.assertLess(abs((abs(rows) < bound).mean() - share), 0.01)
            self.assertLess(abs(numpy.corrcoef(rows[:, ::2].ravel(), rows[:, 1::2].ravel())[0, 1]), 0.04)
        self.assertFalse(numpy.array_equal(new[MATRICES[0]][3:771], new[MATRICES[1]][3:771]))
        params = json.loads((self.dir / "new/params.json").read_text())
        self.assertEqual(params, json.loads((model / "params.json").read_text()) | {"vocab_size": NEW})

    def test_the_same_seed_gives_the_same_rows(self):
        model = self.model()
        first = (self.extended(model, "a", "--seed", 5), self.extended(model, "b", "--seed", 5))
        for name in MATRICES:
            numpy.testing.assert_array_equal(first[0][name], first[1][name])
        other = self.extended(model, "c", "--seed", 5 + (1 << 32))
        for name in MATRICES:
            self.assertLess((other[name] == first[0][name])[3:771].mean(), 0.01)

    def test_the_mean_of_the_old_rows(self):
        model = self.model()
        old, new = read_safetensors(model / "consolidated.safetensors"), self.extended(model, "new", "--init", "mean")
        for name in MATRICES:
            mean = old[name].astype(float).mean(axis=0)
            numpy.testing.assert_allclose(new[name][3:771], numpy.tile(mean, (ADDED, 1)), rtol=1e-5, atol=1e-8)

    def test_it_computes_what_the_old_model_does(self):
        model = self.model()
        self.extended(model, "new", "--tokenizer", TOKENIZER_V3)
        self.assertEqual((self.dir / "new" / TOKENIZER_V3.name).read_bytes(), TOKENIZER_V3.read_bytes())
        ids = [1, 5, 31999, 700, 3, 2]
        moved = [i if i < 3 else i + ADDED for i in ids]
        old, new = (numpy.array(json.loads(self.run_program("logits", "--model", directory, stdin=f"{tokens}\n"))["logits"])
                    for directory, tokens in ((model, ids), (self.dir / "new", moved)))
        numpy.testing.assert_allclose(numpy.delete(new, range(3, 771), axis=1), old, rtol=1e-5, atol=1e-6)

    def test_half_precision_and_tied_models_stay_what_they_are(self):
        model = self.model()
        tensors = read_safetensors(model / "consolidated.safetensors")
        header, data = {}, b""
        for name, tensor in tensors.items():
            if name != "output.weight":
                half = tensor.astype(numpy.float16).tobytes()
                header[name] = {"dtype": "F16", "shape": tensor.shape, "data_offsets": [len(data), len(data) + len(half)]}
                data += half
        text = json.dumps(header).encode()
        (model / "consolidated.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
        params = json.loads((model / "params.json").read_text()) | {"tied_embeddings": True}
        (model / "params.json").write_text(json.dumps(params))
        self.run_program("extend-vocab", "--model", model, "--to", self.dir / "new")
        raw = (self.dir / "new/consolidated.safetensors").read_bytes()
        size = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8:8 + size])
        self.assertNotIn("output.weight", header)
        self.assertEqual({entry["dtype"] for name, entry in header.items() if name != "__metadata__"}, {"F16"})
        begin, end = header["tok_embeddings.weight"]["data_offsets"]
        rows = numpy.frombuffer(raw[8 + size + begin:8 + size + end], "<f2").reshape(NEW, 32)
        numpy.testing.assert_array_equal(rows[771:], tensors["tok_embeddings.weight"][3:].astype(numpy.float16))
        self.assertLess(abs(rows[3:771].astype(float).std() * 32 ** 0.5 - 1), 0.02)

    def test_what_does_not_fit_is_refused_and_leaves_nothing(self):
        model = self.model(vocab_size=512)
        message = self.run_program("extend-vocab", "--model", model, "--to", self.dir / "new", code=3)
        self.assertIn("original vocab size 512 is not equal to 32000", message)
        shutil.rmtree(model)
        model = self.model()
        old = TOKENIZER_V3.parent / "tokenizer.model.v1"
        message = self.run_program("extend-vocab", "--model", model, "--to", self.dir / "new", "--tokenizer", old, code=3)
        self.assertIn("has 32000 tokens", message)
        self.run_program("extend-vocab", "--model", model, "--to", self.dir / "new", "--init", "zero", code=2)
        self.run_program("extend-vocab", "--model", self.dir / "none", "--to", self.dir / "new", code=5)
        (self.dir / "new").mkdir()
        (self.dir / "new/file").write_text("mine")
        self.run_program("extend-vocab", "--model", model, "--to", self.dir / "new", code=6)
        self.assertEqual(sorted(entry.name for entry in self.dir.iterdir()), ["model", "new"])


if __name__ == "__main__":
    unittest.main()
