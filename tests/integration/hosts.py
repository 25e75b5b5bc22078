# SPDX-License-Identifier: Apache-2.0
"""Two hosts on one machine: network namespaces with a cable between them."""

import os
import pathlib
import signal
import subprocess

ADDRESSES = ("10.213.7.1", "10.213.7.2")


def run(*command):
    """What is wrong with it; "": nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"{command[0]} ended with {done.returncode}"


class Host:
    """`enter` goes before a command that shall run in its network, `boot` before the one that shall be its first process: with a
    host name, a table of hosts and process ids of its own. All of them end with it."""

    end = signal.SIGKILL  # for what `boot` started

    def __init__(self, name, namespace, address, table):
        self.name = name
        self.namespace = namespace
        self.address = address
        self.enter = ("nsenter", f"--net=/run/netns/{namespace}")
        self.boot = (*self.enter, "unshare", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
                     f"mount --bind '{table}' /etc/hosts && hostname {name} && exec \"$@\"", "sh")


class Hosts:
    """`directory`: for the table of hosts. `problem`: why they cannot be made here; "" when they are there."""

    def __init__(self, directory):
        table = pathlib.Path(directory) / "hosts"
        self.nodes = [Host(f"n{i + 1}", f"mft-{os.getpid()}-{i}", address, table) for i, address in enumerate(ADDRESSES)]
        table.write_text("127.0.0.1 localhost\n" + "".join(f"{node.address} {node.name}\n" for node in self.nodes))
        self.ends = [f"mft{os.getpid()}-{i}" for i in range(len(self.nodes))]
        problems = [run("ip", "netns", "add", node.namespace) for node in self.nodes]
        problems.append(run("ip", "link", "add", self.ends[0], "type", "veth", "peer", "name", self.ends[1]))
        for node, end in zip(self.nodes, self.ends):
            problems.append(run("ip", "link", "set", end, "netns", node.namespace))
            problems.append(run("ip", "-n", node.namespace, "addr", "add", f"{node.address}/24", "dev", end))
            problems.append(run("ip", "-n", node.namespace, "link", "set", end, "up"))
            problems.append(run("ip", "-n", node.namespace, "link", "set", "lo", "up"))
        problems.append(run(*self.nodes[0].boot, "true"))
        self.problem = next(filter(None, problems), "")

    def cut_cable(self):
        problem = run("ip", "-n", self.nodes[0].namespace, "link", "set", self.ends[0], "down")
        if problem:
            raise AssertionError(f"the cable cannot be cut: {problem}")

    def remove(self):
        for node in self.nodes:
            run("ip", "netns", "del", node.namespace)
