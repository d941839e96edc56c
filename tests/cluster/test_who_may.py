"""A second rank of a number, another user, cluster or version: a refusal that names both."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.node import Node
from harness.process import Process
from harness.refusal import commit, fails
from harness.states import digest, make_state
from harness.trainer import Trainer

Nodes = Callable[..., Node]
Trainers = Callable[..., list[Trainer]]


def test_two_ranks_claiming_one_number_conflict(node: Node, make_trainers: Trainers) -> None:
    [first] = make_trainers(node)
    first.do("connect")
    [second] = make_trainers(node)
    with fails("Conflict", "ConflictError") as caught:
        second.do("connect", timeout=5.0)
    assert "rank 0" in caught[0].message
    commit([first], 1)


def test_worker_of_another_user_is_denied(node: Node, python: Path, site: Path) -> None:
    """P9: the socket belongs to one user."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    # A sidecar of root serves all; one of an ordinary user only its own.
    other = Node(node.exe, node.folder / "other")
    for path in (other.run, other.arenas, other.folder):
        os.chown(path, 1234, 1234)
    for parent in [other.folder, *other.folder.parents]:
        if parent != Path("/") and parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    drop = ["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups", "--"]
    process = Process([*drop, other.exe, "up", "--port", "0", "--http-port", "0"], other.env, node.folder / "other.log")
    try:
        process.wait_until(lambda: Path(other.env["STRATA_SOCKET"]).exists(), "the other user's sidecar")
        [trainer] = [Trainer(python, other.env | {"PYTHONPATH": str(site)})]
        try:
            with fails("Denied", "DeniedError") as caught:
                trainer.do("connect", timeout=5.0)
            assert "1234" in caught[0].message
        finally:
            trainer.close()
    finally:
        process.kill()
        other.close()


def test_worker_with_another_world_is_refused(node: Node, make_trainers: Trainers) -> None:
    [first, _] = make_trainers(node, world=2)
    first.do("connect")
    [_, _, third] = make_trainers(node, world=3)
    with fails("Conflict", "ConflictError") as caught:
        third.do("connect", timeout=5.0)
    assert "2" in caught[0].message and "3" in caught[0].message


def test_job_of_another_cluster_is_refused_until_taken_over(make_node: Nodes, make_trainers: Trainers) -> None:
    first = make_node().up()
    [trainer] = make_trainers(first)
    trainer.do("connect")
    commit([trainer], 1)
    trainer.do("close")
    first.kill("up")

    second = make_node(store=first.store).up()
    [trainer] = make_trainers(second)
    with fails("Conflict", "ConflictError") as caught:
        trainer.do("connect", timeout=8.0)
    assert "--take-over-store" in (caught[0].hint or "")
    second.kill("up")
    second.up("--take-over-store")
    [trainer] = make_trainers(second)
    trainer.do("connect")
    assert trainer.do("restore")["digest"] == digest(make_state(0, 1, 0))


def test_client_of_another_version_is_told_both(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node, STRATA_TEST_CLIENT_VERSION="9.5.0")
    with fails("Invalid", "InvalidError") as caught:
        trainer.do("connect", timeout=5.0)
    assert "9.5.0" in caught[0].message and "strata wheel" in (caught[0].hint or "")
