"""Lays the parts out as a distribution of format 7 (PYTHON.json describes it) and packs it.

The format is python-build-standalone's, documented there under "distribution archives"; PyOxidizer 0.24 reads 7.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from distribution.modules import LIBRARIES, Compiled, config_folder
from distribution.sources import Sources

# The interpreter can't start without these; PyOxidizer keeps them whatever its policy.
REQUIRED = {"_codecs", "_io", "_signal", "_thread", "_tracemalloc", "_weakref", "faulthandler", "posix"}

STDLIB_LEFT_OUT = (
    "config-*",
    "lib-dynload",
    "test",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "__pycache__",
    "sitecustomize.py",
)

MAIN = """
#include <Python.h>
int main(int argc, char **argv) { return Py_BytesMain(argc, argv); }
"""


def write(found: Sources, compiled: Compiled, layout: Path, target: Path) -> None:
    """Writes `target`, a .tar.zst; nothing is left under that name when it fails.

    Raises:
        CalledProcessError: the compiler, the linker or zstd failed.
    """
    python = layout / "python"
    core = unpack_library(found, python)
    table = builtin_table(found)
    extensions = lay_extensions(compiled, table, python)
    libraries = lay_libraries(python)
    lay_install(found, python)
    inittab(found, compiled, table, python)
    link_interpreter(found, compiled, python, core)
    description = describe(found, compiled, core, extensions, libraries)
    (python / "PYTHON.json").write_text(json.dumps(description, indent=1, sort_keys=True))
    part = target.with_suffix(".part")
    tar: list[str | Path] = [
        "tar",
        "--create",
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
    ]
    tar += ["--use-compress-program=zstd -3", "--file", part, "--directory", layout, "python"]
    subprocess.run(tar, check=True)
    part.rename(target)


def unpack_library(found: Sources, python: Path) -> list[str]:
    """The members of Debian's position-independent libpython as single objects; config.o comes from our own table."""
    folder = python / "build/core"
    folder.mkdir(parents=True)
    library = config_folder(found) / f"libpython{found.version}-pic.a"
    subprocess.run(["ar", "x", library], cwd=folder, check=True)
    (folder / "config.o").unlink()
    return sorted(f"build/core/{file.name}" for file in folder.iterdir())


def builtin_table(found: Sources) -> dict[str, str]:
    """Module → the function that makes it, of what the static library holds already."""
    text = (config_folder(found) / "config.c").read_text()
    return dict(re.findall(r'^\s*\{"(\w+)", (\w+)\},', text, re.M))


def lay_extensions(compiled: Compiled, table: dict[str, str], python: Path) -> dict[str, list[dict[str, Any]]]:
    described = {name: [extension(name, function, [], in_core=True)] for name, function in table.items()}
    for name, objects in compiled.objects.items():
        placed = []
        for file in objects:
            place = python / "build/modules" / name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
            placed.append(str(place.relative_to(python)))
        described[name] = [extension(name, f"PyInit_{name}", placed, in_core=False)]
    return described


def extension(name: str, function: str, objects: list[str], *, in_core: bool) -> dict[str, Any]:
    return {
        "in_core": in_core,
        "init_fn": function,
        "licenses": None,
        "license_paths": None,
        "license_public_domain": None,
        "links": [link(library) for library in LIBRARIES.get(name, [])],
        "objs": objects,
        "required": name in REQUIRED,
        "static_lib": None,
        "shared_lib": None,
        "variant": "default",
    }


def link(library: str) -> dict[str, Any]:
    return {"name": library, "path_static": f"build/lib/lib{library}.a"}


def lay_libraries(python: Path) -> list[str]:
    """The static libraries of the -dev packages, beside the objects."""
    folder = python / "build/lib"
    folder.mkdir(parents=True)
    names = sorted({name for names in LIBRARIES.values() for name in names})
    for name in names:
        shown = subprocess.check_output(["cc", f"-print-file-name=lib{name}.a"], text=True).strip()
        shutil.copyfile(shown, folder / f"lib{name}.a")
    return names


def lay_install(found: Sources, python: Path) -> None:
    """The standard library, and headers, where an installed Python has them."""
    library = f"lib/python{found.version}"
    shutil.copytree(
        found.root / "usr" / library,
        python / "install" / library,
        ignore=shutil.ignore_patterns(*STDLIB_LEFT_OUT),
        ignore_dangling_symlinks=True,
    )
    (python / "install" / library / "lib-dynload").mkdir()  # getpath's landmark
    headers = python / "install/include" / f"python{found.version}"
    shutil.copytree(found.root / "usr/include" / f"python{found.version}", headers)
    for file in (found.root / "usr/include").glob("*/python*/pyconfig.h"):
        shutil.copyfile(file, headers / "pyconfig.h")
    (python / "licenses").mkdir()
    shutil.copyfile(found.tree / "LICENSE", python / "licenses/LICENSE.cpython.txt")


def inittab(found: Sources, compiled: Compiled, table: dict[str, str], python: Path) -> None:
    """The table of built-in modules, for the distribution's own interpreter."""
    functions = {**table, **{name: f"PyInit_{name}" for name in compiled.objects}}
    declared = sorted({function for function in functions.values() if function != "NULL"})
    lines = ['#include "Python.h"', *(f"extern PyObject* {function}(void);" for function in declared)]
    lines += ["struct _inittab _PyImport_Inittab[] = {"]
    lines += [f'    {{"{name}", {function}}},' for name, function in functions.items()]
    lines += ["    {0, 0}", "};"]
    folder = python / "build/inittab"
    folder.mkdir(parents=True)
    (folder / "config.c").write_text("\n".join(lines) + "\n")
    command = ["cc", "-fPIC", "-O2", *compiled.includes, "-c", "config.c", "-o", "config.o"]
    subprocess.run(command, cwd=folder, check=True)


def link_interpreter(found: Sources, compiled: Compiled, python: Path, core: list[str]) -> None:
    """install/bin/python3, static but for libc: PyOxidizer makes the bytecode with it."""
    program = python / "install/bin/python3"
    program.parent.mkdir(parents=True)
    main = python.parent / "main.c"
    main.write_text(MAIN)
    objects = [*core, "build/inittab/config.o", *(str(f) for files in compiled.objects.values() for f in files)]
    names = ["ssl", *(name for names in LIBRARIES.values() for name in names if name != "ssl")]
    libraries = ["-Lbuild/lib", *(f"-l{name}" for name in dict.fromkeys(names))]
    command: list[str | Path] = [
        "cc",
        "-rdynamic",
        *compiled.includes,
        main,
        *objects,
        *libraries,
        "-lm",
        "-ldl",
        "-lpthread",
    ]
    subprocess.run([*command, "-s", "-o", program], cwd=python, check=True)
    asked: list[str | Path] = [
        program,
        "-I",
        "-B",  # bytecode files would hold the time
        "-c",
        "import ssl, sqlite3, ctypes, decimal, asyncio, lzma, bz2, uuid; print('ok')",
    ]
    subprocess.run(asked, check=True, stdout=subprocess.DEVNULL)


def describe(
    found: Sources, compiled: Compiled, core: list[str], extensions: dict[str, Any], libraries: list[str]
) -> dict[str, Any]:
    version = found.release.partition("-")[0]
    major, minor, micro = version.split(".")
    stdlib = f"install/lib/python{found.version}"
    paths = {
        "data": "install",
        "include": f"install/include/python{found.version}",
        "platinclude": f"install/include/python{found.version}",
        "platlib": f"{stdlib}/site-packages",
        "platstdlib": stdlib,
        "purelib": f"{stdlib}/site-packages",
        "scripts": "install/bin",
        "stdlib": stdlib,
    }
    machine = subprocess.check_output(["uname", "-m"], text=True).strip()
    tag = f"cp{major}{minor}"
    return {
        "version": "7",
        "target_triple": f"{machine}-unknown-linux-gnu",
        "optimizations": "pgo",
        "python_tag": tag,
        "python_abi_tag": tag,
        "python_config_vars": {},
        "python_platform_tag": f"linux-{machine}",
        "python_implementation_cache_tag": f"cpython-{major}{minor}",
        "python_implementation_hex_version": int(f"{int(major):02x}{int(minor):02x}{int(micro):02x}f0", 16),
        "python_implementation_name": "cpython",
        "python_implementation_version": [major, minor, micro, "final", "0"],
        "python_version": version,
        "python_major_minor_version": found.version,
        "python_paths": paths,
        "python_paths_abstract": {},
        "python_exe": "install/bin/python3",
        "python_stdlib_test_packages": [],
        "python_suffixes": {
            "bytecode": [".pyc"],
            "debug_bytecode": [".pyc"],
            "extension": [f".cpython-{major}{minor}-{machine}-linux-gnu.so", ".abi3.so", ".so"],
            "optimized_bytecode": [".pyc"],
            "source": [".py"],
        },
        "python_bytecode_magic_number": magic_number(found),
        "python_symbol_visibility": "global-default",
        "python_extension_module_loading": ["builtin", "shared-library"],
        "libpython_link_mode": "static",
        "crt_features": ["glibc-dynamic"],
        "run_tests": "build/run_tests.py",
        "build_info": {
            "core": {"objs": core, "links": [], "shared_lib": None, "static_lib": None},
            "extensions": extensions,
            "inittab_object": "build/inittab/config.o",
            "inittab_source": "build/inittab/config.c",
            "inittab_cflags": ["-fPIC", "-O2"],
            "object_file_format": "elf",
        },
        "licenses": ["Python-2.0"],
        "license_path": "licenses/LICENSE.cpython.txt",
        "tcl_library_paths": None,
        "apple_sdk_canonical_name": None,
        "apple_sdk_platform": None,
        "apple_sdk_version": None,
        "apple_sdk_deployment_target": None,
    }


def magic_number(found: Sources) -> str:
    """As importlib writes it at the head of a .pyc, in hex."""
    text = (found.tree / "Lib/importlib/_bootstrap_external.py").read_text()
    number = re.findall(r"^MAGIC_NUMBER = \((\d+)\)", text, re.M)
    return (int(number[0]).to_bytes(2, "little") + b"\r\n").hex()
