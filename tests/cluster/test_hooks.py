"""Operator hooks: what they are told, and that a broken one never costs a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.node import Node
from harness.process import wait_until
from harness.trainer import Trainer

Nodes = Callable[..., Node]
Trainers = Callable[..., list[Trainer]]


def train(node: Node, make_trainers: Trainers, steps: range) -> Trainer:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    for step in steps:
        trainer.do("save", step=step, rank=0, megabytes=0.1, metrics={"loss": 1.0 / step})
        trainer.do("wait_committed", step=step)
    return trainer


def steps(node: Node) -> list[int]:
    told = json.loads(node.cli("checkpoints", "ls", "--job", "t", "--json").stdout)
    return [step["step"] for step in told["steps"]]


def test_commits_and_losses_are_told(make_node: Nodes, make_trainers: Trainers, tmp_path: Path) -> None:
    hooks, seen = tmp_path / "hooks.py", tmp_path / "seen"
    hooks.write_text(f"""
from strata.hooks import CommitEvent, WorkerLost

def note(*what):
    with open({str(seen)!r}, "a") as file:
        print(*what, file=file)

def on_commit(event: CommitEvent) -> None:
    print("printed by a hook")
    note("committed", event.job, event.step.step, event.step.metrics["loss"])

def on_worker_lost(event: WorkerLost) -> None:
    note("lost", event.job, event.ranks, event.reason)
""")
    node = make_node().up("--hooks", str(hooks))
    trainer = train(node, make_trainers, range(1, 3))
    trainer.kill()
    wait_until(lambda: seen.exists() and "lost t (0,)" in seen.read_text(), "the loss to be told")
    assert seen.read_text().splitlines()[:2] == ["committed t 1 1.0", "committed t 2 0.5"]
    assert "printed by a hook" in node.parts["up"].text()


def test_retain_decides_and_the_newest_step_is_kept_whatever_it_says(
    make_node: Nodes, make_trainers: Trainers, tmp_path: Path
) -> None:
    hooks = tmp_path / "hooks.py"
    hooks.write_text("def retain(steps): return {info.step for info in steps if info.step % 2 == 0}")
    node = make_node().up("--hooks", str(hooks), "--keep-last", "1")
    train(node, make_trainers, range(1, 6))
    wait_until(lambda: steps(node) == [2, 4, 5], "the odd steps to go")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise ValueError('no idea')", "no idea"),
        ("import time; time.sleep(600)", "did not answer"),
        ("import os; os._exit(3)", "ended"),
        ("import sys; sys.exit(0)", "SystemExit"),
        ("return 'everything'", "not a set of step numbers"),
        ("return {77}", "77"),
        ("return None", "not a set of step numbers"),
        ("return {True}", "not a set of step numbers"),
        ("return {1.0}", "not a set of step numbers"),
    ],
    ids=["raises", "hangs", "dies", "exits", "nonsense", "unknown-step", "nothing", "true", "float"],
)
def test_broken_retain_keeps_everything(
    make_node: Nodes, make_trainers: Trainers, tmp_path: Path, body: str, told: str
) -> None:
    """P4: where keep_last=1 alone would have removed two of three steps."""
    hooks = tmp_path / "hooks.py"
    hooks.write_text(f"def retain(steps):\n    {body}\n")
    node = make_node().up("--hooks", str(hooks), "--keep-last", "1")
    train(node, make_trainers, range(1, 4))
    wait_until(lambda: told in node.status()["jobs"][0]["last_warning"], "the failure to be shown")
    assert steps(node) == [1, 2, 3]


def test_failed_on_commit_is_named_and_keeps_nothing_from_the_rule(
    make_node: Nodes, make_trainers: Trainers, tmp_path: Path
) -> None:
    hooks = tmp_path / "hooks.py"
    hooks.write_text("def on_commit(event): raise ValueError('told')")
    node = make_node().up("--hooks", str(hooks), "--keep-last", "1")
    train(node, make_trainers, range(1, 3))
    wait_until(lambda: steps(node) == [2], "the older step to go")
    wait_until(lambda: "told" in node.status()["jobs"][0]["last_warning"], "the failure to be shown")
    warning = node.status()["jobs"][0]["last_warning"]
    assert "on_commit" in warning and "kept" not in warning


def test_endless_failure_is_told_in_short(make_node: Nodes, make_trainers: Trainers, tmp_path: Path) -> None:
    """It goes to the log and to everyone who asks for the status."""
    hooks = tmp_path / "hooks.py"
    hooks.write_text("def retain(steps): return set(range(10**6))")
    node = make_node().up("--hooks", str(hooks), "--keep-last", "1")
    train(node, make_trainers, range(1, 3))
    wait_until(lambda: "not among those" in node.status()["jobs"][0]["last_warning"], "the failure to be shown")
    assert len(node.status()["jobs"][0]["last_warning"]) < 10_000
    assert steps(node) == [1, 2]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("def retian(steps): return {info.step for info in steps}", "defines none of"),
        ("retain = {1, 2, 3}", "not a function"),
    ],
    ids=["misspelt", "no-function"],
)
def test_hook_that_would_never_be_called_keeps_everything(
    make_node: Nodes, make_trainers: Trainers, tmp_path: Path, source: str, told: str
) -> None:
    """P4: passed over in silence, keep_last=1 would remove what it meant to keep."""
    hooks = tmp_path / "hooks.py"
    hooks.write_text(source)
    node = make_node().up("--hooks", str(hooks), "--keep-last", "1")
    train(node, make_trainers, range(1, 4))
    wait_until(lambda: told in node.status()["jobs"][0]["last_warning"], "the failure to be shown")
    assert steps(node) == [1, 2, 3]


def test_file_that_cannot_be_loaded_keeps_everything(make_node: Nodes, make_trainers: Trainers, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks.py"
    hooks.write_text("def retain(steps) return")
    node = make_node().up("--hooks", str(hooks), "--keep-last", "1")
    train(node, make_trainers, range(1, 4))
    wait_until(lambda: "SyntaxError" in node.status()["jobs"][0]["last_warning"], "the failure to be shown")
    assert steps(node) == [1, 2, 3]


def test_hooks_file_that_is_missing_is_said_at_start(make_node: Nodes) -> None:
    done = make_node().cli("up", "--port", "0", "--http-port", "0", "--hooks", "/nowhere.py", check=False)
    assert done.returncode == 3 and "/nowhere.py" in done.stderr and "hint: " in done.stderr
