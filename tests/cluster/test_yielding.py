"""Background work yields to training, until somebody waits for it."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.node import Node
from harness.process import wait_until
from harness.script import Start, finish
from harness.trainer import Trainer

WORKER_THREADS = "strata-store-io"
INTERVAL = 2.0
"""Seconds between saves: some ten times what one takes with half of the processor."""


@pytest.fixture
def busy_node(exe: Path, tmp_path: Path) -> Iterator[Node]:
    """A node beside two processes a core, each of which wants all of it. They are of its session: the kernel weighs
    sessions against each other as wholes (autogroups, sched(7)), and yields only within one."""
    pids = tmp_path / "spinners"
    spin = f"{shlex.quote(sys.executable)} -c 'while True: pass' & echo $! >> {shlex.quote(str(pids))}"
    started = "\n".join([spin] * (2 * len(os.sched_getaffinity(0))))
    wrapper = tmp_path / "busy-strata"
    wrapper.write_text(f'#!/bin/sh\nif [ "$1" = up ]; then\n{started}\nfi\nexec {shlex.quote(str(exe))} "$@"\n')
    wrapper.chmod(0o755)
    node = Node(wrapper, tmp_path / "node")
    try:
        yield node.up()
    finally:
        for pid in pids.read_text().split():
            os.kill(int(pid), signal.SIGKILL)
        node.close()
        print(node.logs())


class Policies:
    """Which scheduling policies the threads of a process that persist have been seen with."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.seen: set[int] = set()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        while not self.ended.wait(0.002):
            for task in Path(f"/proc/{self.pid}/task").iterdir():
                try:
                    if (task / "comm").read_text().strip() == WORKER_THREADS:
                        self.seen.add(os.sched_getscheduler(int(task.name)))
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has just ended

    def close(self) -> set[int]:
        self.ended.set()
        self.thread.join()
        return self.seen


def test_who_waits_for_a_commit_does_not_wait_for_an_idle_moment(
    busy_node: Node, make_trainers: Callable[..., list[Trainer]]
) -> None:
    (trainer,) = make_trainers(busy_node)
    trainer.do("connect")
    policies = Policies(busy_node.parts["up"].pid)
    trainer.do("save", step=1, megabytes=100)
    trainer.do("wait_committed", step=1)
    assert os.SCHED_OTHER in policies.close()


def test_with_idle_cores_a_save_is_made_by_threads_that_yield(
    node: Node, make_trainers: Callable[..., list[Trainer]]
) -> None:
    (trainer,) = make_trainers(node)
    trainer.do("connect")
    policies = Policies(node.parts["up"].pid)
    trainer.do("save", step=1, megabytes=200)
    wait_until(lambda: bool(trainer.do("state", step=1)["value"] == "committed"), "the commit that nobody waits for")
    assert os.SCHED_IDLE in policies.close()


def test_beside_spinning_processes_a_save_is_committed_before_the_next_but_one_begins(
    busy_node: Node, make_trainers: Callable[..., list[Trainer]]
) -> None:
    (trainer,) = make_trainers(busy_node)
    trainer.do("connect")
    for step in range(1, 7):
        if step > 2:
            assert trainer.do("state", step=step - 2)["value"] == "committed", f"step {step - 2} as {step} begins"
        trainer.do("save", step=step, megabytes=50)
        time.sleep(INTERVAL)


def test_who_restores_a_staged_step_does_not_wait_for_an_idle_moment(busy_node: Node, script: Start) -> None:
    """It needs the checksums, which of themselves yield for half of the time between two saves."""
    code = f"""
    def staged(step):
        while True:
            try:
                return job.restore(step, source="staged", timeout={1.5 * INTERVAL})
            except strata.NotFoundError:
                time.sleep(0.01)  # its seal is on its way to the sidecar
    with strata.connect() as job:
        job.save(1, {{"small": 1}})
        time.sleep({6 * INTERVAL})
        job.save(2, {{"large": np.ones(400 << 20, np.uint8)}})
        assert staged(2).source == "arena"
    """
    finish(script(code, busy_node.env))
