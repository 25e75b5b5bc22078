# SPDX-License-Identifier: Apache-2.0
"""Jobs through a real Slurm (Debian's slurmctld and slurmd on this machine): submit, logs, cancel with a checkpoint, requeue after
a signal, and a daemon and a controller that die at bad moments."""

import fcntl
import json
import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

from harness import BIN, DEPS, Case
from slurm_cluster import Cluster

CONFIG = """\
executor: slurm
grace_seconds: 30
slurm: {{bin_dir: {bin}, poll_seconds: 1}}
"""


def held(lock):
    with open(lock, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Slurm(Case):
    def setUp(self):
        super().setUp()
        self.dir.chmod(0o755)  # munged insists
        self.cluster = Cluster(DEPS / "slurm", self.dir / "slurm", cpus=1)
        self.addCleanup(self.cluster.stop)
        self.cluster.start()
        config = self.dir / "mftd.yaml"
        config.write_text(CONFIG.format(bin=self.cluster.bin))
        self.start_daemon(["--config", config])

    def steps(self, job):
        return [int(event["step"]["step"]) for event in self.events(job) if "step" in event]

    def losses(self, job):
        """step -> (loss, gradient norm); a later attempt overwrites what it supersedes."""
        return {int(e["step"]["step"]): (e["step"]["loss"], e["step"]["gradNorm"]) for e in self.events(job) if "step" in e}

    def wait_for_steps(self, job, count):
        return self.wait_for(f"{count} steps of {job}", lambda: int(self.describe(job)["progress"].get("step", 0)) >= count)

    def hold(self, job):
        """Stops the worker, so that the job lasts as long as the test wants; its pid."""
        for entry in pathlib.Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            except OSError:
                continue
            if command.split(b"\0")[0].endswith(b"/mft-worker") and f"/jobs/{job}/".encode() in command:
                os.kill(int(entry.name), signal.SIGSTOP)
                return int(entry.name)
        return self.fail(f"{job} has no worker")

    def slurm_jobs(self, job):
        """(id, state) of every job that Slurm was ever given for this one; the comment names it."""
        lines = self.cluster.run("squeue", "--noheader", "--states=all", "--sort=i", "--format=%A|%T|%k").splitlines()
        return [tuple(line.split("|")[:2]) for line in lines if f"job {job} " in line]

    def test_submit_follow_and_succeed(self):
        path, run_dir = self.job_file(steps=30)
        job = self.submit(path)
        followed = self.ctl("logs", job, "-f").stdout
        self.assertEqual([int(n) for n in re.findall(r"step: (\d+) - done", followed)], list(range(1, 31)))
        described = self.describe(job)
        self.assertEqual((described["state"], int(described["attempt"])), ("SUCCEEDED", 1))
        self.assertTrue((run_dir / "checkpoints" / "checkpoint_000030" / "consolidated" / "lora.safetensors").exists())
        self.assertEqual([state for _, state in self.slurm_jobs(job)], ["COMPLETED"])
        told = [event["stateChanged"]["message"] for event in self.events(job) if "stateChanged" in event]
        self.assertTrue(any(f"runs on {self.cluster.host}" in message for message in told), told)

    def test_srun_starts_the_ranks_of_a_run_by_hand(self):
        seen = []
        for ranks in (1, 2):
            path, run_dir = self.job_file(steps=10)
            path.write_text(path.read_text().replace("num_microbatches: 1", f"num_microbatches: {2 // ranks}"))
            cache = self.dir / "cache"
            if not cache.exists():
                self.program("mft-data", "prepare", "--config", path, "--out", cache)
            self.cluster.run("srun", f"--ntasks={ranks}", "--overcommit", BIN / "mft-worker", "train", "--job", path, "--data-cache", cache)
            seen.append([json.loads(line)["loss"] for line in (run_dir / "metrics.train.jsonl").read_text().splitlines()])
        self.assertEqual(len(seen[1]), 10)
        for one, two in zip(*seen):
            self.assertLessEqual(abs(two / one - 1), 2e-6)

    def test_cancel_waiting_and_running(self):
        path, run_dir = self.job_file(steps=100_000)
        running = self.submit(path)
        waiting = self.submit(self.job_file(steps=10)[0])
        self.wait_for_steps(running, 5)
        self.wait_for("the reason why it waits", lambda: re.search(r"waits in Slurm as job \d+ \((Resources|Priority)\)",
                                                                   self.describe(waiting)["message"]))
        self.assertIn("waits in Slurm", self.ctl("why", waiting).stdout)
        self.ctl("cancel", waiting)
        self.wait_for_state(waiting, "CANCELLED")
        self.assertEqual([state for _, state in self.slurm_jobs(waiting)], ["CANCELLED"])
        self.assertFalse((pathlib.Path(self.describe(waiting)["jobDir"]) / "attempts" / "0001" / "rank-0.jsonl").exists())

        self.ctl("cancel", running)
        self.wait_for_state(running, "CANCELLED")
        (checkpoint,) = (run_dir / "checkpoints").iterdir()
        self.assertEqual(checkpoint.name, f"checkpoint_{self.steps(running)[-1]:06d}")
        self.assertEqual(len(self.slurm_jobs(running)), 1)

    def test_a_signal_from_outside_requeues(self):
        steps = 150
        undisturbed = self.submit(self.job_file(steps=steps)[0], "--set", "seq_len=256")
        self.wait_for_state(undisturbed, "SUCCEEDED")
        job = self.submit(self.job_file(steps=steps)[0], "--set", "seq_len=256")
        self.wait_for_steps(job, 10)
        worker = self.hold(job)
        self.cluster.run("scancel", "--signal=TERM", "--batch", self.slurm_jobs(job)[0][0])
        self.wait_for("the runner to hear it", lambda: "asked to stop" in self.ctl("events", job).stdout)
        os.kill(worker, signal.SIGCONT)
        described = self.wait_for_state(job, "SUCCEEDED")
        self.assertEqual(int(described["attempt"]), 2)
        resumed = [e["attemptStarted"] for e in self.events(job) if e.get("attemptStarted", {}).get("kind") == "train"]
        self.assertTrue(0 < int(resumed[1]["fromStep"]) < steps, resumed)
        self.assertEqual(self.losses(job), self.losses(undisturbed))
        self.assertEqual(len(self.slurm_jobs(job)), 2)
        self.assertIn("INTERRUPTED", [e["stateChanged"]["reason"] for e in self.events(job) if "stateChanged" in e])

    def test_daemon_and_controller_die(self):
        running = self.submit(self.job_file(steps=400)[0])
        self.wait_for_steps(running, 5)
        worker = self.hold(running)
        waiting = self.submit(self.job_file(steps=20)[0])
        follower = subprocess.Popen([BIN / "mftctl", "logs", running, "-f"], env=self.environment, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, text=True)
        self.addCleanup(follower.communicate)
        self.addCleanup(follower.kill)
        self.wait_for("the second to wait", lambda: "waits in Slurm" in self.describe(waiting)["message"])
        for _ in range(3):
            self.daemon.kill()  # while one job runs in Slurm and one waits there
            self.daemon.start()
            time.sleep(0.2)
        self.cluster.stop_controller()
        self.wait_for("the daemon to notice", lambda: "Slurm does not answer" in self.daemon.log_text())
        self.daemon.kill()
        self.daemon.start()
        os.kill(worker, signal.SIGCONT)  # it ends while nobody can say so
        lock = pathlib.Path(self.describe(running)["jobDir"]) / "attempts" / "0001" / "lock"
        self.wait_for("the runner to end", lambda: not held(lock))
        self.assertEqual([self.describe(job)["state"] for job in (running, waiting)], ["RUNNING", "STARTING"])
        self.cluster.start_controller()
        for job, steps in ((running, 400), (waiting, 20)):
            described = self.wait_for_state(job, "SUCCEEDED")
            self.assertEqual(int(described["attempt"]), 1)
            self.assertEqual([int(event["sequence"]) for event in self.events(job)], list(range(1, int(described["lastSequence"]) + 1)))
            self.assertEqual(self.steps(job), list(range(1, steps + 1)))
            self.assertEqual(len(self.slurm_jobs(job)), 1)
        output, errors = follower.communicate(timeout=60)
        self.assertEqual(follower.returncode, 0, errors)
        self.assertEqual([int(n) for n in re.findall(r"step: (\d+) - done", output)], list(range(1, 401)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
