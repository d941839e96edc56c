"""How a corpus is written in each format, as its reader's documentation has it: uncompressed."""

from __future__ import annotations

import base64
import functools
import io
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from records import JSONL_LIMIT, Corpus


def write_bin(corpus: Corpus, folder: Path) -> None:
    """Raw records one behind the other: what Strata reads as tokens of dtype uint8."""
    with (folder / "data.bin").open("wb") as file:
        for block in corpus.blocks("bin"):
            file.write(block.tobytes())


def write_npy(corpus: Corpus, folder: Path) -> None:
    shape = (corpus.count, corpus.size)
    array: Any = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
        folder / "data.npy", mode="w+", dtype=np.uint8, shape=shape
    )
    at = 0
    for block in corpus.blocks("npy"):
        array[at : at + len(block)] = block
        at += len(block)
    array.flush()


def write_mds(corpus: Corpus, folder: Path) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=str(folder), columns={"data": "bytes"}, size_limit=corpus.file) as writer:
        for block in corpus.blocks("mds"):
            for record in block:
                writer.write({"data": record.tobytes()})


def litdata_block(corpus: Corpus, number: int) -> Iterator[bytes]:
    for record in corpus.block(number):
        yield record.tobytes()


def write_litdata(corpus: Corpus, folder: Path) -> None:
    import litdata

    # In a process of its own, which it wants even with one worker; so it writes the chunks in order.
    litdata.optimize(
        fn=functools.partial(litdata_block, corpus),
        inputs=list(range(-(-corpus.count // corpus.per_block))),
        output_dir=str(folder),
        chunk_bytes=corpus.file,
        num_workers=1,
        reorder_files=False,
        keep_data_ordered=True,
        start_method="fork",
        verbose=False,
    )


def write_wds(corpus: Corpus, folder: Path) -> None:
    each = max(1, corpus.file // (corpus.size + 2 * tarfile.BLOCKSIZE))
    records = (record.tobytes() for block in corpus.blocks("wds") for record in block)
    for shard in range(-(-corpus.count // each)):
        with tarfile.open(folder / f"data-{shard:06}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for number in range(shard * each, min(corpus.count, (shard + 1) * each)):
                member = tarfile.TarInfo(f"{number:09}.bin")
                member.size = corpus.size
                archive.addfile(member, io.BytesIO(next(records)))


def write_parquet(corpus: Corpus, folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([("data", pyarrow.binary())])
    options = {"compression": "none", "use_dictionary": False}
    with pyarrow.parquet.ParquetWriter(folder / "data.parquet", schema, **options) as writer:
        for block in corpus.blocks("parquet"):
            records = [record.tobytes() for record in block]
            writer.write_table(pyarrow.table({"data": pyarrow.array(records, pyarrow.binary())}, schema))


def write_jsonl(corpus: Corpus, folder: Path) -> None:
    if corpus.size > JSONL_LIMIT:
        raise SystemExit(f"writing records of {corpus.size} bytes as JSONL: it is for those up to {JSONL_LIMIT}")
    with (folder / "data.jsonl").open("w") as file:
        for block in corpus.blocks("jsonl"):
            for record in block:
                data = base64.b64encode(record.tobytes()).decode()
                file.write(json.dumps({"number": int.from_bytes(record[:8].tobytes(), "little"), "data": data}) + "\n")


WRITERS: dict[str, Callable[[Corpus, Path], None]] = {
    "bin": write_bin,
    "npy": write_npy,
    "mds": write_mds,
    "litdata": write_litdata,
    "wds": write_wds,
    "parquet": write_parquet,
    "jsonl": write_jsonl,
}


def main() -> None:
    """Writes formats of one corpus, in a process that has their packages: FOLDER SIZE COUNT SEED FILE FORMAT..."""
    folder, size, count, seed, file, *forms = sys.argv[1:]
    for form in forms:
        Corpus(Path(folder), int(size), int(count), int(seed), int(file)).make(form)


if __name__ == "__main__":
    main()
