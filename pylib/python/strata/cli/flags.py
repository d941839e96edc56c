"""Flags that override a key of the configuration. The core reads their text; here they are only declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from strata import _core

GIVEN = "strata.flags"

Flags = list[tuple[str, str, str]]
"""(flag, key, text), as the core takes them."""

Decorator = Callable[[Any], Any]


class WholeNumber(click.IntRange):
    name = "whole number"  # click says "is not a valid …"


class KeyOption(click.Option):
    """A flag over a key such as "coordinator.listen". Its default, shown in help, is the key's own."""

    def __init__(self, *declarations: Any, key: str, form: str = "{}", **attributes: Any) -> None:
        self.key, self.form = key, form
        super().__init__(*declarations, expose_value=False, callback=self._keep, **attributes)

    def _keep(self, ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value is None or value is False:
            return
        text = "true" if value is True else self.form.format(value)
        ctx.meta.setdefault(GIVEN, []).append((self.opts[-1], self.key, text))

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        record = super().get_help_record(ctx)
        default = _core.config_default(self.key)
        if record is None or self.is_flag or not default:
            return record
        shown = default.rsplit(":", 1)[-1] if self.form == ":{}" else default
        return record[0], f"{record[1]}  [default: {shown}]"


def key(flag: str, name: str, help: str, **attributes: Any) -> Decorator:
    return click.option(flag, cls=KeyOption, key=name, help=help, **attributes)


def port(flag: str, name: str, help: str) -> Decorator:
    """Replaces only the port of an address."""
    return key(flag, name, help, form=":{}", metavar="PORT")


def path(flag: str, name: str, help: str) -> Decorator:
    return key(flag, name, help, metavar="PATH")


def switch(flag: str, name: str, help: str) -> Decorator:
    return key(flag, name, help, is_flag=True, default=None)


def given() -> Flags:
    """The overriding flags of the command under way."""
    found: Flags = click.get_current_context().meta.get(GIVEN, [])
    return found


def several(*options: Decorator) -> Decorator:
    """Options as one decorator, in the order they are listed."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


CONFIG = click.option(
    "--config", metavar="FILE", help="Configuration file.  [default: ~/.config/strata/config.toml, /etc/strata/…]"
)

JOB = click.option("--job", metavar="JOB", help="The job's name.  [default: STRATA_JOB, or default]")

ADDRESS = several(
    click.option(
        "--coordinator", metavar="URL", help="Ask this one.  [default: STRATA_COORDINATOR, or this machine's]"
    ),
    click.option("--socket", metavar="PATH", help="Ask this node's sidecar instead."),
    CONFIG,
)
"""Whom an operator's command asks."""

LOG = several(
    key("--log-level", "log.level", "error, warn, info, debug, trace, or a filter.", metavar="LEVEL"),
    key("--log-format", "log.format", "human or json.", metavar="FORMAT"),
)

COORDINATOR = several(
    port("--port", "coordinator.listen", "Port of gRPC; 0 picks a free one."),
    port("--http-port", "coordinator.http", "Port of HTTP; 0 picks a free one."),
    key("--listen", "coordinator.listen", "Address of gRPC. Beyond loopback it wants TLS.", metavar="ADDRESS"),
    key("--http", "coordinator.http", "Address of HTTP.", metavar="ADDRESS"),
    path("--tls-cert", "coordinator.tls_cert", "Certificate chain (PEM) that is shown to clients."),
    path("--tls-key", "coordinator.tls_key", "Its private key (PEM)."),
    path("--tls-client-ca", "coordinator.tls_client_ca", "Authority (PEM) that clients' certificates must come from."),
    switch("--insecure", "coordinator.insecure", "Listen beyond loopback without TLS, on a network that you trust."),
    key("--lease", "coordinator.lease", "A rank that is silent for so long is lost.", metavar="TIME"),
    key("--keep-last", "checkpoint.keep_last", "Keep the newest N whole steps; 0 keeps all.", metavar="N"),
    path("--hooks", "coordinator.hooks", "Python file with on_commit, on_worker_lost or retain."),
)

COORDINATOR_OF_A_SET = several(
    key(
        "--peers",
        "coordinator.peers",
        "Three or five coordinators of one cluster, this one too.",
        metavar="URL,URL,URL",
    ),
    key("--advertise", "coordinator.advertise", "Which of --peers this one is.", metavar="URL"),
)

SIDECAR = several(
    path("--socket", "sidecar.socket", "Unix socket that trainers connect to."),
    path("--arena-dir", "sidecar.arena_dir", "Where arenas lie; a memory file system."),
    key("--store", "store.url", "Where checkpoints go: a directory, or an s3://, gs:// or az:// URL.", metavar="URL"),
    switch("--take-over-store", "store.take_over", "Take a store that belongs to another cluster. Keeps its steps."),
    key("--slots", "sidecar.slots", "Copies of a rank's state in memory, two or more.", metavar="N"),
    key("--save-wait", "sidecar.save_wait", "How long a save waits for a free slot.", metavar="TIME"),
    key("--drain-timeout", "sidecar.drain_timeout", "After SIGTERM: how long to go on persisting.", metavar="TIME"),
    key("--memory-limit", "sidecar.memory_limit", "Memory beyond the arenas.", metavar="SIZE"),
)

SIDECAR_ALONE = several(
    key(
        "--coordinator",
        "sidecar.coordinator",
        "The coordinator, or all of a set.  [default: this machine's]",
        metavar="URL[,URL…]",
    ),
    port("--http-port", "sidecar.http", "Port of HTTP; 0 picks a free one."),
    key("--http", "sidecar.http", "Address of HTTP.", metavar="ADDRESS"),
    path("--tls-ca", "sidecar.tls_ca", "Authority (PEM) that the coordinator's certificate must come from."),
    path("--tls-cert", "sidecar.tls_cert", "Certificate chain (PEM) that is shown to the coordinator."),
    path("--tls-key", "sidecar.tls_key", "Its private key (PEM)."),
    switch("--insecure", "sidecar.insecure", "Serve HTTP beyond loopback, on a network that you trust."),
)
