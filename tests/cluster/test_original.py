"""The original Strata's calls (`dtruntime`): a script written against them runs unchanged with 8 ranks."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.node import Node
from harness.process import PATIENCE, Process, wait_until
from harness.s3 import S3Server

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent.parent / "examples"
WORLD = 8

Ranks = Callable[..., list[Process]]


@pytest.fixture
def start_ranks(python: Path, site: Path, tmp_path: Path) -> Iterator[Ranks]:
    """Starts the ranks of a script on a node; they end with the test."""
    started: list[Process] = []

    def start(node: Node, *command: str | Path, world: int = WORLD, only: list[int] | None = None) -> list[Process]:
        paths = os.pathsep.join(map(str, (site, HERE, EXAMPLES)))
        ranks = []
        for rank in only if only is not None else range(world):
            env = node.env | {"PYTHONPATH": paths, "RANK": str(rank), "WORLD_SIZE": str(world)}
            log = tmp_path / f"rank-{rank}-{len(started)}.log"
            ranks.append(Process([python, *command], env, log))
            started.append(ranks[-1])
        return ranks

    yield start
    for process in started:
        process.kill()
        print(f"--- {process.log.name}\n{process.text()}")


def finish(ranks: list[Process]) -> list[str]:
    """What each rank said, once all have ended well."""
    for process in ranks:
        assert process.popen.wait(2 * PATIENCE) == 0, process.text()
    return [process.text() for process in ranks]


def all_say(ranks: list[Process], words: str) -> None:
    for process in ranks:
        process.wait_until(lambda process=process: words in process.text(), f"it to say {words!r}")  # type: ignore[misc]


def coordinator(node: Node) -> str:
    """As a user writes it: by name."""
    return str(node.endpoint()["grpc"]).replace("127.0.0.1", "localhost")


def run_example(start_ranks: Ranks, node: Node, backend: str, checkpoints: str, epochs: int) -> list[str]:
    options = ["--coordinator", coordinator(node), "--checkpoints", checkpoints, "--backend", backend]
    return finish(start_ranks(node, EXAMPLES / "original.py", *options, "--epochs", str(epochs)))


@pytest.mark.parametrize("backend", ["local", "s3", "s3 below the configured store"])
def test_script_runs_unchanged_with_eight_ranks_and_goes_on_where_it_stopped(
    backend: str, make_node: Callable[..., Node], start_ranks: Ranks, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if backend == "local":
        node, checkpoints = make_node().up(), str(tmp_path / "checkpoints")
    else:
        s3: S3Server = request.getfixturevalue("s3")
        below = backend != "s3"
        node = make_node(store=s3.url("team") if below else None, extra=s3.env).up()
        checkpoints = "original" if below else s3.url("original")
    kind = backend.split()[0]
    first = run_example(start_ranks, node, kind, checkpoints, epochs=1)
    for text in first:
        assert "starts at step 0" in text and "epoch 0 ends" in text
    again = run_example(start_ranks, node, kind, checkpoints, epochs=2)
    for text in again:
        assert "starts at step 2000" in text and "epoch 1 ends" in text

    for epoch in (0, 1):
        held: list[int] = []
        for text in first if epoch == 0 else again:
            line = next(line for line in text.splitlines() if f"epoch {epoch} begins" in line)
            held += map(int, line.split("shards ")[1].split())
        assert sorted(held) == list(range(129)), "every shard of the epoch is held exactly once (P8)"

    what = [HERE / "original_rank.py", "check", coordinator(node), tmp_path, kind, checkpoints]
    for rank, text in enumerate(finish(start_ranks(node, *what))):
        assert f"rank {rank}: step 4000 equal" in text
    steps = [1000, 2000, 3000, 4000]
    job = next(job for job in node.status()["jobs"] if job["job"] == "default")
    assert (job["latest_step"], job["committed_steps"], job["world_size"]) == (4000, len(steps), WORLD)


def test_barrier_holds_until_the_last_rank_with_and_without_a_sidecar(
    make_node: Callable[..., Node], start_ranks: Ranks, tmp_path: Path
) -> None:
    node = make_node().up()
    what = ["barrier", coordinator(node), tmp_path, "local", str(tmp_path / "checkpoints")]
    ranks = start_ranks(node, HERE / "original_rank.py", *what)
    for name in ("direct", "sidecar"):
        all_say(ranks, f"is at {name}")
        assert not any(f"passed {name}" in process.text() for process in ranks)
        (tmp_path / name).touch()
        all_say(ranks, f"passed {name}")
    finish(ranks)


def test_objects_may_be_made_in_any_order_and_a_rank_is_registered_once(
    make_node: Callable[..., Node], start_ranks: Ranks, tmp_path: Path
) -> None:
    node = make_node().up()
    what = ["orders", coordinator(node), tmp_path, "local", str(tmp_path / "checkpoints")]
    for text in finish(start_ranks(node, HERE / "original_rank.py", *what)):
        assert "kept 3" in text
    assert [job["job"] for job in node.status()["jobs"]] == ["default"]


def test_without_a_sidecar_a_private_one_serves_the_node_and_the_log_says_so(
    make_node: Callable[..., Node], start_ranks: Ranks, tmp_path: Path
) -> None:
    node = make_node().coordinator()
    what = ["orders", coordinator(node), tmp_path, "local", str(tmp_path / "checkpoints")]
    texts = finish(start_ranks(node, HERE / "original_rank.py", *what, world=4))
    assert any("starting a private one for job default" in text for text in texts)
    listed = node.cli("checkpoints", "ls", "--json", "--store", tmp_path / "checkpoints").stdout
    assert [step["step"] for step in json.loads(listed)["steps"]] == [7]


def test_killed_rank_is_named_to_the_others_who_go_on_with_its_successor(
    make_node: Callable[..., Node], start_ranks: Ranks, tmp_path: Path
) -> None:
    node = make_node().up()
    what = [HERE / "original_rank.py", "lost", coordinator(node), tmp_path, "local", str(tmp_path / "checkpoints")]
    ranks = start_ranks(node, *what, world=4)
    all_say(ranks, "saved")
    victim = ranks.pop()
    victim.kill()
    all_say(ranks, "fenced")
    for process in ranks:
        assert "rank 3" in process.text()
    ranks += start_ranks(node, *what, world=4, only=[3])
    for text in finish(ranks):
        assert "restored" in text


def test_without_a_coordinator_the_address_is_named(make_node: Callable[..., Node], start_ranks: Ranks) -> None:
    node = make_node()
    [rank] = start_ranks(node, EXAMPLES / "original.py", "--coordinator", "http://localhost:9", world=2, only=[1])
    wait_until(lambda: not rank.alive(), "the rank to give up")
    text = rank.text()
    assert "UnavailableError" in text and "http://localhost:9" in text and "refused" in text and "hint:" in text
