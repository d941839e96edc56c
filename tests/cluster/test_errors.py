"""The table of errors: one class per kind, each the built-in that Python already has for it."""

from __future__ import annotations

import asyncio
import pickle

import pytest
from strata import errors

TABLE = [
    (errors.InvalidError, "Invalid", ValueError, 2),
    (errors.NotFoundError, "NotFound", FileNotFoundError, 3),
    (errors.ConflictError, "Conflict", errors.StrataError, 4),
    (errors.FencedError, "Fenced", errors.StrataError, 5),
    (errors.UnavailableError, "Unavailable", ConnectionError, 6),
    (errors.StrataTimeoutError, "Timeout", TimeoutError, 6),
    (errors.OverloadedError, "Overloaded", errors.StrataError, 6),
    (errors.CorruptCheckpointError, "Corrupt", errors.StrataError, 7),
    (errors.DeniedError, "Denied", PermissionError, 8),
    (errors.InternalError, "Internal", RuntimeError, 70),
]


@pytest.mark.parametrize(("cls", "kind", "builtin", "code"), TABLE, ids=[kind for _, kind, _, _ in TABLE])
def test_each_kind_has_its_class(cls: type[errors.StrataError], kind: str, builtin: type[Exception], code: int) -> None:
    assert issubclass(cls, errors.StrataError) and issubclass(cls, builtin)
    error = errors.from_kind(kind, "saving step 3: no", "do this", 1.5)
    assert type(error) is cls and isinstance(error, errors.StrataError)
    assert (error.kind, error.hint, error.retry_after, error.exit_code) == (kind, "do this", 1.5, code)
    assert str(error) == "saving step 3: no; hint: do this"


@pytest.mark.parametrize("cls", [row[0] for row in TABLE], ids=lambda cls: cls.kind)
def test_errors_can_be_built_from_one_string_and_pickle(cls: type[errors.StrataError]) -> None:
    plain = cls("reading x: gone")
    assert str(plain) == "reading x: gone" and plain.hint is None
    hinted = cls("reading x: gone; hint: look there")
    assert (hinted.message, hinted.hint) == ("reading x: gone", "look there")
    for error in (plain, hinted, cls("m", hint="h", retry_after=2.0)):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is cls
        assert (str(back), back.hint, back.retry_after) == (str(error), error.hint, error.retry_after)


def test_cancelled_is_the_built_in() -> None:
    assert type(errors.from_kind("Cancelled", "m", None, None)) is asyncio.CancelledError
