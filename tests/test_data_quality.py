"""What the bench of shuffles counts is so: on orders of which every figure is known, and on random ones against what is
expected of a full shuffle. No peer is installed here.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benches" / "peers" / "data"))

import itertools

import quality
from mixing import BATCH, NEAR, change, full_shuffle, mixing, open_shards, positions

COUNT, SHARD = 2**16, 2**10
FILES = np.arange(COUNT)
BATCHES = COUNT // BATCH
SEED = 20261129


def test_of_files_in_order_nothing_is_mixed() -> None:
    found = mixing(FILES, SHARD)
    assert (found.lag, found.gap, found.gap_most, found.near) == (0, 1 / COUNT, 1 / COUNT, 1)
    assert found.lag_off == 1
    assert found.one_batch == (COUNT - BATCHES) / (COUNT - 1)
    assert (found.shards_of_batch, found.open_most, found.open_mean) == (1, 1, 1)


def test_of_files_reversed_the_lag_alone_is_another() -> None:
    found, files = mixing(FILES[::-1], SHARD), mixing(FILES, SHARD)
    # Of an even number of samples the odd distances: their mean is half of it.
    assert found.lag == 0.5
    # |1 - 2x| is even between 0 and 1: d is off 2d - d² by at most a quarter, at a half.
    assert found.lag_off == pytest.approx(0.25, abs=1e-4)
    assert vars(found) | {"lag": 0, "lag_off": 1} == vars(files)


def test_of_samples_dealt_out_all_shards_are_open_to_the_end() -> None:
    """The first of each shard, then the second of each."""
    shards = COUNT // SHARD
    dealt = FILES.reshape(shards, SHARD).T.ravel()
    found = mixing(dealt, SHARD)
    assert (found.open_most, found.shards_of_batch) == (shards, shards)
    assert found.open_mean == pytest.approx(shards * (COUNT - shards + 1) / COUNT)
    # Neighbours of one shard are a round apart; those of two shards nearly the epoch.
    assert found.near == (COUNT - shards) / (COUNT - 1) and shards <= NEAR
    assert found.gap_most == ((SHARD - 1) * shards - 1) / COUNT
    assert found.gap == pytest.approx(
        ((COUNT - shards) * shards + (shards - 1) * ((SHARD - 1) * shards - 1)) / (COUNT - 1) / COUNT
    )


def test_a_shard_is_open_from_its_first_sample_to_its_last() -> None:
    assert open_shards(np.array([0, 1, 1, 0, 2, 3, 2, 4])).tolist() == [1, 2, 2, 1, 1, 2, 1, 1]


def test_of_a_full_shuffle_every_figure_is_as_expected() -> None:
    print(f"seed {SEED}")
    orders = [np.random.default_rng(SEED + number).permutation(COUNT) for number in range(8)]
    found = [mixing(order, SHARD) for order in orders]
    expected = full_shuffle(COUNT, SHARD)
    mean = {name: np.mean([getattr(one, name) for one in found]) for name in vars(expected)}
    for name in ("lag", "gap", "shards_of_batch", "open_mean"):
        assert mean[name] == pytest.approx(getattr(expected, name), rel=0.01), name
    for name in ("near", "one_batch"):
        assert mean[name] == pytest.approx(getattr(expected, name), rel=0.1), name
    assert mean["lag_off"] < 4 / np.sqrt(COUNT)
    assert (mean["open_most"], mean["gap_most"]) == (expected.open_most, pytest.approx(expected.gap_most, abs=0.02))
    changes = [change(*pair) for pair in itertools.pairwise(orders)]
    assert max(abs(one.correlation) for one in changes) < 5 / np.sqrt(COUNT)
    assert np.mean([one.together for one in changes]) == pytest.approx((BATCH - 1) / (COUNT - 1), rel=0.05)


def test_epochs_are_compared_by_places_and_by_company() -> None:
    same, reversed_ = change(FILES, FILES), change(FILES, FILES[::-1])
    assert (same.correlation, same.together) == (pytest.approx(1), 1)
    assert (reversed_.correlation, reversed_.together) == (pytest.approx(-1), 1)
    # Each batch's samples go to BATCH different batches.
    parted = change(FILES, FILES.reshape(BATCHES, BATCH).T.ravel())
    assert parted.together == 0


@pytest.mark.parametrize("wrong", [[0, 1, 1], [0, 1, 3], [-1, 0, 1]])
def test_what_is_no_permutation_is_refused(wrong: list[int]) -> None:
    with pytest.raises(ValueError, match="each of them once"):
        positions(np.array(wrong))


def test_the_table_and_the_picture_are_of_what_was_written(tmp_path: Path) -> None:
    for epoch in range(2):
        np.save(tmp_path / f"strata.{epoch}.npy", FILES.astype(np.uint32))
        np.save(tmp_path / f"py1e.{epoch}.npy", FILES[::-1].astype(np.uint32))
    table = quality.render(tmp_path, COUNT, SHARD, 2).splitlines()
    assert [line.split(" | ")[0] for line in table[4:]] == ["| a full shuffle, as expected", "| strata", "| py1e"]
    assert "| 0.000 | 1.000 |" in table[5] and "| 1.0000 | 257.0x |" in table[5]
    drawn = quality.picture({"a": FILES, "b": FILES[::-1]})
    assert drawn.count("h0") == 2 * quality.POINTS and drawn.count("<path") == 2
    assert 'd="M0 480h0M0 480h0M1 479h0' in drawn and 'd="M0 0h0M0 1h0M1 1h0' in drawn
