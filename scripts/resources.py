"""Packs the Python side of the executable with PyOxidizer: resources for embed/build.rs, and libpython for pyo3.

PyOxidizer is no longer developed, so its share is this one step; its output is laid where cargo finds it unchanged when
nothing changed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from distribution import distribution
from environment import alone, cache_folder, environment

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
OURS = ("strata", "dtruntime")
PURE = ("--only-binary=:all:", "--platform=any", "--implementation=py", "--abi=none")
# Of pygments' 250 languages (7 MB) a traceback needs one, and messages a few; of its styles rich needs one or two.
PYGMENTS = {
    "lexers": {"__init__", "_mapping", "configs", "data", "python", "shell", "special"},
    "styles": {"__init__", "_mapping", "default", "monokai"},
    "formatters": {"__init__", "_mapping", "terminal", "terminal256"},
}


@dataclass(frozen=True)
class Resources:
    packed: Path  # modules and data, in PyOxidizer's format
    pyo3_config: Path


def resources() -> Resources:
    """What the executable's build needs, made anew only if an input changed.

    Raises:
        CalledProcessError: pip, apt, the compiler or PyOxidizer failed; their output has been shown.
    """
    archive, digest = distribution()
    dependencies = pure_packages()
    key = content_key(digest, dependencies)
    folder = cache_folder() / "embed" / key
    # libpython is under its own key, or each edit of our Python would rebuild pyo3.
    library = cache_folder() / "embed" / f"libpython-{library_key(digest)}"
    with alone(folder):
        if not (folder / "resources").exists() or not (library / "pyo3.txt").exists():
            with tempfile.TemporaryDirectory(prefix="strata-pack-") as scratch:
                packages = stage(dependencies, Path(scratch) / "packages")
                made = pack(archive, digest, packages, Path(scratch) / "build")
                if content_key(digest, dependencies) != key:
                    raise SystemExit("packing: the Python sources changed meanwhile\nhint: run it again")
                keep_library(made, archive_libraries(digest), library)
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(made / "packed-resources", folder / "resources.part")
                (folder / "resources.part").rename(folder / "resources")
    return Resources(folder / "resources", library / "pyo3.txt")


def pure_packages() -> Path:
    """The dependencies, installed into a folder of the cache; pip refuses any that holds compiled code."""
    pins = SCRIPTS / "embedded.txt"
    folder = cache_folder() / "embed" / f"packages-{hashlib.sha256(pins.read_bytes()).hexdigest()[:16]}"
    with alone(folder):
        if not folder.exists():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            pip: list[str | Path] = [environment(SCRIPTS / "pyoxidizer.txt"), "-m", "pip", "install", "--quiet"]
            pip += ["--disable-pip-version-check", "--no-deps", "--no-compile", *PURE]
            subprocess.run([*pip, "--target", part, "-r", pins], check=True)
            part.rename(folder)
    return folder


def sources() -> list[Path]:
    """Every file of our own packages, by path below pylib/python."""
    base = ROOT / "pylib/python"
    files = [file for name in OURS for file in (base / name).rglob("*") if file.is_file()]
    return sorted(file.relative_to(base) for file in files if "__pycache__" not in file.parts and file.suffix != ".so")


def content_key(digest: str, dependencies: Path) -> str:
    content = hashlib.sha256(f"{digest}\n{dependencies.name}\n".encode())
    for file in (ROOT / "pyoxidizer.bzl", Path(__file__), *(ROOT / "pylib/python" / path for path in sources())):
        content.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return content.hexdigest()[:16]


def library_key(digest: str) -> str:
    return hashlib.sha256(digest.encode() + Path(__file__).read_bytes()).hexdigest()[:16]


def stage(dependencies: Path, packages: Path) -> Path:
    shutil.copytree(dependencies, packages, ignore=shutil.ignore_patterns("bin", "__pycache__"))
    for part, kept in PYGMENTS.items():
        for file in (packages / "pygments" / part).glob("*.py"):
            if file.stem not in kept:
                file.unlink()
    for path in sources():
        (packages / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / "pylib/python" / path, packages / path)
    return packages


def pyoxidizer_cache() -> Path:
    return cache_folder() / "pyoxidizer"


def pack(archive: Path, digest: str, packages: Path, build: Path) -> Path:
    """Runs PyOxidizer; the folder with its output. Its long talk is shown only if it fails."""
    python = environment(SCRIPTS / "pyoxidizer.txt")
    names = sorted(path.name for path in packages.iterdir() if path.suffix != ".dist-info")
    variables = {
        "DISTRIBUTION": archive,
        "DISTRIBUTION_SHA256": digest,
        "PACKAGES": packages,
        "PACKAGE_NAMES": ",".join(names),
        "BUILD_PATH": build,
    }
    command: list[str | Path] = [python.parent / "pyoxidizer", "build", "--system-rust", "--path", ROOT]
    for name, value in variables.items():
        command += ["--var", name, str(value)]
    settings = {**os.environ, "PYOXIDIZER_CACHE_DIR": str(pyoxidizer_cache()), "PYTHONHASHSEED": "0"}
    print("packing the standard library and our packages", flush=True)
    done = subprocess.run([*command, "resources"], env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.stderr.buffer.write(done.stdout)
        done.check_returncode()
    return next(build.rglob("packed-resources")).parent


def archive_libraries(digest: str) -> Path:
    """PyOxidizer unpacks the distribution into its cache; the static libraries lie there."""
    found = sorted((pyoxidizer_cache() / "python_distributions").glob(f"*{digest[:12]}/python/build/lib"))
    if not found:
        raise SystemExit(f"looking for the distribution's static libraries: none under {pyoxidizer_cache()}")
    return found[0]


def keep_library(made: Path, libraries: Path, folder: Path) -> None:
    """libpython and what it links, in one folder, and pyo3's configuration naming that folder."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(libraries, part)
    shutil.copyfile(made / "libpython3.a", part / "libpython3.a")
    name_table_member(part / "libpython3.a")
    # The interpreter's code in a section of its own: embed/ asks the disk for all of it at once.
    subprocess.run(["objcopy", "-D", "--rename-section", ".text=python_text", part / "libpython3.a"], check=True)
    lines: list[str] = []
    for line in (made / "pyo3-build-config-file.txt").read_text().splitlines():
        # The folders are PyOxidizer's own; the interpreter is the distribution's; the wheel alone is abi3.
        if "link-search" not in line and not line.startswith(("executable=", "abi3=")):
            lines.append(line)
    lines += [f"extra_build_script_line=cargo:rustc-link-search=native={folder}"]
    lines += [f"extra_build_script_line=cargo:rustc-link-lib={name}" for name in ("m", "dl", "pthread")]
    (part / "pyo3.txt").write_text("\n".join(lines) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def name_table_member(library: Path) -> None:
    """The member with the table of built-in modules has a random name, which would make every build differ."""
    members = subprocess.check_output(["ar", "t", library], text=True).split()
    table = next(name for name in members if name.endswith("-config.o"))
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["ar", "x", library, table], cwd=scratch, check=True)
        (Path(scratch) / table).rename(Path(scratch) / "inittab.o")
        subprocess.run(["ar", "dD", library, table], check=True)
        subprocess.run(["ar", "qDs", library, Path(scratch) / "inittab.o"], check=True)
