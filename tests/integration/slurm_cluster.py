# SPDX-License-Identifier: Apache-2.0
"""A Slurm cluster for a test: Debian's munged, slurmctld and slurmd, unpacked into .deps/slurm by deploy/setup, with
configuration, state and free ports of their own. Its one node is this machine, or its nodes are namespaces of it. Nothing is
installed and nothing outlives the test."""

import os
import pathlib
import signal
import socket
import subprocess
import time

LIBRARIES = "usr/lib/x86_64-linux-gnu"

CONFIG = """\
ClusterName=mft
SlurmctldHost={controller}({address})
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={dir}/munge.socket
CredType=cred/munge
PluginDir={plugins}
StateSaveLocation={dir}/controller
SlurmdSpoolDir={dir}/%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MessageTimeout=5
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Machine:
    """This machine as a node."""

    address = "127.0.0.1"
    enter = ()  # put before a command of the controller or of a user
    boot = ()   # put before slurmd
    end = signal.SIGTERM  # of what slurmd was started with

    def __init__(self):
        self.name = socket.gethostname().split(".")[0]


class Cluster:
    """`root`: where Debian's packages lie unpacked. `directory`: for everything the daemons write. `hosts`: the nodes, the first
    in whose network the controller runs; None: this machine."""

    def __init__(self, root, directory, cpus=2, hosts=None):
        self.root = pathlib.Path(root)
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(mode=0o755)
        (self.dir / "controller").mkdir()
        plugins = self.root / LIBRARIES / "slurm-wlm"
        self.nodes = hosts.nodes if hosts else [Machine()]
        self.host = self.nodes[0].name
        for node in self.nodes:
            (self.dir / node.name).mkdir()
        self.conf = self.dir / "slurm.conf"
        self.conf.write_text(CONFIG.format(
            controller=Machine().name, address=self.nodes[0].address, dir=self.dir, plugins=plugins, controller_port=free_port(),
            node_port=free_port(),
            nodes="\n".join(f"NodeName={node.name} NodeAddr={node.address} CPUs={cpus} RealMemory=2000 State=UNKNOWN" for node in self.nodes),
            user=subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()))
        self.environment = {"SLURM_CONF": str(self.conf), "LD_LIBRARY_PATH": f"{plugins}:{self.root / LIBRARIES}"}
        self.processes = {}
        self.bin = self.dir / "bin"  # the commands, bound to this cluster
        self.bin.mkdir()
        for name in ("sbatch", "scancel", "sinfo", "squeue", "srun"):
            script = self.bin / name
            exports = " ".join(f"{key}='{value}'" for key, value in self.environment.items())
            enter = " ".join(self.nodes[0].enter)
            script.write_text(f"#!/bin/sh\nexport {exports}\nexec {enter} '{self.root}/usr/bin/{name}' \"$@\"\n")
            script.chmod(0o755)

    def _spawn(self, name, *command):
        with open(self.dir / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen([str(word) for word in command], env=os.environ | self.environment,
                                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self):
        key = self.dir / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        sbin = self.root / "usr" / "sbin"
        self._spawn("munged", sbin / "munged", "--foreground", f"--key-file={key}", f"--socket={self.dir}/munge.socket",
                    f"--pid-file={self.dir}/munged.pid", f"--log-file={self.dir}/munged.log", f"--seed-file={self.dir}/munge.seed")
        self._wait("munged's socket", lambda: (self.dir / "munge.socket").exists())
        self.start_controller()
        for node in self.nodes:
            self._spawn(f"slurmd-{node.name}", *node.boot, sbin / "slurmd-wlm", "-D", "-N", node.name, "-d", sbin / "slurmstepd-wlm",
                        "-f", self.conf)
        self._wait("the nodes to be idle", lambda: self.run("sinfo", "--noheader", "--Node", "--format=%t", expect=None).split()
                   == ["idle"] * len(self.nodes))

    def start_controller(self):
        self._spawn("slurmctld", *self.nodes[0].enter, self.root / "usr/sbin/slurmctld-wlm", "-D", "-f", self.conf)

    def stop_controller(self):
        """As for an upgrade. (Killed, it forgets what it has not saved yet, starts jobs again and drains the node.)"""
        self._end("slurmctld", signal.SIGTERM)

    def stop(self):
        """The daemons, then whatever still runs of a job: all of it has this cluster's configuration in its environment."""
        for node in self.nodes:
            self._end(f"slurmd-{node.name}", node.end)
        for name in ("slurmctld", "munged"):
            self._end(name, signal.SIGTERM)
        mark = f"SLURM_CONF={self.conf}".encode()
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue  # it has ended, or is another user's

    def _end(self, name, number):
        process = self.processes.pop(name, None)
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def run(self, program, *arguments, expect=0):
        done = subprocess.run([self.bin / program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)
        if expect is not None and done.returncode != expect:
            raise AssertionError(f"{program} {arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}\n{self.logs()}")
        return done.stdout

    def logs(self):
        return "\n".join(f"--- {path.name}\n" + path.read_text(errors="replace")[-2000:] for path in sorted(self.dir.glob("*.log")))

    def _wait(self, what, condition):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            if condition():
                return
            time.sleep(0.1)
        raise AssertionError(f"waited 30 s for {what}\n{self.logs()}")
