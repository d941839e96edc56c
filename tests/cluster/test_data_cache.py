"""Datasets in a bucket and compressed ones: a node fetches each file once for all its jobs, within a cap, and whole."""

from __future__ import annotations

import fcntl
import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import strata
from harness.mounts import tmpfs
from harness.node import Node
from harness.process import Process, wait_until
from harness.proxy import Proxy
from harness.s3 import S3Server
from harness.script import Start, finish

Nodes = Callable[..., Node]
Proxies = Callable[..., Proxy]

FILES = 6
ROWS = 4000  # of one file
WIDTH = 64  # items of a sample: a file has 1 MB

READ = """
    import json
    def read(name, **options):
        with strata.connect(job=name) as job:
            job.register_dataset("d", shard_size=500, seed=7, **options)
            seen = []
            for batch in job.dataset("d", batch_size=512):
                if options["format"] == "tokens":
                    numbers = batch.samples[:, 0]
                    assert (batch.samples == numbers[:, None]).all()
                else:
                    numbers = np.array([json.loads(line)["n"] for line in batch.samples["line"]])
                assert (numbers == batch.indices).all(), (numbers, batch.indices)
                seen += batch.indices.tolist()
            assert sorted(seen) == list(range(len(seen)))
            print("read", len(seen))
"""
TOKENS = f"format='tokens', dtype='uint32', sample_len={WIDTH}"


def tokens(file: int, rows: int = ROWS) -> bytes:
    """Every item of a sample is its number."""
    numbers = np.arange(file * rows, (file + 1) * rows, dtype=np.uint32)
    return np.repeat(numbers, WIDTH).tobytes()


def lines(file: int) -> bytes:
    numbers = range(file * ROWS, (file + 1) * ROWS)
    return "".join(json.dumps({"n": n, "text": "ü" * (n % 50)}) + "\n" for n in numbers).encode()


@pytest.fixture
def proxies(s3: S3Server) -> Iterator[Proxies]:
    """Ways to the server that count what is fetched."""
    made: list[Proxy] = []

    def make(**options: object) -> Proxy:
        made.append(Proxy(s3.port, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


def through(proxy: Proxy, s3: S3Server) -> dict[str, str]:
    return s3.env | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}


def held(cache: Path) -> list[Path]:
    """Files of the cache, those that are being fetched too; not its ledger."""
    return [path for path in cache.rglob("*") if path.is_file() and path.name != "taken"]


def test_real_s3_two_jobs_of_a_node_fetch_each_object_once(
    s3: S3Server, proxies: Proxies, node: Node, script: Start, tmp_path: Path
) -> None:
    for file in range(FILES):
        s3.put(f"twice/tokens/{file}.bin", tokens(file))
        s3.put(f"twice/lines/{file}.jsonl.gz", gzip.compress(lines(file)))
    proxy = proxies()
    env = node.env | through(proxy, s3) | {"STRATA_DATA_CACHE": str(tmp_path / "cache")}

    def job(name: str) -> Process:
        return script(
            READ
            + f"""
    read("{name}-t", path="{s3.url("twice/tokens")}", {TOKENS})
    read("{name}-l", path="{s3.url("twice/lines/")}", format="jsonl")
            """,
            env,
        )

    for text in finish(job("a"), job("b")) + finish(job("c")):
        assert text.split() == ["read", str(FILES * ROWS)] * 2
    expected = {f"/{s3.bucket}/twice/tokens/{file}.bin": 1 for file in range(FILES)}
    expected |= {f"/{s3.bucket}/twice/lines/{file}.jsonl.gz": 1 for file in range(FILES)}
    assert dict(proxy.bodies) == expected
    assert len(held(tmp_path / "cache")) == 2 * FILES


def taken(cache: Path) -> int:
    """Bytes of its files; one that is renamed meanwhile counts once."""
    sizes: dict[int, int] = {}
    for path in held(cache):
        with suppress(FileNotFoundError):
            sizes[path.stat().st_ino] = path.stat().st_size
    return sum(sizes.values())


def test_real_s3_the_cache_stays_within_its_cap_and_every_sample_comes(
    s3: S3Server, node: Node, script: Start, tmp_path: Path
) -> None:
    for file in range(FILES):
        s3.put(f"capped/{file}.bin", tokens(file))
    cache, cap = tmp_path / "cache", 2_500_000
    env = node.env | s3.env | {"STRATA_DATA_CACHE": str(cache), "STRATA_DATA_CACHE_BYTES": str(cap)}
    most, is_over = [0], threading.Event()

    def watch() -> None:
        while not is_over.wait(0.001):
            for ledger in cache.glob("*/taken"):
                with ledger.open() as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)  # nobody makes room or takes it meanwhile
                    most[0] = max(most[0], taken(cache))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        url = s3.url("capped")
        code = READ + f"\n    read(os.environ['NAME'], path={url!r}, {TOKENS})"
        jobs = [script(code, env | {"NAME": f"capped-{number}"}) for number in range(2)]
        for text in finish(*jobs):
            assert text.split() == ["read", str(FILES * ROWS)]
    finally:
        is_over.set()
        watcher.join()
    assert len(tokens(0)) <= most[0] <= cap


def test_real_s3_sigkill_within_a_fetch_leaves_nothing_half(
    s3: S3Server, proxies: Proxies, node: Node, script: Start, tmp_path: Path
) -> None:
    rows = 200_000  # 51 MB: several pieces
    s3.put("killed/0.bin", tokens(0, rows))
    proxy, cache = proxies(hold_after=5_000_000), tmp_path / "cache"
    env = node.env | through(proxy, s3) | {"STRATA_DATA_CACHE": str(cache)}
    code = READ + f"\n    read(os.environ['NAME'], path={s3.url('killed')!r}, {TOKENS})"
    killed = script(code, env | {"NAME": "killed"})
    killed.wait_until(proxy.held.is_set, "a part of the object to be fetched")
    waits = script(code, env | {"NAME": "waits"})
    [part] = held(cache)
    assert part.suffix == ".part"
    wait_until(lambda: waits.pid in lockers(part), "the second to wait for the first")
    killed.kill()
    proxy.let_go.set()
    for text in finish(waits, script(code, env | {"NAME": "later"})):
        assert text.split() == ["read", str(rows)]
    [whole] = held(cache)
    assert whole.read_bytes() == tokens(0, rows)


def lockers(file: Path) -> set[int]:
    """Processes that have its lock or want it."""
    inode = f":{file.stat().st_ino}"
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "FLOCK" in line]
    # "1: FLOCK ADVISORY WRITE pid major:minor:inode …", of one that waits "1: -> FLOCK …"
    fields = [lock[lock.index("FLOCK") :] for lock in locks]
    return {int(pid) for _, _, _, pid, place, *_ in fields if place.endswith(inode)}


def test_a_full_disk_is_overloaded_and_leaves_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    files = 8
    for file in range(files):
        (tmp_path / f"data/{file}.bin.gz").write_bytes(gzip.compress(tokens(file)))
    with tmpfs(tmp_path / "small", "6m") as small:
        settings = {"STRATA_DATA_CACHE": str(small), "STRATA_DATA_CACHE_BYTES": "1GiB"}
        for name, value in (node.env | settings).items():
            monkeypatch.setenv(name, value)
        with strata.connect(signals=False) as job:

            def register() -> None:
                job.register_dataset(
                    "d", path=tmp_path / "data", format="tokens", dtype="uint32", sample_len=WIDTH, shard_size=500
                )

            with pytest.raises(strata.OverloadedError, match=r"\.bin\.gz") as caught:
                register()
            assert str(small) in str(caught.value) and "STRATA_DATA_CACHE" in str(caught.value.hint)
            assert [path for path in held(small) if path.suffix == ".part"] == []
            # With a cap that the disk has room for, files make room for each other, also those that were open.
            monkeypatch.setenv("STRATA_DATA_CACHE_BYTES", "2MiB")
            register()
            dataset = job.dataset("d", batch_size=512, read_ahead=1)
            seen = [n for batch in dataset for n in batch.samples[:, 0].tolist()]
            assert sorted(seen) == list(range(files * ROWS))


def test_the_environment_goes_before_the_file_and_a_cap_that_is_too_small_is_named(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "a.bin.gz").write_bytes(gzip.compress(tokens(0)))
    config = tmp_path / "config.toml"
    config.write_text(f'[data]\ncache_dir = "{tmp_path / "cache"}"\ncache_bytes = "100KiB"\n')
    for name, value in (node.env | {"STRATA_CONFIG": str(config)}).items():
        monkeypatch.setenv(name, value)
    with strata.connect(signals=False) as job:

        def register() -> None:
            job.register_dataset(
                "d", path=tmp_path / "a.bin.gz", format="tokens", dtype="uint32", sample_len=WIDTH, shard_size=500
            )

        with pytest.raises(strata.InvalidError, match=r"a\.bin\.gz.*100KiB") as caught:
            register()
        assert "STRATA_DATA_CACHE_BYTES" in str(caught.value.hint)
        monkeypatch.setenv("STRATA_DATA_CACHE_BYTES", "10MiB")
        register()
    assert len(held(tmp_path / "cache")) == 1


def test_who_registers_what_is_registered_already_scans_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in node.env.items():
        monkeypatch.setenv(name, value)
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.bin").write_bytes(tokens(0))
    with strata.connect(signals=False) as job:

        def register(**options: object) -> None:
            about = {"path": data, "format": "tokens", "dtype": "uint32", "sample_len": WIDTH, "shard_size": 500}
            job.register_dataset("d", **(about | options))  # type: ignore[arg-type]

        register()
        for other in ({"seed": 1}, {"shard_size": 501}, {"shuffle": False}, {"sample_len": 2 * WIDTH}):
            with pytest.raises(strata.ConflictError, match="registered already"):
                register(**other)
        with pytest.raises(strata.InvalidError, match=f"its files hold {ROWS}"):
            register(total_samples=ROWS + 1)
        (data / "b.bin").write_bytes(tokens(1))
        with pytest.raises(strata.ConflictError, match="registered already"):
            register()
        for file in data.iterdir():
            file.unlink()
        register()
        register(total_samples=ROWS)
