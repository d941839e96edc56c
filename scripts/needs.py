"""What `make test` needs, said before anything is done: toolchains, Debian packages, disk, time, and what is there."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import debian
import environment
import gotool
import npmtool
import slurm

GB = 1e9
SCRIPTS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Part:
    """One thing that a fresh machine must download or build; the figures are of 2 cores and 40 MB/s."""

    name: str
    there: bool
    disk: float  # bytes
    minutes: float


def target_folder() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR") or environment.cache_folder() / "target")


def built_before() -> bool:
    return (target_folder() / "debug" / "deps").is_dir()


def packed_before() -> bool:
    """Whether only what changed will be compiled again."""
    return all((environment.cache_folder() / name / "release").is_dir() for name in ("target-embed", "target-wheel"))


def tool_built(name: str) -> bool:
    return shutil.which("go") is not None and gotool.path_of(name).exists()


def parts() -> list[Part]:
    torch = environment.complete(SCRIPTS / "torch.txt")
    return [
        Part("Rust crates, compiled for the tests and the lints", built_before(), 5 * GB, 11),
        Part(
            "the executable and the wheel (crates compiled anew, Debian's static Python)", packed_before(), 3 * GB, 11
        ),
        Part("Python environment with torch 2.15 (from PyPI, with its CUDA libraries)", torch, 5.6 * GB, 5),
        Part("S3 server versitygw (Go)", tool_built("versitygw"), 0.7 * GB, 3),
        Part("Azure server azurite (npm)", npmtool.path_of("azurite").exists(), 0.2 * GB, 1),
        Part("Slurm (Debian's, unpacked)", slurm.path_of().exists(), 0.02 * GB, 1),
    ]


# What the tests themselves take once everything is there.
TEST_MINUTES = 15


def announce(packages: list[str]) -> None:
    """Prints the list; the reader can stop here with Ctrl-C before anything has been changed."""
    folder = environment.cache_folder()
    absent = debian.missing(packages)
    print(f"make test uses Rust, Go and Python; it keeps everything it makes in {folder}")
    print(f"  Debian packages: {', '.join(packages) or 'none'}; {len(absent) or 'none'} missing")
    for part in parts():
        there = "there" if part.there else f"{part.disk / GB:.1f} GB, {part.minutes:.0f} minutes"
        print(f"  {part.name}: {there}")
    lacking = [part for part in parts() if not part.there]
    disk = sum(part.disk for part in lacking)
    free = shutil.disk_usage(existing(folder)).free
    print(f"  disk: {disk / GB:.1f} GB more of {free / GB:.0f} GB free; memory: 4 GB; nothing listens beyond loopback")
    minutes = TEST_MINUTES + sum(part.minutes for part in lacking)
    print(f"  time: about {minutes:.0f} minutes on 2 cores, {TEST_MINUTES} the next time", flush=True)
    if free < disk:
        raise SystemExit(f"{folder} has {free / GB:.1f} GB free, {disk / GB:.1f} GB are needed; set STRATA_CACHE")


def existing(folder: Path) -> Path:
    return folder if folder.exists() else existing(folder.parent)


def absent_toolchains() -> list[str]:
    """Those without which nothing can be tested at all."""
    return [name for name in ("cargo", "cc") if not runs(name)]


def runs(name: str) -> bool:
    if not shutil.which(name):
        return False
    return subprocess.run([name, "--version"], capture_output=True, check=False).returncode == 0
