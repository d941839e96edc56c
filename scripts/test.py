"""`make test`: everything that is tested, in one go, and what it needs before that.

A part that can't be had here (no Go toolchain, torch not downloadable) is named and left out on a person's machine;
where CI is set it is a failure. PYTEST holds words for pytest: `make test PYTEST='-k crash --rounds 500'`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import cargo_target
import debian
import gotool
import needs
import npmtool
import slurm
from environment import environment

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
STRICT = "CI" in os.environ

left_out: list[str] = []


def main() -> int:
    packages = debian.wanted(SCRIPTS / "distribution" / "debian.txt") + debian.wanted(SCRIPTS / "nodes.txt")
    needs.announce(packages)
    if absent := needs.absent_toolchains():
        print(f"these are missing: {', '.join(absent)}; hint: install Rust from rustup.rs, a C compiler with apt")
        return 2
    if not debian.install(packages):
        return 2
    # Downloads wait for the network while cargo compiles.
    with ThreadPoolExecutor() as pool:
        python = pool.submit(environment, SCRIPTS / "torch.txt")
        s3 = pool.submit(gotool.tool, "versitygw")
        azure = pool.submit(npmtool.tool, "azurite")
        cluster = pool.submit(slurm.tool)
        cargo_target.claim(needs.target_folder())
        step("Rust tests", ["cargo", "test", *(["--locked"] if STRICT else [])])
        exe = executable()
    step("format, lints, types", ["make", "--no-print-directory", "lint"])
    real_server(s3, "S3", "STRATA_VERSITYGW", "real_s3")
    real_server(azure, "Azure", "STRATA_AZURITE", "real_azure")
    with tempfile.TemporaryDirectory(prefix="strata-site-") as site:
        pytest(exe, python, s3, cluster, Path(site))
    for line in left_out:
        print(f"LEFT OUT: {line}")
    return 0


def real_server(server: Future[Path], name: str, variable: str, tests: str) -> None:
    """Those Rust tests that start a server, which may still be on its way while the others run."""
    if path := have(server, f"Rust tests against a real {name} server"):
        env = dict(os.environ, **{variable: str(path)})
        step(f"Rust tests, {name}", ["cargo", "test", "-p", "strata-core", "--lib", tests], env)


def executable() -> Path:
    """The one that STRATA_EXE names, or dist/strata, built."""
    if given := os.environ.get("STRATA_EXE"):
        return Path(given).resolve()
    step("the executable", [sys.executable, SCRIPTS / "build.py"])
    return ROOT / "dist" / "strata"


def pytest(exe: Path, python: Future[Path], s3: Future[Path], cluster: Future[Path], site: Path) -> None:
    """All tests in Python, against this executable and the wheel that it carries."""
    env = dict(os.environ, STRATA_EXE=str(exe), PYTHONPATH=str(site))
    arguments = shlex.split(os.environ.get("PYTEST", ""))
    if path := have(s3, "tests against a real S3 server (tests/cluster)"):
        env["STRATA_VERSITYGW"] = str(path)
    if path := have(cluster, "tests under a real Slurm (tests/cluster/test_guide.py)"):
        env["STRATA_SLURM"] = str(path)
    interpreter = have(python, "tests with torch (tests/torch, and torch states in tests/cluster)")
    if interpreter is None:
        interpreter = environment(SCRIPTS / "test.txt")
        arguments += ["--ignore", "tests/torch"]
    wheels = site / "wheels"
    subprocess.run([exe, "wheel", wheels], check=True, stdout=subprocess.DEVNULL)
    pip: list[str | Path] = [interpreter, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", wheels]
    subprocess.run([*pip, "--target", site, "strata-runtime"], check=True)
    step("Python tests", [interpreter, "-m", "pytest", "tests", *arguments], env)


def have(part: Future[Path], what: str) -> Path | None:
    """The part, or None with a note for the end; in CI a part that can't be had ends the run."""
    try:
        return part.result()
    except (OSError, subprocess.CalledProcessError) as error:
        if STRICT:
            raise SystemExit(f"{what}: {error}") from error
        left_out.append(f"{what}: {error}")
        return None


def step(name: str, command: list[str | Path], env: dict[str, str] | None = None) -> None:
    """Runs from the root of the checkout; a failure ends everything with its exit code."""
    print(f"== {name}: {shlex.join(map(str, command))}", flush=True)
    started = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, env=env, check=False).returncode
    print(f"== {name}: {'passed' if code == 0 else f'failed with {code}'}", end=" ")
    print(f"after {time.monotonic() - started:.0f} s", flush=True)
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
