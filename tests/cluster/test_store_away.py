"""P5: a store that fails under a running job costs steps, never the run; once it is back the next save commits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness.mounts import remount, tmpfs
from harness.node import Node
from harness.states import digest, make_state
from harness.trainer import StrataFailure, Trainer

Nodes = Callable[..., Node]
Trainers = Callable[..., list[Trainer]]


def commit(trainer: Trainer, step: int) -> None:
    trainer.do("save", step=step, rank=0)
    trainer.do("wait_committed", step=step)


def loses(trainer: Trainer, step: int) -> StrataFailure:
    """A save that goes on and a wait that says why nothing came of it."""
    trainer.do("save", step=step, rank=0)
    with pytest.raises(StrataFailure) as failure:
        trainer.do("wait_committed", step=step)
    return failure.value


def test_store_that_turns_read_only_costs_steps_and_the_next_one_commits(
    make_node: Nodes, make_trainers: Trainers, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "disk", "64m") as disk:
        node = make_node(store=str(disk / "store")).up()
        [trainer] = make_trainers(node)
        trainer.do("connect")
        commit(trainer, 1)
        remount(disk, "ro")
        failure = loses(trainer, 2)
        assert failure.kind == "Denied" and "Read-only" in failure.message
        assert trainer.do("restore")["digest"] == digest(make_state(0, 1, 0))
        remount(disk, "rw")
        commit(trainer, 3)
        assert trainer.do("call", name="all_steps", arguments=[])["value"] == [1, 3]
        node.close()
