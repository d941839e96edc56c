"""Debian's Slurm on machines: slurmctld on the first, slurmd on each, `sbatch` and `srun` as they are."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from .machines import Machine, Machines
from .process import Process, wait_until

# auth/none asks for no key that would have to be shared; a node may be asked for more processors than there are.
CONFIG = """\
ClusterName=test
SlurmctldHost={first}
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
StateSaveLocation=/mnt/own
SlurmdSpoolDir=/mnt/own/slurmd
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SlurmdTimeout=10
NodeName={names} CPUs=64 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def unpacked() -> Path:
    """Slurm's files as if under /; skips, or fails where CI is set, without them."""
    given = os.environ.get("STRATA_SLURM")
    if not given:
        missing = "no Slurm: `make test` fetches it where there is Debian, and sets STRATA_SLURM"
        assert "CI" not in os.environ, missing
        pytest.skip(missing)
    return Path(given) / "root"


class Slurm:
    """Its daemons run until the machines end."""

    def __init__(self, machines: Machines, folder: Path) -> None:
        files = unpacked()
        self.machines, self.folder = machines, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "slurm.conf"
        names = ",".join(machine.name for machine in machines)
        self.config.write_text(CONFIG.format(first=machines[0].name, names=names))
        self.env = {"PATH": os.environ["PATH"], "SLURM_CONF": str(self.config), "HOME": str(Path.home())}
        for machine in machines:
            over = ["mount", "-t", "overlay", "overlay", "-o", f"lowerdir={files}/usr:/usr", "/usr"]
            for command in (over, ["mkdir", "/mnt/own/slurmd"]):
                done = machine.call(command)
                assert done.returncode == 0, done.stderr
        self.daemons = [self._daemon(machines[0], "slurmctld-wlm", "-c", "-D")]
        for machine in machines:
            self.daemons.append(
                self._daemon(machine, "slurmd-wlm", "-D", "-N", machine.name, "-d", "/usr/sbin/slurmstepd-wlm")
            )
        self.daemons[0].wait_until(self._idle, "all nodes to be idle")

    def _daemon(self, machine: Machine, *command: str) -> Process:
        return machine.start(command, self.env, self.folder / f"{command[0]}-{machine.name}.log")

    def _idle(self) -> bool:
        told = self.machines[0].call(["sinfo", "--noheader", "--Node", "--format=%T"], self.env)
        return told.returncode == 0 and told.stdout.split() == ["idle"] * len(self.machines.all)

    def submit(self, script: Path, folder: Path, env: Mapping[str, str], *options: str) -> Job:
        """What a user types in `folder`."""
        log = folder / f"{script.stem}-%j.log"
        command: list[str | Path] = ["sbatch", "--parsable", *options, f"--chdir={folder}", f"--output={log}", script]
        done = self.machines[0].call(command, self.env | dict(env))
        assert done.returncode == 0, done.stderr
        number = done.stdout.strip()
        return Job(self, number, Path(str(log).replace("%j", number)))

    def logs(self) -> str:
        return "\n".join(f"--- {daemon.log.name}\n{daemon.text()}" for daemon in self.daemons)


class Job:
    """One that was submitted."""

    def __init__(self, slurm: Slurm, number: str, log: Path) -> None:
        self.slurm, self.number, self.log = slurm, number, log

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def state(self) -> str:
        """As Slurm calls it: RUNNING, COMPLETED, FAILED …"""
        done = self._ask("scontrol", "show", "job", self.number)
        words = dict(word.partition("=")[::2] for word in done.stdout.split())
        return words.get("JobState", "")

    def wait_until_ended(self, patience: float) -> str:
        wait_until(lambda: self.state() not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), "its end", patience)
        return self.state()

    def cancel(self) -> None:
        self._ask("scancel", self.number)

    def _ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        return self.slurm.machines[0].call(command, self.slurm.env)
