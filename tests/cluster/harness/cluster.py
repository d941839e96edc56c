"""A coordinator and sidecars on machines of their own, each started as on a real one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .machines import Machine, Machines
from .process import Process
from .trainer import Trainer, all_do


class Cluster:
    """A coordinator on the first machine, a sidecar on each, trainers where a test wants them."""

    def __init__(self, exe: Path, python: Path, site: Path, machines: Machines, store: Path) -> None:
        self.exe, self.python, self.machines, self.folder = exe, python, machines, store.parent
        self.processes: list[Process] = []
        self.trainers: list[Trainer] = []
        self.env = {"PATH": os.environ["PATH"], "HOME": str(Path.home()), "PYTHONPATH": str(site)}
        self.env |= {"STRATA_STORE": str(store), "STRATA_COORDINATOR": "http://n1:50051", "STRATA_LEASE": "4s"}

    def start(self, machine: Machine, *arguments: str, **env: str) -> Process:
        log = self.folder / f"{arguments[0]}-{machine.name}.log"
        process = machine.start([self.exe, *arguments], self.env | env, log)
        self.processes.append(process)
        return process

    def coordinator(self, machine: Machine, **env: str) -> Process:
        return self.start(machine, "coordinator", "--listen", "0.0.0.0:50051", "--insecure", **env)

    def sidecar(self, machine: Machine, **env: str) -> Process:
        process = self.start(machine, "sidecar", **env)
        done = machine.call([self.exe, "sidecar", "--wait-ready"], self.env | env)
        assert done.returncode == 0, done.stderr
        return process

    def begin(self, **env: str) -> Cluster:
        self.coordinator(self.machines[0], **env)
        for machine in self.machines:
            self.sidecar(machine)
        return self

    def trainer(self, machine: Machine, rank: int, world: int, job: str = "t", **env: str) -> Trainer:
        trainer = Trainer(self.python, self.env | env, rank, world, job, machine.enter)
        self.trainers.append(trainer)
        return trainer

    def ranks(self) -> list[Trainer]:
        """One on each machine, connected."""
        ranks = [self.trainer(machine, number, len(self.machines.all)) for number, machine in enumerate(self.machines)]
        all_do(ranks, "connect")
        return ranks

    def ranks_told(self) -> dict[int, dict[str, Any]]:
        done = self.machines[0].call([self.exe, "status", "--json"], self.env)
        assert done.returncode == 0, done.stderr
        [job] = json.loads(done.stdout)["jobs"]
        return {rank["rank"]: rank for rank in job["ranks"]}

    def states(self) -> list[str]:
        return [member["state"] for _, member in sorted(self.ranks_told().items())]

    def close(self) -> None:
        for trainer in self.trainers:
            trainer.close()
        for process in self.processes:
            print(f"--- {process.log.name}\n{process.text()}")
