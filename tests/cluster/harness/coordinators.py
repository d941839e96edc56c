"""A set of coordinators on this machine, each a process with a home and a port of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from .process import PATIENCE, Process, wait_until

SECRET = "a secret of the coordinators under test"
LEADS = "it leads its set"


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody has at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    for held in sockets:
        held.bind(("127.0.0.1", 0))
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


class Coordinators:
    """`count` of them, three or five, all started. They are known by their numbers, from 0."""

    def __init__(self, exe: Path, folder: Path, count: int = 3, scheme: str = "http", **env: str) -> None:
        self.exe, self.folder, self.env = exe, folder, env
        self.ports = free_ports(count)
        self.urls = [f"{scheme}://127.0.0.1:{port}" for port in self.ports]
        self.list = ",".join(self.urls)
        self.processes: dict[int, Process] = {}
        for which in range(count):
            self.start(which)

    def home(self, which: int) -> Path:
        return self.folder / f"coordinator-{which}"

    def start(self, which: int, **env: str) -> Process:
        home = self.home(which)
        home.mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "STRATA_HOME": str(home),
            "STRATA_PEERS": self.list,
            "STRATA_PEERS_SECRET": SECRET,
            **self.env,
            **env,
        }
        command = [self.exe, "coordinator", "--port", str(self.ports[which]), "--http-port", "0"]
        self.processes[which] = Process(command, environment, self.folder / f"coordinator-{which}.log")
        return self.processes[which]

    def kill(self, *which: int) -> None:
        """SIGKILL to all of them before any is waited for."""
        for one in which:
            os.kill(self.processes[one].pid, signal.SIGKILL)
        for one in which:
            self.processes.pop(one).kill()

    def wait_leaderless(self) -> None:
        """Until none of those that are left leads: they are too few."""
        wait_until(lambda: all(self.note(which) != LEADS for which in self.processes), "nobody to lead")

    def lose_home(self, which: int) -> None:
        shutil.rmtree(self.home(which))

    def endpoint(self, which: int) -> dict[str, Any]:
        path = self.home(which) / "endpoint.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found if found.get("pid") == self.processes[which].pid else {}

    def ask(self, which: int, page: str) -> tuple[int, str]:
        """The HTTP code and the page; 0 of one that does not serve yet."""
        http = self.endpoint(which).get("http")
        if not http:
            return 0, ""
        try:
            with urllib.request.urlopen(f"{http}{page}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()
        except OSError:
            return 0, ""

    def note(self, which: int) -> str:
        """What /readyz says of its place in the set."""
        code, page = self.ask(which, "/readyz")
        return str(json.loads(page)["checks"][0].get("note", "")) if code == 200 else ""

    def leader(self) -> int:
        """Number of the one that leads, once there is one."""
        found: list[int] = []

        def leads() -> bool:
            found[:] = [which for which in self.processes if self.note(which) == LEADS]
            return len(found) == 1

        wait_until(leads, "one of the coordinators to lead")
        return found[0]

    def wait_follows(self, which: int) -> None:
        wait_until(lambda: self.note(which).startswith("it follows"), f"coordinator {which} to follow")

    def metric(self, which: int, name: str) -> float:
        _, page = self.ask(which, "/metrics")
        [line] = [line for line in page.splitlines() if line.startswith(f"{name} ")]
        return float(line.split()[1])

    def freeze(self, which: int) -> None:
        os.kill(self.processes[which].pid, signal.SIGSTOP)

    def thaw(self, which: int) -> None:
        os.kill(self.processes[which].pid, signal.SIGCONT)

    def cli(self, *arguments: str, coordinator: str | None = None) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "STRATA_HOME": str(self.folder / "nobody")}
        env["STRATA_COORDINATOR"] = coordinator or self.list
        return subprocess.run(
            [str(self.exe), *arguments],
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def logs(self) -> str:
        return "\n".join(f"--- {log.name}\n{log.read_text()}" for log in sorted(self.folder.glob("coordinator-*.log")))

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
