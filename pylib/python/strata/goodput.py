"""Where a job's time goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

__all__ = ["Goodput"]


@dataclass(frozen=True, slots=True)
class Goodput:
    """The ledger of a job.

    Attributes:
        since: when its first rank joined, in UTC; None before anything is settled.
        seconds: by use, every one of them:
            "productive": steps that nobody had made before.
            "start": until the first step of all.
            "detection": a rank was lost, and nobody knew.
            "fencing": the others were told, and have yet to end.
            "restart": processes start and get ready for their first step.
            "reassignment": the first rank is back, and not all.
            "restore": `restore` brings the state back.
            "replay": steps that had been made before, and were lost.
            "save": `save`, a fence, or waiting for a commit held training.
            "stall": what a step took beyond the usual, if that was three times as long and more than a second.
            Time after all ranks have left is in none of them.
        losses: how often a rank was lost.
        saves: committed steps.
        save_interval: seconds from one save to the next by which least is lost (Young, Daly), as saves and losses have
            been so far: what `checkpoint.interval_steps = "auto"` keeps to.
    """

    since: datetime | None
    seconds: Mapping[str, float]
    losses: int
    saves: int
    save_interval: float

    @property
    def total(self) -> float:
        """Seconds."""
        return sum(self.seconds.values())

    @property
    def ratio(self) -> float:
        """What part of it was productive; 1.0 where there was nothing yet."""
        return self.seconds["productive"] / self.total if self.total else 1.0

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Goodput:
        """From the fields of the coordinator's answer."""
        since = fields["since_unix_ms"]
        return cls(
            since=datetime.fromtimestamp(since / 1000, UTC) if since else None,
            seconds=MappingProxyType({one["use"]: one["ms"] / 1000 for one in fields["spent"]}),
            losses=fields["losses"],
            saves=fields["saves"],
            save_interval=fields["save_interval_ms"] / 1000,
        )
