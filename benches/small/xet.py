"""What content-defined chunking stores of the same states: hf-xet uploads a base, then the step after it, to a folder.

    python benches/small/xet.py FOLDER      where states.py wrote; needs hf-xet. Nothing leaves the machine

Prints one JSON object: for each state `full` and `next`, the bytes sent for base and next step over the bytes of the
state. Called by `cargo bench --bench small` where STRATA_SMALL_PYTHON has hf-xet.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import hf_xet


def sent(session: hf_xet.XetSession, store: Path, data: bytes) -> int:
    commit = session.new_upload_commit(endpoint=f"local://{store}")
    commit.start_upload_bytes(data)
    return int(commit.wait_to_finish().dedup_metrics.xorb_bytes_uploaded)


def state(folder: Path, prefix: str) -> bytes:
    """The tensors of a state whose names begin with `prefix`, behind each other."""
    data, at, kept = (folder / "data").read_bytes(), 0, []
    for tensor in json.loads((folder / "tensors.json").read_text()):
        elements = 1
        for size in tensor["shape"]:
            elements *= size
        end = at + elements * {"bfloat16": 2, "float32": 4}[tensor["dtype"]]
        if tensor["name"].startswith(prefix):
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def main() -> int:
    folder = Path(sys.argv[1])
    pairs = [(kind, "mixed", base, base + 10) for kind in ("mixed", "weights") for base in (100, 200, 300)]
    pairs.append(("lora", "lora", 50, 60))
    found = {}
    for kind, run, base, after in pairs:
        prefix = "model." if kind == "weights" else ""
        with tempfile.TemporaryDirectory() as home:
            os.environ["HF_XET_CACHE"] = os.environ["HF_HOME"] = home
            session, store = hf_xet.XetSession(), Path(home) / "store"
            store.mkdir()
            parts = {}
            for name, step in (("full", base), ("next", after)):
                data = state(folder / run / str(step), prefix)
                parts[name] = sent(session, store, data) / len(data)
            found[f"{kind} {base} {after}"] = parts
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
