"""P1, P3, P4 with real processes: SIGKILL of a trainer, the sidecar, the coordinator, or everything at once.

Each round kills at a seeded moment while several ranks save step after step. Afterwards the newest acknowledged step
(or a newer one) restores bit-exactly on every rank, and the next step number, saved again, commits.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.node import Node
from harness.s3 import S3Server
from harness.states import digest, make_state
from harness.trainer import StrataFailure, Trainer, all_do

VICTIMS = ("trainer", "sidecar", "coordinator", "all")
STEPS = 40  # that ranks save which live on
ENDLESS = 100_000  # more than are ever reached before the kill
LATEST_KILL = 1.2  # seconds after training began


@dataclass(frozen=True)
class Round:
    """Everything random about one round."""

    seed: int
    victim: str
    world: int
    kill_after: float
    down_for: float

    @staticmethod
    def draw(seed: int, number: int) -> Round:
        source = random.Random(f"{seed}/{number}")
        return Round(
            seed=source.randrange(2**32),
            victim=VICTIMS[number % len(VICTIMS)],
            world=source.choice((1, 2, 4)),
            kill_after=source.uniform(0.0, LATEST_KILL),
            down_for=source.uniform(0.0, 1.0),
        )


class Crash:
    def __init__(self, node: Node, start: Callable[[int], list[Trainer]], plan: Round, acks: Path) -> None:
        self.node, self.start, self.plan, self.acks = node, start, plan, acks

    def play(self) -> None:
        trainers = self.train()
        time.sleep(self.plan.kill_after)
        self.strike(trainers)
        trainers = self.come_back(trainers)
        self.check(trainers)

    def train(self) -> list[Trainer]:
        trainers = self.start(self.plan.world)
        all_do(trainers, "connect")
        last = STEPS if self.plan.victim in ("sidecar", "coordinator") else ENDLESS
        for trainer in trainers:
            trainer.send("train", seed=self.plan.seed, first=1, last=last, rank=trainer.rank, acks=str(self.acks))
        return trainers

    def strike(self, trainers: list[Trainer]) -> None:
        if self.plan.victim in ("trainer", "all"):
            for trainer in trainers if self.plan.victim == "all" else trainers[-1:]:
                trainer.kill()
        for part in ("sidecar", "coordinator"):
            if self.plan.victim in (part, "all"):
                self.node.kill(part)
        time.sleep(self.plan.down_for)
        for part in ("coordinator", "sidecar"):
            if self.plan.victim in (part, "all"):
                self.node.restart(part)

    def come_back(self, trainers: list[Trainer]) -> list[Trainer]:
        """A lost sidecar or coordinator evicts nobody: the same trainers go on. Lost trainers fence the others."""
        if self.plan.victim in ("sidecar", "coordinator"):
            for trainer in trainers:
                assert trainer.answer()["step"] == STEPS
            return trainers
        for trainer in trainers[:-1] if self.plan.victim == "trainer" else []:
            with pytest.raises(StrataFailure) as failure:
                trainer.answer()
            assert failure.value.kind == "Fenced", failure.value
            trainer.kill()
        again = self.start(self.plan.world)
        all_do(again, "connect")
        return again

    def check(self, trainers: list[Trainer]) -> None:
        acknowledged = max((int(line) for line in self.acks.read_text().split()), default=0)
        restored = all_do(trainers, "restore")
        steps = {answer["step"] for answer in restored}
        assert len(steps) == 1, f"ranks restored different steps: {steps}"
        step = steps.pop() or 0
        assert step >= acknowledged, f"step {acknowledged} was acknowledged, {step} came back"
        for trainer, answer in zip(trainers, restored, strict=True):
            if step:
                assert answer["digest"] == digest(make_state(self.plan.seed, step, trainer.rank)), f"step {step}"
        for trainer in trainers:
            trainer.send("save", step=step + 1, seed=self.plan.seed + 1, rank=trainer.rank)
        for trainer in trainers:
            trainer.answer()
        for answer in all_do(trainers, "wait_committed", step=step + 1):
            assert answer["step"] == step + 1
        all_do(trainers, "close")


def play_rounds(
    numbers: range,
    seed: int,
    node: Node,
    make_trainers: Callable[..., list[Trainer]],
    folder: Path,
    name: str,
    forget: Callable[[str], None],
) -> None:
    """`forget` removes a job's checkpoints once its round went well: a long run would fill the disk, 60 MB a round."""
    for number in numbers:
        plan = Round.draw(seed, number)
        print(f"{name} round {number}: {plan}")
        acks = folder / f"{name}-{number}.acks"
        acks.touch()
        job = f"{name}-{number}"

        def start(world: int, job: str = job) -> list[Trainer]:
            return make_trainers(node, world, job)

        Crash(node, start, plan, acks).play()
        forget(job)


@pytest.mark.timeout(3600)
def test_acknowledged_steps_survive_every_sigkill(
    request: pytest.FixtureRequest,
    make_node: Callable[..., Node],
    make_trainers: Callable[..., list[Trainer]],
    tmp_path: Path,
    seed: int,
) -> None:
    """P3 over a local directory."""
    rounds = request.config.getoption("--rounds")
    node = make_node().coordinator().sidecar()

    def forget(job: str) -> None:
        shutil.rmtree(Path(node.store) / job, ignore_errors=True)

    play_rounds(range(rounds - rounds // 7), seed, node, make_trainers, tmp_path, "local", forget)


@pytest.mark.timeout(3600)
def test_acknowledged_steps_survive_every_sigkill_on_s3(
    request: pytest.FixtureRequest,
    make_node: Callable[..., Node],
    make_trainers: Callable[..., list[Trainer]],
    s3: S3Server,
    tmp_path: Path,
    seed: int,
) -> None:
    """P3 over an object store."""
    rounds = request.config.getoption("--rounds")
    prefix = f"crash-{seed}"
    node = make_node(s3.url(prefix), s3.env).coordinator().sidecar()

    def forget(job: str) -> None:
        shutil.rmtree(s3.folder / s3.bucket / prefix / job, ignore_errors=True)

    play_rounds(range(rounds // 7), seed, node, make_trainers, tmp_path, "s3", forget)
