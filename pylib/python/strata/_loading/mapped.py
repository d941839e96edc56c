"""A dataset as torch's map-style one: samples by their numbers, and the steps of this rank as a batch sampler."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch.utils.data
from torch.utils.data._utils.collate import default_collate_fn_map  # where torch's documentation has types added

from .. import data
from .._positions import Position
from ..errors import InvalidError
from . import faces
from .batch import Batch, Origin, made
from .faces import Face, Loop


@dataclass(frozen=True, slots=True)
class Request:
    """One step, as the batch sampler asks a worker for it."""

    loop: Loop
    restores: int
    at: Position


class MapDataset(torch.utils.data.Dataset):  # type: ignore[misc]  # torch may be absent where types are checked
    """All samples by their numbers, for `DataLoader(data, batch_sampler=data.batches, num_workers=4)`.

    `data.batches` has this rank's steps in the job's order, from where it stands: the loader then hands over `Batch`es,
    and `job.save` takes along the position of the last that was looked at. With any other sampler samples come alone
    and say nothing of a position: for validation. `data[7]` is sample 7: a tensor, or a dict of its columns; of a
    damaged file it is CorruptCheckpointError, also where batches leave it out.

    Args:
        dataset: what `job.dataset` returns.
        transform: gets each `strata.data.Batch` where it is read, in a worker; returns what the batch's `samples` are.
    """

    def __init__(self, dataset: data.Dataset, *, transform: Callable[[data.Batch], Any] | None = None) -> None:
        self._face = Face(dataset, transform)
        self.batches = Steps(self._face)

    def __len__(self) -> int:
        return self._face.share.total_samples

    def __getitem__(self, number: int) -> Any:
        [sample] = self._samples([number])
        return sample

    def __getitems__(self, asked: Request | list[int]) -> list[Any]:
        """torch's hook for a whole batch. Of a step: one `Batch`."""
        if not isinstance(asked, Request):
            return self._samples(asked)
        face = self._face
        taken = face.share.batch(asked.at)
        if taken is None:
            raise InvalidError(f"reading step {asked.at[2]} of epoch {asked.at[1]}: the epoch ends before it")
        *_, after, damaged = taken
        origin = Origin(face.token, asked.loop, asked.restores, asked.at, after, tuple(damaged))
        return [made(taken, face.share.items(), face.transform, origin)]

    def _samples(self, numbers: list[int]) -> list[Any]:
        count = len(self)
        for number in numbers:
            if not -count <= number < count:
                raise IndexError(f"sample {number} of {count}")
        share = self._face.share
        rows = data.rows(share.samples([int(number) % count for number in numbers]), share.items())
        if not isinstance(rows, data.Table):
            return list(torch.from_numpy(rows))
        columns = {name: rows[name] for name in rows.columns}
        return [{name: values[at] for name, values in columns.items()} for at in range(len(numbers))]


class Steps(torch.utils.data.Sampler):  # type: ignore[misc]  # torch may be absent where types are checked
    """A batch sampler: each loop asks for what is left of an epoch, the next loop for the next epoch."""

    def __init__(self, face: Face) -> None:
        self._face = face

    def __len__(self) -> int:
        """Steps of the loop that begins next."""
        return self._face.steps_of_next_loop()

    def __iter__(self) -> Iterator[Request]:
        return Requests(self._face)


class Requests(Iterator[Request]):
    """The steps of one loop, in the process that has the job."""

    def __init__(self, face: Face) -> None:
        self._face = face
        self._at, self._restores = face.begin()
        self._loop = face.next_loop(of=0)

    def __next__(self) -> Request:
        face = self._face
        if not face.share.steps_left(self._at):
            raise StopIteration
        request = Request(self._loop, self._restores, self._at)
        self._at = face.share.skipped(self._at, 1)
        face.board.produce(self._loop)
        return request

    def state_dict(self) -> dict[str, Any]:
        return faces.as_state(self._at)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._face.is_at(faces.from_state(state, "a batch sampler"))
        self._at, self._restores = self._face.begin()


def _as_it_is(batch: list[Batch], *, collate_fn_map: Any = None) -> Batch:
    [one] = batch
    return one


cast(dict[type, Any], default_collate_fn_map)[Batch] = _as_it_is
