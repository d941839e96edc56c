"""A training job loses a process in the middle and ends with the same weights as an undisturbed one.

    python examples/demo.py --strata dist/strata --python PYTHON_WITH_TORCH

Starts `strata up`, trains examples/train_lm.py twice under `strata run` (once undisturbed, once with a SIGKILL), and
compares what the two jobs have committed. Leaves nothing behind.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corpus import write_corpus

HERE = Path(__file__).resolve().parent
RANKS = 2
STEPS = 40
BATCH = 8
SAVE_EVERY = 5
KILL_AFTER_STEP = 23
SAMPLE = 65
PATIENCE = 600.0  # seconds that any one part of the demo may take

Events = list[dict[str, Any]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strata", type=Path, default=HERE.parent / "dist" / "strata", help="the executable")
    parser.add_argument("--python", default=sys.executable, help="a Python 3.11 or newer that has torch and NumPy")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="strata-demo-") as folder:
        demo = Demo(args.strata.resolve(), args.python, Path(folder))
        with demo.strata_up():
            return demo.run()


class Demo:
    def __init__(self, strata: Path, python: str, folder: Path) -> None:
        self.strata, self.python, self.folder = strata, python, folder
        self.env = os.environ | {
            "STRATA_HOME": str(folder / "home"),
            "STRATA_SOCKET": str(folder / "sidecar.sock"),
            "STRATA_ARENA_DIR": f"/dev/shm/strata-demo-{os.getpid()}",
            "STRATA_STORE": str(folder / "store"),
            "PYTHONPATH": str(folder / "site"),
            "OMP_NUM_THREADS": "1",
        }

    def run(self) -> int:
        say("installing the client wheel that the executable carries")
        self.install_wheel()
        write_corpus(self.folder / "corpus.bin", STEPS * BATCH, SAMPLE)

        say(f"training {STEPS} steps on {RANKS} ranks, undisturbed")
        self.train("undisturbed", kill=False)
        say(f"training the same again, SIGKILL to rank 1 after step {KILL_AFTER_STEP}")
        self.train("killed", kill=True)

        say("restoring what both jobs have committed, and comparing")
        undisturbed, killed = self.prove("undisturbed"), self.prove("killed")
        checks = {
            "weights bit-identical": [p["weights"] for p in undisturbed] == [p["weights"] for p in killed],
            "optimizer bit-identical": [p["optimizer"] for p in undisturbed] == [p["optimizer"] for p in killed],
            "every sample exactly once": sorted(i for p in killed for i in p["seen"]) == list(range(STEPS * BATCH)),
            "same order of samples": [p["seen"] for p in undisturbed] == [p["seen"] for p in killed],
        }
        print_table(self.events("killed"), checks)
        return 0 if all(checks.values()) else 1

    @contextmanager
    def strata_up(self) -> Iterator[None]:
        with (self.folder / "up.log").open("w") as log:
            command = [self.strata, "up", "--port", "0", "--http-port", "0"]
            up = subprocess.Popen(command, env=self.env, stdout=log, stderr=log)
            try:
                wait_for(lambda: (self.folder / "sidecar.sock").exists(), up, "strata up", self.folder / "up.log")
                yield
            finally:
                up.terminate()
                up.wait(60)
                arenas = Path(self.env["STRATA_ARENA_DIR"])
                for left in arenas.glob("*"):
                    left.unlink()
                if arenas.exists():
                    arenas.rmdir()

    def install_wheel(self) -> None:
        wheels = self.folder / "wheels"
        subprocess.run([self.strata, "wheel", wheels], env=self.env, check=True, stdout=subprocess.DEVNULL)
        pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
        pip += ["--find-links", wheels, "--target", self.folder / "site", "strata-runtime"]
        subprocess.run(pip, env=self.env, check=True)

    def strata_run(self, job: str, script: str, *arguments: str | Path) -> subprocess.Popen[bytes]:
        command = [self.strata, "run", "--nproc-per-node", str(RANKS), "--log-dir", self.folder / f"{job}-logs"]
        command += ["--", self.python, HERE / script, *arguments]
        return subprocess.Popen(command, env=self.env | {"STRATA_JOB": job}, stdout=subprocess.DEVNULL)

    def train(self, job: str, *, kill: bool) -> None:
        report = self.folder / job
        report.mkdir()
        options = f"--steps {STEPS} --batch {BATCH} --save-every {SAVE_EVERY}".split()
        run = self.strata_run(job, "train_lm.py", "--data", self.folder / "corpus.bin", "--report", report, *options)
        if kill:
            log = self.folder / f"{job}-logs" / "rank-1.0.log"
            wait_for(lambda: latest(self.events(job), "step") >= KILL_AFTER_STEP, run, f"step {KILL_AFTER_STEP}", log)
            os.kill(latest(self.events(job), "pid"), signal.SIGKILL)
        if run.wait(PATIENCE) != 0:
            raise SystemExit(f"training {job!r} ended with code {run.returncode}; logs: {self.folder / job}-logs")

    def events(self, job: str, rank: int = 1) -> Events:
        path = self.folder / job / f"rank-{rank}.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def prove(self, job: str) -> list[dict[str, Any]]:
        out = self.folder / f"{job}-proof"
        out.mkdir()
        if self.strata_run(job, "prove.py", "--out", out).wait(PATIENCE) != 0:
            raise SystemExit(f"restoring {job!r} for the comparison failed")
        return [json.loads((out / f"{rank}.json").read_text()) for rank in range(RANKS)]


def latest(events: Events, field: str) -> int:
    return next((int(event[field]) for event in reversed(events) if field in event), 0)


def wait_for(condition: Any, process: subprocess.Popen[bytes], what: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            text = log.read_text() if log.exists() else ""
            raise SystemExit(f"waiting for {what}: the process ended or took too long\n{text}")
        time.sleep(0.05)


def print_table(events: Events, checks: dict[str, bool]) -> None:
    blocks = [event["block"] * 1e3 for event in events if "block" in event]
    durable = [event["seconds"] * 1e3 for event in events if "committed" in event]
    stored = [event["bytes"] for event in events if "committed" in event]
    resumed = next(event for event in events if "restored" in event)
    before = [event["step"] for event in events[: events.index(resumed)] if "step" in event]
    rows = [
        ("block, first save", f"{blocks[0]:.1f} ms"),
        ("block, steady (median)", f"{statistics.median(blocks[1:]):.1f} ms"),
        ("block, p99", f"{sorted(blocks[1:])[int(0.99 * (len(blocks) - 1))]:.1f} ms"),
        ("durable (median)", f"{statistics.median(durable):.0f} ms"),
        ("stored per step", f"{statistics.median(stored) / 1e6:.1f} MB"),
        ("restore", f"{resumed['seconds'] * 1e3:.0f} ms from the {resumed['source']}"),
        ("lost steps", f"{max(before) - resumed['restored']} (killed at {max(before)}, back at {resumed['restored']})"),
    ]
    rows += [(name, "yes" if holds else "NO") for name, holds in checks.items()]
    width = max(len(name) for name, _ in rows)
    print()
    for name, value in rows:
        print(f"  {name:<{width}}  {value}")


def say(what: str) -> None:
    print(f"· {what}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
