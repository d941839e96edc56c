"""The original Strata's calls (`dtruntime`): a script written against them runs unchanged with 8 ranks."""

from __future__ import annotations

import json
import os
import signal
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
            env = node.env | {"PYTHONPATH": paths}
            if world > 1:
                env |= {"RANK": str(rank), "WORLD_SIZE": str(world)}
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


def test_one_process_alone_needs_nothing_started(
    make_node: Callable[..., Node], start_ranks: Ranks, tmp_path: Path
) -> None:
    what = [HERE / "original_rank.py", "alone", "none", tmp_path, "local", str(tmp_path / "checkpoints")]
    [text] = finish(start_ranks(make_node(), *what, world=1))
    assert "no such step:" in text and "rank 0: alone" in text
    assert "starting a private one for job default, with a coordinator of its own" in text


def test_files_are_scanned_and_shards_name_them_with_their_rows(
    make_node: Callable[..., Node], start_ranks: Ranks, tmp_path: Path
) -> None:
    node = make_node().coordinator()
    what = [HERE / "original_rank.py", "datasets", coordinator(node), tmp_path, "local", "unused"]
    [text] = finish(start_ranks(node, *what, world=1))
    assert "wrong count:" in text and "11 samples declared, its files hold 10" in text
    assert "unknown world:" in text and "nobody has joined" in text
    assert f"read {[10 * sample for sample in range(10)]}" in text


@pytest.mark.parametrize("call", ["barrier_alone", "load_alone"])
def test_ctrl_c_ends_a_call_that_waits_for_a_missing_rank(
    call: str, make_node: Callable[..., Node], start_ranks: Ranks, tmp_path: Path
) -> None:
    node = make_node().up()
    what = [HERE / "original_rank.py", call, coordinator(node), tmp_path, "local", str(tmp_path / "checkpoints")]
    ranks = start_ranks(node, *what, world=2, only=[0])
    all_say(ranks, "waits")
    ranks[0].popen.send_signal(signal.SIGINT)
    assert ranks[0].popen.wait(PATIENCE) == -signal.SIGINT
    assert "KeyboardInterrupt" in ranks[0].text()


def test_step_that_not_all_ranks_saved_is_given_up_when_they_leave(
    make_node: Callable[..., Node], start_ranks: Ranks, tmp_path: Path
) -> None:
    node = make_node().up()
    what = [HERE / "original_rank.py", "unequal", coordinator(node), tmp_path, "local", str(tmp_path / "checkpoints")]
    texts = finish(start_ranks(node, *what, world=3))
    assert "saving step 3: " in texts[0] and "has left the job without saving it" in texts[0]
    job = next(job for job in node.status()["jobs"] if job["job"] == "default")
    assert (job["latest_step"], job["committed_steps"], job["pending"]) == (2, 2, [])


def test_rank_that_ends_by_an_exception_is_lost_to_the_others(
    make_node: Callable[..., Node], start_ranks: Ranks, tmp_path: Path
) -> None:
    node = make_node().up()
    what = ["failing", coordinator(node), tmp_path, "local", str(tmp_path / "checkpoints")]
    ranks = start_ranks(node, HERE / "original_rank.py", *what, world=2)
    assert ranks[1].popen.wait(PATIENCE) == 1
    [text] = finish(ranks[:1])
    assert "fenced" in text and "rank 1" in text


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
