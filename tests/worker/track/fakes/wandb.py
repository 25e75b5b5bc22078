# SPDX-License-Identifier: Apache-2.0
"""Stands in for wandb: writes what it is told to $FAKE_TRACKER, a JSON line a call, and fails as $FAKE_FAILURE says."""

import json
import os
import time


class errors:
    class AuthenticationError(Exception):
        pass

    class UsageError(Exception):
        pass


def tell(call, **values):
    with open(os.environ["FAKE_TRACKER"], "a", encoding="utf-8") as file:
        print(json.dumps({"call": call, **values}, default=str), file=file)


def fail(where):
    """FAKE_FAILURE=init:network, log:3, finish:hang..."""
    place, _, how = os.environ.get("FAKE_FAILURE", "").partition(":")
    if place != where:
        return
    if how == "hang":
        time.sleep(600)
    if how == "refused":
        raise errors.AuthenticationError(f"the key {os.environ.get('WANDB_API_KEY')} is not valid")
    if how == "die":
        os.kill(os.getpid(), 9)
    raise OSError("no route to\nthe service")


class Run:
    def log(self, metrics, step):
        fail("log")
        fail(f"log{step}")
        tell("log", step=step, metrics=metrics)

    def finish(self, exit_code):
        fail("finish")
        tell("finish", exit_code=exit_code)


def Settings(**values):
    return values


def init(**values):
    fail("init")
    tell("init", **values, key=os.environ.get("WANDB_API_KEY"), mode=os.environ.get("WANDB_MODE"))
    return Run()
