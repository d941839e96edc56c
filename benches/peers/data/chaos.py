"""An epoch through kills and resizes: which samples are lost, come twice, or come in another order, with each loader.

    make bench-chaos        or        python chaos.py --python PYTHON_WITH_TORCH --peers PYTHON_OF_PEERS

The ranks are processes with the loader alone, in lockstep: a global step is over when each has its batch. Every few
steps all of them save their loader's state as its documentation has it, and with the last state the steps so far are
committed. A kill is SIGKILL of one rank, by chance, between two steps, while batches are being taken, or while states
are being saved; then all begin anew from the last commit, as torchrun has it, and what was not committed counts for
nothing. A resize is a new start from a commit in a world of another size. What is counted are committed steps, beside
those of the same loader in an epoch of 8 ranks that nothing disturbed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from job import Failed, Job
from loaders import LOADERS, UNDIVIDED, WITHOUT_WORKERS, commits_itself, loader
from packages import Packages
from records import Corpus
from speed import make

WORLDS = (8, 5, 13, 3, 7)
RECORD = 64
FILE = 16 * 2**10
"""Bytes of a shard: there are dozens of them in so small a corpus."""
MOMENTS = ("between", "taking", "saving")
ENDLESS = 3
"""So many epochs' samples from one epoch, and it is given up."""


@dataclass(frozen=True)
class Kill:
    """After at least so many steps of a life, at a moment of the next one."""

    steps: int
    moment: str
    chance: float
    """Where, between 0 and 1, the victim is among the ranks."""


@dataclass
class Course:
    """One epoch, as it went."""

    stream: list[int] = field(default_factory=list)
    """Committed samples: step by step, and of each step in the order in which the loader deals them out."""
    steps: list[int] = field(default_factory=list)
    """How many samples each step had, made again or not."""
    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MOMENTS, 0))
    resizes: int = 0
    restarts: list[float] = field(default_factory=list)
    """Seconds from a kill or a resize to the first batches after it."""
    refused: str = ""

    unacknowledged: int = 0
    """Commits that a kill left in doubt, and that the loader went on from: they had been made."""
    doubtful: list[int] = field(default_factory=list)
    """Samples of the commit that is in doubt."""

    @property
    def killed(self) -> int:
        return sum(self.kills.values())

    def settle(self, job: Job, states: Sequence[Any] | None) -> Sequence[Any] | None:
        """Which commit a loader has gone on from that commits by itself: the last one, or the one in doubt.

        Raises:
            Failed: it is another one, or not the same to all ranks.
        """
        job.ask("origin")
        origins = job.answers()
        known = states[0] if states else 0
        if origins == [known + 1] * len(origins) and self.doubtful:
            self.stream += self.doubtful
            self.unacknowledged += 1
            states = origins
        elif origins != [known] * len(origins):
            raise Failed(f"its ranks go on from commits {origins}, the last one was {known}")
        self.doubtful = []
        return states


@dataclass
class Scenario:
    worlds: tuple[int, ...]
    kills: list[Kill]
    whole: Callable[[int], int]
    """Samples of a step over all ranks, in a world of this size."""
    every: int
    """Steps from one commit to the next."""

    def run(self, job: Job) -> Course:
        course = Course()
        kills = iter(self.kills)
        kill = next(kills, None)
        states: Sequence[Any] | None = None
        place, ended = 0, time.monotonic()
        try:
            while True:
                job.start(self.worlds[place], self.whole(self.worlds[place]), states)
                states, why = self.life(job, course, states, kill, place, ended)
                ended = time.monotonic()
                if why == "over":
                    return course
                if why == "resize":
                    place += 1
                    course.resizes += 1
                else:
                    kill = next(kills, None)
        except Failed as error:
            course.refused = f"after {len(course.stream)} samples, {place} resizes: {error}"
            return course
        finally:
            job.end()

    def life(
        self, job: Job, course: Course, states: Sequence[Any] | None, kill: Kill | None, place: int, ended: float
    ) -> tuple[Sequence[Any] | None, str]:
        """Until a kill, a resize or the epoch's end: the states to go on from, and which it was."""
        steps = 0
        pending: list[int] = []
        merged = loader(job.name).merged

        def falls(moment: str) -> bool:
            if kill is None or kill.moment != moment or steps < kill.steps:
                return False
            job.kill(int(kill.chance * len(job.ranks)))
            course.kills[moment] += 1
            return True

        while not falls("between"):
            job.ask("take")
            if falls("taking"):
                break
            batches = job.answers()
            if steps == 0 and course.killed + course.resizes:
                course.restarts.append(time.monotonic() - ended)
            if steps == 0 and commits_itself(job.name):
                states = course.settle(job, states)
            if all(batch is None for batch in batches):
                course.stream += pending
                return None, "over"
            step = merged([batch or [] for batch in batches])
            pending += step
            course.steps.append(len(step))
            steps += 1
            if steps % self.every:
                continue
            job.ask("save")
            if falls("saving"):
                course.doubtful = pending
                break
            states = job.answers()
            course.stream += pending
            pending = []
            if len(course.stream) > ENDLESS * job.corpus.count:
                raise Failed("its epoch does not end")
            due = (place + 1) * job.corpus.count / len(self.worlds)
            if place + 1 < len(self.worlds) and len(course.stream) >= due:
                job.end()
                return states, "resize"
        return states, "kill"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    Packages.add_arguments(parser)
    parser.add_argument("--corpus", type=Path, required=True, help="where the corpus lies, or will")
    parser.add_argument("--only", nargs="+", choices=LOADERS, default=list(LOADERS))
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--samples", type=int, default=9600)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--every", type=int, default=3, help="steps from one commit to the next")
    parser.add_argument("--lives", type=int, default=9, help="a kill comes after fewer than so many steps of a life")
    parser.add_argument("--batch", type=int, default=4, help="samples of a rank's step, in every world")
    parser.add_argument(
        "--global-batch", type=int, help="samples of a step over all ranks; for peers each world's multiple"
    )
    parser.add_argument("--workers", type=int, default=0, help="of each rank's loader")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the kills")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    parser.add_argument("--log", type=Path, help="what the ranks say")
    args = parser.parse_args()
    print(f"seed {args.seed}", file=sys.stderr)
    if args.global_batch and any(args.global_batch % world for world in WORLDS) and set(args.only) - set(UNDIVIDED):
        raise SystemExit(
            f"--global-batch {args.global_batch}: one of {WORLDS} does not divide it (10920 is the least); only Strata "
            f"takes such a one: --only {' '.join(UNDIVIDED)}"
        )
    found: dict[str, dict[str, Course]] = {}
    with tempfile.TemporaryDirectory(prefix="strata-chaos-") as folder:
        packages = Packages(args.python, args.peers, args.strata, Path(folder))
        corpus = Corpus(args.corpus.resolve(), RECORD, args.samples, file=FILE)
        make(packages, corpus, {loader(name).form for name in args.only})
        for name in args.only:
            if args.workers and name in WITHOUT_WORKERS:
                continue
            found[name] = {}
            for number, scenario in enumerate(["undisturbed", *args.scenarios]):
                home = Path(folder) / f"{name}-{number}"
                home.mkdir()
                log = args.log or Path(folder) / "ranks.log"
                began = time.monotonic()
                with Job(packages, name, corpus, args.workers, args.seed, home, log) as job:
                    course = scenario_of(scenario, args).run(job)
                found[name][scenario] = course
                told = f"{name}, {scenario}: {len(course.stream)} samples, {course.killed} kills, {course.refused}"
                print(f"{told} ({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
        versions = packages.versions()
    if args.json:
        courses = {name: {scenario: asdict(one) for scenario, one in some.items()} for name, some in found.items()}
        args.json.write_text(json.dumps({"seed": args.seed, "courses": courses}))
    print(render(found, args.samples))
    print(f"\nSeed {args.seed}; {versions}.")
    return 0


SCENARIOS = {"kills": "kills alone", "resizes": "resizes alone", "chaos": "kills and resizes"}


def scenario_of(name: str, args: argparse.Namespace) -> Scenario:
    chance = random.Random(args.seed)
    kills = [
        Kill(chance.randrange(args.lives), chance.choice(MOMENTS), chance.random())
        for _ in range(args.kills if name in ("kills", "chaos") else 0)
    ]
    worlds = WORLDS if name in ("resizes", "chaos") else WORLDS[:1]
    return Scenario(worlds, kills, lambda world: args.global_batch or args.batch * world, args.every)


COLUMNS = ("kills", "worlds", "committed", "lost", "doubled", "places in the order", "a restart", "refused")


def render(found: dict[str, dict[str, Course]], samples: int) -> str:
    lines = ["| | | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name, courses in found.items():
        for scenario, course in courses.items():
            cells = counted(course, courses["undisturbed"].stream, samples)
            lines.append(f"| {name} | {SCENARIOS.get(scenario, scenario)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def counted(course: Course, undisturbed: list[int], samples: int) -> tuple[str, ...]:
    stream = course.stream
    missing = set(range(samples)) - set(stream)
    at_end = len(missing & set(undisturbed[-max(course.steps, default=0) :]))
    doubled = len(stream) - len(set(stream))
    before = stream[: len(stream) - (course.steps[-1] if course.steps else 0)]
    in_last = doubled - (len(before) - len(set(before)))
    moved = sum(one != other for one, other in zip(stream, undisturbed, strict=False))
    return (
        str(course.killed),
        str(WORLDS[: course.resizes + 1]).strip("(),"),
        f"{len(stream):,} of {samples:,}",
        f"{len(missing):,}" + (f" (of them {at_end:,} at the epoch's end)" if at_end else ""),
        f"{doubled:,}" + (f" (of them {in_last:,} in the last step)" if in_last else ""),
        "as undisturbed" if stream == undisturbed else f"{moved:,} other than undisturbed",
        f"{statistics.median(course.restarts):.2f} s" if course.restarts else "",
        course.refused.replace("|", "\\|").replace("\n", " "),
    )


if __name__ == "__main__":
    raise SystemExit(main())
