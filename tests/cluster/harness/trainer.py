"""One rank of a training job as a process of its own, driven command by command."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .process import PATIENCE

WORKER = Path(__file__).with_name("worker.py")


class StrataFailure(Exception):
    """What a call inside the trainer raised."""

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer["message"])
        self.kind: str = answer["error"]
        self.cls: str = answer["class"]
        self.message: str = answer["message"]
        self.hint: str | None = answer["hint"]


class Trainer:
    """`send` starts a command, `answer` waits for it, `do` is both. A killed trainer answers nothing any more.

    `enter` makes the command line one that runs elsewhere, such as on a machine of its own."""

    def __init__(
        self,
        python: Path,
        env: Mapping[str, str],
        rank: int = 0,
        world: int = 1,
        job: str = "t",
        enter: Callable[[list[str | Path]], list[str | Path]] = list,
    ) -> None:
        self.rank, self.world, self.job = rank, world, job
        environment = dict(env) | {"RANK": str(rank), "WORLD_SIZE": str(world), "STRATA_JOB": job}
        self.popen = subprocess.Popen(
            enter([python, WORKER]),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.warnings: list[str] = []

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for line in self.popen.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def send(self, do: str, **arguments: Any) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.popen.stdin.flush()

    def answer(self, patience: float = 2 * PATIENCE) -> dict[str, Any]:
        """Raises:
        StrataFailure: the call raised a StrataError.
        EOFError: the trainer is gone.
        """
        line = self.answers.get(timeout=patience)
        if line is None:
            raise EOFError(f"rank {self.rank} ended with {self.popen.wait(PATIENCE)}")
        answer: dict[str, Any] = json.loads(line)
        self.warnings += answer.pop("warnings")
        if "error" in answer:
            raise StrataFailure(answer)
        return answer

    def do(self, do: str, **arguments: Any) -> dict[str, Any]:
        self.send(do, **arguments)
        return self.answer()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait(PATIENCE)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.kill()
        for stream in (self.popen.stdin, self.popen.stdout):
            if stream is not None:
                stream.close()


def all_do(trainers: list[Trainer], do: str, **arguments: Any) -> list[dict[str, Any]]:
    """The same command on every rank at once (collective calls need that). Every answer is taken before the first
    failure is raised."""
    for trainer in trainers:
        trainer.send(do, **arguments)
    answers: list[dict[str, Any]] = []
    failures: list[Exception] = []
    for trainer in trainers:
        try:
            answers.append(trainer.answer())
        except (StrataFailure, EOFError) as failure:
            failures.append(failure)
    if failures:
        raise failures[0]
    return answers
