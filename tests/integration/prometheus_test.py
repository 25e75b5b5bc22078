# SPDX-License-Identifier: Apache-2.0
"""/metrics is well-formed, and a real Prometheus scrapes it and answers a query."""

import json
import socket
import subprocess
import unittest
import urllib.parse
import urllib.request

from harness import DEPS, Case

PROMETHEUS = DEPS / "prometheus" / "usr" / "bin"


class Metrics(Case):
    def scrape(self):
        with urllib.request.urlopen(f"http://{self.daemon.metrics_address}/metrics", timeout=10) as answer:
            return answer.read()

    def test_a_real_prometheus_answers(self):
        self.start_daemon()
        path, _ = self.job_file(steps=12)
        job = self.submit(path)
        self.wait_for_state(job, "SUCCEEDED")
        text = self.wait_for("the loss", lambda: (lambda t: t if b"mftd_job_loss{" in t else None)(self.scrape()))
        lint = subprocess.run([PROMETHEUS / "promtool", "check", "metrics"], input=text, capture_output=True, check=False)
        self.assertEqual((lint.returncode, lint.stdout + lint.stderr), (0, b""))

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        config = self.dir / "prometheus.yml"
        config.write_text("global: {scrape_interval: 1s}\nscrape_configs:\n  - job_name: mftd\n    static_configs:\n"
                          f"      - targets: ['{self.daemon.metrics_address}']\n")
        server = subprocess.Popen([PROMETHEUS / "prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.dir}/tsdb",
                                   f"--web.listen-address=127.0.0.1:{port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(server.wait)
        self.addCleanup(server.kill)

        def answer():
            query = urllib.parse.urlencode({"query": f'mftd_job_loss{{mft_job="{job}",split="train"}}'})
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=5) as reply:
                    return json.load(reply)["data"]["result"]
            except OSError:
                return None
        result = self.wait_for("an answer from Prometheus", answer, seconds=60)
        loss = [e["step"]["loss"] for e in self.events(job) if "step" in e][-1]
        self.assertAlmostEqual(float(result[0]["value"][1]), float(loss), places=6)


if __name__ == "__main__":
    unittest.main(verbosity=2)
