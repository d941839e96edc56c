"""What commands print: JSON documents, tables that fit the terminal, sizes and times as people read them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

SCHEMA = 1
"""Version of every JSON document; a change that breaks a reader raises it."""

UNLIMITED = 100_000
"""Columns of what is no terminal: nothing is wrapped or cut for a program that reads it."""


def document(content: Mapping[str, Any]) -> None:
    """Prints one JSON document."""
    click.echo(json.dumps({"schema": SCHEMA} | dict(content), indent=2 if sys.stdout.isatty() else None))


def console(*, err: bool = False) -> Console:
    """Where tables go. NO_COLOR is obeyed by rich itself."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    width = None if stream.isatty() or os.environ.get("COLUMNS") else UNLIMITED
    return Console(stderr=err, highlight=False, width=width, soft_wrap=False)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, indent: int = 0) -> Any:
    """A table without lines. A column whose title starts with `>` is aligned to the right; the last one may wrap."""
    from rich.padding import Padding
    from rich.table import Table

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, title in enumerate(columns):
        last = number == len(columns) - 1
        right = title.startswith(">")
        made.add_column(
            title.removeprefix(">"),
            justify="right" if right else "left",
            no_wrap=not last,
            overflow="fold" if last else "ellipsis",
        )
    for row in rows:
        made.add_row(*row)
    # Unless told not to, padding fills the line, which has UNLIMITED columns where that is a file.
    return Padding(made, (0, 0, 0, indent), expand=False) if indent else made


def plain(text: str) -> str:
    """What a user named, which may hold what rich takes for markup."""
    from rich.markup import escape

    return escape(text)


def size(count: int) -> str:
    """Bytes in decimal units: "1.08 GB"."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 999.5 or unit == "TB":
            break
        amount /= 1000
    if unit == "B":
        return f"{count} B"
    return f"{amount:.{2 if amount < 9.995 else 1 if amount < 99.95 else 0}f} {unit}"


def duration(seconds: float) -> str:
    """The two largest units: "2 h 3 min", "4.2 s"."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, hours, days = int(seconds) // 60, int(seconds) // 3600, int(seconds) // 86_400
    if hours == 0:
        return f"{minutes} min {int(seconds) % 60} s"
    if days == 0:
        return f"{hours} h {minutes % 60} min"
    return f"{days} d {hours % 24} h"


def moment(unix_ms: int) -> str:
    """A time of day here: "2026-11-24 09:12:03"; empty for none."""
    return datetime.fromtimestamp(unix_ms / 1000).strftime("%Y-%m-%d %H:%M:%S") if unix_ms else ""


def ranks(numbers: Iterable[int]) -> str:
    """Runs put together: "0-3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def confirm(doing: str, question: str, *, yes: bool) -> None:
    """Asks before something that can't be taken back.

    Raises:
        InvalidError: nobody can be asked, and `--yes` was not given.
        click.Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        from strata.cli.failures import usage

        raise usage(f"{doing}: standard input is no terminal to ask on", "say --yes, or look first with --dry-run")
    click.confirm(question, abort=True, err=True)


def counted(count: int, noun: str, plural: str = "") -> str:
    """Such as "1 chunk" and "2 chunks"; `plural` where that is not the noun and an s."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"
