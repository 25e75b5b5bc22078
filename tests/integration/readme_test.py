# SPDX-License-Identifier: Apache-2.0
"""Every command of README.md works: its ```sh blocks are run one after the other, as one shell session."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest

from harness import BIN, ROOT

# Each is a test of its own: deploy/quickstart, and what runs this.
RUN_ELSEWHERE = {"deploy/quickstart", "tests/run"}


class Readme(unittest.TestCase):
    def test_all_commands_run(self):
        text = (ROOT / "README.md").read_text(encoding="utf-8")
        blocks = [b for b in re.findall(r"```sh\n(.*?)```", text, re.S) if b.split("#")[0].strip() not in RUN_ELSEWHERE]
        self.assertGreaterEqual(len(blocks), 1)
        demo = tempfile.mkdtemp(prefix="mft-readme-")
        self.addCleanup(shutil.rmtree, demo, ignore_errors=True)
        # The README speaks of build/release/bin; these tests may stand for another build.
        script = "\n".join(blocks).replace("$PWD/build/release/bin", str(BIN)).replace("/tmp/mft-demo", demo)
        environment = os.environ | {"HOME": demo, "XDG_RUNTIME_DIR": demo, "NO_COLOR": "1"}
        environment.pop("MFT_ENDPOINT", None)
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True,
                              timeout=500, check=False, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, f"{script}\n--- stdout\n{done.stdout[-4000:]}\n--- stderr\n{done.stderr[-4000:]}")
        self.assertIn("SUCCEEDED", done.stdout)
        self.assertIn("lora.safetensors", done.stdout)


if __name__ == "__main__":
    unittest.main(verbosity=2)
