"""`strata version`: what this build is and what it works with."""

from __future__ import annotations

import os
import sys

import click

from strata import _core
from strata.cli.build import is_executable


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def version(as_json: bool) -> None:
    """Print the version, and what it works with."""
    facts = build_facts()
    if as_json:
        from strata.cli.terminal import document

        document(facts)
        return
    lines = {
        "build": f"{facts['build']}, {facts['platform']}",
        "protocol": f"{facts['protocol']}, works with strata {facts['works_with']}",
        "python": facts["python"],
    }
    if facts["glibc_floor"]:
        lines["glibc"] = f"{facts['glibc_floor']} or newer"
    click.echo(f"strata {facts['version']}")
    for name, text in lines.items():
        click.echo(f"{name:<9} {text}")


def build_facts() -> dict[str, object]:
    protocol, partners = _core.compatibility()
    return {
        "version": _core.version(),
        "build": "executable" if is_executable() else "wheel",
        "platform": f"{sys.platform} {os.uname().machine}",
        "protocol": protocol,
        "works_with": partners,
        "python": sys.version.partition(" ")[0],
        "glibc_floor": glibc_floor(),
    }


def glibc_floor() -> str | None:
    """The oldest glibc that this build's machine code can be loaded with; None where it can't be read."""
    from strata.cli.elf import newest_needed

    code = sys.executable if is_executable() else getattr(_core, "__file__", None)
    return newest_needed(code, "GLIBC") if code else None
