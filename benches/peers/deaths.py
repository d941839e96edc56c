"""How long it takes until the survivors of a killed rank know: SIGKILL of one of several ranks on this node, each with
2 GiB of memory and two forked children, to the last survivor's own code.

    make bench-deaths        or        python benches/peers/deaths.py --python PYTHON_WITH_TORCH

With Strata the survivors wait at a barrier, which raises FencedError; under torchrun they have a handler for the
SIGTERM that its agent sends. Beside both, from the same round: when the kernel says that the killed process has exited
(its pidfd), which it does when its memory is freed. Needs memory for the ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from run import HERE, Bench

WAYS = ("strata", "torchrun")
PATIENCE = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strata", type=Path, default=HERE.parents[1] / "dist" / "strata")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--megabytes", type=int, default=2048, help="memory of each rank")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of whom is killed, and when")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args()
    print(f"seed {args.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="strata-deaths-") as folder:
        bench = Bench(args.strata.resolve(), args.python, Path(folder), "mourner.py")
        deaths = Deaths(bench, args.ranks, args.megabytes, random.Random(args.seed))
        try:
            results: dict[str, list[dict[str, float]]] = {way: [] for way in args.only}
            for number in range(args.rounds):
                print(f"round {number + 1} of {args.rounds}", file=sys.stderr, flush=True)
                for way in args.only:
                    results[way].append(deaths.round(way))
        finally:
            bench.close()
    if args.json:
        args.json.write_text(json.dumps(results, indent=1))
    print(render(results))
    return 0


class Deaths:
    """Rounds: ranks are started, one is killed, and everybody says when he knew it (CLOCK_MONOTONIC)."""

    def __init__(self, bench: Bench, ranks: int, megabytes: int, chance: random.Random) -> None:
        self.bench, self.ranks, self.megabytes, self.chance = bench, ranks, megabytes, chance

    def round(self, way: str) -> dict[str, float]:
        folder = Path(tempfile.mkdtemp(dir=self.bench.folder))
        node = self.node(folder) if way == "strata" else None
        launched: list[subprocess.Popen[bytes]] = []
        try:
            victim = self.chance.randrange(self.ranks)
            launched = self.launch(way, folder, victim)
            pids = {rank: int(self.wait_for(folder / f"{rank}.ready")) for rank in range(self.ranks)}
            time.sleep(self.chance.uniform(0.2, 0.7))
            killed, exited = kill(pids[victim])
            told = [float(self.wait_for(folder / f"{rank}.told")) for rank in pids if rank != victim]
            return {"told": max(told) - killed, "exited": exited - killed}
        finally:
            for process in launched:
                process.terminate()
            for process in launched:
                process.wait(PATIENCE)
            if node:
                node.terminate()
                node.wait(PATIENCE)
            shutil.rmtree(folder)

    def node(self, folder: Path) -> subprocess.Popen[bytes]:
        env = os.environ | self.env(folder)
        command = [str(self.bench.strata), "up", "--port", "0", "--http-port", "0"]
        log = (folder / "up.log").open("w")
        up = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        wait = [str(self.bench.strata), "sidecar", "--wait-ready"]
        if subprocess.run(wait, env=env, check=False, capture_output=True).returncode:
            raise SystemExit((folder / "up.log").read_text())
        return up

    def env(self, folder: Path) -> dict[str, str]:
        return {
            "PYTHONPATH": str(self.bench.folder / "site"),
            "STRATA_HOME": str(folder),
            "STRATA_SOCKET": str(folder / "s.sock"),
            "STRATA_ARENA_DIR": str(self.bench.arenas),
            "STRATA_STORE": str(folder / "store"),
        }

    def launch(self, way: str, folder: Path, victim: int) -> list[subprocess.Popen[bytes]]:
        script = [str(HERE / "mourner.py"), way, str(folder), str(self.megabytes), str(victim)]
        log = (folder / "ranks.log").open("w")
        if way == "torchrun":
            command = [self.bench.python, "-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", str(self.ranks), *script]
            return [subprocess.Popen(command, stdout=log, stderr=log)]
        env = os.environ | self.env(folder) | {"WORLD_SIZE": str(self.ranks)}
        return [
            subprocess.Popen([self.bench.python, *script], env=env | {"RANK": str(rank)}, stdout=log, stderr=log)
            for rank in range(self.ranks)
        ]

    def wait_for(self, path: Path) -> str:
        until = time.monotonic() + PATIENCE
        while not path.exists():
            if time.monotonic() > until:
                raise SystemExit(f"{path.name} did not come:\n{(path.parent / 'ranks.log').read_text()}")
            time.sleep(0.01)
        return path.read_text()


def kill(pid: int) -> tuple[float, float]:
    """When it was killed, and when it had exited."""
    pidfd = os.pidfd_open(pid)
    try:
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        select.select([pidfd], [], [])
        return killed, time.monotonic()
    finally:
        os.close(pidfd)


def render(results: dict[str, list[dict[str, float]]]) -> str:
    lines = [
        f"{len(next(iter(results.values())))} rounds; milliseconds from SIGKILL.",
        "",
        "| | last survivor knows: median | p90 | p99 (from 100 rounds on) | most | its process has exited: median |",
        "|---|---|---|---|---|---|",
    ]
    for way, rounds in results.items():
        told = sorted(one["told"] * 1e3 for one in rounds)
        exited = statistics.median(one["exited"] * 1e3 for one in rounds)
        p90, p99 = (told[int(len(told) * part)] for part in (0.9, 0.99))
        cells = [f"{value:.1f}" for value in (statistics.median(told), p90, p99, told[-1], exited)]
        if len(told) < 100:
            cells[2] = ""
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
