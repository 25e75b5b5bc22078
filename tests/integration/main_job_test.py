# SPDX-License-Identifier: Apache-2.0
"""The main job, end to end: submit a YAML, get an adapter."""

import json
import unittest

from harness import Case, make_chat_data, make_model, read_safetensors


class MainJob(Case):
    def test_yaml_in_adapter_out(self):
        self.start_daemon()
        model = make_model(self.dir / "model", dim=32, heads=2, kv_heads=1, hidden=64, tokenizer=True)
        data = make_chat_data(self.dir / "chat.jsonl")
        path, run_dir = self.job_file(steps=6, ckpt_freq=2, model=model, data=data, extra="num_ckpt_keep: 2\n")
        text = path.read_text().replace("  instruct_data:", f"  eval_instruct_data: {data}\n  instruct_data:")
        path.write_text(text + "no_eval: false\neval_freq: 3\n")
        job = self.submit(path)
        logs = self.ctl("logs", job, "-f")
        steps = [line for line in logs.stdout.splitlines() if "loss:" in line and "eval_loss" not in line]
        self.assertEqual(len(steps), 6, logs.stdout)
        self.assertIn("step: 000001", steps[0])
        self.assertEqual(sum("eval_loss:" in line for line in logs.stdout.splitlines()), 2, logs.stdout)

        described = self.describe(job)
        self.assertEqual(described["state"], "SUCCEEDED")
        self.assertEqual(int(described["progress"]["step"]), 6)
        checkpoints = [int(c["step"]) for c in json.loads(self.ctl("checkpoints", job, "-o", "json").stdout)["checkpoints"]]
        self.assertEqual(checkpoints, [4, 6])
        consolidated = run_dir / "checkpoints" / "checkpoint_000006" / "consolidated"
        adapter = read_safetensors(consolidated / "lora.safetensors")
        self.assertEqual(len(adapter), 2 * 7 * 2)
        self.assertGreater(abs(adapter["layers.0.attention.wq.lora_B.weight"]).max(), 0)
        self.assertEqual(json.loads((consolidated / "params.json").read_text())["lora"]["rank"], 4)
        self.assertTrue((consolidated / "tokenizer.model.v3").exists())
        self.assertTrue((consolidated.parent / "state" / "MANIFEST").exists())
        train = [json.loads(line) for line in (run_dir / "metrics.train.jsonl").read_text().splitlines()]
        self.assertEqual([m["step"] for m in train], [1, 2, 3, 4, 5, 6])
        self.assertEqual(list(train[0])[:10], ["lr", "step", "loss", "percent_done", "peak_allocated_mem", "allocated_mem", "wps",
                                               "avg_wps", "eta_in_seconds", "at"])
        self.assertTrue({"grad_norm", "beta1", "loss_tokens", "perplexity"} <= set(train[0]))
        self.assertEqual(len((run_dir / "metrics.eval.jsonl").read_text().splitlines()), 2)
        self.assertTrue((run_dir / "args.yaml").exists())
        self.assertEqual(len(list((run_dir / "tb").iterdir())), 2)

        sequences = [int(e["sequence"]) for e in self.events(job)]
        self.assertEqual(sequences, list(range(1, len(sequences) + 1)))
        base = self.ctl("chat", job, "--base", "What is 1 plus 2?")
        tuned = self.ctl("chat", job, "What is 1 plus 2?")
        self.assertEqual((base.returncode, tuned.returncode), (0, 0))
        self.assertIn(job, self.ctl("ls").stdout)

    def test_text_is_evaluated_as_its_tokens_are(self):
        self.start_daemon()
        model = make_model(self.dir / "model", dim=32, heads=2, kv_heads=1, hidden=64, tokenizer=True)
        data = make_chat_data(self.dir / "chat.jsonl")
        texts = [f"The number after {i} is {i + 1}" + ", and so on" * (i % 4) + "." for i in range(9)]
        (self.dir / "text.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        encoded = self.program("mft-data", "encode", "--tokenizer", model / "tokenizer.model.v3", "--raw",
                               input="".join(json.dumps(text) + "\n" for text in texts), stdin=None).stdout
        with open(self.dir / "tokens.jsonl", "w", encoding="utf-8") as file:
            for line in encoded.splitlines():
                tokens = [1, *json.loads(line)["tokens"], 2]
                file.write(json.dumps({"tokens": tokens, "mask": [True] * len(tokens)}) + "\n")
        losses = []
        for name in ("text", "tokens"):
            path, run_dir = self.job_file(steps=2, model=model, data=data)
            text = path.read_text().replace("  instruct_data:", f"  eval_instruct_data: {self.dir / name}.jsonl\n  instruct_data:")
            path.write_text(text + "no_eval: false\neval_freq: 1\n")
            self.submit(path, "--wait")
            lines = [json.loads(line) for line in (run_dir / "metrics.eval.jsonl").read_text().splitlines()]
            losses.append([(line["step"], line["eval_loss"], line["perplexity"], line["loss_tokens"]) for line in lines])
        self.assertEqual(len(losses[0]), 2)
        self.assertEqual(losses[0], losses[1])
        self.assertEqual(losses[0][0][3], sum(len(json.loads(line)["tokens"]) + 1 for line in encoded.splitlines()))

    def test_every_weight_trained_and_talked_to(self):
        self.start_daemon()
        model = make_model(self.dir / "model", dim=32, heads=2, kv_heads=1, hidden=64, tokenizer=True)
        data = make_chat_data(self.dir / "chat.jsonl")
        for name, lora in (("full", "lora: {enable: false}"), ("merged", "lora: {rank: 4}")):
            path, run_dir = self.job_file(steps=3, model=model, data=data, extra="save_adapters: false\n")
            path.write_text(path.read_text().replace("lora: {rank: 4}", lora))
            job = self.submit(path)
            self.wait_for_state(job, "SUCCEEDED")
            consolidated = run_dir / "checkpoints" / "checkpoint_000003" / "consolidated"
            trained = read_safetensors(consolidated / "consolidated.safetensors")
            start = read_safetensors(model / "consolidated.safetensors")
            self.assertEqual(trained.keys(), start.keys())
            self.assertNotIn("lora", json.loads((consolidated / "params.json").read_text()))
            norms_move = (trained["norm.weight"] != start["norm.weight"]).any()
            self.assertEqual(norms_move, name == "full")
            self.assertEqual(self.ctl("chat", job, "What is 1 plus 2?").returncode, 0)

    def test_cancel_writes_a_checkpoint_first(self):
        self.start_daemon()
        path, run_dir = self.job_file(steps=100000)
        job = self.submit(path)
        self.wait_for_state(job, "RUNNING")
        self.wait_for("some steps", lambda: int(self.describe(job)["progress"].get("step", 0)) > 3)
        self.ctl("cancel", job)
        self.wait_for_state(job, "CANCELLED")
        self.assertEqual(len(list((run_dir / "checkpoints").glob("checkpoint_*"))), 1)
        self.ctl("cancel", job, expect=6)

    def test_wait_exits_with_the_jobs_class(self):
        self.start_daemon()
        path, _ = self.job_file(steps=2)
        self.ctl("submit", path, "--wait")
        bad = self.dir / "bad.jsonl"
        bad.write_text('{"tokens": [1, 5, 2]}\n{"messages": [{"role": "user", "content": "x"}]}\n')
        path, _ = self.job_file(steps=2, data=bad)
        done = self.ctl("submit", path, "--wait", expect=3)
        self.assertIn("bad.jsonl:2", done.stdout + done.stderr)

    def test_dry_run_estimates_and_creates_nothing(self):
        self.start_daemon()
        path, run_dir = self.job_file(steps=7)
        done = self.ctl("submit", path, "--dry-run")
        for word in ("tokens", "steps", "epochs", "memory", "disk"):
            self.assertIn(word, done.stdout.lower())
        self.assertFalse(run_dir.exists())
        self.assertEqual(json.loads(self.ctl("ls", "-o", "json").stdout).get("jobs", []), [])

    def test_devices_and_version_answer(self):
        self.start_daemon()
        self.assertIn("cpu", self.ctl("devices").stdout)
        self.assertRegex(self.ctl("version").stdout, r"\d+\.\d+\.\d+")


if __name__ == "__main__":
    unittest.main(verbosity=2)
