"""What Strata raises. One class per kind; each is also the built-in exception that Python already has for it.

The kind tells the caller what to do (docs, "Errors"): its gRPC code, exit code and whether to retry follow from it.
"""

from __future__ import annotations

from typing import Any, ClassVar

__all__ = [
    "ConflictError",
    "CorruptCheckpointError",
    "DeniedError",
    "FencedError",
    "InternalError",
    "InvalidError",
    "NotFoundError",
    "OverloadedError",
    "StrataError",
    "StrataTimeoutError",
    "StrataWarning",
    "UnavailableError",
]

_HINT = "hint: "


class StrataWarning(UserWarning):
    """Something that failed in the background; training goes on."""


class StrataError(Exception):
    """The base of everything Strata raises.

    Can be built from one string, which may end with `hint: …`, and pickles.

    Attributes:
        kind: the row of the table of errors, such as "Invalid".
        hint: what to do next, or None.
        retry_after: seconds after which the same call may succeed, or None.
    """

    kind: ClassVar[str] = "Internal"
    exit_code: ClassVar[int] = 70

    def __init__(self, message: str = "", *, hint: str | None = None, retry_after: float | None = None) -> None:
        if hint is None and _HINT in message:
            message, hint = message.rsplit(_HINT, 1)
            message = message.rstrip().removesuffix(";")
        self.message = message
        self.hint = hint
        self.retry_after = retry_after
        super().__init__(self._text())

    def _text(self) -> str:
        return self.message if self.hint is None else f"{self.message}; {_HINT}{self.hint}"

    def __str__(self) -> str:
        return self._text()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.retry_after)


def _rebuild(cls: type[StrataError], message: str, hint: str | None, retry_after: float | None) -> StrataError:
    error = cls.__new__(cls)
    StrataError.__init__(error, message, hint=hint, retry_after=retry_after)
    return error


class InvalidError(StrataError, ValueError):
    """The request is wrong and stays wrong."""

    kind = "Invalid"
    exit_code = 2


class NotFoundError(StrataError, FileNotFoundError):
    """What was named does not exist."""

    kind = "NotFound"
    exit_code = 3


class ConflictError(StrataError):
    """Somebody else holds it or changed it: read again first."""

    kind = "Conflict"
    exit_code = 4


class FencedError(StrataError):
    """This process belongs to a generation that has ended: end, or connect again. Never retry."""

    kind = "Fenced"
    exit_code = 5


class UnavailableError(StrataError, ConnectionError):
    """The other side can't be reached; retry with backoff."""

    kind = "Unavailable"
    exit_code = 6


class StrataTimeoutError(StrataError, TimeoutError):
    """The time-out passed; whether the work was done is unknown."""

    kind = "Timeout"
    exit_code = 6


class OverloadedError(StrataError):
    """A quota or a resource is used up; retry after the hint."""

    kind = "Overloaded"
    exit_code = 6


class CorruptCheckpointError(StrataError):
    """Stored bytes are not what was written: use another copy or another step."""

    kind = "Corrupt"
    exit_code = 7


class DeniedError(StrataError, PermissionError):
    """Not allowed."""

    kind = "Denied"
    exit_code = 8


class InternalError(StrataError, RuntimeError):
    """A defect of ours; please report it."""

    kind = "Internal"
    exit_code = 70


_CLASSES: dict[str, type[StrataError]] = {
    cls.kind: cls
    for cls in (
        InvalidError,
        NotFoundError,
        ConflictError,
        FencedError,
        UnavailableError,
        StrataTimeoutError,
        OverloadedError,
        CorruptCheckpointError,
        DeniedError,
        InternalError,
    )
}


def from_kind(kind: str, message: str, hint: str | None, retry_after: float | None) -> BaseException:
    """The exception for an error of the core; called by `strata._core` alone."""
    if kind == "Cancelled":
        from asyncio import CancelledError

        return CancelledError(message)
    return _CLASSES.get(kind, InternalError)(message, hint=hint, retry_after=retry_after)
