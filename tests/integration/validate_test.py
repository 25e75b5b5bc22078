# SPDX-License-Identifier: Apache-2.0
"""mftctl validate, end to end: what it reports is what the daemon refuses a job for, and what it corrects is accepted."""

import json
import os
import pty
import subprocess
import unittest

from harness import BIN, Case, make_chat_data, make_model

GOOD = '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
UNKNOWN_ROLE = '{"messages": [{"role": "bot", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'


class Validate(Case):
    def setUp(self):
        super().setUp()
        self.folder = self.dir / "chats"
        self.folder.mkdir()
        (self.folder / "a.jsonl").write_text(GOOD * 3 + UNKNOWN_ROLE + GOOD)
        (self.folder / "b.jsonl").write_bytes(GOOD.encode() + b'{"messages": "\xff"}\n\n')
        (self.dir / "text.jsonl").write_text('{"text": "one"}\n{"text": 2}\n')
        (self.dir / "eval.jsonl").write_text(GOOD + '{"text": "two"}\n[]\n')
        # Every bad line of every file, in the order in which sources are read.
        self.bad = [(self.dir / "text.jsonl", 2, "AssertionError"), (self.folder / "a.jsonl", 4, "UnrecognizedRoleError"),
                    (self.folder / "b.jsonl", 2, "EncodingError"), (self.folder / "b.jsonl", 3, "JSONDecodeError"),
                    (self.dir / "eval.jsonl", 3, "JSONDecodeError")]
        path, _ = self.job_file(model=make_model(self.dir / "model", tokenizer=True), data=self.folder, extra="no_eval: false\n")
        text = path.read_text().replace("data:\n", f"data:\n  data: {self.dir}/text.jsonl\n  eval_instruct_data: {self.dir}/eval.jsonl\n")
        path.write_text(text)
        self.job = path

    def test_every_problem_of_every_file_is_named(self):
        done = self.ctl("validate", self.job, expect=3)
        self.assertEqual(done.stderr, "")
        lines = done.stdout.splitlines()
        for line, (file, number, name) in zip(lines, self.bad):
            self.assertTrue(line.startswith(f"{file}:{number}: {name}: "), line)
        self.assertIn('bot is not one of system, user, assistant, tool', lines[1])
        self.assertIn("byte 15 of the line, 0xff", lines[2])
        self.assertEqual(lines[-1], "5 problems")
        report = json.loads(self.ctl("validate", self.job, "-o", "json", expect=3).stdout)
        self.assertEqual([(p["file"], p["line"], p["class"]) for p in report["problems"]],
                         [(str(file), number, name) for file, number, name in self.bad])
        self.assertEqual([s["samples"] for s in report["sources"]], [1, 5, 2])

    def test_the_daemon_refuses_the_job_for_the_same(self):
        told = self.ctl("validate", self.job, expect=3).stdout.splitlines()[:len(self.bad)]
        self.start_daemon()
        done = self.ctl("submit", self.job, "--wait", expect=3)
        job = done.stdout.strip()
        texts = [e["message"]["text"] for e in self.events(job) if e.get("message", {}).get("level", "").lower().endswith("error")]
        self.assertEqual(texts, told)
        described = self.describe(job)
        self.assertEqual((described["state"], described["reason"]), ("FAILED", "VALIDATION_FAILED"))
        self.assertIn(f"5 problems in the data; the first: {told[0]}", described["message"])

    def test_the_corrected_files_train(self):
        done = self.ctl("validate", self.job, "--create-corrected", expect=3)
        for file in (self.dir / "text.jsonl", self.folder / "a.jsonl", self.folder / "b.jsonl", self.dir / "eval.jsonl"):
            self.assertIn(f"wrote {file}.corrected", done.stdout)
            self.assertEqual((file.parent / (file.name + ".corrected")).read_bytes().decode(),
                             "".join(line for number, line in enumerate(file.read_bytes().decode("latin-1").splitlines(True), 1)
                                     if (file, number) not in [(f, n) for f, n, _ in self.bad]))
        changes = ["--set", f"data.data={self.dir}/text.jsonl.corrected", "--set", f"data.eval_instruct_data={self.dir}/eval.jsonl.corrected",
                   "--set", f"data.instruct_data={self.folder}/a.jsonl.corrected,{self.folder}/b.jsonl.corrected", "--set", "max_steps=2"]
        done = self.ctl("validate", self.job, *changes)
        self.assertIn("epochs in 2 steps, about ", done.stdout)
        self.assertTrue(done.stdout.endswith("\nno problems\n"), done.stdout)
        self.start_daemon()
        self.wait_for_state(self.submit_with(changes), "SUCCEEDED")

    def submit_with(self, changes):
        return self.ctl("submit", self.job, *changes).stdout.strip()

    def test_files_are_checked_without_a_job(self):
        data = make_chat_data(self.dir / "good.jsonl", samples=20)
        done = self.ctl("validate", data, self.folder, expect=3)
        self.assertIn(f"{data}: 20 lines, 20 samples\n", done.stdout)
        self.assertIn("3 problems", done.stdout)
        done = self.ctl("validate", data, "--tokenizer", self.dir / "model" / "tokenizer.model.v3")
        self.assertIn(" with loss, longest ", done.stdout)
        self.ctl("validate", self.dir / "none.jsonl", expect=3)
        self.ctl("validate", data, "--set", "seq_len=1", expect=2)
        self.ctl("validate", expect=2)

    def test_a_terminal_gets_a_progress_bar_and_loses_it(self):
        data = make_chat_data(self.dir / "big.jsonl", samples=3000)
        text = data.read_text()
        with open(data, "a", encoding="utf-8") as file:
            for _ in range(100):
                file.write(text)
        master, slave = pty.openpty()
        with os.fdopen(master, "rb", buffering=0) as screen:
            command = [BIN / "mftctl", "validate", data, "--tokenizer", self.dir / "model" / "tokenizer.model.v3"]
            with subprocess.Popen(command, env=self.environment | {"TERM": "xterm"}, stdout=subprocess.PIPE, stderr=slave) as process:
                os.close(slave)
                shown = b""
                try:
                    while chunk := screen.read(65536):
                        shown += chunk
                except OSError:  # the other end is closed
                    pass
                printed = process.stdout.read().decode()
        self.assertEqual(process.returncode, 0)
        self.assertIn("%  ", shown.decode())
        self.assertTrue(shown.endswith(b"\r\x1b[K"), shown[-200:])
        self.assertIn("lines repeat an earlier one", printed)
        self.assertNotIn("\x1b", printed)


if __name__ == "__main__":
    unittest.main(verbosity=2)
