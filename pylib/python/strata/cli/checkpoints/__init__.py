"""`strata checkpoints`: a job's committed steps. `ls`, `now`, `pin`, `unpin` and `rm` ask the coordinator, whose log
decides what is kept; `show`, `verify` and `repair` go to the stores themselves, so they work where nothing runs."""

from __future__ import annotations

import click

from strata.cli.checkpoints.keeping import pin, rm, unpin
from strata.cli.checkpoints.listing import ls
from strata.cli.checkpoints.now import now
from strata.cli.checkpoints.repair import repair
from strata.cli.checkpoints.show import show
from strata.cli.checkpoints.verify import verify
from strata.cli.groups import Group

__all__ = ["checkpoints"]


@click.group(cls=Group, short_help="List, make, inspect, verify, repair, pin and remove committed steps.")
def checkpoints() -> None:
    """List, make, inspect, verify, repair, pin and remove a job's committed steps."""


for command in (ls, now, show, verify, repair, pin, unpin, rm):
    checkpoints.add_command(command)
