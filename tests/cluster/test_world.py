"""Which rank a process is: the documented order of what launchers say."""

from __future__ import annotations

import pytest
from strata._world import find_world
from strata.errors import InvalidError

SLURM = {"SLURM_PROCID": "4", "SLURM_NTASKS": "5"}
OMPI = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "6"}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "7"}
OURS = {"STRATA_RANK": "1", "STRATA_WORLD_SIZE": "8"}


def test_the_first_launcher_of_the_documented_order_decides() -> None:
    srun = SLURM | {"SLURM_STEP_NODELIST": "n[1-5]"}
    assert find_world(None, None, srun | OMPI | TORCHRUN | OURS) == (1, 8)
    assert find_world(None, None, srun | OMPI | TORCHRUN) == (2, 7)
    assert find_world(None, None, srun | OMPI) == (3, 6)
    assert find_world(None, None, srun) == (4, 5)
    assert find_world(None, None, {}) == (0, 1)
    assert find_world(5, 9, OURS) == (5, 9)
    assert find_world(0, None, OURS) == (0, 8)


def test_a_slurm_batch_script_is_a_world_of_one() -> None:
    """Slurm sets rank 0 of all tasks there; only srun starts them."""
    assert find_world(None, None, SLURM) == (0, 1)


def test_half_a_pair_does_not_count() -> None:
    assert find_world(None, None, {"RANK": "2", **OMPI}) == (3, 6)
    assert find_world(None, None, {"RANK": "2", "WORLD_SIZE": ""}) == (0, 1)


@pytest.mark.parametrize(
    "bad", [(8, 8, {}), (-1, 2, {}), (3, None, {}), (None, None, {"RANK": "x", "WORLD_SIZE": "2"})]
)
def test_rank_outside_of_its_world_is_invalid(bad: tuple[int | None, int | None, dict[str, str]]) -> None:
    with pytest.raises(InvalidError) as caught:
        find_world(*bad)
    assert caught.value.hint
