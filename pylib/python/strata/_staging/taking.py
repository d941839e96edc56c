"""One state on its way into its slot."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from ..errors import StrataError
from . import fences, guard

if TYPE_CHECKING:
    from .. import _core
    from .._state.buffers import Buffer, Held

Mode = Literal["auto", "copy", "lazy", "fork"]
MODES: Final = ("auto", "copy", "lazy", "fork")


class Taking:
    """How the state is taken over: `mode`, and what of it goes on after `save` has returned."""

    def __init__(self, staging: _core.Staging, mode: Literal["copy", "lazy", "fork"]) -> None:
        self.mode = mode
        self.staging = staging
        self.deferred = 0
        """Bytes that are copied after `save` has returned."""
        self.fenced = 0.0
        """Seconds that a fence, or `wait_staged`, has held somebody."""
        self._thread: threading.Thread | None = None

    @property
    def reads_tensors(self) -> bool:
        return self.mode == "lazy"

    def wait(self) -> None:
        """Returns when everything is copied."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            return
        started = time.perf_counter()
        thread.join()
        self.fenced += time.perf_counter() - started

    def in_background(self, work: Any) -> None:
        """Runs `work` on a thread that the interpreter waits for before it exits."""

        def run() -> None:
            try:
                work()
            except StrataError:
                pass  # the save is given up, and its handle says why
            except BaseException as error:
                self.staging.fail(f"copying it in the background: {type(error).__name__}: {error}", "please report it")
            finally:
                fences.end(self)

        fences.begin(self)
        self._thread = threading.Thread(target=run, name="strata-staging")
        try:
            self._thread.start()
        except BaseException:
            fences.end(self)
            self._thread = None
            raise


def take_over(staging: _core.Staging, buffers: Sequence[Buffer], held: list[Held], mode: Mode) -> Taking:
    """Copies the state, or sees to it that it will be, and seals. Returns when the caller may go on; tensors that are
    not copied by then stay alive and are guarded until they are.

    Raises:
        StrataError: the step is given up.
    """
    everything = list(range(len(buffers)))
    if mode == "fork" and not staging.over:
        return _fork(staging, buffers, held, everything)
    later = [] if mode == "copy" or staging.over else guard.deferrable(buffers, forced=mode == "lazy")
    if not later:
        staging.copy(everything)
        staging.seal()
        return Taking(staging, "copy")
    taking = Taking(staging, "lazy")
    taking.deferred = sum(buffers[number].nbytes for number in later)
    watched = guard.Guard(staging, buffers, later)
    waiting = set(later)
    staging.copy([number for number in everything if number not in waiting])

    def finish() -> None:
        staging.copy(later)
        written = watched.written()
        held.clear()
        if written is None:
            staging.seal()
            return
        staging.fail(
            f"{written} was written to before it was copied",
            "fence the optimizer that wrote to it (strata.torch.fence), let handle.wait_staged() return first, "
            'or save with mode="copy"',
        )

    if not staging.over:
        taking.in_background(finish)
    return taking


def _fork(staging: _core.Staging, buffers: Sequence[Buffer], held: list[Held], which: list[int]) -> Taking:
    taking = Taking(staging, "fork")
    taking.deferred = sum(buffer.nbytes for buffer in buffers)
    forked = threading.Event()

    def finish() -> None:
        try:
            staging.fork(which)
        finally:
            held.clear()
            forked.set()
        staging.join()
        staging.seal()

    # The child ends with the thread that forked it, so that is the one which waits for it.
    taking.in_background(finish)
    forked.wait()
    return taking
