"""Commands that hold commands: one that does not exist is answered with the one that was meant."""

from __future__ import annotations

import click

from strata.cli import failures


class Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            from difflib import get_close_matches

            path = ctx.command_path
            near = get_close_matches(args[0], names, n=1)
            hint = f'did you mean "{path} {near[0]}"?' if near else f'"{path} --help" lists the commands'
            raise failures.usage(f"no such command: {args[0]}", hint)
        return super().resolve_command(ctx, args)
