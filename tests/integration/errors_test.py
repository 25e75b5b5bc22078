# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear message, the right exit code, the daemon stays up, nothing is lost."""

import json
import os
import pathlib
import socket
import struct
import subprocess
import unittest

from harness import BIN, Case, Daemon, make_model, make_token_data


class BadJobFiles(Case):
    def refused(self, text_change, *expected, code=3, arguments=()):
        path, run_dir = self.job_file()
        path.write_text(text_change(path.read_text()))
        done = self.ctl("submit", path, *arguments, expect=code)
        self.assertEqual(done.stdout, "")
        for part in expected:
            self.assertIn(part, done.stderr)
        self.assertFalse(run_dir.exists())
        return done

    def test_bad_job_files_name_every_violation(self):
        self.start_daemon()
        self.refused(lambda t: t.replace("seq_len:", "seqlen:"), "seqlen", "seq_len", ".yaml:5")
        self.refused(lambda t: t.replace("max_steps: 20", "max_steps: lots"), "max_steps", "lots")
        self.refused(lambda t: t.replace("seq_len: 64", "seq_len: 0"), "seq_len", "0")
        self.refused(lambda t: t.replace("seq_len: 64", "seq_len: 0").replace("rank: 4", "rank: -1") + "bogus: 1\n",
                     "seq_len", "lora.rank", "bogus")
        self.refused(lambda t: t.replace("/model", "/no-such-model"), "no-such-model")
        self.refused(lambda t: t.replace("data.jsonl", "no-such-data.jsonl"), "no-such-data.jsonl")
        self.refused(lambda t: "[" * 10000, "nest")
        self.ctl("submit", self.dir / "no-such.yaml", expect=5)
        self.ctl("submit", expect=2)
        self.assertEqual(json.loads(self.ctl("ls", "-o", "json").stdout).get("jobs", []), [])

    def test_run_dir_of_another_job_is_refused(self):
        self.start_daemon()
        path, run_dir = self.job_file(steps=100000)
        job = self.submit(path)
        done = self.ctl("submit", path, expect=6)
        self.assertIn(str(run_dir), done.stderr)
        self.ctl("cancel", job, "--now")
        self.wait_for_state(job, "CANCELLED")

    def test_unwritable_run_dir(self):
        self.start_daemon()
        path, _ = self.job_file(run_dir="/proc/no-such-run")
        done = self.ctl("submit", path, "--wait", expect=None)
        self.assertIn(done.returncode, (4, 5, 10), done.stderr)
        self.assertIn("/proc/no-such-run", done.stderr)


class BadData(Case):
    def failed(self, lines, *expected):
        data = self.dir / f"bad{self.run_count}.jsonl"
        data.write_bytes(lines)
        path, _ = self.job_file(data=data)
        done = self.ctl("submit", path, "--wait", expect=3)
        for part in expected:
            self.assertIn(part, done.stdout + done.stderr)

    def test_bad_lines_are_named(self):
        self.start_daemon()
        good = b'{"tokens": [1, 5, 6, 2], "mask": [0, 1, 1, 1]}\n'
        self.failed(good + good + b'{"tokens": [1, 5\n', ".jsonl:3")
        self.failed(good + b'{"messages": [{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]}\n', ".jsonl:2",
                    "assistant")
        self.failed(good + b'{"text": "\xff\xfe"}\n', ".jsonl:2", "UTF-8")
        self.failed(good + b"[" * 100000 + b"\n", ".jsonl:2")
        self.assertEqual(self.ctl("devices").returncode, 0)


class BadModels(Case):
    def failed(self, change, *expected):
        self.run_count += 1
        model = make_model(self.dir / f"model{self.run_count}")
        change(model / "consolidated.safetensors")
        path, _ = self.job_file(model=model, data=make_token_data(self.dir / "d.jsonl", samples=20))
        done = self.ctl("submit", path, "--wait", "--set", "mftd.retries=0", expect=None)
        self.assertIn(done.returncode, (3, 10), done.stderr)
        for part in ("consolidated.safetensors", *expected):
            self.assertIn(part, done.stdout + done.stderr)

    @staticmethod
    def edit_header(change):
        def apply(path):
            data = path.read_bytes()
            (length,) = struct.unpack("<Q", data[:8])
            text = change(data[8:8 + length].decode()).encode()
            path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length:])
        return apply

    def test_hostile_safetensors(self):
        self.start_daemon()
        self.failed(lambda p: os.truncate(p, p.stat().st_size - 100))
        self.failed(lambda p: os.truncate(p, 4))
        self.failed(lambda p: p.write_bytes(struct.pack("<Q", 1 << 63) + p.read_bytes()[8:]))
        self.failed(self.edit_header(lambda h: h.replace('"data_offsets": [0,', '"data_offsets": [4,')))
        self.failed(self.edit_header(lambda h: h.replace("layers.1.attention.wq", "layers.0.attention.wq")), "layers.0.attention.wq")

        def past_the_end(header):
            tensors = json.loads(header)
            tensors["output.weight"]["data_offsets"][1] += 1 << 40
            return json.dumps(tensors)
        self.failed(self.edit_header(past_the_end), "output.weight")
        self.assertEqual(self.ctl("devices").returncode, 0)


class Environment(Case):
    def test_full_disk_at_a_checkpoint_loses_nothing(self):
        """On a 3 MiB file system: the job waits RUNNING (DISK_FULL), and goes on once there is room."""
        small = self.dir / "small"
        small.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], capture_output=True, check=False)
        if mounted.returncode != 0:
            self.skipTest("no right to mount a small file system: " + mounted.stderr.decode().strip())
        self.addCleanup(subprocess.run, ["umount", "-l", small], check=False)
        self.start_daemon()
        filler = small / "filler"
        path, run_dir = self.job_file(steps=60, ckpt_freq=20, run_dir=small / "run")
        filler.write_bytes(b"x" * (3 * 1024 * 1024 - 40 * 1024))
        job = self.submit(path)
        self.wait_for("DISK_FULL", lambda: self.describe(job).get("reason") == "DISK_FULL")
        self.assertEqual(self.describe(job)["state"], "RUNNING")
        filler.unlink()
        self.wait_for_state(job, "SUCCEEDED")
        steps = sorted(p.name for p in (run_dir / "checkpoints").iterdir())
        self.assertEqual(steps, ["checkpoint_000020", "checkpoint_000040", "checkpoint_000060"])

    def test_second_daemon_on_one_state_dir(self):
        self.start_daemon()
        done = self.program("mftd", "--state-dir", self.daemon.state, "--listen", f"unix:{self.dir}/other", "--metrics", "127.0.0.1:0",
                            expect=None)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(str(self.daemon.state), done.stderr)
        self.assertEqual(self.ctl("devices").returncode, 0)

    def test_occupied_addresses(self):
        self.start_daemon()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            for flags in (["--listen", address, "--metrics", "127.0.0.1:0"], ["--listen", f"unix:{self.dir}/o", "--metrics", address],
                          ["--listen", f"unix:{self.daemon.socket}", "--metrics", "127.0.0.1:0"]):
                done = self.program("mftd", "--state-dir", self.dir / "other-state", *flags, expect=None, timeout=30)
                self.assertNotIn(done.returncode, (0, -6, -11), done.stderr)
                self.assertIn("in use" if address in flags else str(self.daemon.socket), done.stderr)
        self.assertEqual(self.ctl("devices").returncode, 0)

    def test_unknown_job_and_unreachable_daemon(self):
        self.start_daemon()
        for command in ("describe", "logs", "events", "cancel", "checkpoints"):
            done = self.ctl(command, "jaaaaaaaaaaa", expect=5)
            self.assertIn("jaaaaaaaaaaa", done.stderr)
        done = self.ctl("--endpoint", f"unix:{self.dir}/nobody", "ls", expect=8)
        self.assertIn("nobody", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
