"""What jobs read: files of every format, through a real sidecar; whole, in any order, and damaged."""

from __future__ import annotations

import io
import json
import socket
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import strata
from harness.node import Node
from harness.process import wait_until
from strata.data import Batch, Table

SAMPLES = 101


def text(number: int) -> str:
    return "ü" * (number % 7) + str(number)


def write_parquet(folder: Path) -> None:
    for name, numbers in (("a", range(60)), ("b", range(60, SAMPLES))):
        columns = {
            "n": list(numbers),
            "text": [text(n) for n in numbers],
            "picture": [bytes([n] * n) for n in numbers],
            "words": [[str(n)] * (n % 3) for n in numbers],
        }
        pq.write_table(pa.table(columns), folder / f"{name}.parquet", row_group_size=25, write_page_checksum=True)


def write_jsonl(folder: Path) -> None:
    for name, numbers in (("a", range(60)), ("b", range(60, SAMPLES))):
        lines = [json.dumps({"n": n, "text": text(n)}) for n in numbers]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def write_webdataset(folder: Path) -> None:
    for name, numbers in (("a", range(60)), ("b", range(60, SAMPLES))):
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            for n in numbers:
                for ending, part in (("txt", text(n).encode()), ("cls", str(n).encode())):
                    about = tarfile.TarInfo(f"{n:04}.{ending}")
                    about.size = len(part)
                    archive.addfile(about, io.BytesIO(part))


def write_npy(folder: Path) -> None:
    whole = np.arange(SAMPLES * 6, dtype=np.float32).reshape(SAMPLES, 2, 3)
    np.save(folder / "a.npy", whole[:60])
    np.save(folder / "b.npy", whole[60:])


def rows_of(batch: Batch) -> Table:
    assert isinstance(batch.samples, Table)
    return batch.samples


def check_parquet(batch: Batch, numbers: list[int]) -> None:
    table = rows_of(batch)
    assert np.asarray(table["n"]).tolist() == numbers
    assert table["text"] == [text(n) for n in numbers]
    arrow = pa.record_batch(table)  # type: ignore[arg-type]  # its stubs know no PyCapsule interface
    assert arrow["picture"].to_pylist() == [bytes([n] * n) for n in numbers]
    assert arrow["words"].to_pylist() == [[str(n)] * (n % 3) for n in numbers]
    with pytest.raises(strata.InvalidError, match="pyarrow"):
        table["words"]
    with pytest.raises(strata.InvalidError, match="none of that name"):
        table["word"]


def check_jsonl(batch: Batch, numbers: list[int]) -> None:
    assert [json.loads(line) for line in rows_of(batch)["line"]] == [{"n": n, "text": text(n)} for n in numbers]


def check_webdataset(batch: Batch, numbers: list[int]) -> None:
    table = rows_of(batch)
    assert table.columns == ["__key__", "cls", "txt"]
    assert table["__key__"] == [f"{n:04}" for n in numbers]
    assert table["txt"] == [text(n).encode() for n in numbers]
    assert table["cls"] == [str(n).encode() for n in numbers]


def check_npy(batch: Batch, numbers: list[int]) -> None:
    assert isinstance(batch.samples, np.ndarray)
    whole = np.arange(SAMPLES * 6, dtype=np.float32).reshape(SAMPLES, 2, 3)
    assert batch.samples.dtype == np.float32 and (batch.samples == whole[numbers]).all()
    batch.samples[...] = 0  # it is the caller's own


FORMATS: dict[str, tuple[Callable[[Path], None], Callable[[Batch, list[int]], None]]] = {
    "parquet": (write_parquet, check_parquet),
    "jsonl": (write_jsonl, check_jsonl),
    "webdataset": (write_webdataset, check_webdataset),
    "npy": (write_npy, check_npy),
}


def connected(node: Node, monkeypatch: pytest.MonkeyPatch) -> strata.Job:
    for name, value in node.env.items():
        monkeypatch.setenv(name, value)
    return strata.connect(signals=False)


@pytest.mark.parametrize("format", FORMATS)
def test_p8_every_sample_of_every_format_comes_once_an_epoch(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, format: str
) -> None:
    write, check = FORMATS[format]
    write(tmp_path)
    with connected(node, monkeypatch) as job:
        job.register_dataset("d", path=tmp_path, format=format, shard_size=9, seed=3)
        dataset = job.dataset("d", batch_size=8)
        assert dataset.total_samples == SAMPLES
        orders = []
        for _epoch in range(2):
            seen: list[int] = []
            for batch in dataset:
                numbers = batch.indices.tolist()
                check(batch, numbers)
                assert len(batch.samples) == batch.weight == len(numbers)
                seen += numbers
            assert sorted(seen) == list(range(SAMPLES))
            orders.append(seen)
        assert orders[0] != orders[1]


def test_p2_threads_that_read_ahead_of_one_parquet_file_get_the_rows_of_their_own_step(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Many pages of one size, without compression and sums: bytes of another one would pass for right."""
    whole = np.arange(100_000)
    plain: dict[str, Any] = {"compression": "none", "use_dictionary": False}
    small = {"row_group_size": 4000, "data_page_size": 160, "write_batch_size": 20}
    pq.write_table(pa.table({"n": whole, "twice": 2 * whole}), tmp_path / "a.parquet", **plain, **small)
    with connected(node, monkeypatch) as job:
        for turn in range(20):
            # Each with nothing decoded yet.
            job.register_dataset(f"d{turn}", path=tmp_path, format="parquet", shard_size=500, seed=turn)
            for batch in job.dataset(f"d{turn}", batch_size=500, read_ahead=8):
                table = rows_of(batch)
                assert np.array_equal(np.asarray(table["n"]), batch.indices), f"turn {turn}, step {batch.step}"
                assert np.array_equal(np.asarray(table["twice"]), 2 * batch.indices), f"turn {turn}, step {batch.step}"


def test_columns_are_chosen_and_strange_ones_named(node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_parquet(tmp_path)
    with connected(node, monkeypatch) as job:

        def register(name: str, **options: Any) -> None:
            job.register_dataset(name, path=tmp_path, format="parquet", shard_size=9, **options)

        register("narrow", columns=["text", "n"])
        assert rows_of(next(iter(job.dataset("narrow", batch_size=8)))).columns == ["n", "text"]
        with pytest.raises(strata.InvalidError, match=r'no column "txt"') as refused:
            register("wrong", columns=["txt"])
        assert "picture" in str(refused.value.hint)
        with pytest.raises(strata.InvalidError, match=f"100 samples declared, its files hold {SAMPLES}"):
            register("miscounted", total_samples=100)


def test_parquet_that_can_not_be_decoded_is_refused_when_it_is_registered(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"n": list(range(SAMPLES))}), tmp_path / "a.parquet", compression="brotli")
    with connected(node, monkeypatch) as job, pytest.raises(strata.InvalidError, match=r"a\.parquet.*Brotli"):
        job.register_dataset("d", path=tmp_path, format="parquet", shard_size=9)


def test_a_damaged_file_is_named_and_left_out_only_when_asked_to(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_parquet(tmp_path)
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-9])
    with connected(node, monkeypatch) as job:

        def register(name: str, **options: Any) -> None:
            job.register_dataset(name, path=tmp_path, format="parquet", shard_size=9, **options)

        with pytest.raises(strata.CorruptCheckpointError, match=r"b\.parquet"):
            register("d")
        with pytest.warns(strata.StrataWarning, match=r"without .*b\.parquet"):
            register("d", on_damage="quarantine")
        assert job.dataset("d", batch_size=8).total_samples == 60


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_that_breaks_after_it_was_registered_is_left_out_only_when_asked_to_and_every_missing_sample_counted(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, format: str
) -> None:
    write, check = FORMATS[format]
    write(tmp_path)
    with connected(node, monkeypatch) as job:
        job.register_dataset("d", path=tmp_path, format=format, shard_size=9, seed=3)
        [broken] = tmp_path.glob("b.*")
        broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
        with pytest.raises(strata.CorruptCheckpointError, match=r"b\."):
            list(job.dataset("d", batch_size=8))
        with pytest.raises(strata.InvalidError, match='on_damage="ignore" is unknown'):
            job.dataset("d", batch_size=8, on_damage="ignore")  # type: ignore[arg-type]
        dataset = job.dataset("d", batch_size=8, on_damage="quarantine")
        begin_again(job)
        assert dataset.quarantined == {}
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            batches = list(dataset)
        [warning] = [each for each in warned if issubclass(each.category, strata.StrataWarning)]
        assert warning.filename == __file__
        assert "'d' goes on without" in str(warning.message) and str(broken) in str(warning.message)
        seen = [number for batch in batches for number in batch.indices.tolist()]
        for batch in batches:
            check(batch, batch.indices.tolist())
            assert batch.weight == len(batch)
        left_out = sum(batch.left_out for batch in batches)
        assert len(batches) == 13 and left_out > 0 and len(seen) + left_out == SAMPLES
        assert len(set(seen)) == len(seen) and set(range(60)) <= set(seen)
        [(file, reason)] = dataset.quarantined.items()
        assert file == str(broken) and file in reason
        job.save(1, {}).wait_committed()
        wait_until(lambda: f"damaged {file} in d" in node.cli("datasets").stdout, "the damage is shown")
        [shown] = json.loads(node.cli("datasets", "--json").stdout)["datasets"]
        assert shown["damaged"] == [{"path": file, "reason": reason, "hosts": [socket.gethostname()]}]
        assert "strata_damaged_files_total 1" in node.metrics()


def test_p8_a_warning_that_is_an_error_loses_no_batch(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_jsonl(tmp_path)
    with connected(node, monkeypatch) as job:
        job.register_dataset("d", path=tmp_path, format="jsonl", shard_size=9, seed=3)
        (tmp_path / "b.jsonl").write_text("")
        dataset = job.dataset("d", batch_size=8, on_damage="quarantine")
        batches: list[Batch] = []
        with warnings.catch_warnings():
            warnings.simplefilter("error", strata.StrataWarning)
            with pytest.raises(strata.StrataWarning, match=r"b\.jsonl"):
                batches += dataset
            batches += dataset
        assert sum(len(batch) + batch.left_out for batch in batches) == SAMPLES
        assert sorted(number for batch in batches for number in batch.indices.tolist()) == list(range(60))


def begin_again(job: strata.Job) -> None:
    """The job goes back to the first sample, as by a restore."""
    [(dataset, _, _, size, _, version)] = job._positions.all()
    job._positions.restored([(dataset, 0, 0, size, 0, version)])


def test_datasets_are_listed_with_how_far_they_are_read_and_what_was_left_out(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "does not know it" in node.cli("datasets", check=False).stderr
    write_parquet(tmp_path)
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    write = {"path": tmp_path, "format": "parquet", "shard_size": 9}
    with connected(node, monkeypatch) as job:
        job.barrier("here")
        assert "has registered no dataset" in node.cli("datasets").stdout
        with pytest.warns(strata.StrataWarning, match=r"without .*b\.parquet"):
            job.register_dataset("d", on_damage="quarantine", **write)
        for step, _ in enumerate(job.dataset("d", batch_size=6), start=1):
            if step == 5:
                job.save(step, {}).wait_committed()
        for where in ([], ["--socket", node.env["STRATA_SOCKET"]]):
            [found] = json.loads(node.cli("datasets", "--json", *where).stdout)["datasets"]
            assert (found["samples"], found["shards"], found["files"]) == (60, 7, 1)
            assert found["committed"]["step"] == 5
            [left_out] = found["quarantined"]
            assert left_out["path"].endswith("b.parquet")
        shown = node.cli("datasets").stdout
        assert "epoch 0, 50.0%" in shown and f"b.parquet in d: {left_out['reason']}" in shown


def test_p2_a_flipped_byte_is_corrupt_or_changes_nothing_where_pages_have_sums(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_parquet(tmp_path)
    file = tmp_path / "a.parquet"
    whole = file.read_bytes()
    refused: dict[int, str] = {}
    with connected(node, monkeypatch) as job:
        for at in range(4, len(whole), 97):
            file.write_bytes(whole)
            job.register_dataset(f"d{at}", path=tmp_path, format="parquet", shard_size=9, shuffle=False)
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
            try:
                check_parquet(next(iter(job.dataset(f"d{at}", batch_size=60))), list(range(60)))
            except strata.CorruptCheckpointError as error:
                refused[at] = str(error)
    assert refused and all("a.parquet" in message for message in refused.values()), refused
