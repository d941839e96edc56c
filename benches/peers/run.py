"""Saves and restores the same 1.08 GB with Strata and with what a user would pick instead, in one run.

    make bench-peers        or        python benches/peers/run.py --strata dist/strata --python PYTHON_WITH_TORCH

Every saver runs in a fresh process, the savers take turns, and each figure is the median over the turns. The table's
ratios are against limits measured in the same run: a copy of the same bytes into an arena by two threads, and fio.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ORDER = ("strata", "strata-cold", "dcp-async-process", "dcp-async-thread", "safetensors", "torch-save")
PYTHON_LIMITS = "import json,limits,sys,pathlib as p;n=int(sys.argv[1]);f=p.Path(sys.argv[3]);"

Result = dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strata", type=Path, default=HERE.parents[1] / "dist" / "strata")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--saves", type=int, default=6, help="saves of each process")
    parser.add_argument("--folder", type=Path, help="where to write; on the disk to be measured")
    parser.add_argument("--json", type=Path, help="also write everything measured to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="strata-peers-", dir=args.folder) as folder:
        bench = Bench(args.strata.resolve(), args.python, Path(folder), args.saves)
        results = [result for turn in range(args.turns) for result in bench.turn(turn, args.turns)]
        limits = bench.limits
    if args.json:
        args.json.write_text(json.dumps({"limits": limits, "results": results}, indent=1))
    print_table(results, limits)
    return 0


class Bench:
    def __init__(self, strata: Path, python: str, folder: Path, saves: int) -> None:
        self.strata, self.python, self.folder, self.saves = strata, python, folder, saves
        self.arenas = Path(tempfile.mkdtemp(prefix="strata-peers-", dir="/dev/shm"))
        self.limits: dict[str, list[float]] = {"copy": [], "write": []}
        subprocess.run([strata, "wheel", folder / "wheels"], check=True, stdout=subprocess.DEVNULL)
        pip = [python, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", folder / "wheels"]
        subprocess.run([*pip, "--target", folder / "site", "strata-runtime"], check=True)

    def turn(self, number: int, turns: int) -> list[Result]:
        results = []
        for name in ORDER:
            print(f"turn {number + 1} of {turns}: {name}", file=sys.stderr, flush=True)
            results.append(self.strata_turn(name) if name.startswith("strata") else self.measure(name, {}))
        nbytes = results[0]["bytes"]
        self.limits["copy"] += self.limit("copy_seconds", nbytes, self.arenas)
        self.limits["write"].append(self.limit("direct_write_seconds", nbytes, self.folder))
        return results

    def strata_turn(self, name: str) -> Result:
        home = Path(tempfile.mkdtemp(dir=self.folder))
        env = {
            "STRATA_HOME": str(home),
            "STRATA_SOCKET": str(home / "s.sock"),
            "STRATA_ARENA_DIR": str(self.arenas),
            "STRATA_STORE": str(home / "store"),
            "STRATA_KEEP_LAST": "2",
        }
        with (home / "up.log").open("w") as log:
            command = [self.strata, "up", "--port", "0", "--http-port", "0"]
            up = subprocess.Popen(command, env=os.environ | env, stdout=log, stderr=log)
        try:
            while not (home / "s.sock").exists():
                if up.poll() is not None:
                    raise SystemExit((home / "up.log").read_text())
                time.sleep(0.05)
            before = process_cpu(up.pid)
            result = self.measure(name, env)
            result["cpu"] += (process_cpu(up.pid) - before) / self.saves
            result["sidecar_memory"] = peak_private_memory(up.pid)
            return result
        finally:
            up.terminate()
            up.wait(60)
            shutil.rmtree(home)
            for arena in self.arenas.glob("*"):
                arena.unlink()

    def measure(self, name: str, env: dict[str, str]) -> Result:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        command = [self.python, HERE / "measure.py", name, folder, "--saves", str(self.saves)]
        environment = os.environ | {"PYTHONPATH": str(self.folder / "site")} | env
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        shutil.rmtree(folder)
        result: Result = json.loads(done.stdout.splitlines()[-1])
        assert result["exact"], f"{name} restored other values than were saved"
        return result

    def limit(self, function: str, nbytes: int, folder: Path) -> Any:
        code = PYTHON_LIMITS + f"print(json.dumps(limits.{function}(n,f)))"
        command = [self.python, "-c", code, str(nbytes), "-", folder]
        return json.loads(subprocess.run(command, cwd=HERE, stdout=subprocess.PIPE, check=True).stdout)


def process_cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_private_memory(pid: int) -> int:
    """Anonymous memory of the sidecar in bytes; arenas are shared file pages and not in it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise ValueError("no RssAnon in /proc/PID/status")


def print_table(results: list[Result], limits: dict[str, list[float]]) -> None:
    copy, write = statistics.median(limits["copy"]), statistics.median(limits["write"])
    safetensors = median(results, "safetensors", lambda r: statistics.median(r["durable"]))
    floor = max(safetensors, write)
    nbytes = results[0]["bytes"]
    print(f"state {nbytes / 1e9:.2f} GB; two-thread copy into an arena {copy * 1e3:.0f} ms", end=" ")
    print(f"({min(limits['copy']) * 1e3:.0f}–{max(limits['copy']) * 1e3:.0f}); fio O_DIRECT {write * 1e3:.0f} ms")
    columns = (
        "block first",
        "steady",
        "p99",
        "steady/copy",
        "durable",
        "durable/floor",
        "restore",
        "CPU s",
        "to first",
    )
    print(f"{'':20}" + "".join(f"{column:>14}" for column in columns))
    for name in ORDER:
        steady = median(results, name, lambda r: statistics.median(r["blocks"][1:]))
        durable = median(results, name, lambda r: statistics.median(r["durable"][1:]))
        worst = [block for r in results if r["saver"] == name for block in r["blocks"][1:]]
        cells = (
            f"{median(results, name, lambda r: r['blocks'][0]) * 1e3:.0f} ms",
            f"{steady * 1e3:.0f} ms",
            f"{sorted(worst)[int(0.99 * (len(worst) - 1))] * 1e3:.0f} ms",
            f"{steady / copy:.2f}",
            f"{durable * 1e3:.0f} ms",
            f"{durable / floor:.2f}",
            f"{median(results, name, lambda r: r['restore']) * 1e3:.0f} ms",
            f"{median(results, name, lambda r: r['cpu']):.2f}",
            f"{median(results, name, lambda r: r['to_first_save']):.1f} s",
        )
        print(f"{name:20}" + "".join(f"{cell:>14}" for cell in cells))
    memory = max(r["sidecar_memory"] for r in results if "sidecar_memory" in r)
    print(f"sidecar memory beyond the arenas: {memory / 2**20:.0f} MiB")


def median(results: list[Result], saver: str, value: Any) -> float:
    return statistics.median(value(result) for result in results if result["saver"] == saver)


if __name__ == "__main__":
    raise SystemExit(main())
