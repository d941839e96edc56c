"""An error as a user should be given it: kind, class, exit code, hint, no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .node import Node
from .trainer import StrataFailure, Trainer, all_do


def refused(node: Node, *arguments: str | Path, code: int, **env: str) -> str:
    """Runs a command that must fail with `code`; returns what it said, which holds a hint and no traceback."""
    done = node.cli(*arguments, check=False, **env)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert "hint:" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "panicked" not in done.stderr
    return done.stderr


@contextmanager
def fails(kind: str, cls: str) -> Iterator[list[StrataFailure]]:
    """The block must raise a StrataError of this kind and class, with a hint."""
    caught: list[StrataFailure] = []
    with pytest.raises(StrataFailure) as failure:
        yield caught
    caught.append(failure.value)
    assert (failure.value.kind, failure.value.cls) == (kind, cls), failure.value
    assert failure.value.hint, failure.value.message


def commit(trainers: list[Trainer], step: int, **options: object) -> None:
    for trainer in trainers:
        trainer.send("save", step=step, rank=trainer.rank, **options)
    for trainer in trainers:
        trainer.answer()
    all_do(trainers, "wait_committed", step=step)
