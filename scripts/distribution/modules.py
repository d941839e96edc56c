"""Compiles, as built-in modules, the standard library's C modules that Debian ships only as loadable files."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from distribution.sources import Sources

# The packages whose static libraries are linked, and which headers the modules need.
DEVELOPMENT_PACKAGES = (
    "libbz2-dev",
    "libexpat1-dev",
    "libffi-dev",
    "liblzma-dev",
    "libsqlite3-dev",
    "libssl-dev",
    "uuid-dev",
    "zlib1g-dev",
)

# Terminal screens, line editing and databases pull in libraries that a server has no use for (readline is GPL); nis,
# crypt and sound are gone from newer Pythons.
LEFT_OUT = {
    "_crypt",
    "_curses",
    "_curses_panel",
    "_dbm",
    "_gdbm",
    "_scproxy",
    "_tkinter",
    "nis",
    "ossaudiodev",
    "readline",
}

FLAGS = {
    "_ctypes": ["-DHAVE_FFI_PREP_CIF_VAR=1", "-DHAVE_FFI_PREP_CLOSURE_LOC=1", "-DHAVE_FFI_CLOSURE_ALLOC=1"],
    "_decimal": ["-IModules/_decimal/libmpdec", "-DCONFIG_64=1", "-DANSI=1", "-DHAVE_UINT128_T=1"],
    "_multiprocessing": ["-IModules/_multiprocessing"],
    "_posixshmem": ["-IModules/_multiprocessing"],
    "_sqlite3": ["-IModules/_sqlite"],
    "_uuid": ["-I/usr/include/uuid"],
}

LIBRARIES = {
    "_bz2": ["bz2"],
    "_ctypes": ["ffi"],
    "_elementtree": ["expat"],
    "_hashlib": ["crypto"],
    "_lzma": ["lzma"],
    "_sqlite3": ["sqlite3"],
    "_ssl": ["ssl", "crypto"],
    "_uuid": ["uuid"],
    "binascii": ["z"],
    "pyexpat": ["expat"],
    "zlib": ["z"],
}

COMPILER = ["-fPIC", "-O2", "-g0", "-fwrapv", "-fstack-protector-strong", "-DNDEBUG", "-DPy_BUILD_CORE_BUILTIN", "-w"]


@dataclass(frozen=True)
class Compiled:
    """What came out: the objects of each module, by the module's name."""

    objects: dict[str, list[Path]]
    includes: list[str]


def compile_missing(found: Sources, folder: Path) -> Compiled:
    """Compiles with all processors; a module is named by PyInit_NAME."""
    blank_bluetooth(found)
    wanted = missing(found)
    headers = found.root / "usr/include"
    python = headers / f"python{found.version}"
    includes = [f"-I{python}", f"-I{python / 'internal'}", f"-I{headers}"]
    jobs: list[tuple[Path, list[str], Path]] = []
    objects: dict[str, list[Path]] = {}
    for name, files in wanted.items():
        for file in files:
            target = folder / name / f"{file.stem}.o"
            target.parent.mkdir(parents=True, exist_ok=True)
            jobs.append((file, FLAGS.get(name, []), target))
            objects.setdefault(name, []).append(target)
    print(f"compiling {len(wanted)} modules of CPython {found.release} ({len(jobs)} files)")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = [pool.submit(compile_one, found.tree, job, includes) for job in jobs]
        for job in done:
            job.result()
    return Compiled(objects, includes)


def compile_one(tree: Path, job: tuple[Path, list[str], Path], includes: Iterable[str]) -> None:
    file, flags, target = job
    subprocess.run(["cc", *COMPILER, *flags, *includes, "-c", file, "-o", target], cwd=tree, check=True)


def missing(found: Sources) -> dict[str, list[Path]]:
    """Source files by module, of all that Setup.stdlib names and the static library lacks."""
    settings = config_folder(found)
    inside = set(re.findall(r'^\s*\{"(\w+)",', (settings / "config.c").read_text(), re.M))
    setup = (settings / "Setup.stdlib").read_text().partition("# Test modules")[0]
    wanted: dict[str, list[Path]] = {}
    # Debian's own build makes some of these by other means, and leaves their lines commented out.
    for name, files in re.findall(r"^(?:#@\w+_TRUE@)?(\w+)((?: \S+\.c)+)", setup, re.M):
        if name not in inside and name not in LEFT_OUT:
            wanted[name] = [Path("Modules") / file for file in files.split()]
    arithmetic = re.findall(r"^LIBMPDEC_OBJS=(.*?[^\\])\n", (settings / "Makefile").read_text(), re.M | re.S)
    names = re.findall(r"libmpdec/(\w+)\.o", arithmetic[0])
    wanted["_decimal"] += [Path(f"Modules/_decimal/libmpdec/{name}.c") for name in names]
    return wanted


def config_folder(found: Sources) -> Path:
    return next((found.root / f"usr/lib/python{found.version}").glob("config-*"))


def blank_bluetooth(found: Sources) -> None:
    """Debian's pyconfig.h claims Bluetooth headers that only a Bluetooth development package brings."""
    for file in (found.root / "usr/include").glob("*/python*/pyconfig.h"):
        file.write_text(re.sub(r"^#define (HAVE_BLUETOOTH\w*) 1$", r"/* #undef \1 */", file.read_text(), flags=re.M))
