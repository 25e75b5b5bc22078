# SPDX-License-Identifier: Apache-2.0
"""deploy/quickstart: trains, answers, and leaves nothing running. It holds its own bounds and exits non-zero when one is missed."""

import pathlib
import subprocess
import unittest

from harness import ROOT


class Quickstart(unittest.TestCase):
    def test_it_learns_and_leaves_nothing_running(self):
        done = subprocess.run([ROOT / "deploy" / "quickstart"], cwd=ROOT, capture_output=True, text=True, timeout=850, check=False,
                              stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-3000:])
        print(done.stdout[-3000:])
        left = [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if self.mentions(p)]
        self.assertEqual(left, [])

    @staticmethod
    def mentions(path):
        try:
            return str(ROOT / "build" / "quickstart").encode() in path.read_bytes()
        except OSError:
            return False


if __name__ == "__main__":
    unittest.main(verbosity=2)
