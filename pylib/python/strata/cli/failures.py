"""How a command that failed ends: `error: …`, `hint: …` on standard error, and the exit code of the error's kind."""

from __future__ import annotations

import errno
import os
import sys

import click

from strata.errors import DeniedError, InternalError, InvalidError, NotFoundError, OverloadedError, StrataError

UNEXPECTED = 1
INTERRUPTED = 130
SHOW_TRACEBACK = "STRATA_TRACEBACK"

SIMILAR = 0.7
"""How near an option must be to what was typed; click's own 0.6 finds --slots in --prot."""

_BY_ERRNO: dict[int, type[StrataError]] = {
    errno.ENOENT: NotFoundError,
    errno.EACCES: DeniedError,
    errno.EPERM: DeniedError,
    errno.EROFS: DeniedError,
    errno.ENOSPC: OverloadedError,
    errno.EDQUOT: OverloadedError,
    errno.EISDIR: InvalidError,
    errno.ENOTDIR: InvalidError,
}


def usage(message: str, hint: str) -> StrataError:
    """The command itself is wrong: exit code 2."""
    return InvalidError(message, hint=hint)


def tell(error: BaseException) -> int:
    """Says on standard error what went wrong; the exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):  # outside click, which ends the line with the terminal's ^C itself
        click.echo(err=True)
    if isinstance(error, (KeyboardInterrupt, click.Abort)) or _is_cancelled(error):
        say("interrupted", None)
        return INTERRUPTED
    if isinstance(error, click.ClickException):
        error = from_click(error)
    if isinstance(error, OSError) and not isinstance(error, StrataError):
        error = from_system(error)
    if isinstance(error, StrataError):
        say(error.message, error.hint)
        return error.exit_code
    if type(error).__name__ == "PanicException":  # its one line has been logged
        return InternalError.exit_code
    if os.environ.get(SHOW_TRACEBACK, "0") not in ("", "0"):
        import traceback

        traceback.print_exception(error)
    say(f"unexpected {type(error).__name__}: {error}", f"{SHOW_TRACEBACK}=1 shows where; please report it")
    return UNEXPECTED


def _is_cancelled(error: BaseException) -> bool:
    """Without importing asyncio, which takes longer than most commands."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(error, asyncio.CancelledError)


def say(message: str, hint: str | None) -> None:
    """`error: …` and `hint: …`, coloured on a terminal."""
    sys.stdout.flush()
    click.echo(f"{_coloured('error:', 'red')} {message}", err=True)
    if hint:
        click.echo(f"{_coloured('hint:', 'cyan')} {hint}", err=True)


def warn(message: str) -> None:
    """Something that a user should know, and that stops nothing."""
    sys.stdout.flush()
    click.echo(f"{_coloured('warning:', 'yellow')} {message}", err=True)


def _coloured(text: str, colour: str) -> str:
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=colour, bold=True)


def from_click(error: click.ClickException) -> StrataError:
    """The parser's own errors in our words."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "strata"
    hint = f'"{path} --help" shows what it takes'
    if isinstance(error, click.NoSuchOption):
        message = f"no such option: {error.option_name}"
        shown = {name for option in _options(context) if not option.hidden for name in option.opts}
        from difflib import get_close_matches

        if near := get_close_matches(error.option_name, shown, n=2, cutoff=SIMILAR):
            hint = f"did you mean {' or '.join(near)}?"
    else:
        message = error.format_message().removesuffix(".")
        message = message[:1].lower() + message[1:]
    return InvalidError(message, hint=hint)


def _options(context: click.Context | None) -> list[click.Option]:
    params = context.command.params if context else []
    return [param for param in params if isinstance(param, click.Option)]


def from_system(error: OSError) -> StrataError:
    """A file that could not be read or written, by its errno."""
    kind = _BY_ERRNO.get(error.errno or 0, StrataError)
    where = f"{error.filename}: " if error.filename else ""
    found = kind(f"{where}{error.strerror or error}")
    if kind is StrataError:
        found.exit_code = UNEXPECTED  # type: ignore[misc]
    return found
