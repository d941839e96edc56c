"""`strata stacks`: what the ranks of a job are doing at this moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from strata import _core
from strata.cli import flags, terminal

Stack = dict[str, Any]


@click.command()
@click.argument("job")
@click.option("--rank", "ranks", metavar="RANK", type=int, multiple=True, help="This rank; may be repeated.")
@flags.ADDRESS
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def stacks(
    job: str, ranks: tuple[int, ...], coordinator: str | None, socket: str | None, config: str | None, as_json: bool
) -> None:
    """Show the Python stacks of a running job's ranks.

    Without --rank those of its stalled ranks, and where none is stalled of all. It stops no rank. A process
    that can't answer is described as the kernel sees it.
    """
    asked = _core.Operator(config=config, coordinator=coordinator, socket=socket)
    found: dict[str, Any] = json.loads(asked.stacks(job, list(ranks)))
    if as_json:
        terminal.document({"job": job} | found)
        return
    out = terminal.console()
    for number, stack in enumerate(found["stacks"]):
        if number:
            out.print("")
        for line in block(stack):
            # A file's name may be longer than the terminal is wide.
            out.print(line, soft_wrap=True)
    if found["not_asked"]:
        left = terminal.ranks(found["not_asked"])
        terminal.console(err=True).print(f"not asked: rank {left}; name some with --rank")


def block(stack: Stack) -> Iterator[str]:
    """One rank's lines."""
    yield f"[bold]rank {stack['rank']}[/bold] on {terminal.plain(stack['host'])}{process_text(stack)}"
    if stack["missing"]:
        yield f"  [yellow]no stack[/yellow]: {terminal.plain(stack['missing'])}"
    for line in stack["stack"].splitlines():
        yield terminal.plain(f"  {line}")


def process_text(stack: Stack) -> str:
    """What the kernel says of its main thread."""
    if not stack["process"]:
        return ""
    place = f" in {stack['waits_in']}" if stack["waits_in"] else ""
    return terminal.plain(f", {stack['process']}{place}")


def top(stack: Stack) -> str:
    """In a line: where the first thread is, or why that is not known."""
    if stack["missing"]:
        return f"no stack: {stack['missing']}"
    frames = (line.strip() for line in stack["stack"].splitlines() if line.startswith("  File "))
    return next(frames, "no Python code")
