#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sends the metrics of a job to Weights & Biases or MLflow, through their own clients.

mft-runner starts it beside the ranks (worker/track/README.md). It reads rank 0's journal, so it may be as slow, hang or
die as it likes: training never waits for it, and the next start goes on where the last one stopped.
"""

import argparse
import datetime
import importlib.util
import json
import math
import os
import re
import signal
import sys

OK, FAILED, INVALID = 0, 1, 3  # design.md 4.1; INVALID: trying again cannot help
POLL_SECONDS = 0.5
READ_BYTES = 1 << 20
MAX_RECORD_BYTES = 64 * 1024  # as common/journal/record.h
GIB = 1024.0**3
INSTALL = {
    "wandb": "`wandb` not installed. Either make sure `wandb` is installed (pip install wandb) or set `wandb.project` to null",
    "mlflow": "`mlflow` not installed. Either make sure `mlflow` is installed (pip install mlflow) or set "
    "`mlflow.tracking_uri` to null",
}


class Refused(Exception):
    """Trying again cannot help."""


def say(text):
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    print(f"{stamp} mft-track: {text}", file=sys.stderr, flush=True)


def number(value):
    """A number of a journal, which writes those that are not finite as text."""
    if isinstance(value, str):
        return {"Infinity": math.inf, "-Infinity": -math.inf}.get(value, math.nan)
    return value


def train_metrics(record):
    """The keys of metrics.train.jsonl (worker/train/metrics_log.cc, which a test compares with these)."""
    metrics = {
        "lr": record["learning_rate"],
        "loss": record["loss"],
        "percent_done": 100.0 * record["step"] / max(1, record["max_steps"]),
        "peak_allocated_mem": record["peak_memory_bytes"] / GIB,
        "allocated_mem": record["memory_bytes"] / GIB,
        "wps": record["tokens_per_second"],
        "avg_wps": record["mean_tokens_per_second"],
        "eta_in_seconds": record["eta_seconds"],
        "grad_norm": record["grad_norm"],
        "beta1": record["beta1"],
        "loss_tokens": record["loss_tokens"],
        "perplexity": record["perplexity"],
    }
    if record.get("expert_imbalance") is not None:
        metrics["expert_imbalance"] = record["expert_imbalance"]
        metrics.update({f"expert_share.{i}": share for i, share in enumerate(record["expert_share"])})
    return {key: number(value) for key, value in metrics.items()}


def eval_metrics(record):
    keys = ("train_loss", "perplexity", "eval_loss", "loss_tokens")
    return {key: number(record[key]) for key in keys}


class Point:
    """What one record says: metrics of one step, `split` train or eval."""

    def __init__(self, record):
        self.split = {"step": "train", "eval": "eval"}[record["type"]]
        self.step = int(record["step"])
        self.at_ms = int(record["at"]) // 1000
        self.metrics = train_metrics(record) if self.split == "train" else eval_metrics(record)


def flat(value, prefix=""):
    """{"optim": {"lr": 1}} as {"optim.lr": 1}."""
    if not isinstance(value, dict):
        return {prefix: value}
    result = {}
    for key, inner in value.items():
        result.update(flat(inner, f"{prefix}.{key}" if prefix else str(key)))
    return result


class Wandb:
    """One run for a job: its id is the job's, so that every attempt goes on with it."""

    def __init__(self, job_id, spec):
        settings, run_dir = spec["wandb"], spec["run_dir"]
        if settings.get("offline"):
            os.environ["WANDB_MODE"] = "offline"
            say(f"offline: to send the metrics later, run: cd {run_dir}; wandb sync --sync-all")
        import wandb

        self.wandb = wandb
        try:
            self.run = wandb.init(
                project=settings["project"],
                name=settings.get("run_name") or os.path.basename(run_dir.rstrip("/")),
                id=job_id or None,
                resume=None if settings.get("offline") else "allow",
                job_type="training",
                config=spec,
                dir=run_dir,
                settings=wandb.Settings(console="off"),
            )
        except tuple(getattr(wandb.errors, name) for name in ("AuthenticationError", "UsageError") if hasattr(wandb.errors, name)) as error:
            raise Refused(f"{error} (hand a key over in WANDB_API_KEY, or set `wandb.offline: true`)") from error

    def send(self, points):
        for point in points:
            self.run.log({f"{point.split}/{key}": value for key, value in point.metrics.items()}, step=point.step)

    def finish(self, outcome):
        self.run.finish(exit_code=0 if outcome in ("done", "stopped") else 1)


class Mlflow:
    """One run for a job, found again by its tag."""

    MAX_METRICS, MAX_PARAMS, MAX_VALUE = 1000, 100, 500  # the limits of log_batch

    def __init__(self, job_id, spec):
        from mlflow.entities import Metric, Param
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self.Metric, self.Param, self.MlflowException = Metric, Param, MlflowException
        settings, run_dir = spec["mlflow"], spec["run_dir"]
        self.client = MlflowClient(tracking_uri=settings["tracking_uri"])
        self.run_id = self.call(self.open, settings["experiment_name"], job_id, os.path.basename(run_dir.rstrip("/")), spec)

    def call(self, function, *arguments, **named):
        try:
            return function(*arguments, **named)
        except self.MlflowException as error:
            # Its own codes and those of HTTP, which the clients before 3.0 put into the text only.
            if error.error_code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_PARAMETER_VALUE") or re.search(
                r"error code 40[13]\b", str(error)
            ):
                raise Refused(str(error)) from error
            raise

    def open(self, experiment_name, job_id, name, spec):
        experiment = self.client.get_experiment_by_name(experiment_name)
        experiment_id = experiment.experiment_id if experiment else self.client.create_experiment(experiment_name)
        found = self.client.search_runs([experiment_id], f"tags.`mft.job` = '{job_id}'", max_results=1)
        if found:
            self.client.update_run(found[0].info.run_id, status="RUNNING")
            return found[0].info.run_id
        run = self.client.create_run(experiment_id, tags={"mft.job": job_id, "mlflow.runName": name})
        params = [
            self.Param(key, str(value)[: self.MAX_VALUE])
            for key, value in flat(spec).items()
            if re.fullmatch(r"[\w.\- /]{1,250}", key)
        ]
        for begin in range(0, len(params), self.MAX_PARAMS):
            self.client.log_batch(run.info.run_id, params=params[begin : begin + self.MAX_PARAMS])
        return run.info.run_id

    def send(self, points):
        metrics = [
            self.Metric(f"{point.split}.{key}", value, point.at_ms, point.step)
            for point in points
            for key, value in point.metrics.items()
        ]
        for begin in range(0, len(metrics), self.MAX_METRICS):
            self.call(self.client.log_batch, self.run_id, metrics=metrics[begin : begin + self.MAX_METRICS])

    def finish(self, outcome):
        status = {"done": "FINISHED", "stopped": "KILLED"}.get(outcome, "FAILED")
        self.call(self.client.set_terminated, self.run_id, status)


class Position:
    """How far the journals of the job's attempts have been sent; <job>/track-SERVICE.json.

    Losing it costs nothing but work: the services take a step that they have seen for the same step.
    """

    def __init__(self, path):
        self.path = path
        self.attempt, self.offset = 0, 0  # directory number; bytes of its rank-0.jsonl
        self.last = {"train": 0, "eval": 0}  # steps
        try:
            with open(path, encoding="utf-8") as file:
                saved = json.load(file)
            self.attempt, self.offset = int(saved["attempt"]), int(saved["offset"])
            self.last = {split: int(saved["last"][split]) for split in self.last}
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            say(f"{path} cannot be read, everything is sent again: {error!r}")
            self.attempt, self.offset = 0, 0

    def save(self):
        temporary = f"{self.path}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({"version": 1, "attempt": self.attempt, "offset": self.offset, "last": self.last}, file)
        os.replace(temporary, self.path)


class Journal:
    """Rank 0's journal of one attempt, from a position on."""

    def __init__(self, path):
        self.path = path
        self.outcome = ""  # of its final record

    def read(self, offset):
        """(points of the whole lines from `offset` on, the offset behind them); at most READ_BYTES of them."""
        try:
            with open(self.path, "rb") as file:
                file.seek(offset)
                data = file.read(READ_BYTES)
        except FileNotFoundError:
            return [], offset
        end = data.rfind(b"\n") + 1
        if end == 0 and len(data) > MAX_RECORD_BYTES:
            end = len(data)  # no record is that long
        points = []
        for line in data[:end].splitlines():
            try:
                record = json.loads(line)
                if record["type"] in ("step", "eval"):
                    points.append(Point(record))
                elif record["type"] == "final":
                    self.outcome = record["outcome"]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                say(f"{self.path}: skipped a damaged line before byte {offset + end}: {error!r}")
        return points, offset + end


def send_new(tracker, journal, position):
    """True if there was anything to read. A step is sent once: an attempt repeats those after its checkpoint."""
    points, offset = journal.read(position.offset)
    if offset == position.offset:
        return False
    new = []
    for point in points:
        if point.step > position.last[point.split]:
            position.last[point.split] = point.step
            new.append(point)
    if new:
        tracker.send(new)
    position.offset = offset
    position.save()
    return True


def follow(tracker, attempt_dir, position):
    """Sends until SIGTERM, which is blocked: then what is there is all there is. Returns the rank's outcome."""
    attempts, current = os.path.split(attempt_dir.rstrip("/"))
    earlier = sorted(name for name in os.listdir(attempts) if re.fullmatch(r"\d+", name) and int(name) < int(current))
    for name in [name for name in earlier if int(name) >= position.attempt] + [current]:
        if int(name) != position.attempt:
            position.attempt, position.offset = int(name), 0
        journal = Journal(os.path.join(attempts, name, "rank-0.jsonl"))
        stopping = name != current
        while True:
            if send_new(tracker, journal, position):
                continue
            if stopping:
                break
            stopping = signal.sigtimedwait([signal.SIGTERM], POLL_SECONDS) is not None
    return journal.outcome


def check(service):
    if importlib.util.find_spec(service) is None:
        raise Refused(f"{INSTALL[service]} ({sys.executable} looks for it)")


def run(service, job_path, attempt_dir):
    check(service)
    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    os.makedirs(job["spec"]["run_dir"], exist_ok=True)
    os.chdir(job["spec"]["run_dir"])  # clients write files of their own
    position = Position(os.path.join(os.path.dirname(job_path), f"track-{service}.json"))
    tracker = {"wandb": Wandb, "mlflow": Mlflow}[service](job["job_id"], job["spec"])
    say(f"sends to {service}, from step {max(position.last.values()) + 1} on")
    outcome = follow(tracker, attempt_dir, position)
    tracker.finish(outcome)
    say(f"everything is sent, up to step {max(position.last.values())}")


def take_secret():
    """The key comes on standard input, so that no environment and no command line shows it."""
    try:
        secret = os.pread(0, 4096, 0).decode().strip()
    except OSError:
        secret = ""  # a terminal: run by hand
    if secret:
        os.environ["WANDB_API_KEY"] = secret
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
    return secret or os.environ.get("WANDB_API_KEY", "")


def main():
    parser = argparse.ArgumentParser(prog="mft-track", description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("check", "run"), help="check: only whether the client is installed")
    parser.add_argument("service", choices=sorted(INSTALL))
    parser.add_argument("--job", help="job.json")
    parser.add_argument("--attempt-dir", help="of rank-0.jsonl")
    arguments = parser.parse_args()
    if arguments.action == "run" and not (arguments.job and arguments.attempt_dir):
        parser.error("run needs --job and --attempt-dir")
    secret = ""
    try:
        if arguments.action == "check":
            check(arguments.service)
        else:
            secret = take_secret()
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
            run(arguments.service, os.path.abspath(arguments.job), os.path.abspath(arguments.attempt_dir))
        return OK
    except Exception as error:  # whatever a client throws: the last line says it, the runner reads that
        code = INVALID if isinstance(error, Refused) else FAILED
        text = " ".join(str(error).split()) or type(error).__name__
        say(f"error: {arguments.service}: {text.replace(secret, '***') if secret else text}")
        sys.stderr.flush()
        os._exit(code)  # no exit handler of a client may wait for its service


if __name__ == "__main__":
    sys.exit(main())
