"""Where a command finds a job's steps: a coordinator, or a store."""

from __future__ import annotations

import json
from dataclasses import dataclass

import click

from strata import _core
from strata.cli import flags
from strata.errors import NotFoundError, UnavailableError

STORE = click.option(
    "--store",
    metavar="URL",
    help="Read this store.  [default: STRATA_STORE, the coordinator's, or $STRATA_HOME/store]",
)
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
STEP = click.argument("step", metavar="STEP", type=flags.WholeNumber(0))
STEPS = click.argument("steps", metavar="STEP...", type=flags.WholeNumber(0), nargs=-1, required=True)


@dataclass(frozen=True)
class Asked:
    """Whom to ask, as the flags say."""

    config: str | None
    coordinator: str | None
    socket: str | None

    def operator(self) -> _core.Operator:
        return _core.Operator(config=self.config, coordinator=self.coordinator, socket=self.socket)

    def store(self, named: str | None, job: str) -> str:
        """The URL of the job's store: as named, as configured, as its coordinator knows it, or that of `strata up`."""
        configured, of_this_machine = _core.configured_stores(self.config)
        if named or configured:
            return str(named or configured)
        try:
            found = json.loads(self.operator().status(job))
        except (UnavailableError, NotFoundError):
            if self.coordinator or self.socket:
                raise
            return of_this_machine
        return found["jobs"][0]["store"] or of_this_machine

    def stored(self, named: str | None, job: str) -> _core.StoredJob:
        """The job's steps as its store has them."""
        return _core.StoredJob(self.store(named, job), job, config=self.config)
