# SPDX-License-Identifier: Apache-2.0
"""Two hosts on one machine: network namespaces with a cable between them."""

import os
import pathlib
import signal
import subprocess

ADDRESSES = ("10.213.7.1", "10.213.7.2")


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)


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
        made = [ip("netns", "add", node.namespace) for node in self.nodes]
        made.append(ip("link", "add", self.ends[0], "type", "veth", "peer", "name", self.ends[1]))
        for node, end in zip(self.nodes, self.ends):
            made.append(ip("link", "set", end, "netns", node.namespace))
            made.append(ip("-n", node.namespace, "addr", "add", f"{node.address}/24", "dev", end))
            made.append(ip("-n", node.namespace, "link", "set", end, "up"))
            made.append(ip("-n", node.namespace, "link", "set", "lo", "up"))
        boots = subprocess.run([*self.nodes[0].boot, "true"], capture_output=True, text=True, check=False)
        self.problem = next((done.stderr.strip() for done in [*made, boots] if done.returncode), "")

    def cable(self, state):
        """up or down."""
        done = ip("-n", self.nodes[0].namespace, "link", "set", self.ends[0], state)
        if done.returncode:
            raise AssertionError(f"the cable cannot be set {state}: {done.stderr}")

    def remove(self):
        for node in self.nodes:
            ip("netns", "del", node.namespace)
