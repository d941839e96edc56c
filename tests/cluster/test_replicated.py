"""Coordinators that are one cluster's: what they acknowledged survives any one of three, and any two of five."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from harness.coordinators import Coordinators
from harness.node import Node
from harness.process import wait_until
from harness.trainer import Trainer, all_do
from strata.proto.strata.v1 import common_pb2, coordinator_pb2, coordinator_pb2_grpc


@pytest.fixture
def coordinators(make_coordinators: Callable[[int], Coordinators]) -> Coordinators:
    return make_coordinators(3)


@pytest.fixture
def five(make_coordinators: Callable[[int], Coordinators]) -> Coordinators:
    return make_coordinators(5)


@pytest.fixture
def node(coordinators: Coordinators, make_node: Callable[..., Node]) -> Node:
    """A node whose sidecar knows all three."""
    return make_node(extra={"STRATA_COORDINATOR": coordinators.list}).sidecar()


def save(ranks: list[Trainer], step: int) -> None:
    """A step that all ranks are told to be committed: acknowledged."""
    all_do(ranks, "save", step=step, seed=step, megabytes=0.1)
    all_do(ranks, "wait_committed", step=step)


def steps(node: Node) -> list[int]:
    document = json.loads(node.cli("checkpoints", "ls", "--job", "t", "--json").stdout)
    return [step["step"] for step in document["steps"]]


def test_p7_acknowledged_commands_survive_the_leaders_kill(
    coordinators: Coordinators, node: Node, make_trainers: Callable[..., list[Trainer]]
) -> None:
    """Killed in the middle of a save: training goes on with the same ranks and generation, and nothing is missing."""
    ranks = make_trainers(node, 2)
    all_do(ranks, "connect")
    for step in (1, 2, 3):
        save(ranks, step)
    generation = node.status()["jobs"][0]["generation"]
    leader = coordinators.leader()
    all_do(ranks, "save", step=4, seed=4, megabytes=0.1)
    coordinators.kill(leader)
    all_do(ranks, "wait_committed", step=4)
    save(ranks, 5)
    assert steps(node) == [1, 2, 3, 4, 5]
    successor = coordinators.leader()
    assert successor != leader
    [job] = node.status()["jobs"]
    assert job["generation"] == generation, "nobody was lost"
    coordinators.start(leader)
    coordinators.wait_follows(leader)
    save(ranks, 6)
    assert {answer["step"] for answer in all_do(ranks, "restore")} == {6}
    all_do(ranks, "close")


def test_p7_nothing_is_lost_when_each_is_killed_and_started_again_and_again(
    coordinators: Coordinators, node: Node, make_trainers: Callable[..., list[Trainer]], seed: int
) -> None:
    draw = random.Random(seed)
    ranks = make_trainers(node, 2)
    all_do(ranks, "connect")
    committed = 0
    for turn in range(6):
        which = draw.choice([coordinators.leader(), draw.randrange(3)])
        all_do(ranks, "save", step=committed + 1, seed=committed + 1, megabytes=0.1)
        coordinators.kill(which)
        all_do(ranks, "wait_committed", step=committed + 1)
        save(ranks, committed + 2)
        committed += 2
        if turn == 3:
            coordinators.lose_home(which)
        coordinators.start(which)
        leader = coordinators.leader()
        if which != leader:
            coordinators.wait_follows(which)
    assert steps(node) == list(range(1, committed + 1))
    all_do(ranks, "close")


def test_coordinator_with_an_empty_home_learns_everything_before_it_counts(
    coordinators: Coordinators, node: Node, make_trainers: Callable[..., list[Trainer]]
) -> None:
    """Then the two others may go, one at a time: it knows what was acknowledged before it came."""
    ranks = make_trainers(node, 1)
    all_do(ranks, "connect")
    save(ranks, 1)
    leader = coordinators.leader()
    lost, other = (which for which in range(3) if which != leader)
    coordinators.kill(lost)
    coordinators.lose_home(lost)
    save(ranks, 2)
    coordinators.start(lost)
    coordinators.wait_follows(lost)
    marker = coordinators.home(lost) / "coordinator" / "raft" / "set"
    wait_until(lambda: json.loads(marker.read_text())["phase"] == "Founded", "it to have caught up")
    coordinators.kill(leader)
    save(ranks, 3)
    assert coordinators.leader() in (lost, other)
    assert steps(node) == [1, 2, 3]
    all_do(ranks, "close")


def meet_alone(url: str, number: int) -> grpc.StatusCode:
    """How a barrier of a job of one rank, which would be released at once, ends."""
    with grpc.insecure_channel(url.removeprefix("http://")) as channel:
        stub = coordinator_pb2_grpc.CoordinatorStub(channel)
        caller = common_pb2.Caller(job="alone", generation=1, rank=0)
        try:
            stub.Barrier(
                coordinator_pb2.BarrierRequest(caller=caller, name="b", round=number, timeout_ms=20_000), timeout=30
            )
        except grpc.RpcError as refused:
            return refused.code()
        return grpc.StatusCode.OK


def register_alone(url: str) -> None:
    with grpc.insecure_channel(url.removeprefix("http://")) as channel:
        stub = coordinator_pb2_grpc.CoordinatorStub(channel)
        stub.RegisterWorker(coordinator_pb2.RegisterWorkerRequest(job="alone", rank=0, world_size=1), timeout=30)


def test_p6_leader_that_was_frozen_commits_and_releases_nothing_when_it_wakes(
    coordinators: Coordinators, node: Node, make_trainers: Callable[..., list[Trainer]]
) -> None:
    ranks = make_trainers(node, 2)
    all_do(ranks, "connect")
    save(ranks, 1)
    zombie = coordinators.leader()
    register_alone(coordinators.urls[zombie])
    assert meet_alone(coordinators.urls[zombie], 1) == grpc.StatusCode.OK, "as long as it leads"
    coordinators.freeze(zombie)
    term = max(coordinators.metric(which, "strata_coordinator_set_term") for which in range(3) if which != zombie)
    save(ranks, 2)
    awake = [which for which in range(3) if which != zombie]
    wait_until(lambda: any(coordinators.note(which) == "it leads its set" for which in awake), "a new leader")
    # Its kernel takes what it is asked meanwhile, and it finds that when it wakes.
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(coordinators.ask, zombie, "/api/v1/status") for _ in range(8)]
        barrier = pool.submit(meet_alone, coordinators.urls[zombie], 2)
        wait_until(lambda: barrier.running() and all(one.running() for one in asked), "it to be asked")
        coordinators.thaw(zombie)
        coordinators.wait_follows(zombie)
        assert {one.result()[0] for one in asked} == {503}, "nothing it knew is told any more"
        assert barrier.result() == grpc.StatusCode.UNAVAILABLE
    assert coordinators.metric(zombie, "strata_coordinator_set_leads") == 0
    assert coordinators.metric(zombie, "strata_coordinator_set_term") > term
    save(ranks, 3)
    assert steps(node) == [1, 2, 3]
    all_do(ranks, "close")


def test_minority_alone_answers_unavailable_and_goes_on_when_a_majority_is_back(
    coordinators: Coordinators, node: Node, make_trainers: Callable[..., list[Trainer]]
) -> None:
    ranks = make_trainers(node, 1)
    all_do(ranks, "connect")
    save(ranks, 1)
    left = coordinators.leader()
    others = [which for which in range(3) if which != left]
    for which in others:
        coordinators.kill(which)
    wait_until(lambda: coordinators.ask(left, "/readyz")[0] == 503, "it to see that it is alone")
    code, page = coordinators.ask(left, "/api/v1/status")
    assert code == 503 and "majority" in page
    refused = coordinators.cli("status")
    assert refused.returncode == 6 and "majority" in refused.stderr, refused.stderr
    coordinators.start(others[0])
    coordinators.leader()
    save(ranks, 2)
    assert steps(node) == [1, 2]
    all_do(ranks, "close")


def test_p7_two_of_five_killed_in_a_save_lose_nothing_and_follow_when_they_are_back(
    five: Coordinators, make_node: Callable[..., Node], make_trainers: Callable[..., list[Trainer]], seed: int
) -> None:
    """The leader among them. Ranks and generation stay what they were."""
    node = make_node(extra={"STRATA_COORDINATOR": five.list}).sidecar()
    ranks = make_trainers(node, 2)
    all_do(ranks, "connect")
    save(ranks, 1)
    generation = node.status()["jobs"][0]["generation"]
    leader = five.leader()
    killed = [leader, random.Random(seed).choice([which for which in range(5) if which != leader])]
    all_do(ranks, "save", step=2, seed=2, megabytes=0.1)
    five.kill(*killed)
    all_do(ranks, "wait_committed", step=2)
    save(ranks, 3)
    assert five.leader() not in killed
    assert steps(node) == [1, 2, 3]
    assert node.status()["jobs"][0]["generation"] == generation, "nobody was lost"
    for which in killed:
        five.start(which)
        five.wait_follows(which)
    save(ranks, 4)
    assert steps(node) == [1, 2, 3, 4]
    assert {answer["step"] for answer in all_do(ranks, "restore")} == {4}
    all_do(ranks, "close")


def test_p7_two_that_are_left_of_five_commit_nothing_and_lose_nothing_until_a_third_is_back(
    five: Coordinators, make_node: Callable[..., Node], make_trainers: Callable[..., list[Trainer]], seed: int
) -> None:
    node = make_node(extra={"STRATA_COORDINATOR": five.list}).sidecar()
    ranks = make_trainers(node, 2)
    all_do(ranks, "connect")
    save(ranks, 1)
    leader = five.leader()
    first, second, third = random.Random(seed).sample([which for which in range(5) if which != leader], 3)
    five.kill(first, second)
    save(ranks, 2)
    five.kill(third)
    five.wait_leaderless()
    all_do(ranks, "save", step=3, seed=3, megabytes=0.1)
    waiting = {"staged", "persisting"}
    for rank in ranks:
        wait_until(lambda rank=rank: rank.do("state", step=3)["value"] in waiting, "the sidecar to have the step")
    refused = five.cli("status")
    assert refused.returncode == 6 and "majority" in refused.stderr, refused.stderr
    assert {rank.do("state", step=3)["value"] for rank in ranks} <= waiting, "nobody can have acknowledged it"
    five.start(first)
    all_do(ranks, "wait_committed", step=3)
    save(ranks, 4)
    assert steps(node) == [1, 2, 3, 4]
    all_do(ranks, "close")


def test_followers_say_who_leads_and_the_command_line_finds_it_from_any(coordinators: Coordinators) -> None:
    leader = coordinators.leader()
    for which in range(3):
        if which != leader:
            coordinators.wait_follows(which)
            code, page = coordinators.ask(which, "/api/v1/status")
            assert code == 503 and coordinators.urls[leader] in page
        done = coordinators.cli("status", "--json", coordinator=coordinators.urls[which])
        assert done.returncode == 0, done.stderr
        told = {one["url"]: one["state"] for one in json.loads(done.stdout)["coordinators"]}
        assert told[coordinators.urls[leader]] == "leader" and set(told) == set(coordinators.urls)
    assert "coordinator" in coordinators.cli("status").stdout


def test_one_with_another_secret_is_denied_and_says_so(coordinators: Coordinators) -> None:
    leader = coordinators.leader()
    which = (leader + 1) % 3
    coordinators.kill(which)
    coordinators.lose_home(which)
    coordinators.start(which, STRATA_PEERS_SECRET="another secret of sixteen or more")
    wait_until(lambda: "secret" in coordinators.ask(which, "/readyz")[1], "it to say what is wrong")
    assert coordinators.ask(which, "/readyz")[0] == 503
    assert coordinators.note(leader) == "it leads its set"


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (["--peers", "http://127.0.0.1:1,http://127.0.0.1:2"], {}, "different coordinators"),
        (["--peers", "http://a:1,http://b:1,http://c:1"], {}, "--advertise"),
        (["--peers", "http://127.0.0.1:7,http://b:1,http://c:1"], {"STRATA_PEERS_SECRET": ""}, "peers_secret"),
    ],
)
def test_set_that_can_not_work_is_refused_at_the_start(
    make_node: Callable[..., Node], arguments: list[str], env: dict[str, str], said: str
) -> None:
    secret = {"STRATA_PEERS_SECRET": "a secret of sixteen or more"}
    done = make_node().cli("coordinator", "--port", "7", "--http-port", "0", *arguments, check=False, **(secret | env))
    assert done.returncode == 2 and said in done.stderr, done.stderr


def test_home_of_one_alone_is_refused_by_a_set_and_a_sets_by_one_alone(
    coordinators: Coordinators, make_node: Callable[..., Node]
) -> None:
    alone = make_node().coordinator()
    alone.parts["coordinator"].stop()
    home = Path(alone.env["STRATA_HOME"])
    coordinators.leader()
    coordinators.kill(0)
    coordinators.lose_home(0)
    done = alone.cli(
        "coordinator", "--port", str(coordinators.ports[0]), "--http-port", "0", check=False,
        STRATA_PEERS=coordinators.list, STRATA_PEERS_SECRET="a secret of sixteen or more",
    )  # fmt: skip
    assert done.returncode == 4 and "alone" in done.stderr, done.stderr
    assert (home / "coordinator" / "log").exists(), "nothing is lost"
    coordinators.kill(1)
    done = alone.cli(
        "coordinator", "--port", "0", "--http-port", "0", check=False, STRATA_HOME=str(coordinators.home(1))
    )
    assert done.returncode == 4 and "set of coordinators" in done.stderr, done.stderr
