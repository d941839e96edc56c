"""Who is alive: silence is told from death, whatever keeps a process from speaking."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from harness.node import Node
from harness.process import wait_until
from harness.trainer import StrataFailure, Trainer, all_do

Trainers = Callable[..., list[Trainer]]


def job_of(node: Node) -> dict[str, Any]:
    [job] = node.status()["jobs"]
    found: dict[str, Any] = job
    return found


def states(node: Node) -> list[str]:
    return [rank["state"] for rank in job_of(node)["ranks"]]


@contextmanager
def stopped(node: Node, part: str) -> Iterator[None]:
    """Its process does nothing meanwhile, as on a node that hangs."""
    process = node.parts[part].popen
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


def test_p6_a_frozen_sidecars_ranks_are_suspected_then_fenced_at_its_lease(
    make_node: Callable[..., Node], make_trainers: Trainers
) -> None:
    node = make_node().coordinator("--lease", "4s").sidecar()
    ranks = make_trainers(node, world=2)
    all_do(ranks, "connect")
    all_do(ranks, "call", name="barrier", arguments=["all here"])
    with stopped(node, "sidecar"):
        seen: list[list[str]] = []

        def is_fenced() -> bool:
            seen.append(states(node))
            return set(seen[-1]) == {"lost"}

        wait_until(is_fenced, "the lease to end")
    assert ["suspect", "suspect"] in seen, f"it was suspected first: {seen}"
    for rank in ranks:
        with pytest.raises(StrataFailure, match="was silent for its lease") as fenced:
            rank.do("call", name="barrier", arguments=["nobody acts on"])
        assert fenced.value.kind == "Fenced"


def test_p6_a_coordinator_that_was_stopped_for_longer_than_a_lease_evicts_nobody(
    make_node: Callable[..., Node], make_trainers: Trainers
) -> None:
    node = make_node().coordinator("--lease", "4s").sidecar()
    ranks = make_trainers(node, world=2)
    all_do(ranks, "connect")
    with stopped(node, "coordinator"):
        time.sleep(10)
    all_do(ranks, "call", name="barrier", arguments=["still here"])
    assert job_of(node)["generation"] == 1
    wait_until(lambda: states(node) == ["live", "live"], "the next frame")


HOG = "while True: pass"


@contextmanager
def hogs(count: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", HOG]) for _ in range(count)]
    try:
        yield
    finally:
        for hog in running:
            hog.kill()
            hog.wait()


def test_nobody_is_lost_because_the_processors_are_busy(
    make_node: Callable[..., Node], make_trainers: Trainers
) -> None:
    """A short lease, and so many processes that compute that each gets a slice now and then."""
    node = make_node().coordinator("--lease", "4s").sidecar()
    ranks = make_trainers(node, world=4)
    all_do(ranks, "connect")
    began = time.monotonic()
    rounds = 0
    with hogs(32):
        while time.monotonic() - began < 20:
            all_do(ranks, "call", name="barrier", arguments=[f"round {rounds}"])
            rounds += 1
    assert job_of(node)["generation"] == 1, f"after {rounds} barriers"
