"""One child process with its log, ended by pid."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PATIENCE = 60.0  # how long a test waits for anything; never a measurement


class Process:
    """Starts `command` in its own process group, both streams into `log` (appended)."""

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str], log: Path) -> None:
        self.command = [str(part) for part in command]
        self.env = dict(env)
        self.log = log
        with log.open("ab") as out:
            self.popen = subprocess.Popen(
                self.command,
                env=self.env,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def alive(self) -> bool:
        return self.popen.poll() is None

    def close_stdin(self) -> None:
        """The process reads an end of file, as it does once this object is killed or stopped."""
        assert self.popen.stdin is not None
        self.popen.stdin.close()

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.alive():
            self.popen.kill()
        self.popen.wait(PATIENCE)

    def stop(self, patience: float = PATIENCE) -> int:
        """SIGTERM, and the exit code."""
        if self.alive():
            self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(patience)

    def text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits for `condition`; fails with the log when the process ends first."""

        def checked() -> bool:
            if condition():
                return True
            assert self.alive(), f"{self.command[:3]} ended with {self.popen.poll()} before {what}\n{self.text()}"
            return False

        wait_until(checked, what)


def wait_until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s for {what}"
        time.sleep(0.01)
