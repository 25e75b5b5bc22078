# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of the daemon at random moments: the job succeeds, no event is lost or repeated, a follower sees each step once."""

import os
import random
import re
import subprocess
import time
import unittest

from harness import BIN, Case

KILLS = 20
STEPS = 900


class KillDaemon(Case):
    def test_twenty_kills_of_one_job(self):
        seed = int(os.environ.get("MFT_TEST_SEED", random.randrange(1 << 30)))
        print(f"seed {seed}")
        rng = random.Random(seed)
        self.start_daemon()
        path, run_dir = self.job_file(steps=STEPS, ckpt_freq=100)
        job = self.submit(path, "--set", "seq_len=512", "--set", "batch_size=16")
        follower = subprocess.Popen([BIN / "mftctl", "logs", job, "-f"], env=self.environment, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True)
        finished_at_kill = None
        for kill in range(KILLS):
            time.sleep(rng.uniform(0.0, 1.0))
            self.daemon.kill()
            self.daemon.start()
            if finished_at_kill is None and self.describe(job)["state"] == "SUCCEEDED":
                finished_at_kill = kill + 1
        self.assertIsNone(finished_at_kill, f"the job was too short: it ended before kill {finished_at_kill}")
        output, errors = follower.communicate(timeout=600)
        self.assertEqual(follower.returncode, 0, errors)
        steps = [int(n) for n in re.findall(r"step: (\d+) - done", output)]
        self.assertEqual(steps, list(range(1, STEPS + 1)))
        described = self.describe(job)
        self.assertEqual(described["state"], "SUCCEEDED")
        self.assertEqual(int(described["attempt"]), 1)
        events = self.events(job)
        self.assertEqual([int(e["sequence"]) for e in events], list(range(1, len(events) + 1)))
        self.assertEqual([int(e["step"]["step"]) for e in events if "step" in e], list(range(1, STEPS + 1)))
        self.assertEqual(len((run_dir / "metrics.train.jsonl").read_text().splitlines()), STEPS)


if __name__ == "__main__":
    unittest.main(verbosity=2)
