"""torchft's lighthouse, as a process; started by the benches `coordinator` and `ranks`.

    lighthouse.py serve REPLICAS [BEATS_LAST_MS]    prints its port, ends with its standard input; it waits for so many
                                                    replicas, and takes none for lost that was heard of since (5000)
    lighthouse.py version

The server is in the extension, which is loaded by itself: the package around it would import torch and OpenTelemetry.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any

PACKAGE, DISTRIBUTION = "torchft", "torchft-nightly"
BEATS_LAST = 5000  # milliseconds: its own default


def extension() -> Any:
    package = importlib.util.find_spec(PACKAGE)
    assert package is not None and package.submodule_search_locations
    file = next(Path(package.submodule_search_locations[0]).glob("_torchft.*.so"))
    spec = importlib.util.spec_from_file_location(f"{PACKAGE}._torchft", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def version() -> str:
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        hint = f"hint: make bench-coordinator, or {sys.executable} -m pip install --no-deps {DISTRIBUTION}"
        raise SystemExit(f"{sys.executable} has no {DISTRIBUTION}; {hint}") from None


def main() -> None:
    if sys.argv[1] == "version":
        print(DISTRIBUTION, version())
        return
    replicas, beats_last = int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else BEATS_LAST
    server = extension().LighthouseServer(bind="127.0.0.1:0", min_replicas=replicas, heartbeat_timeout_ms=beats_last)
    print(server.address().rpartition(":")[2], flush=True)
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
