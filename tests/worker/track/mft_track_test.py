# SPDX-License-Identifier: Apache-2.0
"""mft-track over journals written by hand and a client that only writes down what it is told."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
PROGRAM = HERE.parents[2] / "worker/track/mft_track.py"
PATIENCE = 20


def step(number, seq=0, loss=1.0, **more):
    return {
        "seq": seq, "at": 1_700_000_000_000_000 + number, "type": "step", "step": number, "max_steps": 20, "loss": loss,
        "perplexity": 2.0, "learning_rate": 1e-4, "beta1": 0.9, "grad_norm": 0.5, "loss_tokens": 10, "tokens": 20,
        "step_seconds": 0.1, "tokens_per_second": 200.0, "mean_tokens_per_second": 190.0, "eta_seconds": 3.0,
        "peak_memory_bytes": 2 << 30, "memory_bytes": 1 << 30, "nonfinite": False, "skipped": False, **more,
    }  # fmt: skip


def evaluation(number):
    return {"seq": 0, "at": 0, "type": "eval", "step": number, "eval_loss": 0.5, "perplexity": 1.6, "train_loss": 0.7,
            "loss_tokens": 30, "seconds": 0.2}  # fmt: skip


def final(outcome):
    return {"seq": 0, "at": 0, "type": "final", "outcome": outcome, "step": 1, "code": 0, "reason": "", "message": ""}


class TrackTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.root = pathlib.Path(self.temporary.name)
        self.run_dir = self.root / "my run"
        self.spec = {
            "run_dir": str(self.run_dir),
            "optim": {"lr": 1e-4},
            "wandb": {"project": "p", "offline": False, "run_name": ""},
            "mlflow": {"tracking_uri": "", "experiment_name": ""},
        }
        self.calls_path = self.root / "calls.jsonl"
        self.failure = ""
        self.children = []

    def tearDown(self):
        for child in self.children:
            child.kill()
            child.wait()
        self.temporary.cleanup()

    def journal(self, *records, attempt=1, tail=""):
        directory = self.root / "job/attempts" / f"{attempt:04d}"
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / "rank-0.jsonl", "a", encoding="utf-8") as file:
            for record in records:
                file.write((record if isinstance(record, str) else json.dumps(record)) + "\n")
            file.write(tail)

    def start(self, attempt=1, action="run", service="wandb", key=None, path=str(HERE / "fakes"), **environment):
        (self.root / "job").mkdir(exist_ok=True)
        (self.root / "job/job.json").write_text(json.dumps({"version": 1, "job_id": "j1", "spec": self.spec}))
        if key is not None:
            (self.root / "key").write_text(key)
        secret = self.root / "key" if key is not None else os.devnull
        with open(self.root / "log", "w", encoding="utf-8") as log, open(secret, encoding="utf-8") as stdin:
            child = subprocess.Popen(
                [sys.executable, PROGRAM, action, service, "--job", self.root / "job/job.json",
                 "--attempt-dir", self.root / f"job/attempts/{attempt:04d}"],
                stdin=stdin, stdout=log, stderr=log,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "FAKE_TRACKER": str(self.calls_path),
                     "FAKE_FAILURE": self.failure, **environment},
                preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
            )  # fmt: skip
        self.children.append(child)
        return child

    def ends(self, child):
        code = child.wait(PATIENCE)
        self.log = (self.root / "log").read_text()
        return code

    # Sends everything that is there.
    def run_once(self, **options):
        child = self.start(**options)
        child.send_signal(signal.SIGTERM)
        return self.ends(child)

    def calls(self, name):
        if not self.calls_path.exists():
            return []
        calls = [json.loads(line) for line in self.calls_path.read_text().splitlines()]
        return [call for call in calls if call["call"] == name]

    def steps(self):
        return [call["step"] for call in self.calls("log")]

    def wait_for(self, condition):
        end = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end, "waited in vain")
            time.sleep(0.01)

    def test_sends_the_keys_of_mistral_finetune(self):
        self.journal(step(1), evaluation(1), final("done"))
        self.assertEqual(self.run_once(), 0, (self.root / "log").read_text())
        (init,) = self.calls("init")
        self.assertEqual((init["project"], init["name"], init["id"], init["resume"]), ("p", "my run", "j1", "allow"))
        self.assertEqual((init["job_type"], init["dir"]), ("training", str(self.run_dir)))
        self.assertEqual(init["config"], self.spec)
        train, eval_ = self.calls("log")
        self.assertEqual(train["step"], 1)
        self.assertEqual(
            train["metrics"],
            {"train/lr": 1e-4, "train/loss": 1.0, "train/percent_done": 5.0, "train/peak_allocated_mem": 2.0,
             "train/allocated_mem": 1.0, "train/wps": 200.0, "train/avg_wps": 190.0, "train/eta_in_seconds": 3.0,
             "train/grad_norm": 0.5, "train/beta1": 0.9, "train/loss_tokens": 10, "train/perplexity": 2.0},
        )  # fmt: skip
        self.assertEqual(
            eval_["metrics"],
            {"eval/train_loss": 0.7, "eval/perplexity": 1.6, "eval/eval_loss": 0.5, "eval/loss_tokens": 30},
        )
        self.assertEqual(self.calls("finish"), [{"call": "finish", "exit_code": 0}])

    def test_shares_of_experts_are_one_metric_each(self):
        self.journal(step(1, expert_share=[0.25, 0.75], expert_imbalance=1.5))
        self.run_once()
        metrics = self.calls("log")[0]["metrics"]
        self.assertEqual((metrics["train/expert_share.0"], metrics["train/expert_share.1"]), (0.25, 0.75))
        self.assertEqual(metrics["train/expert_imbalance"], 1.5)

    def test_follows_a_growing_journal_until_it_is_told_to_end(self):
        self.journal(step(1))
        child = self.start()
        self.wait_for(lambda: self.steps() == [1])
        self.journal(step(2), tail=json.dumps(step(3))[:40])
        self.wait_for(lambda: self.steps() == [1, 2])
        self.journal(json.dumps(step(3))[40:], step(4), final("stopped"))
        child.send_signal(signal.SIGTERM)
        self.assertEqual(self.ends(child), 0)
        self.assertEqual(self.steps(), [1, 2, 3, 4])
        self.assertEqual(self.calls("finish")[0]["exit_code"], 0)

    def test_goes_on_where_it_was_killed_and_sends_no_step_twice(self):
        self.journal(step(1), step(2))
        child = self.start()
        self.wait_for(lambda: self.steps() == [1, 2] and (self.root / "job/track-wandb.json").exists())
        child.kill()
        child.wait()
        self.journal(step(3))
        self.assertEqual(self.run_once(), 0)
        self.assertEqual(self.steps(), [1, 2, 3])

    def test_the_next_attempt_first_sends_what_the_last_one_left(self):
        self.journal(step(1), step(2), evaluation(2))
        self.run_once()
        self.journal(step(3), step(4))
        self.journal(step(3, loss=9.0), step(4), step(5), evaluation(4), final("done"), attempt=2)
        self.assertEqual(self.run_once(attempt=2), 0)
        self.assertEqual(self.steps(), [1, 2, 2, 3, 4, 5, 4])
        self.assertEqual([call["metrics"].get("train/loss") for call in self.calls("log") if call["step"] == 3], [1.0])
        self.assertEqual(len(self.calls("init")), 2)

    def test_what_could_not_be_sent_is_sent_by_the_next_start(self):
        self.journal(step(1), step(2))
        self.failure = "log2:network"
        self.assertEqual(self.run_once(), 1)
        self.assertIn("mft-track: error: wandb: no route to the service\n", self.log)
        self.failure = ""
        self.assertEqual(self.run_once(), 0)
        self.assertEqual(sorted(set(self.steps())), [1, 2])

    def test_numbers_that_are_not_finite_arrive_as_such(self):
        self.journal(step(1, loss="NaN", perplexity="Infinity"))
        self.run_once()
        metrics = self.calls("log")[0]["metrics"]
        self.assertNotEqual(metrics["train/loss"], metrics["train/loss"])
        self.assertEqual(metrics["train/perplexity"], float("inf"))

    def test_damaged_lines_are_skipped(self):
        self.journal("\0\0\0", '{"type":"step","step":1}', "[]", '{"type":"step"', step(2), '{"type":"other"}', step(3))
        self.assertEqual(self.run_once(), 0)
        self.assertEqual(self.steps(), [2, 3])
        self.assertEqual(self.log.count("skipped a damaged line"), 4)

    def test_a_position_that_cannot_be_read_starts_over(self):
        self.journal(step(1))
        (self.root / "job/track-wandb.json").write_text('{"attempt": 1, "off')
        self.assertEqual(self.run_once(), 0)
        self.assertEqual(self.steps(), [1])

    def test_a_rank_that_failed_or_vanished_is_a_failed_run(self):
        self.journal(step(1), final("failed"))
        self.run_once()
        self.journal(step(2), attempt=2)
        self.run_once(attempt=2)
        self.assertEqual([call["exit_code"] for call in self.calls("finish")], [1, 1])

    def test_the_key_comes_on_standard_input_and_is_never_told(self):
        self.journal(step(1))
        self.assertEqual(self.run_once(key="s3cret\n", WANDB_API_KEY="other"), 0)
        self.assertEqual(self.calls("init")[0]["key"], "s3cret")
        self.failure = "init:refused"
        self.assertEqual(self.run_once(key="s3cret\n"), 3)
        self.assertIn("the key *** is not valid", self.log)
        self.assertNotIn("s3cret", self.log)
        self.failure = ""
        self.run_once(WANDB_API_KEY="other")
        self.assertEqual(self.calls("init")[-1]["key"], "other")

    def test_offline_writes_to_run_dir_and_says_how_to_sync(self):
        self.spec["wandb"].update(offline=True, run_name="nice")
        self.journal(step(1))
        self.assertEqual(self.run_once(), 0)
        (init,) = self.calls("init")
        self.assertEqual((init["mode"], init["name"], init["resume"]), ("offline", "nice", None))
        self.assertIn("wandb sync --sync-all", self.log)

    def test_a_client_that_is_not_installed_is_one_clear_error(self):
        for service, field in (("wandb", "wandb.project"), ("mlflow", "mlflow.tracking_uri")):
            for action in ("check", "run"):
                child = self.start(action=action, service=service, path=str(self.root))
                self.assertEqual(self.ends(child), 3)
                self.assertEqual(len(self.log.splitlines()), 1, self.log)
                self.assertIn(f"pip install {service}", self.log)
                self.assertIn(f"set `{field}` to null", self.log)
        self.assertEqual(self.ends(self.start(action="check")), 0)
        self.assertEqual(self.log, "")

    def test_a_job_without_its_files_is_an_error(self):
        self.journal(step(1))
        self.spec = {"run_dir": str(self.run_dir)}
        self.assertEqual(self.run_once(), 1)
        self.assertIn("error: wandb: ", self.log)


if __name__ == "__main__":
    unittest.main()
