"""A node of Strata, as the ranks of chaos.py and resume.py find it running: `strata up`, with a store of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PATIENCE = 60.0


class Node:
    """Sidecar and coordinator, ready when this returns; with `env` a process finds them. Arenas lie in /dev/shm, all
    else below `folder`.

    Raises:
        SystemExit: they do not get ready; the text is their log.
    """

    def __init__(self, strata: Path, folder: Path) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="node-", dir=folder))
        self.arenas = Path(tempfile.mkdtemp(prefix="strata-chaos-", dir="/dev/shm"))
        self.env = {
            "STRATA_HOME": str(self.home),
            "STRATA_SOCKET": str(self.home / "s.sock"),
            "STRATA_ARENA_DIR": str(self.arenas),
            "STRATA_STORE": str(self.home / "store"),
            "STRATA_KEEP_LAST": "2",
        }
        environment = os.environ | self.env
        log = self.home / "up.log"
        with log.open("w") as out:
            command = [str(strata), "up", "--port", "0", "--http-port", "0"]
            self.up = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
        wait = [str(strata), "sidecar", "--wait-ready"]
        if subprocess.run(wait, env=environment, check=False, capture_output=True).returncode:
            self.close()
            raise SystemExit(f"starting a node of Strata\n{log.read_text()}")

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.up.terminate()
        self.up.wait(PATIENCE)
        shutil.rmtree(self.arenas, ignore_errors=True)
