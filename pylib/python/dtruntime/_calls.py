"""Synchronous calls of an asynchronous script."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from strata import _core

T = TypeVar("T")

_ASK_EVERY = 0.05  # seconds


def blocking(function: Callable[[], T]) -> T:
    """Runs `function` to its end, and obeys Ctrl-C also inside a coroutine.

    There `asyncio.run` answers the first Ctrl-C by cancelling the task, which a blocked event loop would never notice.
    So the work is done on another thread, and ended within 50 ms of the task's cancellation (CancelledError).
    """
    task = _current_task()
    if task is None:
        return function()
    before = task.cancelling()
    token = _core.CancelToken()
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        token.bind()
        try:
            outcome.append(function())
        except BaseException as raised:
            failure.append(raised)

    thread = threading.Thread(target=work, name="dtruntime", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_ASK_EVERY)
            if task.cancelling() > before:
                token.cancel()
    except BaseException:  # a second Ctrl-C, or any other signal handler that raises
        token.cancel()
        raise
    if failure:
        raise failure[0]
    return outcome[0]


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs here
        return None
