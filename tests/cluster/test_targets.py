"""Several targets for one save: a directory first, a real S3 server behind it; `strata status`, `ls`, `repair`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.node import Node
from harness.process import wait_until
from harness.s3 import S3Server
from harness.states import digest, make_state
from harness.trainer import Trainer

CONFIG = """
[checkpoint]
keep_last = 1

[[store.target]]
name = "remote"
url = "{url}"
hold = 5
"""


Trainers = Callable[..., list[Trainer]]


@pytest.fixture
def node(make_node: Callable[..., Node], s3: S3Server, tmp_path: Path) -> Node:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(url=s3.url(tmp_path.name)))
    return make_node(extra=s3.env | {"STRATA_CONFIG": str(config)}).up()


def target(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = node.status()["jobs"][0]["targets"][0]
    return found


def commit(node: Node, trainer: Trainer, *steps: int) -> None:
    """The steps, and waits until the target has them and nothing is held for it any more."""
    for step in steps:
        trainer.do("save", step=step, rank=0)
        trainer.do("wait_committed", step=step)
    wait_until(lambda: target(node)["behind"] == 0 and target(node)["latest_step"] == steps[-1], "the copies")


def store(node: Node) -> Path:
    return Path(node.store) / "t"


def listed(node: Node) -> list[tuple[int, bool]]:
    told = json.loads(node.cli("checkpoints", "ls", "--job", "t", "--json").stdout)
    return [(step["step"], step["elsewhere"]) for step in told["steps"]]


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_each_step_reaches_the_bucket_and_restores_from_there_when_the_directory_has_given_it_up(
    node: Node, make_trainers: Trainers
) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit(node, trainer, 1, 2, 3)
    wait_until(lambda: listed(node) == [(1, True), (2, True), (3, False)], "the directory keeps the newest alone")
    assert "only in remote" in node.cli("checkpoints", "ls", "--job", "t").stdout
    assert "remote: 3 steps, nothing behind" in node.cli("status").stdout
    assert trainer.do("restore", step=1)["digest"] == digest(make_state(0, 1, 0))
    assert 'strata_target_behind{job="t",target="remote"} 0' in node.metrics()


def test_configuration_with_targets_is_checked_and_shown(node: Node, tmp_path: Path) -> None:
    assert "fine" in node.cli("config", "check").stdout
    assert 'name = "remote"' in node.cli("config", "show").stdout
    assert "[[store.target]]" in node.cli("config", "example").stdout
    bad = tmp_path / "bad.toml"
    bad.write_text('[[store.target]]\nurl = "/a"\nkeep_every = "1h"\n')
    done = node.cli("config", "check", "--config", bad, check=False)
    assert done.returncode == 2 and "keep_last" in done.stderr


def test_repair_rebuilds_from_the_bucket_what_was_harmed_in_the_directory(node: Node, make_trainers: Trainers) -> None:
    """P2."""
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit(node, trainer, 1)
    harmed = [
        next((store(node) / "data").glob("*/*.pack")),
        next((store(node) / "data").glob("*/*.manifest")),
        next((store(node) / "steps").glob("*/COMMIT")),
        store(node) / "OWNER",
    ]
    whole = [path.read_bytes() for path in harmed]
    for path in harmed[:3]:
        flip(path, 5)
    harmed[3].unlink()
    assert node.cli("checkpoints", "verify", "--job", "t", check=False).returncode == 7
    told = json.loads(node.cli("checkpoints", "repair", "--job", "t", "--dry-run", "--json").stdout)
    assert {found["outcome"] for found in told["objects"]} == {"repairable"} and len(told["objects"]) == 4
    assert [path.read_bytes() for path in harmed[:3]] != whole[:3], "a dry run writes nothing"
    refused = node.cli("checkpoints", "repair", "--job", "t", check=False)
    assert refused.returncode == 2 and "--yes" in refused.stderr
    done = node.cli("checkpoints", "repair", "--job", "t", "--yes").stdout
    assert done.count("rebuilt") == 4 and "step 1" in done
    assert [path.read_bytes() for path in harmed[:3]] == whole[:3]
    assert "step 1: whole" in node.cli("checkpoints", "verify", "--job", "t").stdout
    assert "step 1: nothing to repair" in node.cli("checkpoints", "repair", "--job", "t").stdout
    assert not any(
        step["pinned"] for step in json.loads(node.cli("checkpoints", "ls", "--job", "t", "--json").stdout)["steps"]
    )


def test_repair_says_what_is_lost_and_where_to_look(
    node: Node, make_trainers: Trainers, s3: S3Server, tmp_path: Path
) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit(node, trainer, 1)
    for place in (store(node), s3.folder / s3.bucket / tmp_path.name):
        flip(next(place.rglob("*.pack")), 5)
    done = node.cli("checkpoints", "repair", "--job", "t", "--yes", check=False)
    assert done.returncode == 7 and "lost" in done.stdout and "can't be rebuilt" in done.stderr
    alone = node.cli("checkpoints", "repair", "--job", "t", check=False, STRATA_CONFIG="")
    assert alone.returncode == 2 and "--target" in alone.stderr
    nothing = node.cli("checkpoints", "repair", "--job", "mistyped", "--store", node.store, check=False)
    assert nothing.returncode == 3 and "mistyped" in nothing.stderr


def test_training_goes_on_without_its_bucket_and_the_lag_is_shown(
    node: Node, make_trainers: Trainers, s3: S3Server
) -> None:
    """P5."""
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit(node, trainer, 1)
    bucket = s3.folder / s3.bucket
    bucket.rename(bucket.with_name("away"))
    for step in (2, 3, 4):
        trainer.do("save", step=step, rank=0)
        trainer.do("wait_committed", step=step)
    wait_until(lambda: target(node)["behind"] == 3 and bool(target(node)["problem"]), "the lag to be shown")
    assert "remote: 3 steps behind" in node.cli("status").stdout
    bucket.with_name("away").rename(bucket)
    wait_until(lambda: target(node)["behind"] == 0, "it to catch up")
    wait_until(lambda: listed(node) == [(1, True), (2, True), (3, True), (4, False)], "the directory to be freed")


def test_a_lost_directory_is_taken_up_from_the_bucket(node: Node, make_trainers: Trainers) -> None:
    """P3: a committed step survives the loss of the first store, once the target has it."""
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit(node, trainer, 1, 2)
    trainer.close()
    node.kill("up")
    shutil.rmtree(node.store)
    shutil.rmtree(node.arenas, ignore_errors=True)
    node.up()
    [trainer] = make_trainers(node)
    trainer.do("connect")
    assert trainer.do("restore")["digest"] == digest(make_state(0, 2, 0))
    commit(node, trainer, 3)
    assert [step for step, _ in listed(node)] == [1, 2, 3]


def test_a_private_sidecar_stays_until_the_bucket_has_the_last_step(
    make_node: Callable[..., Node], make_trainers: Trainers, s3: S3Server, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(CONFIG.format(url=s3.url(tmp_path.name)))
    node = make_node(extra=s3.env | {"STRATA_CONFIG": str(config)})
    del node.env["STRATA_SOCKET"]
    node.env["XDG_RUNTIME_DIR"] = str(node.run)
    [trainer] = make_trainers(node)
    trainer.do("connect", local=True)
    for step in (1, 2):
        trainer.do("save", step=step, rank=0)
    trainer.do("close")
    trainer.close()
    steps = s3.folder / s3.bucket / tmp_path.name / "t" / "steps"
    wait_until(lambda: (steps / f"{2:020}" / "COMMIT").exists(), "the copy of the last step")
    wait_until(lambda: not any((node.run / "strata").rglob("*.sock")), "the private sidecar to end")
