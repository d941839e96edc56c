"""A flipped bit, a pack cut short, a damaged COMMIT: found before a value is seen (P2)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.node import Node
from harness.refusal import commit, fails, refused
from harness.states import digest, make_state
from harness.trainer import Trainer

Nodes = Callable[..., Node]
Trainers = Callable[..., list[Trainer]]


def fresh_process_restores(node: Node, make_trainers: Trainers, **options: object) -> dict[str, object]:
    """A restore that must read the store: sidecar and arenas are new."""
    node.kill("up")
    shutil.rmtree(node.arenas)
    node.arenas.mkdir(mode=0o700)
    node.restart("up")
    [trainer] = make_trainers(node)
    try:
        trainer.do("connect")
        return trainer.do("restore", **options)
    finally:
        trainer.do("close")


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def two_steps(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit([trainer], 1)
    commit([trainer], 2)
    trainer.do("close")


def newest(node: Node, pattern: str) -> Path:
    return max((Path(node.store) / "t").rglob(pattern), key=lambda path: str(path.parent))


def test_damaged_commit_is_corrupt_never_absent(node: Node, make_trainers: Trainers) -> None:
    """P2."""
    two_steps(node, make_trainers)
    flip(Path(node.store) / "t" / "steps" / f"{2:020}" / "COMMIT", 40)
    with fails("Corrupt", "CorruptCheckpointError") as caught:
        fresh_process_restores(node, make_trainers)
    assert "COMMIT" in caught[0].message
    answer = fresh_process_restores(node, make_trainers, on_damage="previous")
    assert (answer["step"], answer["digest"]) == (1, digest(make_state(0, 1, 0)))


@pytest.mark.parametrize("pattern", ["*.pack", "*.manifest"])
def test_flipped_bit_is_detected_before_a_value_is_seen(pattern: str, node: Node, make_trainers: Trainers) -> None:
    """P2."""
    two_steps(node, make_trainers)
    flip(newest(node, pattern), 3000 if pattern == "*.pack" else 60)
    with fails("Corrupt", "CorruptCheckpointError") as caught:
        fresh_process_restores(node, make_trainers)
    assert pattern[1:] in caught[0].message
    refused(node, "checkpoints", "verify", "2", "--job", "t", code=7)
    answer = fresh_process_restores(node, make_trainers, on_damage="previous")
    assert (answer["step"], answer["digest"]) == (1, digest(make_state(0, 1, 0)))


def test_truncated_pack_is_corrupt(node: Node, make_trainers: Trainers) -> None:
    """P2."""
    two_steps(node, make_trainers)
    os.truncate(newest(node, "*.pack"), 4096)
    with fails("Corrupt", "CorruptCheckpointError"):
        fresh_process_restores(node, make_trainers)
    assert fresh_process_restores(node, make_trainers, step=1)["digest"] == digest(make_state(0, 1, 0))
