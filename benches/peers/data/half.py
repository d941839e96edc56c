"""Half an epoch of one loader in this fresh process, to its end or from its beginning; started by resume.py.

    python half.py LOADER first|second CORPUS_HOME SIZE COUNT SEED FILE BATCH WORKERS FOLDER

FOLDER keeps the state between the halves, and which samples the first one had. The clock runs from when the loader's
package has been imported until the first batch is there.
"""

from __future__ import annotations

import importlib
import json
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from epochs import each_once
from loaders import PACKAGES, Life, loader
from records import Array, Corpus, verified


def main() -> None:
    name, half, home, size, count, seed, file, batch, workers, place = sys.argv[1:]
    corpus = Corpus(Path(home), int(size), int(count), int(seed), int(file))
    folder = Path(place)
    for package in PACKAGES[name]:
        importlib.import_module(package)
    state: Any = None
    seen: list[Array] = []
    if half == "second":
        state, seen = pickle.loads((folder / "state").read_bytes())
    life = Life(corpus, int(batch), int(batch), int(workers), corpus.seed, folder / f"meeting-{half}", 1)
    opened = loader(name)(life)
    began = time.perf_counter()
    batches = opened.start(0, 1, state)
    first = next(batches)
    took = time.perf_counter() - began
    seen.append(verified(first))
    if half == "first":
        while sum(len(one) for one in seen) < corpus.count // 2:
            seen.append(verified(next(batches)))
        saving = time.perf_counter()
        state = opened.state_dict()
        saved = time.perf_counter() - saving
        sized = getattr(opened, "state_bytes", None)
        # What comes next if nothing happens, so that the second half can be told whether it is the same.
        following = verified(next(batches))
        (folder / "state").write_bytes(pickle.dumps((state, seen)))
        (folder / "following").write_bytes(following.tobytes())
        print(json.dumps({"took": took, "saved": saved, "state": sized() if sized else len(pickle.dumps(state))}))
    else:
        same = bool((seen[-1] == np.frombuffer((folder / "following").read_bytes(), np.int64)).all())
        seen += [verified(batch) for batch in batches]
        each_once(corpus, seen)
        print(json.dumps({"took": took, "same": same}))


if __name__ == "__main__":
    main()
