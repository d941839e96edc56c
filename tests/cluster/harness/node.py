"""A node under test: coordinator and sidecar as real processes of the executable, on paths of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .process import PATIENCE, Process

CONFIG = """\
[coordinator]
lease = "10s"
[sidecar]
save_wait = "2s"
"""


class Node:
    """`strata up`, or a coordinator and a sidecar apart, sharing one STRATA_HOME.

    Sockets and arenas lie in short private folders (a Unix socket's path has 107 bytes); `close` removes them.
    """

    def __init__(
        self, exe: Path, folder: Path, store: str | None = None, extra: Mapping[str, str] | None = None
    ) -> None:
        self.exe, self.folder = exe, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.run = Path(tempfile.mkdtemp(prefix="strata-t-"))
        self.arenas = Path(tempfile.mkdtemp(prefix="strata-t-", dir="/dev/shm"))
        self.store = store or str(folder / "store")
        self.env: dict[str, str] = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "STRATA_HOME": str(folder / "home"),
            "STRATA_SOCKET": str(self.run / "sidecar.sock"),
            "STRATA_ARENA_DIR": str(self.arenas),
            "STRATA_STORE": self.store,
            **(extra or {}),
        }
        self.parts: dict[str, Process] = {}

    # -- starting

    def up(self, *arguments: str) -> Node:
        return self._start("up", "--port", "0", "--http-port", "0", *arguments)

    def coordinator(self, *arguments: str) -> Node:
        """Starts the coordinator, on the port it had before if it ran already."""
        port = self.env.get("STRATA_COORDINATOR", ":0").rsplit(":", 1)[1]
        self._start("coordinator", "--port", port, "--http-port", "0", *arguments)
        self.env["STRATA_COORDINATOR"] = self.endpoint()["grpc"]
        return self

    def sidecar(self, *arguments: str) -> Node:
        return self._start("sidecar", "--http-port", "0", *arguments)

    def restart(self, part: str, *arguments: str) -> None:
        """Starts a part again that was killed or stopped."""
        {"up": self.up, "coordinator": self.coordinator, "sidecar": self.sidecar}[part](*arguments)

    def _start(self, part: str, *arguments: str) -> Node:
        log = self.folder / f"{part}.log"
        process = Process([self.exe, part, *arguments], self.env, log)
        self.parts[part] = process
        process.wait_until(lambda: self._ready(part, process), f"{part} to be ready")
        return self

    def _ready(self, part: str, process: Process) -> bool:
        if part == "coordinator":
            return self.endpoint().get("pid") == process.pid
        probe = subprocess.run(
            [self.exe, "sidecar", "--wait-ready", "--timeout", "1s"], env=self.env, capture_output=True, check=False
        )
        return probe.returncode == 0

    # -- using

    def endpoint(self) -> dict[str, Any]:
        path = Path(self.env["STRATA_HOME"]) / "endpoint.json"
        if not path.exists():
            return {}
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def metrics(self) -> str:
        """What /metrics tells, as it is."""
        with urllib.request.urlopen(f"{self.endpoint()['http']}/metrics", timeout=10) as answer:
            told: str = answer.read().decode()
        return told

    def cli(self, *arguments: str | Path, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the executable with this node's environment."""
        done = subprocess.run(
            [str(self.exe), *map(str, arguments)],
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, (
            f"{arguments} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done

    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.cli("status", "--json").stdout)
        return document

    # -- ending

    def kill(self, part: str) -> None:
        self.parts[part].kill()

    def close(self) -> None:
        for process in self.parts.values():
            process.kill()
        shutil.rmtree(self.run, ignore_errors=True)
        # A sidecar of root keeps those of other users beside its own.
        for arenas in (self.arenas, *self.arenas.parent.glob(f"{self.arenas.name}-*")):
            shutil.rmtree(arenas, ignore_errors=True)

    def logs(self) -> str:
        return "\n".join(f"--- {name}\n{process.text()}" for name, process in self.parts.items())
