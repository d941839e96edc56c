"""What callers pass, read and checked."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from .errors import InvalidError


def step_number(step: object) -> int:
    """Also takes NumPy's whole numbers."""
    try:
        number = -1 if isinstance(step, bool) else step.__index__()  # type: ignore[attr-defined]
    except AttributeError:
        number = -1
    if not isinstance(number, int) or not 0 <= number < 2**63:
        raise InvalidError(f"naming a step: {step!r} is not a whole number from 0 up", hint="steps count from 0")
    return number


def as_json(what: str, value: Any, not_finite: list[str]) -> str:
    """As JSON; `not_finite` gets the place and value of each number that JSON can't hold, for which null is written."""
    if value is None:
        return ""
    try:
        text = json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidError(
            f"saving: {what} can't be written as JSON ({error})", hint="use dicts, lists, strings and numbers"
        ) from None
    if not any(word in text for word in ("NaN", "Infinity")):
        return text
    # What it has just written is plain, whatever classes `value` was made of.
    return json.dumps(_finite(what, json.loads(text), not_finite), allow_nan=False)


def _finite(where: str, value: Any, not_finite: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _finite(f"{where}[{key!r}]", inner, not_finite) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(f"{where}[{number}]", inner, not_finite) for number, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        not_finite.append(f"{where} is {value}")
        return None
    return value


def saving_ranks(step: int, ranks: Sequence[int] | None, world_size: int) -> list[int]:
    """Ascending; empty for all."""
    if ranks is None:
        return []
    chosen = sorted({int(rank) for rank in ranks})
    if not chosen or chosen[0] < 0 or chosen[-1] >= world_size:
        raise InvalidError(
            f"saving step {step}: ranks={list(ranks)!r} in a world of {world_size}",
            hint="name at least one rank from 0 up, or leave it out for all",
        )
    return chosen
