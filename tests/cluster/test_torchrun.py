"""torchrun with `--rdzv-backend=strata`: agents that are killed and that join in the middle of an epoch; a coordinator
that is away; a leader of three that is killed. Real agents of the installed torch, each on a node with a sidecar of its
own."""

from __future__ import annotations

import configparser
import contextlib
import os
import signal
import subprocess
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.coordinators import Coordinators
from harness.epoch import STEPS, NodeEpoch
from harness.node import Node
from harness.process import PATIENCE, Process, wait_until

pytest.importorskip("torch")

SETTINGS = "keep_alive_interval=1,keep_alive_max_attempt=3,last_call_timeout=2,join_timeout=60"
BEATS_LAST = 3.0  # seconds, as the settings say


class Run(NodeEpoch):
    """One job: two nodes under one coordinator, and the agents that are started on them."""

    def __init__(self, nodes: list[Node], python: Path, site: Path, folder: Path) -> None:
        super().__init__(nodes[0], python, site, folder)
        self.nodes = nodes
        self.agents: list[Process] = []

    def agent(self, node: int, nodes: str = "1:2", address: str = "127.0.0.1", **settings: str) -> Process:
        options = {"rdzv-backend": "strata", "rdzv-id": "run", "rdzv-conf": SETTINGS, "local-addr": address}
        options |= {"nnodes": nodes, "nproc-per-node": "1", "max-restarts": "5", "monitor-interval": "0.1"} | settings
        flags = [f"--{name}={value}" for name, value in options.items()]
        command = [self.python, "-m", "torch.distributed.run", *flags, *self.command()]
        agent = Process(command, self.nodes[node].env | self.env, self.folder / f"agent-{len(self.agents)}.log")
        self.agents.append(agent)
        return agent

    def finish(self, *agents: Process) -> None:
        self.allow(STEPS)
        for agent in agents:
            assert agent.popen.wait(2 * PATIENCE) == 0, agent.text()

    def close(self) -> None:
        for agent in self.agents:
            lose(agent)
        for agent in self.agents:
            print(f"--- {agent.log.name}\n{agent.text()}")


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def lose(agent: Process) -> None:
    """An agent goes with its ranks, as when its node does."""
    ranks = children(agent.pid)
    agent.kill()
    for rank in ranks:
        os.kill(rank, signal.SIGKILL)


@pytest.fixture
def run(make_node: Callable[..., Node], python: Path, site: Path, tmp_path: Path) -> Iterator[Run]:
    first = make_node().coordinator().sidecar()
    coordinator = {"STRATA_COORDINATOR": first.env["STRATA_COORDINATOR"]}
    second = make_node(store=first.store, extra=coordinator).sidecar()
    run = Run([first, second], python, site, tmp_path / "run")
    yield run
    run.close()


@pytest.fixture
def three(make_coordinators: Callable[[int], Coordinators]) -> Coordinators:
    return make_coordinators(3)


@pytest.fixture
def run_of_three(
    three: Coordinators, make_node: Callable[..., Node], python: Path, site: Path, tmp_path: Path
) -> Iterator[Run]:
    """Sidecars know all three coordinators; agents are told by their command line alone."""
    known = {"STRATA_COORDINATOR": three.list}
    first = make_node(extra=known).sidecar()
    second = make_node(store=first.store, extra=known).sidecar()
    run = Run([first, second], python, site, tmp_path / "run")
    yield run
    run.close()


def test_p8_epoch_goes_on_through_a_killed_agent_and_one_that_joins(run: Run) -> None:
    """2 nodes, then 1, then 2 again; the one that joins sorts first among torch's nodes, and so takes rank 0."""
    stays = run.agent(0, address="127.0.0.2")
    lost = run.agent(1, address="127.0.0.3")
    run.reach(8, world=2, limit=20)
    lose(lost)
    run.reach(20, world=1)
    joins = run.agent(1, address="127.0.0.1")
    wait_until(lambda: run.starts(world=2) == 4, "both nodes to train again", 2 * PATIENCE)
    run.reach(40, world=2)
    run.finish(stays, joins)
    run.check()
    run.check_samples()


def test_p8_epoch_goes_on_when_a_whole_node_is_lost(run: Run) -> None:
    """Nobody is left there to prove its rank dead: its lease runs out, or who waits for it fails and is gone."""
    stays, lost = run.agent(0), run.agent(1)
    run.reach(8, world=2, limit=20)
    run.nodes[1].kill("sidecar")
    lose(lost)
    run.reach(20, world=1)
    run.finish(stays)
    run.check()
    run.check_samples()


def test_p8_ranks_of_an_agent_that_alone_was_killed_train_on_until_another_takes_its_place(run: Run) -> None:
    """torch ties no rank to its agent's life. Nobody trains beside them: they leave with the others' step."""
    stays, lost = run.agent(0), run.agent(1)
    run.reach(8, world=2, limit=20)
    orphans = children(lost.pid)
    lost.kill()
    try:
        run.reach(20, world=2)
        joins = run.agent(1)
        wait_until(lambda: run.starts(world=2) == 4, "both nodes to train again", 2 * PATIENCE)
        wait_until(lambda: not any(Path(f"/proc/{orphan}").exists() for orphan in orphans), "the orphan to leave")
        run.finish(stays, joins)
    finally:
        for orphan in orphans:
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, signal.SIGKILL)
    run.check()
    run.check_samples()


def test_p8_agent_that_is_told_to_stop_leaves_at_a_step_and_the_others_replay_nothing(run: Run) -> None:
    patient = {"rdzv-conf": SETTINGS.replace("max_attempt=3", "max_attempt=600")}  # nobody waits for beats to run out
    stays, leaves = run.agent(0, **patient), run.agent(1, **patient)
    run.reach(8, world=2, limit=20)
    leaves.stop()
    run.reach(20, world=1)
    run.finish(stays)
    run.check()
    steps = [(row["committed"], row["rank"]) for row in run.rows() if "committed" in row]
    assert len(steps) == len(set(steps)), "a step that was made twice"
    run.check_samples()


def test_coordinator_that_is_away_for_longer_than_heartbeats_last_ends_nothing_and_forgets_nobody(run: Run) -> None:
    agents = [run.agent(0, nodes="1:3"), run.agent(1, nodes="1:3")]
    run.reach(8, world=2, limit=40)
    run.nodes[0].kill("coordinator")
    time.sleep(2 * BEATS_LAST)
    run.nodes[0].restart("coordinator")
    run.reach(40, world=2)
    assert run.starts(world=2) == 2, "nobody was started again"
    agents.append(run.agent(1, nodes="1:3"))
    wait_until(lambda: run.starts(world=3) == 3, "the third node to train with those two", 2 * PATIENCE)
    run.finish(*agents)
    run.check()
    run.check_samples()


def test_p8_rendezvous_at_three_coordinators_goes_on_when_the_leader_is_killed(
    run_of_three: Run, three: Coordinators
) -> None:
    """`--rdzv-endpoint` names all three: nobody is started again for it, and who joins afterwards finds the others."""
    run = run_of_three
    listed = {"rdzv-endpoint": ",".join(f"127.0.0.1:{port}" for port in three.ports)}
    agents = [run.agent(node, nodes="1:3", **listed) for node in (0, 1)]
    run.reach(8, world=2, limit=40)
    leader = three.leader()
    three.kill(leader)
    run.reach(40, world=2)
    assert three.leader() != leader
    assert run.starts(world=2) == 2, "nobody was started again"
    agents.append(run.agent(1, nodes="1:3", **listed))
    wait_until(lambda: run.starts(world=3) == 3, "the third node to train with those two", 2 * PATIENCE)
    run.finish(*agents)
    run.check()
    run.check_samples()


def test_agent_that_comes_before_its_coordinator_waits_for_it(run: Run) -> None:
    run.nodes[0].kill("coordinator")
    agent = run.agent(0, nodes="1:1")
    time.sleep(BEATS_LAST)
    run.nodes[0].restart("coordinator")
    run.finish(agent)
    run.check()


def test_run_that_has_ended_leaves_its_id_free(run: Run) -> None:
    for _ in range(2):
        run.finish(run.agent(0, nodes="1:1"))
    run.check()


@pytest.mark.parametrize(
    ("settings", "env", "words"),
    [
        (
            {"rdzv-endpoint": "127.0.0.1:1", "rdzv-conf": "read_timeout=1"},
            {},
            "can't reach the coordinator at http://127.0.0.1:1 for 1s: Connection refused",
        ),
        ({"rdzv-id": "none"}, {}, "hint: give all agents of this run the same --rdzv-id"),
        ({"rdzv-conf": "read_timeout=0"}, {}, "read_timeout is 0"),
        ({}, {"STRATA_TOKEN": "another"}, "hint: set STRATA_TOKEN to the same value for all its agents"),
    ],
)
def test_agent_that_can_not_join_says_why_and_what_to_do(
    run: Run, settings: dict[str, str], env: dict[str, str], words: str
) -> None:
    run.nodes[1].env |= env
    if env:
        run.finish(run.agent(0, nodes="1:1"))
    agent = run.agent(1, nodes="1:1", **settings)
    assert agent.popen.wait(PATIENCE) != 0
    assert words in agent.text()


def test_store_of_a_round_keeps_torchs_promises(node: Node, python: Path, site: Path) -> None:
    """Through a PrefixStore, as agents use it: bytes and text, numbers, waiting, and a time-out that names the keys."""
    done = subprocess.run(
        [python, "-c", textwrap.dedent(STORE)],
        env=node.env | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (0, "kept\n"), done.stderr


STORE = """
    import threading
    from datetime import timedelta
    from torch.distributed import DistStoreError, PrefixStore
    from strata import _core
    from strata._rendezvous.store import RecordStore

    kept = []  # a PrefixStore holds what it wraps, but not the Python object of it

    def store():
        kept.append(RecordStore(_core.Records("r", None)))
        return PrefixStore("round", kept[-1])

    one, other = store(), store()
    one.set("text", "a")
    one.set("bytes", bytes(range(256)))
    assert other.get("text") == b"a" and other.multi_get(["bytes", "text"]) == [bytes(range(256)), b"a"]
    one.multi_set(["x", "y"], ["1", "2"])
    assert other.check(["x", "y", "x"]) and not other.check(["x", "none"])
    adding = [threading.Thread(target=lambda: [store().add("n", 1) for _ in range(20)]) for _ in range(4)]
    [thread.start() for thread in adding]
    [thread.join() for thread in adding]
    assert one.add("n", -80) == 0
    later = threading.Timer(0.2, lambda: one.set("late", "there"))
    later.start()
    assert other.get("late") == b"there"
    other.set_timeout(timedelta(milliseconds=100))
    for ask in (lambda: other.get("never"), lambda: other.wait(["x", "never"])):
        try:
            ask()
        except DistStoreError as error:
            assert "never: not set within 0.1 s" in str(error), error
        else:
            raise AssertionError("a key that nobody set")
    print("kept")
"""


def test_wheel_makes_the_backend_known_to_torchrun(wheels: Path) -> None:
    [wheel] = wheels.glob("strata_runtime-*.whl")
    with zipfile.ZipFile(wheel) as inside:
        [points] = [name for name in inside.namelist() if name.endswith(".dist-info/entry_points.txt")]
        known = configparser.ConfigParser()
        known.read_string(inside.read(points).decode())
    assert dict(known["torchrun.handlers"]) == {"strata": "strata.torchrun:handler"}
