"""Builds `dist/strata`, one file: interpreter, standard library, our packages, the Rust core, and the client wheel.

    python3 scripts/build.py [--dev] [--without-wheel]

--dev is for working on it: unoptimised, quick to rebuild, into dist/strata-dev.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import debian
from cargo_target import ours
from environment import cache_folder
from resources import Resources, resources
from wheel import remapped
from wheel import wheels as build_wheels

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ROOT / "scripts/distribution/debian.txt"
OLDEST_GLIBC = (2, 36)  # Debian 12, the oldest system with a Python that scripts/distribution can take


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--dev", action="store_true", help="unoptimised, into dist/strata-dev")
    arguments.add_argument("--without-wheel", action="store_true", help="leave out what `strata wheel` hands out")
    arguments.add_argument("--lint", action="store_true", help="only clippy over embed/")
    options = arguments.parse_args()
    if options.lint:
        lint(resources())
        return
    announce(options.dev)
    check_system()
    started = time.monotonic()
    packed = resources()
    wheels = None
    if not options.without_wheel:
        wheels = build_wheels(dev=options.dev)
    target = compile_executable(packed, wheels, dev=options.dev)
    size = target.stat().st_size / 1e6
    print(f"{target.relative_to(ROOT)}: {size:.1f} MB, {time.monotonic() - started:.0f} s")


def announce(dev: bool) -> None:
    """Size and time before anything is done."""
    target = target_folder() / ("debug" if dev else "release")
    cold = not target.is_dir()
    cost = "4 GB of disk, 15 minutes on 2 cores the first time" if cold else "a minute or two; the caches are there"
    print(f"building the executable: {cost}; caches in {cache_folder()}", flush=True)


def check_system() -> None:
    """Says what this machine lacks before minutes are spent."""
    if sys.platform != "linux":
        raise SystemExit("building strata: only Linux is supported\nhint: use a Debian 12 container")
    if glibc() < OLDEST_GLIBC:
        raise SystemExit("building strata: this system is older than Debian 12\nhint: build in a Debian 12 container")
    if shutil.which("cargo") is None:
        raise SystemExit("building strata: cargo is missing\nhint: install Rust 1.95 with rustup")
    if "STRATA_PYTHON_DISTRIBUTION" in os.environ:
        return
    if shutil.which("apt-get") is None:
        raise SystemExit(
            "building strata: the Python inside is made from Debian's packages, and there is no apt here\n"
            "hint: build in a Debian 12 container, or set STRATA_PYTHON_DISTRIBUTION (see scripts/distribution)"
        )
    if not debian.install(debian.wanted(PACKAGES)):
        sys.exit(debian.NOT_INSTALLED)


def glibc() -> tuple[int, ...]:
    """This machine's; what is linked here asks for this one at most."""
    name = os.confstr("CS_GNU_LIBC_VERSION") or ""
    return tuple(int(part) for part in name.removeprefix("glibc ").split(".") if part)


def target_folder() -> Path:
    """Apart from the tests' one: pyo3 is configured for the linked interpreter here."""
    return Path(os.environ.get("STRATA_EMBED_TARGET") or cache_folder() / "target-embed")


def settings(packed: Resources) -> dict[str, str]:
    """What embed/build.rs and pyo3 read."""
    variables = {
        **os.environ,
        "CARGO_TARGET_DIR": str(target_folder()),
        "PYO3_CONFIG_FILE": str(packed.pyo3_config),
        "STRATA_RESOURCES": str(packed.packed),
    }
    variables.pop("STRATA_WHEELS", None)
    return variables


def lint(packed: Resources) -> None:
    """Clippy over embed/, which the workspace's run leaves out: it needs what the build packs."""
    command = ["cargo", "clippy", "--package", "strata-embed", "--no-deps", "--locked", "--", "-D", "warnings"]
    with ours(target_folder()):
        subprocess.run(command, cwd=ROOT, env=settings(packed), check=True)


def compile_executable(packed: Resources, wheels: Path | None, *, dev: bool) -> Path:
    variables = settings(packed)
    if wheels is not None:
        variables["STRATA_WHEELS"] = str(wheels)
    if not dev:
        variables["RUSTFLAGS"] = remapped()
    command = ["cargo", "build", "--package", "strata-embed", "--locked"]
    target = ROOT / "dist" / ("strata-dev" if dev else "strata")
    with ours(target_folder()):
        subprocess.run(command if dev else [*command, "--release"], cwd=ROOT, env=variables, check=True)
        place(target_folder() / ("debug" if dev else "release") / "strata", target)
    return target


def place(executable: Path, target: Path) -> None:
    """Moves it into place whole, also under a running one."""
    target.parent.mkdir(exist_ok=True)
    part = target.with_suffix(".part")
    shutil.copy2(executable, part)
    part.replace(target)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        # What it said stands above.
        sys.exit(f"building strata: {error.cmd[0]} failed with exit code {error.returncode}")
    except KeyboardInterrupt:
        sys.exit(130)
