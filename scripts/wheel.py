"""Builds the client wheel and gathers the wheels it needs: what `strata wheel DIR` hands out.

    python3 scripts/wheel.py        prints the folder

The wheel is cp311-abi3 for manylinux_2_28, so that trainers may run on older systems than the executable: zig links
against that glibc, and auditwheel checks the result.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from cargo_target import ours
from environment import alone, cache_folder, environment
from resources import PURE

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
PLATFORM = "manylinux_2_28"

# What the wheel is made from, besides the tools.
INPUTS = ("Cargo.toml", "Cargo.lock", "LICENSE", "core", "pylib", "proto", "pyproject.toml", "scripts/wheel.py")


def wheels(*, dev: bool = False) -> Path:
    """A folder of the cache with our wheel and the dependencies' ones; made anew only if an input changed.

    With `dev` it is unoptimised and for this machine alone: quick to have, for working on it.

    Raises:
        CalledProcessError: maturin, pip or auditwheel failed; their output has been shown.
    """
    key = content_key()
    folder = cache_folder() / "wheels" / (key + ("-dev" if dev else ""))
    with alone(folder):
        if not folder.exists():
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            wheel = build(part, dev=dev)
            if not dev:
                check_platform(wheel)
            download_dependencies(part)
            if content_key() != key:
                raise SystemExit("building the client wheel: its sources changed meanwhile\nhint: run it again")
            part.rename(folder)
    return folder


def content_key() -> str:
    content = hashlib.sha256()
    for file in (SCRIPTS / "wheel.txt", SCRIPTS / "embedded.txt", *inputs()):
        content.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes() + b"\0")
    return content.hexdigest()[:16]


def inputs() -> list[Path]:
    found: list[Path] = []
    for name in INPUTS:
        path = ROOT / name
        found += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sorted(file for file in found if "__pycache__" not in file.parts and file.suffix != ".so")


def build(folder: Path, *, dev: bool) -> Path:
    """The client wheel, alone in `folder`."""
    tools = environment(SCRIPTS / "wheel.txt").parent
    target = Path(os.environ.get("STRATA_WHEEL_TARGET") or cache_folder() / "target-wheel")
    settings = {name: value for name, value in os.environ.items() if name != "PYO3_CONFIG_FILE"}
    settings |= {
        "CARGO_TARGET_DIR": str(target),
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "SOURCE_DATE_EPOCH": "1577836800",  # the same input gives the same bytes, so that nothing is rebuilt for a date
        "VIRTUAL_ENV": str(tools.parent),
    }
    if not dev:
        settings["RUSTFLAGS"] = remapped()
    print("building the client wheel", flush=True)
    command: list[str | Path] = [tools / "maturin", "build", "--locked", "--out", folder]
    command += ["--profile", "dev"] if dev else ["--release", "--zig", "--compatibility", PLATFORM]
    with ours(target):
        subprocess.run(command, cwd=ROOT, env=settings, check=True, stdout=sys.stderr)
    return next(folder.glob("strata_runtime-*.whl"))


def remapped() -> str:
    """RUSTFLAGS under which dependencies' paths in panic messages are the same on every machine; ours are relative."""
    cargo_home = os.environ.get("CARGO_HOME") or Path.home() / ".cargo"
    return f"{os.environ.get('RUSTFLAGS', '')} --remap-path-prefix={cargo_home}=/cargo".strip()


def check_platform(wheel: Path) -> None:
    """The file's own tag is a claim; auditwheel looks at the symbols."""
    auditwheel = environment(SCRIPTS / "wheel.txt").parent / "auditwheel"
    said = subprocess.run([auditwheel, "show", wheel], check=True, capture_output=True, text=True).stdout
    if f'"{PLATFORM}_' not in said:
        raise SystemExit(f"checking {wheel.name}: it isn't {PLATFORM}\n{said}")


def download_dependencies(folder: Path) -> None:
    pip: list[str | Path] = [environment(SCRIPTS / "wheel.txt"), "-m", "pip", "download", "--quiet", "--no-deps"]
    pip += ["--disable-pip-version-check", *PURE, "--dest", folder, "-r", SCRIPTS / "embedded.txt"]
    subprocess.run(pip, check=True)


if __name__ == "__main__":
    print(wheels())
