# SPDX-License-Identifier: Apache-2.0
"""A job of two CPU ranks: equal to one of one rank, and it survives the loss of a rank, whose place the daemon then names."""

import os
import pathlib
import re
import signal
import time
import unittest

from harness import Case

STEPS = 400


class ManyRanks(Case):
    def job(self, ranks, **options):
        path, run_dir = self.job_file(steps=STEPS, ckpt_freq=50, **options)
        return self.submit(path, "--ranks", ranks, "--set", "seq_len=256", "--set", f"num_microbatches={2 // ranks}"), run_dir

    def losses(self, job):
        """step -> loss; a later attempt overwrites what it supersedes."""
        return {int(e["step"]["step"]): e["step"]["loss"] for e in self.events(job) if "step" in e}

    def processes(self, job):
        """Of the job's ranks: rank -> pid."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    command = (entry / "cmdline").read_bytes()
                    environment = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if b"mft-worker" in command and f"/jobs/{job}/attempts/".encode() in command:
                    found[int(re.search(rb"\0RANK=(\d+)", b"\0" + environment).group(1))] = int(entry.name)
        return found

    def wait_for_step(self, job, step, attempt):
        def reached():
            described = self.describe(job)
            self.assertNotIn(described["state"], ("SUCCEEDED", "FAILED"), described)
            return int(described.get("attempt", 0)) == attempt and int(described["progress"].get("step", 0)) >= step
        self.wait_for(f"step {step} of attempt {attempt}", reached)

    def lose(self, job, rank, how):
        self.wait_for("both ranks", lambda: len(self.processes(job)) == 2)
        os.kill(self.processes(job)[rank], how)

    def recovery(self, job, attempt):
        """What the daemon said when the attempt was over."""
        def said():
            changes = [e["stateChanged"] for e in self.events(job) if "stateChanged" in e and int(e.get("attempt", 0)) == attempt]
            return [c for c in changes if c["to"] == "RECOVERING"]
        return self.wait_for("the recovery", said)[0]

    def test_a_job_goes_on_when_ranks_are_killed_and_hang(self):
        self.start_daemon()
        one, _ = self.job(1)
        self.wait_for_state(one, "SUCCEEDED")
        undisturbed, undisturbed_dir = self.job(2)
        self.wait_for_state(undisturbed, "SUCCEEDED")
        expected = self.losses(undisturbed)
        self.assertEqual(sorted(expected), list(range(1, STEPS + 1)))
        for step, loss in self.losses(one).items():
            self.assertLessEqual(abs(loss / expected[step] - 1), 2e-6 if step <= 10 else 1e-4, step)

        job, run_dir = self.job(2)
        self.wait_for_step(job, 60, attempt=1)
        self.lose(job, 1, signal.SIGKILL)
        killed = self.recovery(job, 1)
        self.assertIn("rank 1", killed["message"])
        self.assertRegex(killed["message"], r"rank 1 is gone; it was at step \d+, [a-z ]+")

        self.wait_for_step(job, 120, attempt=2)
        self.lose(job, 0, signal.SIGSTOP)
        stopped = time.monotonic()
        hung = self.recovery(job, 2)
        self.assertLess(time.monotonic() - stopped, 20)  # 10 s for the other rank, 5 s for the runner's patience
        self.assertEqual(hung["reason"], "RANK_LOST")
        self.assertRegex(hung["message"], r"rank 0 has shown no sign of life for 7\.0 s; it was at step \d+, [a-z ]+")

        self.wait_for_state(job, "SUCCEEDED")
        self.assertEqual(self.losses(job), expected)
        self.assertEqual(self.processes(job), {})
        adapter = pathlib.Path("checkpoints") / f"checkpoint_{STEPS:06d}" / "consolidated" / "lora.safetensors"
        self.assertEqual((run_dir / adapter).read_bytes(), (undisturbed_dir / adapter).read_bytes())

    def test_a_cancelled_job_has_a_checkpoint_and_logs_of_each_rank(self):
        self.start_daemon()
        job, run_dir = self.job(2)
        self.wait_for_step(job, 10, attempt=1)
        self.ctl("cancel", job)
        self.wait_for_state(job, "CANCELLED")
        self.assertEqual(self.processes(job), {})
        self.assertEqual(len([p for p in (run_dir / "checkpoints").iterdir() if p.name.startswith("checkpoint_")]), 1)
        self.assertIn("step: 000010", self.ctl("logs", job, "--rank", 1).stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
