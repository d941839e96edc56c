"""The plans of one job's saves, each made with what is known of the one before."""

from __future__ import annotations

from typing import Any

from .again import Known
from .encode import Plan, plan
from .rules import replicated_glob, select

_REMEMBERED = 4  # sorts of saves (what part of the state, which of it replicated): a loop has one or two


class Planner:
    def __init__(self) -> None:
        self._known: dict[tuple[str | None, bool | str], Known] = {}

    def plan(self, state: Any, part: str | None, replicated: bool | str) -> Plan:
        """Of the whole of `state`, or of one of its entries. Raises InvalidError naming the path of the first value
        that can't be stored."""
        glob, chosen = replicated_glob(replicated), select(state, part)
        key = (part, replicated)
        made, known = plan(chosen, glob, self._known.get(key))
        if len(self._known) == _REMEMBERED and key not in self._known:
            self._known.clear()
        self._known[key] = known
        return made
