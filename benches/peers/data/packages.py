"""The processes of these benches: an interpreter with torch, and beside it the peers' packages, or Strata's wheel."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Packages:
    python: str
    peers: Path
    """The interpreter of the environment that holds them."""
    strata: Path
    """The executable."""
    folder: Path
    """Where Strata's wheel is unpacked."""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--python", default=sys.executable, help="has torch")
        parser.add_argument("--peers", type=Path, required=True, help="the python of peers.txt's environment")
        parser.add_argument("--strata", type=Path, default=HERE.parents[2] / "dist" / "strata")

    def environment(self, name: str) -> dict[str, str]:
        """Of a process that reads with this one. The peers' packages come before those of torch's environment, whose
        numpy is newer than MosaicML's can be; ours come before theirs."""
        sites = [self.ours()] if name.startswith("strata") else []
        path = os.pathsep.join(str(site) for site in [*sites, self.theirs()])
        return os.environ | {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}

    def theirs(self) -> Path:
        return next(self.peers.parents[1].glob("lib/python3*/site-packages"))

    def ours(self) -> Path:
        site = self.folder / "site"
        if not site.exists():
            wheels = self.folder / "wheels"
            subprocess.run([self.strata, "wheel", wheels], check=True, stdout=subprocess.DEVNULL)
            pip: list[str | Path] = [self.python, "-m", "pip", "install", "--quiet", "--no-index"]
            subprocess.run([*pip, "--find-links", wheels, "--target", site, "strata-runtime"], check=True)
        return site

    def versions(self) -> str:
        """Of what is measured, for a table's foot."""
        names = ["mosaicml-streaming", "litdata", "webdataset", "torchdata", "torch", "pyarrow", "numpy"]
        code = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
        done = subprocess.run(
            [self.python, "-c", code, *names], env=self.environment("peers"), check=True, stdout=subprocess.PIPE
        )
        return ", ".join(f"{name} {version}" for name, version in json.loads(done.stdout).items())
