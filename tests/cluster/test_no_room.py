"""Too little memory, a full disk: Overloaded with the numbers, and training goes on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.mounts import tmpfs
from harness.node import Node
from harness.process import wait_until
from harness.refusal import commit, fails
from harness.states import digest, make_state
from harness.trainer import StrataFailure, Trainer

Nodes = Callable[..., Node]
Trainers = Callable[..., list[Trainer]]


def test_small_shared_memory_is_overloaded_with_the_numbers(
    make_node: Nodes, make_trainers: Trainers, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "shm", "32m") as small:
        node = make_node(extra={"STRATA_ARENA_DIR": str(small)}).up()
        [trainer] = make_trainers(node)
        trainer.do("connect")
        commit([trainer], 1, megabytes=2.0)
        with fails("Overloaded", "OverloadedError") as caught:
            trainer.do("save", step=2, rank=0, megabytes=200.0)
        assert str(small) in caught[0].message
        assert trainer.do("restore", step=1)["digest"] == digest(make_state(0, 1, 0, 2.0))
        commit([trainer], 3, megabytes=2.0)  # a smaller one still fits
        node.close()


def test_full_shared_memory_is_overloaded_never_a_bus_error(
    make_node: Nodes, make_trainers: Trainers, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "shm", "64m") as small:
        node = make_node(extra={"STRATA_ARENA_DIR": str(small)}).up()
        [trainer] = make_trainers(node)
        trainer.do("connect")
        (small / "hog").write_bytes(bytes(60 * 2**20))
        with fails("Overloaded", "OverloadedError"):
            trainer.do("save", step=1, rank=0, megabytes=8.0)
        (small / "hog").unlink()
        commit([trainer], 2, megabytes=8.0)
        node.close()


def memory_cgroup_v1() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup" and "memory" in fields[3].split(","):
            return Path(fields[1])
    return None


def test_memory_cgroup_too_small_is_overloaded_not_killed(make_node: Nodes, make_trainers: Trainers) -> None:
    """cgroup v1 for real; v2 is tested in Rust through the injected reader."""
    root = memory_cgroup_v1()
    if root is None or os.geteuid() != 0:
        pytest.skip("needs a v1 memory cgroup and root")
    group = root / f"strata-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(256 * 2**20))
        node = make_node().up()
        (group / "cgroup.procs").write_text(str(node.parts["up"].pid))
        [trainer] = make_trainers(node)
        trainer.do("connect")
        with fails("Overloaded", "OverloadedError") as caught:
            trainer.do("save", step=1, rank=0, megabytes=400.0)
        assert "cgroup" in caught[0].message
        commit([trainer], 2, megabytes=2.0)
        node.close()
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text().strip(), "the cgroup to be empty")
        group.rmdir()


def test_full_disk_skips_saves_and_training_goes_on(make_node: Nodes, make_trainers: Trainers, tmp_path: Path) -> None:
    """P4, P5."""
    with tmpfs(tmp_path / "disk", "24m") as disk:
        node = make_node(store=str(disk / "store")).up()
        [trainer] = make_trainers(node)
        trainer.do("connect")
        commit([trainer], 1, megabytes=4.0)
        hog = disk / "hog"
        hog.write_bytes(bytes(shutil.disk_usage(disk).free - 2**20))
        trainer.do("save", step=2, rank=0, megabytes=4.0)
        with pytest.raises(StrataFailure) as failure:
            trainer.do("wait_committed", step=2, timeout=5.0)
        assert failure.value.kind in ("Overloaded", "Timeout"), failure.value
        assert trainer.do("restore", step=1)["digest"] == digest(make_state(0, 1, 0, 4.0))
        hog.unlink()
        commit([trainer], 3, megabytes=4.0)
        node.close()


def test_full_disk_is_tried_on_for_a_dead_trainers_step(
    make_node: Nodes, make_trainers: Trainers, tmp_path: Path
) -> None:
    """P3: nobody can save it again, and nobody needs its slot."""
    with tmpfs(tmp_path / "disk", "24m") as disk:
        node = make_node(store=str(disk / "store")).up()
        [trainer] = make_trainers(node)
        trainer.do("connect")
        commit([trainer], 1, megabytes=4.0)
        hog = disk / "hog"
        hog.write_bytes(bytes(shutil.disk_usage(disk).free - 2**20))
        trainer.do("save", step=2, rank=0, megabytes=4.0)
        trainer.kill()
        wait_until(lambda: node.parts["up"].text().count("persisting failed") > 3, "more than three tries")
        hog.unlink()
        [successor] = make_trainers(node)
        successor.do("connect")
        listed = ["checkpoints", "ls", "--job", "t", "--json"]
        wait_until(lambda: '"step": 2' in node.cli(*listed).stdout, "the step to be committed")
        assert successor.do("restore", step=2)["digest"] == digest(make_state(0, 2, 0, 4.0))
        node.close()
