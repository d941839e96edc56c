"""What a job loses that is killed again and again: of two ranks that train, every minute one, by chance, gets SIGKILL.

    make bench-lives        or        python benches/peers/lives.py --python PYTHON_WITH_TORCH

The same training under `strata run --standby` with Strata, and under torchrun with torch.distributed.checkpoint's
async_save, each saving as often as is best for it by Young's formula, from what its own saves cost in a first, quiet
minute, but not before the last one would outlive the kill. What was lost is told against the same steps without saves
and kills: a step of 250 ms of which the host works in about the half, as beside a device.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run import HERE, Bench

WAYS = ("strata", "dcp")
SHOWN = {"strata": "strata run --standby", "dcp": "torchrun, torch DCP"}
RANKS = 2
PATIENCE = 180.0
NEVER = 10**9
WIDE = 72
"""Bytes of the state for each unit of the width's square: six layers, their weights and AdamW's two moments."""
QUIET = 60.0
"""Seconds of the runs in which nobody is killed."""
TRIED_EVERY = 40
"""Steps between the saves whose cost is measured."""
FIRST = 2
"""So many saves bring the memory that all later ones use: they are not measured."""


@dataclass
class Life:
    """One run, as rank 0 wrote it down: when it began to train, and made which step."""

    lines: list[tuple[float, str]]
    began: float
    ended: float
    kills: int
    saving: int
    """Steps that ended while a save was under way."""

    def steps(self) -> list[tuple[float, int]]:
        return [(at, int(what)) for at, what in self.lines if what != "start" and self.began < at <= self.ended]

    def paces(self) -> list[float]:
        """Seconds of each step of the time that counts, but for the first after a start."""
        pairs = zip(self.lines, self.lines[1:], strict=False)
        found = [later - at for (at, what), (later, then) in pairs if "start" not in (what, then) and at > self.began]
        return found[1:]

    def again(self) -> int:
        """Steps that were made before, and lost."""
        numbers = [step for _, step in self.steps()]
        return len(numbers) - len(set(numbers))

    def made(self) -> int:
        return len({step for _, step in self.steps()})

    def downs(self) -> list[float]:
        """Of each restart: seconds from the last step before it to the first one after."""
        found = []
        for number, (at, what) in enumerate(self.lines):
            if what == "start" and at > self.began:
                before, after = self.lines[number - 1], self.lines[number + 1 : number + 2]
                found += [then - before[0] for then, _ in after]
        return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strata", type=Path, default=HERE.parents[1] / "dist" / "strata")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--kills", type=int, default=5, help="of each run")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two of them")
    parser.add_argument("--step", type=float, default=0.25, help="seconds of a step")
    parser.add_argument("--width", type=int, default=1408, help="of the model's six layers")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of who is killed")
    parser.add_argument("--folder", type=Path, help="where to write; on the disk to be measured")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args()
    print(f"seed {args.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="strata-lives-", dir=args.folder) as folder:
        bench = Bench(args.strata.resolve(), args.python, Path(folder), "survivor.py")
        lives = Lives(bench, args.step, args.width, args.every, random.Random(args.seed))
        try:
            found = {}
            bare = lives.bare()
            for way in args.only:
                found[way] = lives.measure(way, bare, args.kills)
                print(json.dumps({way: found[way]}), file=sys.stderr, flush=True)
        finally:
            bench.close()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    print(render(found, args.every, args.width))
    return 0


class Lives:
    def __init__(self, bench: Bench, step: float, width: int, every: float, chance: random.Random) -> None:
        self.bench, self.step, self.width, self.every, self.chance = bench, step, width, every, chance

    def bare(self) -> float:
        """Seconds of a step of a run without saves and kills."""
        return statistics.median(self.live("none", NEVER, QUIET, 0, "the bare steps")[0].paces())

    def measure(self, way: str, bare: float, kills: int) -> dict[str, Any]:
        """Two runs: what a save costs, and the one with kills."""
        tried, _ = self.live(way, TRIED_EVERY, QUIET, 0, "a save's cost")
        paces = tried.paces()
        starts = range(FIRST * TRIED_EVERY, len(paces) - TRIED_EVERY + 1, TRIED_EVERY)
        cycles = [paces[at : at + TRIED_EVERY] for at in starts]
        if not cycles:
            raise SystemExit(f"{way} made {len(paces)} steps in {QUIET:.0f} s: too few to tell what a save costs")
        # What a cycle took beyond its usual steps is what its save cost, whenever that was paid.
        cost = max(0.001, statistics.median(sum(cycle) - TRIED_EVERY * statistics.median(cycle) for cycle in cycles))
        # Before one save is of use another gains nothing (and torch's waits for the one before).
        took = math.ceil(tried.saving / max(1, len(tried.steps()) // TRIED_EVERY))
        interval = max(1, took, round(math.sqrt(2 * cost * self.every) / bare))
        life, ledger = self.live(way, interval, self.every * (kills + 0.5), kills, "killed")
        whole = life.ended - life.began
        downs = life.downs()
        return {
            "bare": bare,
            "cost": cost,
            "took": took * bare,
            "interval": interval,
            "kills": life.kills,
            "downs": downs,
            "again": life.again(),
            "made": life.made(),
            "seconds": whole,
            "lost": 1 - life.made() * bare / whole,
            "of it down": (sum(downs) - len(downs) * bare) / whole,
            "of it again": life.again() * bare / whole,
            "ledger": ledger,
        }

    def live(self, way: str, interval: int, seconds: float, kills: int, what: str) -> tuple[Life, str]:
        print(f"{way}: {what}", file=sys.stderr, flush=True)
        folder = Path(tempfile.mkdtemp(dir=self.bench.folder))
        with contextlib.ExitStack() as over:
            over.callback(shutil.rmtree, folder, ignore_errors=True)
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            if way != "dcp":
                env |= self.node_env(folder)
                over.enter_context(self.node(folder, env))
            launcher = over.enter_context(self.launcher(way, folder, interval, env))
            self.wait_for(folder, launcher, 10)
            began, done, killed = time.monotonic(), 0, 0
            while (left := began + seconds - time.monotonic()) > 0:
                next_kill = began + self.every * (done + 1) - time.monotonic()
                if done < kills and next_kill <= 0:
                    victim = int((folder / f"pid.{self.chance.randrange(RANKS)}").read_text())
                    with contextlib.suppress(ProcessLookupError):  # the job is still down from the kill before
                        os.kill(victim, signal.SIGKILL)
                        killed += 1
                    done += 1
                    continue
                time.sleep(min(left, next_kill if done < kills else left))
            ended = time.monotonic()
            told = ""
            if way == "strata":
                command = [str(self.bench.strata), "goodput"]
                told = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout
            saving = sum(len(line) == 3 and began < float(line[0]) <= ended for line in self.written(folder))
            return Life(self.lines(folder), began, ended, killed, saving), told

    def node_env(self, folder: Path) -> dict[str, str]:
        return {
            "PYTHONPATH": str(self.bench.folder / "site"),
            "STRATA_HOME": str(folder),
            "STRATA_SOCKET": str(folder / "s.sock"),
            "STRATA_ARENA_DIR": str(self.bench.arenas),
            "STRATA_STORE": str(folder / "store"),
            "STRATA_KEEP_LAST": "2",
        }

    @contextlib.contextmanager
    def node(self, folder: Path, env: dict[str, str]) -> Iterator[None]:
        log = (folder / "up.log").open("w")
        command = [str(self.bench.strata), "up", "--port", "0", "--http-port", "0"]
        up = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            wait = [str(self.bench.strata), "sidecar", "--wait-ready"]
            if subprocess.run(wait, env=env, check=False, capture_output=True).returncode:
                raise SystemExit((folder / "up.log").read_text())
            yield
        finally:
            up.terminate()
            up.wait(PATIENCE)
            shutil.rmtree(self.bench.arenas)
            self.bench.arenas.mkdir(mode=0o700)

    @contextlib.contextmanager
    def launcher(self, way: str, folder: Path, interval: int, env: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        rank = [str(HERE / "survivor.py"), way, str(folder), str(interval), str(self.step), str(self.width)]
        each = ["--nproc-per-node", str(RANKS), "--max-restarts", "1000"]
        if way == "dcp":
            each += ["--standalone", "--monitor-interval", "0.1"]
            command = [self.bench.python, "-m", "torch.distributed.run", *each, *rank]
        else:
            # Ranks that never connect would not wait for their turn.
            ahead = ["--standby"] if way == "strata" else []
            command = [str(self.bench.strata), "run", *each, *ahead, "--", self.bench.python, *rank]
        log = (folder / "run.log").open("w")
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def wait_for(self, folder: Path, launcher: subprocess.Popen[bytes], step: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while not any(what == str(step) for _, what in self.lines(folder)):
            if launcher.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / "run.log").read_text())
            time.sleep(0.1)

    def lines(self, folder: Path) -> list[tuple[float, str]]:
        return [(float(at), what) for at, what, *_ in self.written(folder)]

    def written(self, folder: Path) -> list[list[str]]:
        """Every line that is whole: when, which step or "start", and whether a save was under way."""
        log = folder / "steps.log"
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        return [line.split() for line in lines if line.endswith("\n")]


COLUMNS = (
    "bare step",
    "a save costs",
    "and is of use after",
    "saves every",
    "kills",
    "down a kill (longest)",
    "steps made again a kill",
    "lost of all time",
)
LOST = ("down", "again", "the rest: saves, slower steps")


def render(found: dict[str, dict[str, Any]], every: float, width: int) -> str:
    lines = ["| | " + " | ".join([*COLUMNS, *LOST]) + " |", "|---" * (len(COLUMNS) + len(LOST) + 1) + "|"]
    for way, one in found.items():
        rest = one["lost"] - one["of it down"] - one["of it again"]
        kills = max(1, one["kills"])
        cells = (
            f"{one['bare'] * 1e3:.0f} ms",
            f"{one['cost'] * 1e3:.0f} ms",
            f"{one['took']:.1f} s",
            f"{one['interval']} steps",
            f"{one['kills']} in {one['seconds']:.0f} s",
            f"{statistics.median(one['downs']):.2f} s ({max(one['downs']):.2f})" if one["downs"] else "",
            f"{one['again'] / kills:.1f}",
            f"**{one['lost']:.1%}**",
            *(f"{part:.1%}" for part in (one["of it down"], one["of it again"], rest)),
        )
        lines.append(f"| {SHOWN[way]} | " + " | ".join(cells) + " |")
    lines += ["", f"SIGKILL of one of {RANKS} ranks every {every:.0f} s; a state of {WIDE * width**2 / 1e6:.0f} MB."]
    for one in found.values():
        if one["ledger"]:
            lines += ["", "What Strata's own ledger says, from its first rank's start on:", "", "```"]
            lines += [*one["ledger"].rstrip().splitlines(), "```"]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
