"""One epoch that ranks train (`elastic_rank.py`), in worlds that shrink and grow, from outside: what they told, how far
they may, and whether every sample was used exactly once."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from .node import Node
from .process import PATIENCE, wait_until

SCRIPT = Path(__file__).resolve().parent.parent / "elastic_rank.py"
STEPS, BATCH = 60, 4
Row = dict[str, Any]


class Epoch:
    """In `folder`: the samples, the step that may be made last for now, and what each rank has told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "data").write_bytes(bytes(range(STEPS * BATCH)))
        self.allow(0)

    def allow(self, step: int) -> None:
        """Ranks make this step, and wait before the next."""
        part = self.folder / "limit.part"
        part.write_text(str(step))
        part.rename(self.folder / "limit")

    def rows(self) -> list[Row]:
        """What all ranks have told, in time."""
        lines = [line for log in self.folder.glob("rank-*.jsonl") for line in log.read_text().splitlines(keepends=True)]
        return sorted((json.loads(line) for line in lines if line.endswith("\n")), key=lambda row: row["at"])

    def starts(self, world: int) -> int:
        """Ranks that have begun in a world of this size."""
        return sum("first" in row and row["world"] == world for row in self.rows())

    def committed(self, world: int | None = None) -> int:
        return max((row.get("committed", 0) for row in self.rows() if world in (None, row["world"])), default=0)

    def reach(self, step: int, world: int, limit: int | None = None) -> None:
        self.allow(step if limit is None else limit)
        wait_until(lambda: self.committed(world) >= step, f"step {step} in a world of {world}", 2 * PATIENCE)

    def check(self) -> None:
        """Nothing acknowledged was lost: who begins goes on from what was committed by then, or later, with its state.
        All ranks hold the same."""
        newest, states = 0, dict[int, set[str]]()
        for row in self.rows():
            if "first" in row:
                assert row["first"] > newest, f"{row} begins before committed step {newest}"
            newest = max(newest, row.get("committed", 0))
            of: int = row["first"] - 1 if "first" in row else row["committed" if "committed" in row else "ended"]
            states.setdefault(of, set()).add(row["state"])
        assert newest == STEPS
        assert all(len(held) == 1 for held in states.values()), states


class NodeEpoch(Epoch):
    """One whose ranks are started on `node`, or under its coordinator."""

    def __init__(self, node: Node, python: Path, site: Path, folder: Path) -> None:
        super().__init__(folder)
        self.node, self.python = node, python
        self.env = {"PYTHONPATH": str(site), "STRATA_JOB": "t", "OMP_NUM_THREADS": "1"}

    def command(self) -> list[str | Path]:
        """What a rank runs, behind its interpreter."""
        return [SCRIPT, self.folder, str(STEPS)]

    def used(self) -> list[float]:
        """How often the newest committed state says that each sample was used."""
        code = "import strata; j = strata.connect(); print(j.restore(only='*').state['used'].tolist()); j.close()"
        command = [self.python, "-c", code]
        done = subprocess.run(command, env=self.node.env | self.env, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stderr
        found: list[float] = json.loads(done.stdout)
        return found

    def check_samples(self) -> None:
        """P8: the committed steps hold every sample exactly once."""
        assert self.used() == [1.0] * STEPS * BATCH
