# SPDX-License-Identifier: Apache-2.0
"""Metrics of a job in W&B (offline) and MLflow (files), through their own clients."""

import json
import math
import os
import pathlib
import unittest

from harness import Case, DEPS, make_token_data

FAKES = pathlib.Path(__file__).resolve().parents[1] / "worker/track/fakes"


def metrics_of(run_dir, split):
    return [json.loads(line) for line in (run_dir / f"metrics.{split}.jsonl").read_text().splitlines()]


class Trackers(Case):
    def start(self, path):
        # The daemon's environment is the trackers'; its own Python has the clients.
        environment = {"PYTHONPATH": str(path), "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true",
                       "FAKE_TRACKER": str(self.dir / "calls.jsonl"), "PYTHONDONTWRITEBYTECODE": "1"}
        os.environ.update(environment)
        self.addCleanup(lambda: [os.environ.pop(name) for name in environment])
        config = self.dir / "mftd.yaml"
        config.write_text("tracker_python: /usr/bin/python3\n")
        self.start_daemon(["--config", config])

    def job_with_eval(self, extra, steps=6):
        path, run_dir = self.job_file(steps=steps, ckpt_freq=2)
        data = make_token_data(self.dir / "eval.jsonl", samples=10, seed=9)
        text = path.read_text().replace("  instruct_data:", f"  eval_instruct_data: {data}\n  instruct_data:")
        path.write_text(text + "no_eval: false\neval_freq: 3\n" + extra)
        return path, run_dir

    def test_mlflow_and_wandb_get_what_the_metric_files_have(self):
        self.start(DEPS / "python")
        store = self.dir / "mlruns"
        path, run_dir = self.job_with_eval(
            f"mlflow: {{tracking_uri: 'file:{store}', experiment_name: tests}}\nwandb: {{project: p, offline: true}}\n")
        job = self.submit(path, "--wait")
        self.assertEqual(self.describe(job)["state"], "SUCCEEDED")
        (tag,) = store.glob("*/*/tags/mft.job")
        run = tag.parents[1]
        self.assertEqual(tag.read_text(), job)
        self.assertEqual((run / "params/optim.lr").read_text(), "0.003")
        self.assertIn("status: 3", (run / "meta.yaml").read_text())  # FINISHED
        for split in ("train", "eval"):
            lines = metrics_of(run_dir, split)
            keys = set(lines[0]) - {"step", "at"}
            self.assertEqual({file.name for file in (run / "metrics").glob(f"{split}.*")}, {f"{split}.{key}" for key in keys})
            for key in keys:
                sent = [line.split() for line in (run / "metrics" / f"{split}.{key}").read_text().splitlines()]
                self.assertEqual([int(step) for _, _, step in sent], [line["step"] for line in lines])
                for (_, value, _), line in zip(sent, lines):
                    self.assertTrue(math.isclose(float(value), line[key], rel_tol=1e-12), (key, value, line[key]))
        (offline,) = (run_dir / "wandb").glob("offline-run-*")
        (record,) = offline.glob(f"run-{job}.wandb")
        self.assertIn(b"train/loss", record.read_bytes())
        self.assertIn(b"eval/eval_loss", record.read_bytes())

    def test_a_key_reaches_wandb_and_nothing_else(self):
        self.start(FAKES)
        path, _ = self.job_with_eval("wandb: {project: p, key: k0ey_of_the_file}\n")
        submitted = self.ctl("submit", path)
        self.assertIn("wandb.key", submitted.stderr)
        job = submitted.stdout.strip()
        self.ctl("logs", job, "-f")
        self.environment["WANDB_API_KEY"] = "k0ey_of_the_client"
        path, _ = self.job_with_eval("wandb: {project: p}\n")
        self.submit(path, "--wait")
        calls = [json.loads(line) for line in (self.dir / "calls.jsonl").read_text().splitlines()]
        keys = [call["key"] for call in calls if call["call"] == "init"]
        self.assertEqual(keys, ["k0ey_of_the_file", "k0ey_of_the_client"])
        self.daemon.stop()
        (self.dir / "calls.jsonl").unlink()
        for file in self.dir.rglob("*"):
            if file.is_file() and file.suffix != ".yaml":
                self.assertNotIn(b"k0ey_of", file.read_bytes(), file)

    def test_a_client_that_is_not_installed_fails_the_validation(self):
        self.start(self.dir)
        path, run_dir = self.job_with_eval("wandb: {project: p}\n")
        done = self.ctl("submit", path, "--wait", expect=3)
        self.assertIn("pip install wandb", done.stderr)
        self.assertIn("set `wandb.project` to null", done.stderr)
        self.assertFalse((run_dir / "checkpoints").exists())

    def test_training_by_hand_says_that_it_sends_nothing(self):
        path, _ = self.job_with_eval("wandb: {project: p}\n")
        self.program("mft-data", "prepare", "--config", path, "--out", self.dir / "cache")
        done = self.program("mft-worker", "train", "--job", path, "--data-cache", self.dir / "cache")
        self.assertIn("nothing is sent to wandb", done.stderr)


if __name__ == "__main__":
    unittest.main()
