"""A state that can't be stored, a step that isn't there, a target of another shape."""

from __future__ import annotations

from collections.abc import Callable

from harness.node import Node
from harness.refusal import commit, fails, refused
from harness.states import digest, make_state
from harness.trainer import Trainer

Nodes = Callable[..., Node]
Trainers = Callable[..., list[Trainer]]


def test_state_whose_shape_changed_between_steps_is_saved(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit([trainer], 1, megabytes=1.0)
    commit([trainer], 2, megabytes=5.0)
    commit([trainer], 3, megabytes=0.5)
    for step, megabytes in ((1, 1.0), (2, 5.0), (3, 0.5)):
        assert trainer.do("restore", step=step)["digest"] == digest(make_state(0, step, 0, megabytes))


def test_restore_into_the_wrong_shape_or_dtype_is_invalid_and_changes_nothing(
    node: Node, make_trainers: Trainers
) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit([trainer], 1)
    for damage in ("shape", "dtype"):
        with fails("Invalid", "InvalidError") as caught:
            trainer.do("restore_into", step=1, damage=damage)
        assert "weight" in caught[0].message
    assert trainer.do("restore_into", step=1, damage="none")["equal"]


def test_state_that_cannot_be_stored_is_named_by_its_path(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    with fails("Invalid", "InvalidError") as caught:
        trainer.do("save_function", step=1)
    assert "state['sched']['fn']" in caught[0].message


def test_step_that_does_not_exist_is_not_found(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit([trainer], 1)
    with fails("NotFound", "NotFoundError") as caught:
        trainer.do("restore", step=99)
    assert "99" in caught[0].message
    refused(node, "checkpoints", "show", "99", "--job", "t", code=3)
