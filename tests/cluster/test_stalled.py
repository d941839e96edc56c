"""A rank that hangs is told from one whose steps are slow, and says where; nothing is ended by it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.node import Node
from harness.process import Process, wait_until
from harness.script import Start

FLOOR = {"STRATA_STALL_AFTER": "1s"}
GOES_ON = "goes_on"

TRAIN = """
import ctypes, threading

def usual(step):
    time.sleep({pace})

def goes_on():
    pass

def hangs_in_sleep():
    time.sleep(600)

def hangs_in_deadlock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

def hangs_with_the_interpreter():
    ctypes.PyDLL(None).usleep(600_000_000)  # PyDLL keeps the interpreter's lock

def hangs_until_the_file_is_there():
    while not os.path.exists({gate!r}):
        time.sleep(0.05)

def saves_and_waits():
    job.save(8, {{"step": 8}}).wait_committed(timeout=600)

def waits_at_a_barrier():
    job.barrier("all", timeout=600)

job = strata.connect(signals={signals})
job.barrier("begin")
for step in range(1, 1_000_000):
    job.reached_preemption(step)
    if step == 8:
        print("does", "{after}", flush=True)
        {after}()
    usual(step)
    print("step", step, flush=True)
"""


class Stalling:
    """A job of which every rank does eight steps, and then something of its own."""

    def __init__(self, node: Node, script: Start, gate: str) -> None:
        self.node, self.script, self.gate = node, script, gate
        self.ranks: list[Process] = []

    def start(self, *after: str, pace: float = 0.3, signals: bool = True) -> None:
        for rank, what in enumerate(after):
            code = TRAIN.format(pace=pace, after=what, gate=self.gate, signals=signals)
            self.ranks.append(self.script(code, self.node.env, rank, len(after)))
        for process, what in zip(self.ranks, after, strict=True):
            process.wait_until(lambda process=process, what=what: f"does {what}" in process.text(), what)

    def job(self) -> dict[str, Any]:
        [job] = self.node.status()["jobs"]
        found: dict[str, Any] = job
        return found

    def states(self) -> list[str]:
        return [rank["state"] for rank in self.job()["ranks"]]

    def stalled(self, *ranks: int) -> dict[str, Any]:
        """Waits until these ranks, and no others, are stalled, and have told what they do; the job's status then."""

        def is_so() -> bool:
            found = self.job()["ranks"]
            told = [rank["rank"] for rank in found if rank["state"] == "stalled" and rank["stack"]]
            return told == list(ranks)

        wait_until(is_so, f"{ranks} to be stalled")
        return self.job()

    def stacks(self, *arguments: str) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = json.loads(self.node.cli("stacks", "t", "--json", *arguments).stdout)["stacks"]
        return told


@pytest.fixture
def stalling(make_node: Callable[..., Node], script: Start, tmp_path: Path) -> Stalling:
    return Stalling(make_node(extra=FLOOR).up(), script, str(tmp_path / "gate"))


@pytest.mark.parametrize("how", ["hangs_in_sleep", "hangs_in_deadlock", "hangs_with_the_interpreter"])
def test_a_rank_that_hangs_is_named_with_its_stack_and_the_others_are_not(stalling: Stalling, how: str) -> None:
    stalling.start(GOES_ON, how, "waits_at_a_barrier")
    job = stalling.stalled(1)
    assert stalling.states() == ["live", "stalled", "live"]
    [stack] = [rank["stack"] for rank in job["ranks"] if rank["state"] == "stalled"]
    assert how in stack["stack"] and stack["process"] == "sleeping" and not stack["missing"], stack
    assert "rank 1 on " in job["last_warning"] and "still at step 8" in job["last_warning"]
    assert "strata_ranks_stalled 1\n" in stalling.node.metrics()
    text = stalling.node.cli("status").stdout
    assert how in text and "strata stacks t" in text, text
    log = stalling.node.parts["up"].text()
    assert f"in {how}" in log and "still at step 8" in log
    assert all(process.alive() for process in stalling.ranks)


def test_slow_steps_are_no_hang(stalling: Stalling) -> None:
    """Each of them takes longer than `stall_after`."""
    stalling.start(GOES_ON, GOES_ON, pace=1.5)
    seen = set()

    def goes_on() -> bool:
        seen.update(stalling.states())
        return "step 11" in stalling.ranks[0].text()

    wait_until(goes_on, "more slow steps")
    assert seen == {"live"}
    assert "still at step" not in stalling.node.parts["up"].text()


def test_a_stopped_process_is_said_to_be_stopped_and_what_moves_again_is_cleared(stalling: Stalling) -> None:
    stalling.start(GOES_ON, GOES_ON)
    stalling.ranks[1].popen.send_signal(signal.SIGSTOP)
    job = stalling.stalled(1)
    stack = job["ranks"][1]["stack"]
    assert stack["process"] == "stopped" and "SIGSTOP" in stack["missing"] and not stack["stack"]
    assert "stopped" in stalling.node.cli("stacks", "t").stdout
    stalling.ranks[1].popen.send_signal(signal.SIGCONT)
    wait_until(lambda: stalling.states() == ["live", "live"], "it to move again")
    assert stalling.job()["last_warning"] == ""
    assert "strata_ranks_stalled 0\n" in stalling.node.metrics()
    assert "no longer stalled: rank 1" in stalling.node.parts["up"].text()


def test_ranks_that_hang_at_one_step_are_named_together(stalling: Stalling) -> None:
    stalling.start("hangs_in_sleep", "hangs_until_the_file_is_there")
    job = stalling.stalled(0, 1)
    for rank, what in enumerate(("hangs_in_sleep", "hangs_until_the_file_is_there")):
        assert what in job["ranks"][rank]["stack"]["stack"]
    Path(stalling.gate).touch()
    stalling.stalled(0)


def test_who_has_not_begun_a_save_that_others_wait_for_is_named(stalling: Stalling) -> None:
    stalling.start("saves_and_waits", "hangs_in_sleep")
    job = stalling.stalled(1)
    assert [rank["progress"]["phase"] for rank in job["ranks"]] == ["checkpointing", "training"]


def test_a_healthy_job_is_asked_by_hand_and_goes_on(stalling: Stalling) -> None:
    stalling.start(GOES_ON, GOES_ON)
    both = stalling.stacks()
    assert [stack["rank"] for stack in both] == [0, 1]
    for stack in both:
        first = stack["stack"].splitlines()[0]
        assert "[MainThread]" in first and "<module>" in stack["stack"], stack
    assert [stack["rank"] for stack in stalling.stacks("--rank", "1")] == [1]
    text = stalling.node.cli("stacks", "t", "--rank", "0").stdout
    assert text.startswith("rank 0 on ") and "rank 1" not in text and "MainThread" in text
    through = stalling.node.cli("stacks", "t", "--socket", stalling.node.env["STRATA_SOCKET"]).stdout
    assert "rank 0" in through and "rank 1" in through
    seen = [process.text().count("step") for process in stalling.ranks]
    for process, steps in zip(stalling.ranks, seen, strict=True):
        process.wait_until(lambda process=process, steps=steps: process.text().count("step") > steps + 5, "more steps")
    assert stalling.node.cli("stacks", "t", "--rank", "7", check=False).returncode == 3
    assert stalling.node.cli("stacks", "nothing", check=False).returncode == 3


def test_who_opted_out_of_signals_is_asked_without_one_and_says_what_that_leaves_out(stalling: Stalling) -> None:
    stalling.start(GOES_ON, "hangs_with_the_interpreter", signals=False)
    healthy, held = stalling.stacks("--rank", "0", "--rank", "1")
    assert "<module>" in healthy["stack"] and not healthy["missing"]
    assert "signals=False" in held["missing"] and not held["stack"]


def test_a_rank_that_waits_for_others_says_so(node: Node, script: Start, tmp_path: Path) -> None:
    """Else it would look like one that hangs."""
    gate = tmp_path / "gate"
    code = f"""
    job = strata.connect()
    job.reached_preemption(1)
    if job.rank == 0:
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.05)
    job.barrier("all")
    print("met", flush=True)
    if job.rank == 0:
        while not os.path.exists({str(gate)!r} + "2"):
            time.sleep(0.05)
    handle = job.save(2, {{"weight": np.zeros(1 << 20)}}, mode="lazy")
    handle.wait_committed()
    print("committed", flush=True)
    time.sleep(600)
    """
    ranks = [script(code, node.env, rank, 2) for rank in range(2)]

    def phases() -> list[str]:
        ranks = (rank for job in node.status()["jobs"] for rank in job["ranks"])
        return [rank["progress"]["phase"] for rank in ranks if rank["progress"]]

    wait_until(lambda: phases() == ["training", "waiting"], "rank 1 to wait at the barrier")
    gate.touch()
    for rank in ranks:
        rank.wait_until(lambda rank=rank: "met" in rank.text(), "the barrier")
    wait_until(lambda: phases() == ["training", "checkpointing"], "rank 1 to wait for the commit")
    Path(f"{gate}2").touch()
    for rank in ranks:
        rank.wait_until(lambda rank=rank: "committed" in rank.text(), "the commit")
    wait_until(lambda: phases() == ["training", "training"], "both to go on")


def test_a_forked_child_has_its_parents_stack_untouched_and_tells_its_own(stalling: Stalling, script: Start) -> None:
    """The child joins another job, and registers anew."""
    code = """
    import ctypes
    def hangs(): ctypes.PyDLL(None).usleep(600_000_000)
    def hangs_as_a_child(): ctypes.PyDLL(None).usleep(600_000_000)
    job = strata.connect(job="parent")
    job.reached_preemption(1)
    if os.fork() == 0:
        child = strata.connect(job="child")
        child.reached_preemption(1)
        print("child hangs", flush=True)
        hangs_as_a_child()
    print("parent hangs", flush=True)
    hangs()
    """
    process = script(code, stalling.node.env)
    process.wait_until(lambda: "child hangs" in process.text() and "parent hangs" in process.text(), "both to hang")
    for _ in range(2):
        for job, what in (("parent", "in hangs\n"), ("child", "in hangs_as_a_child\n")):
            [stack] = json.loads(stalling.node.cli("stacks", job, "--json").stdout)["stacks"]
            assert what in stack["stack"] and "read from outside" in stack["stack"], stack
    [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
