# SPDX-License-Identifier: Apache-2.0
"""SIGTERM to a running job's runner: the next attempt goes on from the checkpoint, bitwise as if nothing had happened."""

import os
import pathlib
import signal
import unittest

from harness import Case

STEPS = 400


class Resume(Case):
    def losses(self, job):
        """step -> (loss, gradient norm) as the daemon's events have them; a later attempt overwrites what it supersedes."""
        steps = {}
        for event in self.events(job):
            if "step" in event:
                steps[int(event["step"]["step"])] = (event["step"]["loss"], event["step"]["gradNorm"])
        return steps

    def runner_pid(self, job):
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue
                if b"mft-runner" in command and f"/jobs/{job}/attempts/".encode() in command:
                    return int(entry.name)
        return None

    def test_the_next_attempt_repeats_nothing_and_changes_nothing(self):
        self.start_daemon()
        undisturbed_file, undisturbed_dir = self.job_file(steps=STEPS)
        undisturbed = self.submit(undisturbed_file, "--set", "seq_len=256")
        self.wait_for_state(undisturbed, "SUCCEEDED")

        stopped_file, stopped_dir = self.job_file(steps=STEPS)
        stopped = self.submit(stopped_file, "--set", "seq_len=256")
        self.wait_for("some steps", lambda: int(self.describe(stopped)["progress"].get("step", 0)) > 10)
        pid = self.runner_pid(stopped)
        self.assertIsNotNone(pid, "the runner had ended before it could be stopped")
        os.kill(pid, signal.SIGTERM)
        described = self.wait_for_state(stopped, "SUCCEEDED")
        self.assertEqual(int(described["attempt"]), 2)

        started = [e for e in self.events(stopped) if "attemptStarted" in e and e["attemptStarted"]["kind"] == "train"]
        resumed_from = int(started[1]["attemptStarted"]["fromStep"])
        self.assertTrue(0 < resumed_from < STEPS, resumed_from)
        self.assertEqual(sorted(self.losses(stopped)), list(range(1, STEPS + 1)))
        self.assertEqual(self.losses(stopped), self.losses(undisturbed))
        adapter = pathlib.Path("checkpoints") / f"checkpoint_{STEPS:06d}" / "consolidated" / "lora.safetensors"
        self.assertEqual((stopped_dir / adapter).read_bytes(), (undisturbed_dir / adapter).read_bytes())
        metrics = (stopped_dir / "metrics.train.jsonl").read_text().splitlines()
        self.assertEqual(len(metrics), STEPS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
