"""Python code as a rank of a job: started, and awaited."""

from __future__ import annotations

from collections.abc import Callable

from .process import PATIENCE, Process

Start = Callable[..., Process]


def finish(*processes: Process) -> list[str]:
    for process in processes:
        assert process.popen.wait(PATIENCE) == 0, process.text()
    return [process.text() for process in processes]
