"""Which rank this process is, and of how many: what the launchers say, in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import InvalidError

# The first pair of which both are set decides. Slurm sets its pair in the batch script too, for one process there:
# only srun sets the list of the step's nodes as well.
_LAUNCHERS = (
    ("STRATA_RANK", "STRATA_WORLD_SIZE", None),
    ("RANK", "WORLD_SIZE", None),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", None),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NODELIST"),
)


def find_world(rank: int | None, world_size: int | None, env: Mapping[str, str]) -> tuple[int, int]:
    """Rank and world size: arguments, then STRATA_RANK, RANK, Open MPI's, Slurm's (with their sizes), then 0 of 1.

    Raises:
        InvalidError: a rank outside of its world, or a variable that is no number; names where it came from.
    """
    source, found = "no launcher", (0, 1)
    launched = launched_by(env)
    if launched is not None:
        source, found = launched[0], launched[1:]
    if rank is not None or world_size is not None:
        source = "the arguments" if None not in (rank, world_size) else f"an argument and {source}"
    chosen = (found[0] if rank is None else rank, found[1] if world_size is None else world_size)
    if not 0 <= chosen[0] < chosen[1]:
        raise InvalidError(
            f"finding this process's rank: rank {chosen[0]} of {chosen[1]}, from {source}",
            hint="ranks count from 0; give rank= and world_size= together",
        )
    return chosen


def launched_by(env: Mapping[str, str]) -> tuple[str, int, int] | None:
    """The variables of the launcher that started this process, with the rank and the world size they hold.

    Raises:
        InvalidError: one of them is no number.
    """
    for rank_name, size_name, marker in _LAUNCHERS:
        if env.get(rank_name) and env.get(size_name) and (marker is None or env.get(marker)):
            return f"{rank_name} and {size_name}", _number(rank_name, env), _number(size_name, env)
    return None


def _number(name: str, env: Mapping[str, str]) -> int:
    try:
        return int(env[name])
    except ValueError:
        raise InvalidError(
            f"finding this process's rank: {name}={env[name]!r} is not a number", hint=f"unset {name}, or correct it"
        ) from None
