"""The ledger: where the seconds of a job go, told by the command line, by Python and by metrics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.node import Node
from harness.trainer import Trainer

# Steps of 50 ms, a save every fifth. In its first life rank 1 is killed at step 18, so 16 and 17 at least are made
# again; later a step hangs for as long as 80 steps take.
TRAINING = """
import os, signal, time
import numpy as np, strata

with strata.connect() as job:
    restored = job.restore()
    first = restored.step + 1 if restored else 1
    for step in range(first, 61):
        time.sleep(4.0 if step == 40 else 0.05)
        job.reached_preemption(step)
        job.barrier("step")
        if step % 5 == 0:
            job.save(step, {"model": np.full(1000, step)}).wait_committed()
        if (step, first, job.rank) == (18, 1, 1):
            time.sleep(0.5)  # a frame is sent every 250 ms
            os.kill(os.getpid(), signal.SIGKILL)
    if job.rank == 0:
        told = job.goodput()
        print("TOLD", told.losses, told.saves, round(told.ratio, 3), sorted(told.seconds))
"""


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """Its coordinator can be killed apart from the sidecar."""
    return make_node().coordinator().sidecar()


@pytest.fixture
def trained(node: Node, python: Path, site: Path, tmp_path: Path) -> Node:
    (tmp_path / "train.py").write_text(TRAINING)
    command = ["run", "--nproc-per-node", "2", "--log-dir", tmp_path / "logs", "--", python, tmp_path / "train.py"]
    node.cli(*command, STRATA_JOB="t", PYTHONPATH=str(site))
    return node


def ledger(node: Node) -> tuple[dict[str, int], dict[str, Any]]:
    [job] = json.loads(node.cli("goodput", "--job", "t", "--json").stdout)["jobs"]
    return {one["use"]: one["ms"] for one in job["spent"]}, job


def test_every_second_of_a_job_is_told_also_after_the_coordinators_death(trained: Node, tmp_path: Path) -> None:
    spent, job = ledger(trained)
    assert (job["losses"], job["saves"]) == (1, 12)
    work = spent["productive"] / 60  # of a step
    assert work < spent["replay"] < spent["productive"], f"two or three steps, and what was begun of another: {spent}"
    assert spent["stall"] > 2000, spent
    assert spent["start"] and spent["restart"] and spent["save"], spent
    assert spent["detection"] < spent["restart"], "a death is proved, and not waited for"
    [told] = [
        line for line in (tmp_path / "logs/rank-0.1.log").read_text().splitlines() if line.startswith("TOLD 1 12")
    ]
    assert all(use in told for use in spent)

    page = trained.cli("goodput").stdout
    assert "% productive of" in page and "1 loss, 12 steps committed" in page and "replay" in page
    assert 'strata_job_seconds_total{job="t",spent_on="replay"}' in trained.metrics()

    trained.kill("coordinator")
    trained.restart("coordinator")
    assert ledger(trained) == (spent, job)


def test_a_coordinator_that_is_away_costs_a_job_that_trains_on_nothing(
    node: Node, make_trainers: Callable[..., list[Trainer]]
) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    trainer.do("call", name="reached_preemption", arguments=[1])
    before, _ = ledger(node)
    node.kill("coordinator")
    node.restart("coordinator")
    trainer.do("save", step=2)
    trainer.do("wait_committed", step=2)
    after, job = ledger(node)
    assert job["losses"] == 0 and job["saves"] == 1
    assert sum(after.values()) >= sum(before.values())
    assert not any(after[use] for use in ("detection", "fencing", "restart", "reassignment", "replay")), after


def test_a_job_that_nobody_knows_is_named(node: Node) -> None:
    done = node.cli("goodput", "--job", "none", check=False)
    assert done.returncode == 3 and "none" in done.stderr and "hint: " in done.stderr
