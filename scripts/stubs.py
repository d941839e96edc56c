"""Makes the Python stubs of the gRPC services (pylib/python/strata/proto) from proto/, or checks them.

    python3 scripts/stubs.py [--check]

They are committed, so that the wheel needs no protoc. grpcio-tools of one pinned version makes them, in the cache.
"""

from __future__ import annotations

import filecmp
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from environment import environment

SCRIPTS = Path(__file__).resolve().parent
ROOT = SCRIPTS.parent
PLACE = ROOT / "pylib/python/strata/proto"

PACKAGE = '''"""The gRPC services as Python stubs, for tests and operators' scripts; needs the wheel's extra `grpc`.

    from strata.proto.strata.v1 import coordinator_pb2, coordinator_pb2_grpc

Made by scripts/stubs.py from proto/; what the messages mean is written there. Independent of `strata._core`.
"""
'''


def main() -> int:
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "proto"
        generate(made)
        if "--check" in sys.argv[1:]:
            stale = differences(made)
            for name in stale:
                print(f"{PLACE.relative_to(ROOT) / name}: not what proto/ gives; run `make stubs`")
            return 1 if stale else 0
        shutil.rmtree(PLACE, ignore_errors=True)
        shutil.copytree(made, PLACE)
    return 0


def generate(folder: Path) -> None:
    """Writes the whole package: messages with their types, services, and the packages around them."""
    folder.mkdir()
    sources = sorted((ROOT / "proto/strata/v1").glob("*.proto"))
    command: list[str | Path] = [
        environment(SCRIPTS / "stubs.txt"),
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={ROOT / 'proto'}",
    ]
    command += [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([*command, *sources], check=True)
    for file in folder.rglob("*.py*"):
        # protoc knows no packages around its own: the imports between the files are made ours.
        text = re.sub(r"^from strata\.", "from strata.proto.strata.", file.read_text(), flags=re.M)
        if file.name.endswith("_pb2_grpc.py") and "class " not in text:
            file.unlink()  # of a file without services
            continue
        file.write_text(text)
    (folder / "__init__.py").write_text(PACKAGE)
    for inner in ("strata", "strata/v1"):
        (folder / inner / "__init__.py").touch()


def differences(made: Path) -> list[Path]:
    """Files that are missing here, left over here, or different."""
    names = {file.relative_to(base) for base in (made, PLACE) for file in base.rglob("*.py*") if file.suffix != ".pyc"}
    return sorted(name for name in names if not same(made / name, PLACE / name))


def same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and filecmp.cmp(one, other, shallow=False)


if __name__ == "__main__":
    sys.exit(main())
