"""Saves and restores over real processes: kinds, replicated and partial saves, arena and store, retention."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness.node import Node
from harness.process import wait_until
from harness.s3 import S3Server
from harness.states import digest, make_state
from harness.trainer import StrataFailure, Trainer, all_do

Trainers = Callable[..., list[Trainer]]


def save_on_all(trainers: list[Trainer], step: int, **options: object) -> list[dict[str, object]]:
    for trainer in trainers:
        trainer.send("save", step=step, rank=trainer.rank, **options)
    for trainer in trainers:
        trainer.answer()
    return all_do(trainers, "wait_committed", step=step)


def stored_bytes(store: Path, job: str = "t") -> int:
    return sum(path.stat().st_size for path in (store / job / "data").rglob("*.pack"))


def state_bytes(megabytes: float) -> int:
    state = make_state(0, 1, 0, megabytes)
    arrays = [state["model"]["weight"], *state["model"]["small"], state["optimizer"]["moment"]]
    return sum(array.nbytes for array in arrays)


@pytest.fixture(params=["local", "s3"])
def backend_node(request: pytest.FixtureRequest, make_node: Callable[..., Node], tmp_path: Path) -> Node:
    if request.param == "local":
        return make_node().up()
    server: S3Server = request.getfixturevalue("s3")
    return make_node(server.url(f"{tmp_path.name}"), server.env).up()


def test_step_restores_from_arena_and_from_store(backend_node: Node, make_trainers: Trainers) -> None:
    trainers = make_trainers(backend_node, world=4)
    all_do(trainers, "connect")
    save_on_all(trainers, 1, megabytes=3.0)
    warm = all_do(trainers, "restore")
    assert {answer["source"] for answer in warm} == {"arena"}
    all_do(trainers, "close")

    wait_until(lambda: not list(Path(backend_node.env["STRATA_ARENA_DIR"]).rglob("*.arena")), "arenas to be removed")
    again = make_trainers(backend_node, world=4)
    all_do(again, "connect")
    cold = all_do(again, "restore")
    assert {answer["source"] for answer in cold} == {"store"}
    for trainer, answer in zip(again, cold, strict=True):
        assert answer["digest"] == digest(make_state(0, 1, trainer.rank, 3.0))
        assert answer["digest"] == warm[trainer.rank]["digest"]


def test_replicated_state_is_stored_once(node: Node, make_trainers: Trainers) -> None:
    """Four ranks, one copy: stored bytes at most 1.02 of it."""
    trainers = make_trainers(node, world=4)
    all_do(trainers, "connect")
    save_on_all(trainers, 1, megabytes=20.0, replicated=True)
    assert stored_bytes(Path(node.store)) <= 1.02 * state_bytes(20.0)
    all_do(trainers, "close")
    again = make_trainers(node, world=4)
    all_do(again, "connect")
    for trainer, answer in zip(again, all_do(again, "restore"), strict=True):
        assert answer["digest"] == digest(make_state(0, 1, trainer.rank, 20.0, replicated=True))


def test_equal_tensors_of_several_ranks_are_stored_once_undeclared(node: Node, make_trainers: Trainers) -> None:
    trainers = make_trainers(node, world=4)
    all_do(trainers, "connect")
    for trainer in trainers:
        trainer.send("save", step=1, megabytes=20.0, rank=0)
    for trainer in trainers:
        trainer.answer()
    all_do(trainers, "wait_committed", step=1)
    assert stored_bytes(Path(node.store)) <= 1.02 * state_bytes(20.0)


def test_save_of_one_rank_restores_on_all(node: Node, make_trainers: Trainers) -> None:
    trainers = make_trainers(node, world=4)
    all_do(trainers, "connect")
    trainers[0].do("save", step=1, rank=0, ranks=[0])
    trainers[0].do("wait_committed", step=1)
    trainers[2].do("save", step=2, rank=0, ranks=[0])  # may call, and gets a handle to the same commit
    trainers[0].do("save", step=2, rank=0, ranks=[0])
    assert trainers[2].do("wait_committed", step=2)["step"] == 2
    for answer in all_do(trainers, "restore", step=1):
        assert answer["digest"] == digest(make_state(0, 1, 0))


def test_incremental_step_stores_only_what_changed(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    first = save_on_all([trainer], 1, megabytes=40.0)[0]
    same = trainer.do("save", step=2, seed=0, megabytes=40.0, rank=0, kind="INCREMENTAL")
    changed = trainer.do("wait_committed", step=2)
    assert changed["stored_bytes"] > 0.9 * first["stored_bytes"]  # another step's state: everything differs
    trainer.do("close")

    [trainer] = make_trainers(node, job="frozen")
    trainer.do("connect")
    trainer.do("save_frozen", step=1, megabytes=40.0)
    base = trainer.do("wait_committed", step=1)
    trainer.do("save_frozen", step=2, megabytes=40.0, kind="INCREMENTAL")
    delta = trainer.do("wait_committed", step=2)
    assert delta["stored_bytes"] < 0.2 * base["stored_bytes"]
    assert same["digest"] == digest(make_state(0, 2, 0, 40.0))
    # the older step may go: what the newer one refers to stays
    node.cli("checkpoints", "rm", "1", "--job", "frozen", "--yes")
    trainer.do("close")
    [again] = make_trainers(node, job="frozen")
    again.do("connect")
    answer = again.do("restore_frozen", megabytes=40.0)
    assert answer["step"] == 2 and answer["source"] == "store" and answer["equal"]


def test_partial_kinds_are_stored_but_never_the_latest(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    save_on_all([trainer], 1)
    save_on_all([trainer], 2, kind="MODEL_ONLY")
    save_on_all([trainer], 3, kind="OPTIMIZER_ONLY")
    assert trainer.do("call", name="latest_step", arguments=[])["value"] == 1
    assert trainer.do("restore")["step"] == 1
    state = make_state(0, 2, 0)
    assert trainer.do("restore", step=2)["digest"] == digest({"model": state["model"]})
    with pytest.raises(StrataFailure) as failure:
        trainer.do("save_state", step=4, state={"other": 1}, kind="MODEL_ONLY")
    assert failure.value.kind == "Invalid"


def test_keep_last_removes_older_steps_but_no_pinned_one(
    make_node: Callable[..., Node], make_trainers: Trainers
) -> None:
    node = make_node(extra={"STRATA_KEEP_LAST": "2"}).up()
    [trainer] = make_trainers(node)
    trainer.do("connect")
    save_on_all([trainer], 1)
    trainer.do("call", name="pin", arguments=[1])
    for step in range(2, 7):
        save_on_all([trainer], step)

    def steps() -> list[int]:
        found: list[int] = trainer.do("call", name="all_steps", arguments=[])["value"]
        return found

    wait_until(lambda: steps() == [1, 5, 6], "the collector to keep 1 (pinned), 5 and 6")
    kept = Path(node.store) / "t" / "steps"

    def committed() -> list[int]:
        return sorted(int(path.name) for path in kept.iterdir() if (path / "COMMIT").exists())

    wait_until(lambda: committed() == [1, 5, 6], "the COMMIT of a step that is being removed to go")
    assert trainer.do("restore", step=1)["digest"] == digest(make_state(0, 1, 0))


def test_newer_failed_save_leaves_the_older_step_alone(node: Node, make_trainers: Trainers) -> None:
    """P4: one rank dies in the middle of a save; the step before is what comes back."""
    trainers = make_trainers(node, world=2)
    all_do(trainers, "connect")
    save_on_all(trainers, 1)
    trainers[0].do("save", step=2, rank=0)  # rank 1 never saves step 2
    trainers[1].kill()
    with pytest.raises(StrataFailure) as failure:
        trainers[0].do("wait_committed", step=2)
    assert failure.value.kind == "Fenced"
    trainers[0].kill()
    again = make_trainers(node, world=2)
    all_do(again, "connect")
    for trainer, answer in zip(again, all_do(again, "restore"), strict=True):
        assert (answer["step"], answer["digest"]) == (1, digest(make_state(0, 1, trainer.rank)))
    save_on_all(again, 2, seed=5)
    assert {answer["digest"] for answer in all_do(again, "restore")} == {
        digest(make_state(5, 2, rank)) for rank in range(2)
    }


def test_job_without_steps_restores_none(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    assert trainer.do("restore")["step"] is None
    assert trainer.do("call", name="latest_step", arguments=[])["value"] is None
