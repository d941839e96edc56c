"""`should_save`: whoever wants a checkpoint, all ranks save it at the same step."""

from __future__ import annotations

import itertools
import json
import queue
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from harness.node import Node
from harness.process import Process, wait_until
from harness.script import Start
from strata.proto.strata.v1 import common_pb2, coordinator_pb2, coordinator_pb2_grpc

LOOP = """
delay = float(os.environ["DELAY"])
job = strata.connect()
step = 0
while True:
    step += 1
    time.sleep(delay)
    if step % 25 == 0:
        job.barrier("pace")
    print("step", step)
    if job.should_save(step):
        job.save(step, {"w": np.full(8, step)})
        print("saved", step)
    if job.reached_preemption(step):
        break
job.close()
print("stopped", step)
"""
SILENT = """
job = strata.connect()
print("step 1")
while not os.path.exists(os.environ["DONE"]):
    time.sleep(0.01)
"""
DELAYS = ("0.002", "0.007", "0.012")
"""Seconds of a step, by rank."""


def saved(rank: Process) -> list[int]:
    return [int(step) for step in re.findall(r"^saved (\d+)$", rank.text(), re.MULTILINE)]


def stopped(rank: Process) -> list[int]:
    return [int(step) for step in re.findall(r"^stopped (\d+)$", rank.text(), re.MULTILINE)]


def step_of(rank: Process) -> int:
    return max((int(step) for step in re.findall(r"^step (\d+)$", rank.text(), re.MULTILINE)), default=0)


@pytest.fixture
def loops(script: Start) -> Callable[..., list[Process]]:
    """Starts three ranks that ask at every step, at different speeds, and waits until they are under way."""

    def start(node: Node, code: str = LOOP) -> list[Process]:
        env = [node.env | {"DELAY": delay} for delay in DELAYS]
        ranks = [script(code, env, rank, len(DELAYS)) for rank, env in enumerate(env)]
        for rank in ranks:
            rank.wait_until(lambda rank=rank: step_of(rank) > 5, "the first steps")  # type: ignore[misc]
        return ranks

    return start


def now(node: Node, *arguments: str) -> int:
    agreed = json.loads(node.cli("checkpoints", "now", "--job", "t", "--json", *arguments).stdout)
    step: int = agreed["step"]
    return step


def stop(node: Node, ranks: list[Process]) -> int:
    step = now(node, "--stop")
    assert [rank.popen.wait(60) for rank in ranks] == [0, 0, 0], [rank.text()[-2000:] for rank in ranks]
    assert [stopped(rank) for rank in ranks] == [[step]] * 3
    return step


def committed(node: Node) -> list[int]:
    folder = Path(node.store) / "t" / "steps"
    return sorted(int(commit.parent.name) for commit in folder.glob("*/COMMIT"))


def configured(make_node: Callable[..., Node], text: str) -> tuple[Node, Path]:
    node = make_node()
    path = node.folder / "config.toml"
    path.write_text(text)
    node.env["STRATA_CONFIG"] = str(path)
    return node, path


def test_an_operator_who_asks_gets_one_step_of_all_ranks_and_stopping_is_saving_too(
    node: Node, loops: Callable[..., list[Process]]
) -> None:
    ranks = loops(node)
    asked = []
    for _ in range(3):
        asked.append(now(node))
        wait_until(lambda: committed(node) == asked, f"the commit of {asked}")
    asked.append(stop(node, ranks))
    assert [saved(rank) for rank in ranks] == [asked] * 3
    assert committed(node) == asked
    refused = node.cli("checkpoints", "now", "--job", "t", check=False)
    assert refused.returncode == 4 and "no generation is open" in refused.stderr, refused.stderr


def test_an_interval_of_steps_needs_no_word_of_anybody(
    make_node: Callable[..., Node], loops: Callable[..., list[Process]]
) -> None:
    node, _ = configured(make_node, "[checkpoint]\ninterval_steps = 20\n")
    node.up()
    ranks = loops(node)
    wait_until(lambda: len(committed(node)) >= 3, "three commits")
    last = stop(node, ranks)
    expected = sorted({*range(20, last + 1, 20), last})
    assert [saved(rank) for rank in ranks] == [expected] * 3


def test_auto_saves_again_and_again_at_steps_that_all_agree_on(
    make_node: Callable[..., Node], loops: Callable[..., list[Process]]
) -> None:
    node, _ = configured(make_node, '[checkpoint]\ninterval_steps = "auto"\n')
    node.up()
    ranks = loops(node)
    wait_until(lambda: len(committed(node)) >= 2, "two commits")
    stop(node, ranks)
    taken = [saved(rank) for rank in ranks]
    assert taken[0] == taken[1] == taken[2] and len(taken[0]) >= 3, taken


def test_a_rank_that_does_not_ask_holds_nobody_up(node: Node, script: Start) -> None:
    done = node.folder / "done"
    env = node.env | {"DELAY": "0.01", "DONE": str(done)}
    code = LOOP.replace('job.barrier("pace")', "pass").replace("np.full(8, step)}", "np.full(8, step)}, ranks=[0, 1]")
    asking, silent = [script(code, env, rank, 3) for rank in (0, 1)], script(SILENT, env, 2, 3)
    for rank in asking:
        rank.wait_until(lambda rank=rank: step_of(rank) > 5, "the first steps")  # type: ignore[misc]
    step = now(node)
    wait_until(lambda: committed(node) == [step], "the commit")
    assert [saved(rank) for rank in asking] == [[step]] * 2
    last = now(node, "--stop")
    assert [rank.popen.wait(60) for rank in asking] == [0, 0]
    assert [stopped(rank) for rank in asking] == [[last]] * 2
    done.touch()
    assert silent.popen.wait(60) == 0


def test_a_coordinator_that_is_killed_while_ranks_agree_asks_again(
    make_node: Callable[..., Node], loops: Callable[..., list[Process]], seed: int
) -> None:
    """The slowest rank's process is stopped, so the vote is under way when the coordinator dies."""
    source = random.Random(seed)
    node = make_node().coordinator().sidecar()
    ranks = loops(node)
    for _ in range(3):
        before = len(saved(ranks[0]))
        ranks[2].popen.send_signal(signal.SIGSTOP)
        asking = subprocess.Popen(
            [str(node.exe), "checkpoints", "now", "--job", "t"],
            env=node.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(source.uniform(0.3, 1.5))
        node.kill("coordinator")
        node.restart("coordinator")
        ranks[2].popen.send_signal(signal.SIGCONT)
        asking.wait(60)
        wait_until(lambda before=before: len(saved(ranks[0])) > before or _ask(node), "a save after the restart")  # type: ignore[misc]
    stop(node, ranks)
    taken = [saved(rank) for rank in ranks]
    assert taken[0] == taken[1] == taken[2], taken


def _ask(node: Node) -> bool:
    """Who asked in vain, because nobody had heard it yet, asks again."""
    node.cli("checkpoints", "now", "--job", "t", check=False)
    return False


def test_a_changed_interval_is_that_of_the_next_generation_and_a_broken_file_changes_nothing(
    make_node: Callable[..., Node], loops: Callable[..., list[Process]]
) -> None:
    node, config = configured(make_node, "[checkpoint]\ninterval_steps = 20\n")
    node.up()

    def hangup(text: str, said: str) -> None:
        config.write_text(text)
        node.parts["up"].popen.send_signal(signal.SIGHUP)
        node.parts["up"].wait_until(lambda: said in node.parts["up"].text(), said)

    ranks = loops(node)
    hangup("[checkpoint]\ninterval_steps = 30\n", "changed: checkpoint.interval_steps")
    hangup("[checkpoint]\ninterval_steps = thirty\n", "everything stays as it is")
    hangup(
        "[checkpoint]\ninterval_steps = 30\n[sidecar]\nslots = 3\n",
        "sidecar.slots can't change while this process runs",
    )
    wait_until(lambda: len(committed(node)) >= 3, "three commits")
    last = stop(node, ranks)
    expected = sorted({*range(20, last + 1, 20), last})
    assert [saved(rank) for rank in ranks] == [expected] * 3
    again = loops(node, LOOP.replace("step = 0", f"step = {last}"))
    wait_until(lambda: all(len(saved(rank)) >= 2 for rank in again), "saves of the next generation")
    end = stop(node, again)
    expected = sorted({*(step for step in range(30, end + 1, 30) if step > last), end})
    assert [saved(rank) for rank in again] == [expected] * 3


def test_a_worker_is_told_of_changed_settings_on_its_heartbeat_stream(make_node: Callable[..., Node]) -> None:
    node, config = configured(make_node, '[job]\nheartbeat_interval = "1s"\n')
    node.up()
    with grpc.insecure_channel(node.endpoint()["grpc"].removeprefix("http://")) as channel:
        stub = coordinator_pb2_grpc.CoordinatorStub(channel)
        request = coordinator_pb2.RegisterWorkerRequest(job="told", world_size=1, host="h", idempotency_key="k")
        joined = stub.RegisterWorker(request, timeout=30)
        beats: queue.SimpleQueue[coordinator_pb2.HeartbeatRequest] = queue.SimpleQueue()
        caller = common_pb2.Caller(job="told", generation=joined.joining, rank=0)
        beats.put(coordinator_pb2.HeartbeatRequest(caller=caller, incarnation=joined.incarnation))
        stream = stub.StreamHeartbeat(iter(beats.get, None), timeout=30)
        assert next(iter(stream)).generation == joined.joining
        config.write_text('[job]\nheartbeat_interval = "3s"\n[checkpoint]\ninterval_steps = "auto"\n')
        node.parts["up"].popen.send_signal(signal.SIGHUP)
        told = [command.config for reply in itertools.islice(stream, 1) for command in reply.commands]
        assert [(it.heartbeat_interval_ms, it.checkpoint_interval_auto) for it in told] == [(3000, True)]
        stream.cancel()
