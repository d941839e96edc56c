"""P1, P3, P4, P6 with real processes: SIGKILL of a trainer, the sidecar, the coordinator, or everything at once; and a
trainer that was stopped, is replaced, and wakes up.

A round plays several lives of one job: each trains on from the step that came back, kills at a seeded moment while
several ranks save step after step, and starts again what was lost. After each the newest acknowledged step (or a newer
one) restores bit-exactly on every rank, and the next step number, saved again with another state, commits.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness.node import Node
from harness.process import PATIENCE
from harness.s3 import S3Server
from harness.states import digest, make_state
from harness.torture import tell
from harness.trainer import StrataFailure, Trainer, all_do

MODES = ("copy", "copy", "lazy", "fork")  # how trainers save
VICTIMS = ("trainer", "sidecar", "coordinator", "all", "sleeper")
STEPS = 40  # that ranks save which live on
ENDLESS = 100_000  # more than are ever reached before the kill
LATEST_KILL = 1.2  # seconds after training began


@dataclass(frozen=True)
class Life:
    """Everything random about one crash."""

    victim: str
    kill_after: float
    down_for: float
    rival: bool  # another sidecar tries to take the node while this one lives


@dataclass(frozen=True)
class Round:
    """Everything random about one round."""

    seed: int
    mode: str
    world: int
    lives: tuple[Life, ...]

    @staticmethod
    def draw(seed: int, number: int) -> Round:
        source = random.Random(f"{seed}/{number}")
        # Every victim is the first of as many rounds as the others.
        victims = [VICTIMS[number % len(VICTIMS)]]
        victims += source.choices(VICTIMS, k=source.choice((0, 0, 1, 2)))
        worlds = (2, 4) if "sleeper" in victims else (1, 2, 4)
        lives = tuple(
            Life(
                victim=victim,
                kill_after=source.uniform(0.0, LATEST_KILL),
                down_for=source.uniform(0.0, 1.0),
                rival=source.random() < 0.25,
            )
            for victim in victims
        )
        # Victims and modes come round together after every pair of them.
        mode = MODES[number // len(VICTIMS) % len(MODES)] if torch_is_there() else "copy"
        # Each process imports torch, which takes seconds of a core.
        fewer = worlds if mode == "copy" else tuple(world for world in worlds if world <= 2)
        return Round(seed=source.randrange(2**32), mode=mode, world=source.choice(fewer), lives=lives)


def torch_is_there() -> bool:
    return importlib.util.find_spec("torch") is not None


class Crash:
    def __init__(self, node: Node, start: Callable[[int], list[Trainer]], plan: Round, acks: Path) -> None:
        self.node, self.start, self.plan, self.acks = node, start, plan, acks
        self.base = 0  # the newest step that a life before committed, saved by `check`
        self.sleeper: Trainer | None = None

    def play(self) -> None:
        trainers = self.joined()
        for number, life in enumerate(self.plan.lives):
            seed = self.plan.seed + 2 * number
            self.train(trainers, life, seed)
            time.sleep(life.kill_after)
            self.strike(trainers, life)
            trainers = self.come_back(trainers, life)
            self.check(trainers, seed)
        all_do(trainers, "close")

    def joined(self) -> list[Trainer]:
        trainers = self.start(self.plan.world)
        if self.plan.mode != "copy":
            all_do(trainers, "import_torch")
        all_do(trainers, "connect")
        return trainers

    def train(self, trainers: list[Trainer], life: Life, seed: int) -> None:
        last = self.base + STEPS if life.victim in ("sidecar", "coordinator") else ENDLESS
        for trainer in trainers:
            options = {"mode": self.plan.mode, "rank": trainer.rank, "acks": str(self.acks)}
            trainer.send("train", seed=seed, first=self.base + 1, last=last, **options)

    def strike(self, trainers: list[Trainer], life: Life) -> None:
        if life.rival:
            self.refuse_rival()
        if life.victim == "sleeper":
            trainers[0].popen.send_signal(signal.SIGSTOP)
        if life.victim in ("trainer", "sleeper", "all"):
            for trainer in trainers if life.victim == "all" else trainers[-1:]:
                trainer.kill()
        for part in ("sidecar", "coordinator"):
            if life.victim in (part, "all"):
                self.node.kill(part)
        time.sleep(life.down_for)
        for part in ("coordinator", "sidecar"):
            if life.victim in (part, "all"):
                self.node.restart(part)

    def refuse_rival(self) -> None:
        """A second sidecar on the same arenas is refused, whatever socket it would listen on."""
        env = self.node.env | {"STRATA_SOCKET": self.node.env["STRATA_SOCKET"] + ".rival"}
        rival = subprocess.run(
            [self.node.exe, "sidecar", "--http-port", "0"],
            env=env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert rival.returncode != 0, "two sidecars share the arenas"
        assert "error" in rival.stderr, rival.stderr

    def come_back(self, trainers: list[Trainer], life: Life) -> list[Trainer]:
        """A lost sidecar or coordinator evicts nobody: the same trainers go on. Lost trainers fence the others."""
        if life.victim in ("sidecar", "coordinator"):
            for trainer in trainers:
                assert trainer.answer()["step"] == self.base + STEPS
            return trainers
        survivors = {"trainer": trainers[:-1], "sleeper": trainers[1:-1], "all": []}[life.victim]
        for trainer in survivors:
            self.is_fenced(trainer)
        if life.victim == "sleeper":
            self.sleeper = trainers[0]
        return self.joined()

    def is_fenced(self, trainer: Trainer) -> None:
        with pytest.raises(StrataFailure) as failure:
            trainer.answer()
        assert failure.value.kind == "Fenced", failure.value
        trainer.kill()

    def wake_sleeper(self) -> None:
        """P6: in the middle of a save when it was stopped; what it does now belongs to no generation."""
        if self.sleeper is None:
            return
        os.kill(self.sleeper.popen.pid, signal.SIGCONT)
        self.is_fenced(self.sleeper)
        self.sleeper = None

    def check(self, trainers: list[Trainer], seed: int) -> None:
        acknowledged = max((int(line) for line in self.acks.read_text().split()), default=0)
        restored = all_do(trainers, "restore")
        steps = {answer["step"] for answer in restored}
        assert len(steps) == 1, f"ranks restored different steps: {steps}"
        step = steps.pop() or 0
        assert step >= max(acknowledged, self.base), f"step {acknowledged} was acknowledged, {step} came back"
        # What `check` itself saved in the life before had a state of its own.
        saved_with = seed - 1 if step == self.base else seed
        for trainer, answer in zip(trainers, restored, strict=True):
            if step:
                assert answer["digest"] == digest(make_state(saved_with, step, trainer.rank)), f"step {step}"
        self.wake_sleeper()
        for trainer in trainers:
            trainer.send("save", step=step + 1, seed=seed + 1, rank=trainer.rank)
        for trainer in trainers:
            trainer.answer()
        for answer in all_do(trainers, "wait_committed", step=step + 1):
            assert answer["step"] == step + 1
        for trainer, answer in zip(trainers, all_do(trainers, "restore"), strict=True):
            assert answer["step"] == step + 1
            assert answer["digest"] == digest(make_state(seed + 1, step + 1, trainer.rank))
        self.base = step + 1


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
    moments: Counter[str] = Counter()
    for number in numbers:
        plan = Round.draw(seed, number)
        print(f"{name} round {number}: {plan}")
        tell(f"torture-progress sigkill-{name} {number + 1 - numbers.start} {len(numbers)}")
        acks = folder / f"{name}-{number}.acks"
        acks.touch()
        job = f"{name}-{number}"

        started: list[Trainer] = []

        def start(world: int, job: str = job, started: list[Trainer] = started) -> list[Trainer]:
            started += (ranks := make_trainers(node, world, job))
            return ranks

        Crash(node, start, plan, acks).play()
        forget(job)
        # One with torch in it has 400 MB: sixty are all of a machine.
        for trainer in started:
            trainer.close()
        moments.update(life.victim for life in plan.lives)
        moments[f"{plan.mode} saves"] += len(plan.lives)
        moments["a second sidecar refused"] += sum(life.rival for life in plan.lives)
    counts = {"rounds": len(numbers), **moments}
    tell("torture-result " + json.dumps({"name": f"sigkill-{name}", "seed": seed, "counts": counts}))


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
