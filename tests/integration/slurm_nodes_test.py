# SPDX-License-Identifier: Apache-2.0
"""A job whose ranks srun spreads over two nodes, each a namespace with a slurmd of its own: the losses of one node, a cancel with a
checkpoint, and ranks, a keeper, a runner and a cable that are lost."""

import json
import os
import pathlib
import re
import signal
import time
import unittest

from harness import DEPS, Case
from hosts import Hosts
from slurm_cluster import Cluster

CONFIG = """\
executor: slurm
grace_seconds: 30
slurm: {{bin_dir: {bin}, poll_seconds: 1, cores_per_node: 3, ranks_per_node: {ranks_per_node}}}
"""
RANKS = 3
STEPS = 400
PATIENCE_S = 30  # of the other ranks 10 s, of the runner 5 s, of srun 5 s; and a busy machine


class SlurmNodes(Case):
    def setUp(self):
        super().setUp()
        self.dir.chmod(0o755)  # munged insists
        self.hosts = Hosts(self.dir)
        self.addCleanup(self.hosts.remove)
        if self.hosts.problem:
            self.skipTest(f"NOT RUN: namespaces cannot be made here ({self.hosts.problem})")
        self.cluster = Cluster(DEPS / "slurm", self.dir / "slurm", cpus=RANKS, hosts=self.hosts)
        self.addCleanup(self.cluster.stop)
        self.cluster.start()
        self.config = self.dir / "mftd.yaml"
        self.spread(2)
        self.start_daemon(["--config", self.config])

    def spread(self, ranks_per_node):
        self.config.write_text(CONFIG.format(bin=self.cluster.bin, ranks_per_node=ranks_per_node))

    def job(self, steps):
        path, run_dir = self.job_file(steps=steps, ckpt_freq=20)
        return self.submit(path, "--ranks", RANKS, "--set", "seq_len=256"), run_dir

    def attempt_dir(self, job, attempt=1):
        return pathlib.Path(self.describe(job)["jobDir"]) / "attempts" / f"{attempt:04d}"

    def processes(self, job, program):
        """rank -> (pid, node) of the job's processes whose command line begins with `program`."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if re.match(rf"\S*/{program} .*/jobs/{job}/", command):
                variables = dict(line.decode(errors="replace").partition("=")[::2] for line in environment)
                found[int(variables["SLURM_PROCID"])] = (int(entry.name), variables["SLURMD_NODENAME"])
        return found

    def workers(self, job):
        return self.processes(job, "mft-worker")

    def losses(self, job):
        """step -> (loss, gradient norm); a later attempt overwrites what it supersedes."""
        return {int(e["step"]["step"]): (e["step"]["loss"], e["step"]["gradNorm"]) for e in self.events(job) if "step" in e}

    def wait_for_step(self, job, step, attempt):
        def reached():
            described = self.describe(job)
            self.assertNotIn(described["state"], ("SUCCEEDED", "FAILED"), described)
            return int(described.get("attempt", 0)) == attempt and int(described["progress"].get("step", 0)) >= step
        self.wait_for(f"step {step} of attempt {attempt}", reached)
        self.assertEqual({rank: node for rank, (_, node) in self.workers(job).items()}, {0: "n1", 1: "n1", 2: "n2"})

    def recovery(self, job, attempt, since):
        """What the daemon said when the attempt was over, which was soon."""
        def said():
            changes = [e["stateChanged"] for e in self.events(job) if "stateChanged" in e and int(e.get("attempt", 0)) == attempt]
            return [c for c in changes if c["to"] == "RECOVERING"]
        change = self.wait_for("the recovery", said)[0]
        self.assertLess(time.monotonic() - since, PATIENCE_S, change)
        return change

    def test_two_nodes_have_the_losses_of_one(self):
        spread, _ = self.job(STEPS)
        self.wait_for("ranks on both nodes", lambda: {node for _, node in self.workers(spread).values()} == {"n1", "n2"})
        self.wait_for_state(spread, "SUCCEEDED")
        told = [event["stateChanged"]["message"] for event in self.events(spread) if "stateChanged" in event]
        self.assertTrue(any("runs on n[1-2]" in message for message in told), told)
        self.assertIn(f"step: {STEPS:06d}", self.ctl("logs", spread, "--rank", 2).stdout)
        attempt = self.attempt_dir(spread)
        result = json.loads((attempt / "runner.jsonl").read_text().splitlines()[-1])
        self.assertEqual([(rank["exit_code"], rank["signal"]) for rank in result["ranks"]], [(0, 0)] * RANKS, result)
        self.daemon.stop()
        self.spread(0)
        self.daemon.start()
        together, _ = self.job(STEPS)
        self.wait_for_state(together, "SUCCEEDED")
        self.assertEqual(sorted(self.losses(spread)), list(range(1, STEPS + 1)))
        self.assertEqual(self.losses(spread), self.losses(together))

    def test_cancel_writes_a_checkpoint(self):
        job, run_dir = self.job(100_000)
        self.wait_for_step(job, 5, attempt=1)
        self.ctl("cancel", job)
        self.wait_for_state(job, "CANCELLED")
        self.assertEqual(self.workers(job), {})
        newest = max(path.name for path in (run_dir / "checkpoints").iterdir() if path.name.startswith("checkpoint_"))
        self.assertEqual(newest, f"checkpoint_{max(self.losses(job)):06d}")

    def test_a_job_goes_on_when_something_on_the_second_node_is_lost(self):
        undisturbed, _ = self.job(STEPS)
        self.wait_for_state(undisturbed, "SUCCEEDED")
        job, _ = self.job(STEPS)
        self.wait_for_step(job, 30, attempt=1)
        since = time.monotonic()
        os.kill(self.workers(job)[2][0], signal.SIGKILL)
        change = self.recovery(job, 1, since)
        self.assertIn("rank 2 was killed by a SIGKILL", change["message"])
        self.assertRegex(change["message"], r"rank \d says: rank 2 is gone; it was at step \d+, [a-z ]+")

        self.wait_for_step(job, 60, attempt=2)
        since = time.monotonic()
        os.kill(self.processes(job, "mft-runner rank")[2][0], signal.SIGKILL)
        change = self.recovery(job, 2, since)
        self.assertEqual(change["reason"], "RANK_LOST")
        self.assertIn("rank 2", change["message"])

        self.wait_for_state(job, "SUCCEEDED")
        self.assertEqual(self.workers(job), {})
        resumed = [e["attemptStarted"] for e in self.events(job) if e.get("attemptStarted", {}).get("kind") == "train"]
        self.assertEqual([int(attempt.get("fromStep", 0)) > 0 for attempt in resumed], [False, True, True], resumed)
        self.assertEqual(self.losses(job), self.losses(undisturbed))

    def test_a_runner_that_is_killed_leaves_no_rank_on_any_node(self):
        job, _ = self.job(STEPS)
        self.wait_for_step(job, 30, attempt=1)
        (runner,) = [pid for pid, _ in self.processes(job, "mft-runner --attempt-dir").values()]
        old = {pid for pid, _ in self.workers(job).values()}
        os.kill(runner, signal.SIGKILL)
        self.wait_for("the ranks to end", lambda: not any(pathlib.Path(f"/proc/{pid}").exists() for pid in old), seconds=PATIENCE_S)
        self.assertEqual(int(self.wait_for_state(job, "SUCCEEDED")["attempt"]), 2)

    def test_a_node_that_cannot_be_reached_is_named_and_its_ranks_end_too(self):
        job, _ = self.job(STEPS)
        self.wait_for_step(job, 30, attempt=1)
        attempt = self.attempt_dir(job)
        self.hosts.cut_cable()

        def result():
            last = json.loads((attempt / "runner.jsonl").read_text().splitlines()[-1])
            return last if last["type"] == "result" else None
        last = self.wait_for("the result", result, seconds=PATIENCE_S)
        self.assertEqual(last["reason"], "RANK_LOST")
        self.assertRegex(last["message"], r"rank 2 has shown no sign of life for 7\.0 s; it was at step \d+, [a-z ]+")
        self.wait_for("the ranks to end", lambda: not self.workers(job), seconds=PATIENCE_S)
        # As long as Slurm waits for the node, the job is not over.
        self.assertIn("COMPLETING", self.cluster.run("squeue", "--noheader", "--states=all", "--format=%T"))
        self.assertEqual((self.describe(job)["state"], int(self.describe(job)["attempt"])), ("RUNNING", 1))


if __name__ == "__main__":
    unittest.main(verbosity=2)
