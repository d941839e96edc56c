"""`make torture`: the fault tests in their full numbers, with a progress bar, and one report of how they went.

The suite plays a seeded sample of each; this plays all of it: changes of a store and of the arenas at random, a crash
after every change of the disk, a disk that is full at any of them, random stories of saves and removals, and SIGKILL at
seeded moments over real processes. TORTURE holds words for this script: `make torture TORTURE='--moments 100'`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cargo_target
import gotool
import needs
from environment import environment

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
REPORT = ROOT / "docs" / "results" / "torture.md"
BAR = 40
# What a round of tests/cluster/test_crash.py plays on average; the report counts what was played.
MOMENTS_PER_ROUND = 1.75


@dataclass(frozen=True)
class Campaign:
    name: str
    test: str
    target: tuple[str, ...]
    rounds: int


@dataclass
class Outcome:
    name: str
    promise: str
    seed: int
    counts: dict[str, int]
    seconds: float | None


EXPLAINED = """

- **store-mutations**: one bit, length, page, object or name of OWNER, COMMIT, manifests or packs (one and two ranks,
  FULL and INCREMENTAL) changed; every rank of every step is restored and verified after each.
- **arena-mutations**: the same over arenas, their checksums, and the sidecar's records.
- **crash-…**: the directory as a crash leaves it after each change (create, write, fsync, rename, unlink, mkdir, rmdir,
  fsync of a directory): what was not synced is lost, or there by name alone, or kept, or each at random, contents torn.
- **disk-full**: each change that needs room finds none, alone or with all that follow.
- **collector**: saves that refer to each other, pins, removals, held restores, restarts, in random order.
- **cluster**: the coordinator over its log against simulated nodes, in virtual time, 90 s of faults and 75 of peace;
  after every event what must never happen is looked for, and at the end that everything has come right.
- **sigkill-…**: real processes killed at seeded moments; *sleeper* is a trainer that was stopped, replaced, and woken.
  Trainers copy, save lazily behind a fence, or by fork.
- **preemption**: SIGTERM while a lazy or forked save is under way; the last step is durable within 30 s.
"""

PROMISES = {
    "store-mutations": "P2",
    "arena-mutations": "P2",
    "crash-attach": "P1, P4",
    "crash-save": "P1, P4",
    "crash-removal": "P1, P4",
    "disk-full": "P4, P5",
    "collector": "P4",
    "cluster": "P4, P6, P7",
    "sigkill-local": "P3, P4, P6",
    "sigkill-s3": "P3, P4, P6",
    "preemption": "SIGTERM",
}
LIB, COLLECTOR = ("--lib",), ("--test", "collector")


def campaigns(given: argparse.Namespace) -> list[Campaign]:
    mutations, crashes = given.mutations, given.crashes
    return [
        Campaign("store-mutations", "any_change_in_a_store", LIB, mutations),
        Campaign("arena-mutations", "any_change_in_an_arena_directory", LIB, mutations),
        Campaign("crash-attach", "a_crash_at_any_point_of_an_attach", LIB, crashes),
        Campaign("crash-save", "a_crash_at_any_point_of_a_save", LIB, crashes),
        Campaign("crash-removal", "a_crash_at_any_point_of_a_removal", LIB, crashes),
        Campaign("disk-full", "a_disk_that_is_full_at_any_point", LIB, 1),
        Campaign("collector", "p4_no_order_of_saves", COLLECTOR, given.stories),
        Campaign("cluster", "a_cluster_survives_whatever_happens", LIB, given.clusters),
    ]


def main() -> int:
    given = arguments()
    outcomes = [found for path in given.add for found in read_results(path.read_text().splitlines())]
    cargo_target.claim(needs.target_folder())
    build = ["cargo", "test", "-p", "strata-core", "--lib", "--test", "collector", "--no-run"]
    subprocess.run(build, cwd=ROOT, check=True)
    failed: list[str] = []
    for campaign in campaigns(given):
        if campaign.rounds:
            outcomes += in_process(campaign, given.seed, failed)
    if given.moments:
        outcomes += sigkill(given, failed)
    report = text(outcomes, failed)
    given.report.write_text(report)
    print(report)
    for line in failed:
        print(f"FAILED: {line}", file=sys.stderr)
    return 1 if failed else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000, help="changes of a store, and of arenas")
    parser.add_argument("--crashes", type=int, default=3_000, help="crashes at random beside those at every point")
    parser.add_argument("--stories", type=int, default=100, help="random stories of the collector")
    parser.add_argument("--clusters", type=int, default=1_000, help="stories of a simulated cluster")
    parser.add_argument("--moments", type=int, default=1_000, help="SIGKILLs at seeded moments")
    parser.add_argument("--preemptions", type=int, default=100, help="SIGTERMs, each with a budget of 30 s")
    parser.add_argument("--seed", type=int, help="replays what a report names")
    parser.add_argument("--report", type=Path, default=REPORT, help="where it is written")
    parser.add_argument("--add", type=Path, nargs="*", default=[], help="files with result lines of runs made before")
    return parser.parse_args()


def in_process(campaign: Campaign, seed: int | None, failed: list[str]) -> list[Outcome]:
    env = dict(os.environ, STRATA_TORTURE_ROUNDS=str(campaign.rounds), RUST_BACKTRACE="0")
    if seed is not None:
        env["STRATA_TORTURE_SEED"] = str(seed)
    command = ["cargo", "test", "-q", "-p", "strata-core", *campaign.target, campaign.test, "--", "--nocapture"]
    started = time.monotonic()
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    lines: list[str] = []
    bar(campaign.name, 0, 1)
    for line in process.stdout:
        lines.append(line)
        follow(line)
    code = process.wait()
    seconds = time.monotonic() - started
    outcomes = list(read_results(lines, seconds))
    if code or not outcomes:
        failed.append(f"{campaign.name} ended with {code}:\n{''.join(lines[-30:])}")
    bar(campaign.name, 1, 1)
    print(f"  {seconds:.0f} s")
    return outcomes


def sigkill(given: argparse.Namespace, failed: list[str]) -> list[Outcome]:
    """Real processes: the executable of STRATA_EXE, or dist/strata."""
    exe = Path(os.environ.get("STRATA_EXE", ROOT / "dist" / "strata")).resolve()
    if not exe.exists():
        failed.append(f"SIGKILL at seeded moments: {exe} is missing; hint: make build")
        return []
    python = environment(SCRIPTS / "torch.txt")
    with tempfile.TemporaryDirectory(prefix="strata-torture-") as name:
        folder = Path(name)
        progress = folder / "progress"
        progress.touch()
        env = dict(
            os.environ, STRATA_EXE=str(exe), STRATA_TORTURE_PROGRESS=str(progress), PYTHONPATH=str(folder / "site")
        )
        try:
            env["STRATA_VERSITYGW"] = str(gotool.tool("versitygw"))
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"LEFT OUT: SIGKILL over a real S3 server: {error}")
        subprocess.run([exe, "wheel", folder / "wheels"], check=True, stdout=subprocess.DEVNULL)
        pip: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-index",
            "--find-links",
            folder / "wheels",
        ]
        subprocess.run([*pip, "--target", folder / "site", "strata-runtime"], check=True)
        rounds = str(max(7, round(given.moments / MOMENTS_PER_ROUND)))
        command: list[str | Path] = [python, "-m", "pytest", "-q", "tests/cluster/test_crash.py", "--rounds", rounds]
        command += ["tests/cluster/test_preemption.py", "--preemptions", str(given.preemptions)]
        if given.seed is not None:
            command += ["--seed", str(given.seed % 2**32)]
        started = time.monotonic()
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        stop = threading.Event()
        follower = threading.Thread(target=follow_file, args=(progress, stop))
        follower.start()
        said, _ = process.communicate()
        stop.set()
        follower.join()
        print()
        lines = progress.read_text().splitlines()
        if process.returncode:
            failed.append(f"SIGKILL at seeded moments ended with {process.returncode}:\n{said[-4000:]}")
        return list(read_results(lines, time.monotonic() - started))


def follow_file(path: Path, stop: threading.Event) -> None:
    with path.open() as file:
        while not stop.is_set():
            if line := file.readline():
                follow(line)
            else:
                stop.wait(0.5)


def follow(line: str) -> None:
    if line.startswith("torture-progress "):
        _, name, done, of = line.split()
        bar(name, int(done), int(of))


def bar(name: str, done: int, of: int) -> None:
    filled = BAR * done // of
    print(f"\r{name:<18} [{'#' * filled}{'.' * (BAR - filled)}] {100 * done // of:3d} %", end="", flush=True)


def read_results(lines: list[str], seconds: float | None = None) -> Iterator[Outcome]:
    for line in lines:
        if line.startswith("torture-result "):
            found: dict[str, Any] = json.loads(line.removeprefix("torture-result "))
            yield Outcome(found["name"], PROMISES[found["name"]], found["seed"], found["counts"], seconds)


def text(outcomes: list[Outcome], failed: list[str]) -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    rows = [
        "# Torture",
        "",
        "What the fault tests were put through, as counted by the run itself. `make torture` writes this file;",
        "a seed replays its line (`make torture TORTURE='--seed …'`).",
        "",
        "| | |",
        "|---|---|",
        "| command | `make torture` |",
        f"| date, commit | {today}, {commit} |",
        f"| machine | {os.cpu_count()} cores, {platform.system()} {platform.release()} |",
        f"| failures | {len(failed)} |",
        "",
        "| campaign | promise | rounds | of that | seed | time |",
        "|---|---|---|---|---|---|",
    ]
    for outcome in outcomes:
        counts = dict(outcome.counts)
        rounds = counts.pop("rounds", 0)
        detail = ", ".join(f"{number:,} {what}" for what, number in sorted(counts.items()))
        took = f"{outcome.seconds:.0f} s" if outcome.seconds is not None else "—"
        rows.append(f"| {outcome.name} | {outcome.promise} | {rounds:,} | {detail} | {outcome.seed} | {took} |")
    return "\n".join(rows) + EXPLAINED


if __name__ == "__main__":
    sys.exit(main())
