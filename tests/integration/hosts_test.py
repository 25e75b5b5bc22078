# SPDX-License-Identifier: Apache-2.0
"""Ranks on two hosts, which are two network namespaces with a cable between them: the same bits as on one host, and an end for all
when the cable is cut."""

import json
import re
import subprocess
import time
import unittest

from harness import BIN, Case
from hosts import Hosts

PORT = 29511


class TwoHosts(Case):
    def setUp(self):
        super().setUp()
        self.ranks = []
        self.hosts = Hosts(self.dir)
        self.addCleanup(self.remove_hosts)
        if self.hosts.problem:
            self.skipTest(f"NOT RUN: network namespaces cannot be made here ({self.hosts.problem})")

    def remove_hosts(self):
        for process in self.ranks:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.hosts.remove()

    def start(self, hosts, job, cache, log, transport):
        """Two ranks, each in its own namespace or both in this one."""
        self.ranks = []
        for rank in range(2):
            environment = self.environment | {
                "RANK": str(rank), "LOCAL_RANK": "0" if hosts else str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1" if hosts else "2",
                "MASTER_ADDR": self.hosts.nodes[0].address if hosts else "127.0.0.1", "MASTER_PORT": str(PORT), "MFT_RANK_TRANSPORT": transport}
            command = [*(self.hosts.nodes[rank].enter if hosts else ()), BIN / "mft-worker", "train", "--job", job, "--data-cache", cache]
            with open(self.dir / f"{log}-{rank}.log", "wb") as file:
                self.ranks.append(subprocess.Popen(command, env=environment, stderr=file))

    def log(self, log, rank):
        return (self.dir / f"{log}-{rank}.log").read_text()

    def job(self, steps):
        path, run_dir = self.job_file(steps=steps)
        path.write_text(path.read_text().replace("num_microbatches: 1", "num_microbatches: 2"))
        cache = self.dir / "cache"
        if not cache.exists():
            self.program("mft-data", "prepare", "--config", path, "--out", cache)
        return path, run_dir, cache

    def losses(self, run_dir):
        return [json.loads(line)["loss"] for line in (run_dir / "metrics.train.jsonl").read_text().splitlines()]

    def test_two_hosts_have_the_bits_of_one(self):
        seen = []
        for hosts, transport in ((True, "tcp"), (False, "shm"), (False, "tcp")):
            path, run_dir, cache = self.job(steps=20)
            self.start(hosts, path, cache, transport, transport)
            for rank, process in enumerate(self.ranks):
                self.assertEqual(process.wait(timeout=60), 0, self.log(transport, rank))
            seen.append(self.losses(run_dir))
            self.assertEqual(len(seen[-1]), 20)
        self.assertEqual(seen[0], seen[1])
        self.assertEqual(seen[0], seen[2])

    def test_a_cut_cable_ends_both_and_each_names_the_other(self):
        path, run_dir, cache = self.job(steps=1_000_000)
        self.start(True, path, cache, "cut", "tcp")
        metrics = run_dir / "metrics.train.jsonl"
        self.wait_for("steps", lambda: metrics.exists() and metrics.stat().st_size > 2000, seconds=60)
        self.hosts.cut_cable()
        cut = time.monotonic()
        codes = [process.wait(timeout=30) for process in self.ranks]
        self.assertLess(time.monotonic() - cut, 10)
        self.assertEqual(codes, [8, 8])
        for rank in range(2):
            self.assertRegex(self.log("cut", rank), re.compile(rf"rank {1 - rank} has shown no sign of life .*it was at step \d+"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
