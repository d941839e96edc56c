"""Saves and restores the same 1.08 GB with Strata and with what a user would pick instead, in one run.

    make bench-peers        or        python benches/peers/run.py --strata dist/strata --python PYTHON_WITH_TORCH

Every saver runs in a fresh process and the savers take turns. The table's ratios are against limits measured in the
same turns: a copy of the same bytes into an arena by two threads, and fio. Needs fio, and 6 GB on the disk to be
measured (TMPDIR or --folder).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from table import Limits, Result, render

HERE = Path(__file__).resolve().parent
ORDER = (
    "strata",
    "strata-restarted",
    "strata-rejoined",
    "strata-returned",
    "strata-cold",
    "dcp-async-process",
    "dcp-async-thread",
    "safetensors",
    "torch-save",
)
BEFORE = {"strata-restarted": "die", "strata-rejoined": "die", "strata-returned": "leave"}
"""How a process ended whose rank these savers take up. One that left in good order has given its arena back."""
SAVES_BEFORE = 2  # by that process: one for each slot
PYTHON_LIMITS = "import json,limits,sys,pathlib as p;n=int(sys.argv[1]);f=p.Path(sys.argv[2]);"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strata", type=Path, default=HERE.parents[1] / "dist" / "strata")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--saves", type=int, default=6, help="saves of each process")
    parser.add_argument("--only", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--folder", type=Path, help="where to write; on the disk to be measured")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args()
    if not shutil.which("fio"):
        raise SystemExit("measuring the disk: fio is missing\nhint: sudo apt-get install fio")
    with tempfile.TemporaryDirectory(prefix="strata-peers-", dir=args.folder) as folder:
        bench = Bench(args.strata.resolve(), args.python, Path(folder), "measure.py")
        try:
            for turn in range(args.turns):
                for name in args.only:
                    print(f"turn {turn + 1} of {args.turns}: {name}", file=sys.stderr, flush=True)
                    result = bench.turn(name, ["--saves", str(args.saves)])
                    assert result["exact"], f"{name} restored other values than were saved"
                bench.measure_limits()
        finally:
            bench.close()
    if args.json:
        args.json.write_text(json.dumps({"limits": bench.limits, "results": bench.results}, indent=1))
    print(render(bench.results, bench.limits, args.only))
    return 0


class Bench:
    """Results of one run of `script`; arenas lie in /dev/shm, all else below `folder`."""

    def __init__(self, strata: Path, python: str, folder: Path, script: str) -> None:
        self.strata, self.python, self.folder, self.script = strata, python, folder, script
        self.arenas = Path(tempfile.mkdtemp(prefix="strata-peers-", dir="/dev/shm"))
        self.limits: Limits = {"copy": [], "write": []}
        self.results: list[Result] = []
        subprocess.run([strata, "wheel", folder / "wheels"], check=True, stdout=subprocess.DEVNULL)
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--no-index"]
        pip += ["--find-links", folder / "wheels", "--target", folder / "site", "strata-runtime"]
        subprocess.run(pip, check=True)

    def close(self) -> None:
        shutil.rmtree(self.arenas)

    def turn(self, name: str, options: list[str]) -> Result:
        """One saver in a fresh process; one of ours with a node of its own."""
        measure = self.strata_turn if name.startswith("strata") else self.measure
        result = measure(name, {}, options)
        self.results.append(result)
        return result

    def measure_limits(self) -> None:
        nbytes = self.results[0]["bytes"]
        self.limits["copy"] += self.limit("copy_seconds", nbytes, self.arenas)
        self.limits["write"].append(self.limit("direct_write_seconds", nbytes, self.folder))

    def strata_turn(self, name: str, env: dict[str, str], options: list[str]) -> Result:
        """With a node as it is started by default."""
        home = Path(tempfile.mkdtemp(dir=self.folder))
        env = env | {
            "STRATA_HOME": str(home),
            "STRATA_SOCKET": str(home / "s.sock"),
            "STRATA_ARENA_DIR": str(self.arenas),
            "STRATA_STORE": str(home / "store"),
            "STRATA_KEEP_LAST": "2",
        }
        with (home / "up.log").open("w") as log:
            command = [str(self.strata), "up", "--port", "0", "--http-port", "0"]
            up = subprocess.Popen(command, env=os.environ | env, stdout=log, stderr=log)
        try:
            wait = [str(self.strata), "sidecar", "--wait-ready"]
            if subprocess.run(wait, env=os.environ | env, check=False, capture_output=True).returncode:
                raise SystemExit((home / "up.log").read_text())
            env |= {"BESIDE": str(up.pid)}
            if name in BEFORE:
                self.measure("strata", env, ["--saves", str(SAVES_BEFORE), "--end", BEFORE[name]])
                options = [*options, "--after", str(SAVES_BEFORE)]
            with PrivateMemory(up.pid) as memory:
                result = self.measure(name, env, options)
            result["sidecar_memory"] = memory.peak
            return result
        finally:
            up.terminate()
            up.wait(60)
            shutil.rmtree(home)
            shutil.rmtree(self.arenas)
            self.arenas.mkdir(mode=0o700)

    def measure(self, name: str, env: dict[str, str], options: list[str]) -> Any:
        """The JSON that the script prints in the end, unless it kills itself. BESIDE in its environment is the
        sidecar's pid."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        command = [self.python, str(HERE / self.script), name, str(folder), *options]
        environment = os.environ | {"PYTHONPATH": str(self.folder / "site")} | env
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        killed = "die" in options
        if done.returncode != (-signal.SIGKILL if killed else 0):
            raise SystemExit(f"measuring {name}: exit code {done.returncode}\n{done.stderr}")
        shutil.rmtree(folder)
        return None if killed else json.loads(done.stdout.splitlines()[-1])

    def limit(self, function: str, nbytes: int, folder: Path) -> Any:
        code = PYTHON_LIMITS + f"print(json.dumps(limits.{function}(n,f)))"
        command = [self.python, "-c", code, str(nbytes), str(folder)]
        return json.loads(subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, check=True).stdout)


class PrivateMemory:
    """The most anonymous memory that a process had meanwhile; arenas are shared file pages and not in it."""

    def __init__(self, pid: int) -> None:
        self.status = Path(f"/proc/{pid}/status")
        self.peak = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def __enter__(self) -> PrivateMemory:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def watch(self) -> None:
        while not self.ended.wait(0.02):
            for line in self.status.read_text().splitlines():
                if line.startswith("RssAnon"):
                    self.peak = max(self.peak, int(line.split()[1]) * 1024)


if __name__ == "__main__":
    raise SystemExit(main())
