"""P9: one sidecar of root serves several users, each of whom sees their own jobs alone."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.node import Node
from harness.process import wait_until
from harness.states import digest, make_state
from harness.trainer import StrataFailure, Trainer

Trainers = Callable[..., list[Trainer]]
FIRST, SECOND = 12341, 12342


@pytest.fixture
def shared(node: Node) -> Node:
    """A node of root whose socket everyone reaches."""
    if os.geteuid() != 0:
        pytest.skip("serving and becoming other users needs root")
    node.run.chmod(0o711)
    return node


def trainer_of(uid: int, job: str, node: Node, make_trainers: Trainers) -> Trainer:
    [trainer] = make_trainers(node, job=job)
    trainer.do("become", uid=uid)
    return trainer


def commit(trainer: Trainer, step: int, seed: int) -> None:
    trainer.do("save", step=step, rank=0, seed=seed)
    trainer.do("wait_committed", step=step)


def denied(trainer: Trainer) -> str:
    with pytest.raises(StrataFailure) as failure:
        trainer.do("connect", timeout=5.0)
    assert failure.value.kind == "Denied", failure.value
    return failure.value.message


def test_two_users_train_at_once_and_neither_reaches_the_other(shared: Node, make_trainers: Trainers) -> None:
    trainers = {uid: trainer_of(uid, f"of-{uid}", shared, make_trainers) for uid in (FIRST, SECOND)}
    for uid, trainer in trainers.items():
        trainer.do("connect")
        commit(trainer, 1, seed=uid)
    for uid, trainer in trainers.items():
        assert trainer.do("restore")["digest"] == digest(make_state(uid, 1, 0))
        arenas = Path(f"{shared.arenas}-{uid}")
        [arena] = arenas.glob("*.arena")
        assert arenas.stat().st_mode & 0o777 == 0o700
        other = trainers[SECOND if uid == FIRST else FIRST]
        assert trainer.do("may_read", path=str(arena))["value"]
        assert not other.do("may_read", path=str(arena))["value"]
    for uid in (SECOND, 0):
        intruder = trainer_of(uid, f"of-{FIRST}", shared, make_trainers)
        said = denied(intruder)
        assert f"uid {FIRST}" in said and f"uid {uid}" in said
    commit(trainers[FIRST], 2, seed=FIRST)


def test_a_job_that_is_not_running_is_still_its_users_alone(shared: Node, make_trainers: Trainers) -> None:
    """The checkpoints of a job that has ended are read and replaced by whoever it belongs to, not by whoever asks."""
    owner = trainer_of(FIRST, "secret", shared, make_trainers)
    owner.do("connect")
    commit(owner, 1, seed=FIRST)
    owner.do("close")
    said = denied(trainer_of(SECOND, "secret", shared, make_trainers))
    assert f"uid {FIRST}" in said and f"uid {SECOND}" in said
    with pytest.raises(StrataFailure) as failure:
        trainer_of(SECOND, "secret", shared, make_trainers).do("connect", timeout=5.0)
    assert failure.value.hint is not None and "STRATA_JOB" in failure.value.hint
    again = trainer_of(FIRST, "secret", shared, make_trainers)
    again.do("connect")
    assert again.do("restore")["digest"] == digest(make_state(FIRST, 1, 0))


def test_a_directory_that_a_user_names_is_reached_with_their_rights(shared: Node, make_trainers: Trainers) -> None:
    """A sidecar of root makes and writes nothing where its user could not, and what it writes for them is theirs."""
    closed, home = shared.run / "closed", shared.run / "home"
    for folder in (closed, home):
        folder.mkdir(mode=0o755)
    os.chown(home, FIRST, -1)
    trainer = trainer_of(FIRST, "own", shared, make_trainers)
    with pytest.raises(StrataFailure) as failure:
        trainer.do("connect", timeout=5.0, store=str(closed / "sub"))
    assert failure.value.kind == "Denied" and str(closed) in failure.value.message, failure.value
    assert not list(closed.iterdir())
    trainer.do("connect", store=str(home / "sub"))
    commit(trainer, 1, seed=FIRST)
    commit(trainer, 2, seed=FIRST)
    commit(trainer, 3, seed=FIRST)
    assert trainer.do("restore", step=1)["digest"] == digest(make_state(FIRST, 1, 0))
    made = [home / "sub", *(home / "sub").rglob("*")]
    assert len(made) > 5 and {path.stat().st_uid for path in made} == {FIRST}


def test_a_target_is_roots_and_gives_nobody_another_users_job(
    make_node: Callable[..., Node], make_trainers: Trainers, tmp_path: Path
) -> None:
    """What a user's directory holds is copied with that user's rights; a new directory of another user's under the same
    job name does not take up what the target has."""
    config, target = tmp_path / "config.toml", tmp_path / "target"
    config.write_text(f'[[store.target]]\nname = "target"\nurl = "{target}"\n')
    if os.geteuid() != 0:
        pytest.skip("serving and becoming other users needs root")
    node = make_node(extra={"STRATA_CONFIG": str(config)}).up()
    node.run.chmod(0o711)
    homes = {}
    for uid in (FIRST, SECOND):
        homes[uid] = node.run / f"home-{uid}"
        homes[uid].mkdir(mode=0o700)
        os.chown(homes[uid], uid, -1)
    owner = trainer_of(FIRST, "mine", node, make_trainers)
    owner.do("connect", store=str(homes[FIRST] / "store"))
    commit(owner, 1, seed=FIRST)
    copied = target / "mine" / "steps" / f"{1:020}" / "COMMIT"
    wait_until(copied.exists, "the copy")
    assert copied.stat().st_uid == 0
    owner.do("close")
    intruder = trainer_of(SECOND, "mine", node, make_trainers)
    with pytest.raises(StrataFailure) as failure:
        intruder.do("connect", timeout=5.0, store=str(homes[SECOND] / "store"))
    said = failure.value
    assert said.kind == "Denied" and f"uid {FIRST}" in said.message and f"uid {SECOND}" in said.message, said
