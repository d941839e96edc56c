"""How well an epoch's order mixes what lies beside each other in storage, and what a reader must keep open for it.

An order is an array: the sample at each position. A sample's number is its place in storage. Each figure has the value
that a full shuffle, where every permutation is as likely as another, is expected to have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Order = NDArray[np.int64]
Floats = NDArray[np.float64]
BATCH = 256
"""Samples of a batch."""
NEAR = 256
"""Positions of an epoch that count as near to each other."""


@dataclass(frozen=True)
class Mixing:
    """Of one order."""

    lag: float
    """Mean distance between a sample's position and its place in storage, as a share of the epoch."""
    lag_off: float
    """Kolmogorov and Smirnov's distance between those lags' distribution and a full shuffle's, 0 to 1."""
    gap: float
    """Mean distance in the epoch of two samples that are neighbours in storage, as a share of the epoch."""
    gap_most: float
    near: float
    """Share of neighbours in storage that are within NEAR positions of each other."""
    one_batch: float
    """Share of them that are in the same batch."""
    shards_of_batch: float
    """Different shards in a batch, mean."""
    open_most: float
    """Shards of which the first sample has been taken and the last has not, at once."""
    open_mean: float


def mixing(order: Order, shard_size: int) -> Mixing:
    """Raises ValueError unless `order` has each sample once."""
    count = len(order)
    places = positions(order)
    lags = np.abs(order - np.arange(count)) / count
    gaps = np.abs(np.diff(places))
    batches = places // BATCH
    opened = open_shards(order // shard_size)
    return Mixing(
        lag=float(lags.mean()),
        lag_off=off_full_shuffle(lags),
        gap=float(gaps.mean() / count),
        gap_most=float(gaps.max() / count),
        near=float((gaps <= NEAR).mean()),
        one_batch=float((np.diff(batches) == 0).mean()),
        shards_of_batch=shards_of_batch(order // shard_size),
        open_most=float(opened.max()),
        open_mean=float(opened.mean()),
    )


def full_shuffle(count: int, shard_size: int) -> Mixing:
    """What is expected of it, of whole shards and whole batches. Of the most shards open and the largest gap: all that
    there are, which it misses by little."""
    shards = count // shard_size
    near = NEAR * count - NEAR * (NEAR + 1) / 2
    taken = np.arange(BATCH)
    none_of_a_shard = np.prod((count - shard_size - taken) / (count - taken))
    # A shard is open between the least and the greatest of shard_size positions out of count.
    span = (count + 1) * (shard_size - 1) / (shard_size + 1) + 1
    return Mixing(
        lag=(count - 1 / count) / 3 / count,
        lag_off=0.0,
        gap=(count + 1) / 3 / count,
        gap_most=(count - 1) / count,
        near=near / (count * (count - 1) / 2),
        one_batch=(BATCH - 1) / (count - 1),
        shards_of_batch=float(shards * (1 - none_of_a_shard)),
        open_most=float(shards),
        open_mean=shards * span / count,
    )


def positions(order: Order) -> Order:
    """Each sample's position in the epoch; ValueError unless `order` has each sample once."""
    count = len(order)
    if order.min() < 0 or order.max() >= count or (np.bincount(order, minlength=count) != 1).any():
        raise ValueError(f"an order of {count} samples does not have each of them once")
    places = np.empty(count, np.int64)
    places[order] = np.arange(count)
    return places


def off_full_shuffle(lags: Floats) -> float:
    """The distance of two numbers anywhere between 0 and 1 is at most d with probability 2d - d²."""
    ordered = np.sort(lags)
    expected = 2 * ordered - ordered**2
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max(np.abs(steps[1:] - expected).max(), np.abs(steps[:-1] - expected).max()))


def shards_of_batch(shards: Order) -> float:
    whole = len(shards) // BATCH * BATCH
    batches = np.sort(shards[:whole].reshape(-1, BATCH), axis=1)
    return float(1 + (np.diff(batches, axis=1) != 0).sum(axis=1).mean())


def open_shards(shards: Order) -> Order:
    """At each position, how many shards are open while its sample is read."""
    count = len(shards)
    first = np.full(shards.max() + 1, count)
    np.minimum.at(first, shards, np.arange(count))
    last = np.zeros_like(first)
    np.maximum.at(last, shards, np.arange(count))
    changes = np.zeros(count + 1, np.int64)
    changes[first[first < count]] += 1
    changes[last[first < count] + 1] -= 1
    return np.cumsum(changes)[:-1]


@dataclass(frozen=True)
class Change:
    """From one epoch's order to another's."""

    correlation: float
    """Of a sample's positions in both: 1 the same order, -1 reversed, 0 none."""
    together: float
    """Share of the pairs of one batch that are in one batch in the other epoch, too."""


def change(before: Order, after: Order) -> Change:
    places = positions(before), positions(after)
    correlation = np.corrcoef(*places)[0, 1]
    batches = [each // BATCH for each in places]
    both = batches[0] * (batches[1].max() + 1) + batches[1]
    return Change(float(correlation), pairs(np.unique(both, return_counts=True)[1]) / pairs(np.bincount(batches[0])))


def pairs(sizes: Order) -> float:
    """Within groups of these sizes."""
    return float((sizes * (sizes - 1) // 2).sum())
