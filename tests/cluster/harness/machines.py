"""Machines of a cluster, as namespaces: each has its own network, mounts, host name, processes, memory file systems.

Nothing of them is seen outside: the switch that joins their networks lies in a namespace too. All of a machine ends
when its first process does, and that one ends when the test does, however it ends.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from .process import PATIENCE, Process

NAMESPACES = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
SUBNET = "10.77.0"
# Bash reaps whoever loses their parent, as the first process must, and reads until the test is gone.
# What a machine has for itself, and with which rights.
PRIVATE = {Path("/tmp"): 1777, Path("/dev/shm"): 1777, Path("/run"): 755, Path.home(): 755}
FIRST_PROCESS = "{setup}; echo ready; read -r"


def need_namespaces() -> None:
    """Skips where they can't be made, and says why; for root in CI that is a failure."""
    if os.geteuid() != 0:
        pytest.skip("nodes in namespaces of their own need root")
    script = "ip link add br0 type bridge && ip link add one type veth peer name two"
    probe = ["unshare", *NAMESPACES, "bash", "-c", script]
    try:
        missing = subprocess.run(probe, capture_output=True, text=True, timeout=PATIENCE, check=False).stderr
    except FileNotFoundError as error:
        missing = str(error)
    if missing:
        told = f"nodes in namespaces of their own can't be made here: {missing.strip()}"
        assert "CI" not in os.environ, told
        pytest.skip(told)


class Machine:
    """One node. What lies in PRIVATE is its own, but for the paths in `shared`, which it has as they are."""

    def __init__(self, name: str, address: str, hosts: Mapping[str, str], shared: Sequence[Path], folder: Path) -> None:
        self.name, self.address = name, address
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        known = "".join(f"{at} {host}\n" for host, at in {"localhost": "127.0.0.1", **hosts}.items())
        (folder / "hosts").write_text(known)
        self.started: list[Process] = []
        self.log = folder / "machine.log"
        self.first = Process(
            ["unshare", *NAMESPACES, "bash", "-c", FIRST_PROCESS.format(setup=self._setup(shared))],
            {"PATH": os.environ["PATH"]},
            self.log,
        )
        self.first.wait_until(lambda: "ready" in self.first.text(), f"{name} to be set up")
        [self.init] = children(self.first.pid)

    def _setup(self, shared: Sequence[Path]) -> str:
        lines = ["set -e", "mount --make-rprivate /", f"hostname {self.name}", "ip link set lo up"]
        lines += [f"mount --bind {shlex.quote(str(self.folder / 'hosts'))} /etc/hosts"]
        lines += ["mount -t tmpfs -o mode=755 none /mnt", "mkdir /mnt/own"]
        kept = outermost([path for path in shared if any(path.is_relative_to(place) for place in PRIVATE)])
        for number, path in enumerate(kept):
            lines += [f"mkdir /mnt/{number}", f"mount --bind {shlex.quote(str(path))} /mnt/{number}"]
        for own, mode in PRIVATE.items():
            lines += [f"mount -t tmpfs -o mode={mode} none {own}"]
        for number, path in enumerate(kept):
            place = shlex.quote(str(path))
            lines += [f"mkdir -p {place}", f"mount --move /mnt/{number} {place}", f"rmdir /mnt/{number}"]
        return "; ".join(lines)

    def enter(self, command: Sequence[str | Path]) -> list[str | Path]:
        """The command as one that runs here."""
        return ["nsenter", "-t", str(self.init), "-m", "-u", "-i", "-n", "-p", "--wd=/mnt", *command]

    def start(self, command: Sequence[str | Path], env: Mapping[str, str], log: Path) -> Process:
        process = Process(self.enter(command), env, log)
        self.started.append(process)
        return process

    def call(
        self, command: Sequence[str | Path], env: Mapping[str, str] | None = None, patience: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Runs it to its end; `subprocess.CompletedProcess` says how that went."""
        environment = dict(env or {"PATH": os.environ["PATH"]})
        return subprocess.run(
            self.enter(command), env=environment, capture_output=True, text=True, timeout=patience, check=False
        )

    def processes(self, *words: str) -> list[int]:
        """Which have all these words as arguments; numbers of the world outside."""
        found = []
        for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
            try:
                here = os.readlink(f"/proc/{pid}/ns/pid") == os.readlink(f"/proc/{self.init}/ns/pid")
                arguments = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
            except OSError:
                continue  # gone meanwhile, or the kernel's
            if here and set(words) <= set(arguments):
                found.append(pid)
        return found

    def kill(self) -> None:
        """The kernel ends every process here; returns when all are gone."""
        if self.first.alive():
            os.kill(self.init, signal.SIGKILL)
        self.first.popen.wait(PATIENCE)
        for process in self.started:
            process.kill()


class Machines:
    """Machines on one switch, whose cables can be pulled."""

    def __init__(self, names: Sequence[str], shared: Sequence[Path], folder: Path) -> None:
        need_namespaces()
        folder.mkdir(parents=True, exist_ok=True)
        script = FIRST_PROCESS.format(setup="set -e; ip link add br0 type bridge; ip link set br0 up")
        self.all: list[Machine] = []
        self.switch = Process(
            ["unshare", *NAMESPACES, "bash", "-c", script], {"PATH": os.environ["PATH"]}, folder / "switch.log"
        )
        try:
            self.switch.wait_until(lambda: "ready" in self.switch.text(), "the switch")
            [self.ground] = children(self.switch.pid)
            addresses = {name: f"{SUBNET}.{number}" for number, name in enumerate(names, 1)}
            for name, address in addresses.items():
                machine = Machine(name, address, addresses, shared, folder / name)
                self.all.append(machine)
                self._wire(machine)
        except BaseException:
            self.close()
            raise

    def _wire(self, machine: Machine) -> None:
        port = f"p-{machine.name}"
        self._at_switch("add", port, "type", "veth", "peer", "name", "eth0", "netns", str(machine.init))
        self._at_switch("set", port, "master", "br0", "up")
        for line in (f"addr add {machine.address}/24 dev eth0", "link set eth0 up"):
            done = machine.call(["ip", *line.split()])
            assert done.returncode == 0, done.stderr

    def _at_switch(self, *words: str) -> None:
        subprocess.run(["nsenter", "-t", str(self.ground), "-n", "ip", "link", *words], check=True)

    def __getitem__(self, number: int) -> Machine:
        return self.all[number]

    def __iter__(self) -> Iterator[Machine]:
        return iter(self.all)

    def pull(self, machine: Machine) -> None:
        """Its cable: nothing comes or goes, and nobody is told."""
        self._at_switch("set", f"p-{machine.name}", "down")

    def plug(self, machine: Machine) -> None:
        self._at_switch("set", f"p-{machine.name}", "up")

    def power_off(self, machine: Machine) -> None:
        """No word of it reaches the others: the cable goes first, or the kernel would end its connections."""
        self.pull(machine)
        machine.kill()

    def close(self) -> None:
        for machine in self.all:
            machine.kill()
        self.switch.kill()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def outermost(paths: Sequence[Path]) -> list[Path]:
    """Those that lie in none of the others."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept
