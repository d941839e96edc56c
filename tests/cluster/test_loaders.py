"""torch's loaders over `job.dataset`: workers, their read-ahead, and the position that goes with a save."""

from __future__ import annotations

import json
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strata
from harness.node import Node
from harness.process import PATIENCE
from harness.s3 import free_port
from harness.script import Start, finish

torch = pytest.importorskip("torch")
from strata.torch import Batch, IterableDataset, MapDataset  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

SAMPLES = 101
Face = IterableDataset | MapDataset


def write(path: Path) -> Path:
    """Two numbers a sample: its own, and that plus 1000."""
    np.array([[n, n + 1000] for n in range(SAMPLES)], dtype=np.uint16).tofile(path)
    return path


@pytest.fixture
def job(node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[strata.Job]:
    """With a dataset "d" registered."""
    for name, value in node.env.items():
        monkeypatch.setenv(name, value)
    with strata.connect(signals=False) as job:
        path = write(tmp_path / "tokens.bin")
        job.register_dataset("d", path=path, format="tokens", dtype="uint16", sample_len=2, shard_size=7, seed=3)
        yield job


@pytest.fixture(autouse=True)
def no_advice() -> Iterator[None]:
    """torch's, on how many workers this machine should have."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        yield


def iterable(data: strata.data.Dataset, workers: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(IterableDataset(data), batch_size=None, num_workers=workers, **options)


def mapped(data: strata.data.Dataset, workers: int, **options: Any) -> DataLoader[Any]:
    face = MapDataset(data)
    return DataLoader(face, batch_sampler=face.batches, num_workers=workers, **options)


LOADERS = {"iterable": iterable, "mapped": mapped}
Make = Callable[..., "DataLoader[Any]"]


@pytest.fixture(params=LOADERS)
def make(request: pytest.FixtureRequest) -> Make:
    return LOADERS[request.param]


def numbers(batch: Batch) -> list[int]:
    """The batch's samples, checked against their numbers."""
    assert isinstance(batch, Batch)
    assert (batch.samples[:, 0].long() == batch.indices).all()
    assert (batch.samples[:, 1].long() == batch.indices + 1000).all()
    assert len(batch) == batch.weight == len(batch.indices)
    return [int(number) for number in batch.indices]


def begin_again(job: strata.Job) -> None:
    """The job goes back to the first sample, as by a restore."""
    [(dataset, *_, version)] = job._positions.all()
    job._positions.restored([(dataset, 0, 0, 8, 0, version)])


def epochs_of(job: strata.Job, count: int) -> list[list[list[int]]]:
    """What the dataset itself gives, epoch by epoch, from its beginning, where the job is again after that."""
    alone = job.dataset("d", batch_size=8)
    begin_again(job)
    assert alone.epoch == 0 and alone.steps_left == 13
    epochs = [[batch.indices.tolist() for batch in alone] for _ in range(count)]
    begin_again(job)
    return epochs


@pytest.mark.parametrize(("workers", "start"), [(0, None), (3, "fork"), (3, "spawn")])
def test_p8_loaders_hand_over_what_the_dataset_does_in_its_order(
    job: strata.Job, make: Make, workers: int, start: str | None
) -> None:
    options: dict[str, Any] = {"persistent_workers": True, "multiprocessing_context": start} if workers else {}
    loader = make(job.dataset("d", batch_size=8), workers, **options)
    taken = []
    for _ in range(2):
        assert len(loader) == 13
        taken.append([numbers(batch) for batch in loader])
        assert sorted(number for batch in taken[-1] for number in batch) == list(range(SAMPLES))
    job.save(1, {}).wait_committed()
    job.restore(1)
    assert job.dataset("d", batch_size=8).epoch == 1
    assert taken == epochs_of(job, 2)


@pytest.mark.parametrize("persistent", [False, True])
def test_p8_a_loop_goes_on_where_the_job_stands_and_not_where_workers_are(
    job: strata.Job, make: Make, persistent: bool
) -> None:
    """After a loop that was left, and after a restore, with 4 workers that are 8 batches ahead each."""
    [expected] = epochs_of(job, 1)
    loader = make(job.dataset("d", batch_size=8), 4, prefetch_factor=8, persistent_workers=persistent)
    taken = []
    for batch in loader:
        taken.append(numbers(batch))
        if len(taken) == 4:
            job.save(4, {}).wait_committed()
        if len(taken) == 6:
            break
    for batch in loader:
        taken.append(numbers(batch))
    assert taken == expected
    job.restore(4)
    assert [numbers(batch) for batch in loader] == expected[4:]


def test_batch_that_was_read_before_a_restore_is_refused(job: strata.Job, make: Make) -> None:
    loader = make(job.dataset("d", batch_size=8), 2)
    batches = iter(loader)
    numbers(next(batches))
    job.save(1, {}).wait_committed()
    late = next(batches)
    job.restore(1)
    with pytest.raises(strata.InvalidError, match="before the job was restored"):
        late.samples  # noqa: B018
    assert numbers(next(iter(loader))), "a new loop goes on"


@pytest.mark.parametrize("workers", [0, 2])
def test_save_with_a_loader_that_can_not_tell_its_position_is_an_error(
    job: strata.Job, make: Make, workers: int
) -> None:
    loader = make(job.dataset("d", batch_size=8), workers, collate_fn=bare)
    taken = next(iter(loader))
    assert isinstance(taken, torch.Tensor)
    if workers or make is mapped:
        with pytest.raises(strata.InvalidError, match="no batch of this loop has told") as refused:
            job.save(1, {})
        assert "transform=" in str(refused.value.hint)
    else:
        job.save(1, {}).wait_committed()  # the batch went through this process


def bare(batch: Batch | list[Batch]) -> Any:
    """What makes of a batch something that knows of no position."""
    [one] = batch if isinstance(batch, list) else [batch]
    return one._samples.clone()


def doubled(batch: strata.data.Batch) -> dict[str, Any]:
    assert isinstance(batch.samples, np.ndarray)
    return {"twice": torch.from_numpy(batch.samples.astype(np.int64) * 2)}


@pytest.mark.parametrize("workers", [0, 2])
def test_transform_works_where_samples_are_read_and_the_position_is_kept(job: strata.Job, workers: int) -> None:
    face = IterableDataset(job.dataset("d", batch_size=8), transform=doubled)
    for step, batch in enumerate(DataLoader(face, batch_size=None, num_workers=workers), start=1):
        assert (batch.samples["twice"][:, 0] == 2 * batch.indices).all()
        assert batch.to("cpu").samples["twice"].equal(batch.samples["twice"])
        assert face.state_dict()["step"] == step == batch.step + 1


def test_tables_come_out_of_workers_whole(job: strata.Job, tmp_path: Path) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(f'{{"n": {n}}}\n' for n in range(SAMPLES)))
    job.register_dataset("lines", path=lines, format="jsonl", shard_size=9)
    face = MapDataset(job.dataset("lines", batch_size=8))
    for batch in DataLoader(face, batch_sampler=face.batches, num_workers=2):
        expected = [f'{{"n": {n}}}'.encode() for n in batch.indices]
        assert batch.samples["line"] == expected
    assert face[7] == {"line": b'{"n": 7}'} and len(face) == SAMPLES
    with pytest.raises(IndexError, match="sample 101 of 101"):
        face[SAMPLES]


@pytest.mark.parametrize("workers", [0, 3])
def test_what_workers_left_out_of_a_damaged_file_is_told_where_the_job_is(
    job: strata.Job, make: Make, tmp_path: Path, workers: int
) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    write(folder / "a.bin")
    write(folder / "b.bin")
    job.register_dataset("e", path=folder, format="tokens", dtype="uint16", sample_len=2, shard_size=7)
    dataset = job.dataset("e", batch_size=8, on_damage="quarantine")
    (folder / "b.bin").write_bytes(b"")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always", strata.StrataWarning)
        loader = make(dataset, workers)
        batches = list(loader)
        assert dataset.quarantined == {} or workers == 0, "nobody has looked at a batch"
        seen = sorted(number for batch in batches for number in batch.indices.tolist())
    assert (seen, sum(batch.left_out for batch in batches)) == (list(range(SAMPLES)), SAMPLES)
    assert all(batch.weight == len(batch) for batch in batches)
    [told] = [str(warning.message) for warning in warned if issubclass(warning.category, strata.StrataWarning)]
    assert "'e' goes on without" in told and "b.bin" in told
    assert list(dataset.quarantined) == [str(folder / "b.bin")]


@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_data_loader_goes_on_from_its_state(job: strata.Job, make: Make, workers: int) -> None:
    """Its state alone, over which the job knows nothing."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    expected, following = epochs_of(job, 2)

    def loader() -> Any:
        begin_again(job)
        made = make(job.dataset("d", batch_size=8), 0)
        sampler = {"batch_sampler": made.dataset.batches} if make is mapped else {"batch_size": None}
        return stateful.StatefulDataLoader(made.dataset, num_workers=workers, **sampler)

    for stop in (1, 5, 12):
        first = loader()
        taken = []
        for batch in first:
            taken.append(numbers(batch))
            if len(taken) == stop:
                state = first.state_dict()
                break
        second = loader()
        second.load_state_dict(state)
        taken += [numbers(batch) for batch in second]
        assert taken == expected, f"after {stop} steps"
        assert [numbers(batch) for batch in second] == following


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [1, 4, 5])
def test_p8_state_of_a_stateful_data_loader_goes_on_with_another_batch_size_or_is_refused(
    job: strata.Job, workers: int, stop: int
) -> None:
    """As in a world of another size, where each rank's batch stays what it was."""
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def loader(batch_size: int) -> Any:
        dataset = job.dataset("d", batch_size=batch_size)
        begin_again(job)
        return stateful.StatefulDataLoader(IterableDataset(dataset), batch_size=None, num_workers=workers)

    first = loader(8)
    batches = iter(first)
    taken = [number for _ in range(stop) for number in numbers(next(batches))]
    state = first.state_dict()
    second = loader(5)
    second.load_state_dict(state)
    try:
        rest = [number for batch in second for number in numbers(batch)]
    except strata.StrataError as refused:
        assert workers and "batch" in str(refused), refused  # noqa: PT017
        return
    assert sorted(taken + rest) == list(range(SAMPLES))


TRAINING = """
import torch
from torch.utils.data import DataLoader
from strata.torch import IterableDataset, MapDataset

def main():
    path, stop, kind = os.environ["DATA"], int(os.environ["STOP"]), os.environ["KIND"]
    with strata.connect() as job:
        job.register_dataset("d", path=path, format="tokens", dtype="uint16", sample_len=2, shard_size=7, seed=3)
        restored = job.restore()
        step, seen = (0, []) if restored is None else (restored.step, restored.state["seen"])
        dataset = job.dataset("d", batch_size=4)
        options = {"num_workers": 4, "prefetch_factor": 8, "persistent_workers": True}
        if kind == "iterable":
            loader = DataLoader(IterableDataset(dataset), batch_size=None, **options)
        else:
            face = MapDataset(dataset)
            loader = DataLoader(face, batch_sampler=face.batches, **options)
        for epoch in range(dataset.epoch, 2):
            for number, batch in enumerate(loader, start=1):
                seen += batch.indices.tolist()
                if number % 3 and number < len(loader):
                    continue  # gradients of three batches make a step
                step += 1
                if step % 2 == 0:
                    job.save(step, {"seen": list(seen)})
                if step == stop:
                    job.wait_until_finished()
                    os.kill(os.getpid(), signal.SIGKILL)
        print("seen", len(seen))
        assert sorted(seen) == sorted(list(range(101)) * 2), "a sample was lost or doubled"

main()
"""


@pytest.mark.parametrize("kind", LOADERS)
def test_p8_every_sample_counts_once_over_crashes_with_workers_ahead_and_gradient_accumulation(
    node: Node, script: Start, tmp_path: Path, kind: str
) -> None:
    data = write(tmp_path / "tokens.bin")
    for stop in (5, 13, 0):
        run = script(TRAINING, node.env | {"DATA": str(data), "STOP": str(stop), "KIND": kind})
        assert run.popen.wait(PATIENCE) == (-signal.SIGKILL if stop else 0), run.text()
    assert "seen 202" in run.text()


UNEVEN = """
import json, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from strata.torch import IterableDataset

def gradients(model, batches, world):
    taken = 0
    for batch in batches:
        count = torch.tensor(batch.weight)
        if world > 1:
            dist.all_reduce(count)
        values = batch.samples.float() / 1000
        # DDP takes the mean over ranks; a sample weighs the same wherever it lies, and an empty slice nothing.
        (model(values).square().sum() * world / count).backward()
        taken += 1
    return taken, sum(len(batch) == 0 for batch in batches)

def main():
    path = os.environ["DATA"]
    world = int(os.environ["WORLD_SIZE"])
    with strata.connect(signals=False) as job:
        job.register_dataset("d", path=path, format="tokens", dtype="uint16", sample_len=2, shard_size=7, seed=3)
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 1)
        face = IterableDataset(job.dataset("d", batch_size=4))
        batches = list(DataLoader(face, batch_size=None, num_workers=int(os.environ["WORKERS"])))
        if world > 1:
            dist.init_process_group("gloo")
            model = DistributedDataParallel(model)
        taken, empty = gradients(model, batches, world)
        found = [value.grad for value in model.parameters()]
        print(json.dumps({"taken": taken, "empty": empty, "gradients": [g.flatten().tolist() for g in found]}))
        if world > 1:
            dist.destroy_process_group()

main()
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_an_empty_last_slice_hangs_nobody_and_changes_no_gradient_under_ddp(
    make_node: Callable[..., Node], script: Start, tmp_path: Path, workers: int
) -> None:
    """101 samples in steps of 4 over 3 ranks: the last step has one, so two ranks have none."""
    data = write(tmp_path / "tokens.bin")
    found = {}
    for world in (1, 3):
        node = make_node().up()
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        env = node.env | meeting | {"DATA": str(data), "WORKERS": str(workers)}
        ranks = [script(UNEVEN, env, rank, world) for rank in range(world)]
        found[world] = [json.loads(text.splitlines()[-1]) for text in finish(*ranks)]
    [alone] = found[1]
    assert [rank["taken"] for rank in found[3]] == [26, 26, 26] and alone["taken"] == 26
    assert sum(rank["empty"] for rank in found[3]) >= 2
    for rank in found[3]:
        for ours, theirs in zip(rank["gradients"], alone["gradients"], strict=True):
            assert ours == pytest.approx(theirs, rel=1e-4)


def test_batches_are_jax_arrays_by_one_call(job: strata.Job) -> None:
    """What NumPy's users and JAX's share: nothing of torch is between."""
    jax = pytest.importorskip("jax")
    total = jax.jit(lambda values: values.astype("int32").sum(axis=0))
    seen = sum(total(jax.numpy.asarray(batch.samples)) for batch in job.dataset("d", batch_size=8))
    assert seen.tolist() == [sum(range(SAMPLES)), sum(range(1000, 1000 + SAMPLES))]
