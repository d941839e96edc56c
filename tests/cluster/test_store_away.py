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


def loses(trainer: Trainer, step: int, timeout: float = 60.0) -> StrataFailure:
    """A save that goes on and a wait that says why nothing came of it, or has not by then."""
    trainer.do("save", step=step, rank=0)
    with pytest.raises(StrataFailure) as failure:
        trainer.do("wait_committed", step=step, timeout=timeout)
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


@pytest.mark.parametrize("left", ["nothing", "an empty mount point"])
def test_store_that_is_unmounted_gets_no_steps_in_its_place_and_the_step_commits_once_it_is_back(
    node: Node, make_trainers: Trainers, left: str
) -> None:
    """P1, P3: what is written below a mount point whose disk is gone is lost when the disk is back. It must not be made
    anew, and nothing in it be acknowledged."""
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit(trainer, 1)
    store, away = Path(node.store), Path(f"{node.store}-away")
    store.rename(away)
    if left != "nothing":
        store.mkdir()
    failure = loses(trainer, 2, timeout=3.0)
    assert failure.kind == "Unavailable" and "OWNER is not there any more" in failure.message
    assert failure.hint is not None and "mounted" in failure.hint
    trainer.kill()
    [again] = make_trainers(node)
    with pytest.raises(StrataFailure) as refused:
        again.do("connect", timeout=3.0)
    assert "OWNER is not there any more" in refused.value.message, "a job with steps never begins anew silently"
    assert not store.exists() or not list(store.iterdir())
    if store.exists():
        store.rmdir()
    away.rename(store)
    again.do("connect")
    restored = again.do("restore")
    assert restored["step"] == 2 and restored["digest"] == digest(make_state(0, 2, 0)), "it was sealed, and is adopted"
    commit(again, 3)
    assert again.do("call", name="all_steps", arguments=[])["value"] == [1, 2, 3]


def test_restoring_from_a_store_that_is_away_says_so(node: Node, make_trainers: Trainers) -> None:
    """A restore that found nothing would make training begin anew."""
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit(trainer, 1)
    commit(trainer, 2)
    commit(trainer, 3)
    store, away = Path(node.store), Path(f"{node.store}-away")
    store.rename(away)
    assert trainer.do("call", name="all_steps", arguments=[])["value"] == [1, 2, 3]
    with pytest.raises(StrataFailure) as failure:
        trainer.do("restore", step=1)
    assert failure.value.kind == "Unavailable" and "OWNER is not there any more" in failure.value.message
    assert not store.exists()
    away.rename(store)
    assert trainer.do("restore", step=1)["digest"] == digest(make_state(0, 1, 0))
