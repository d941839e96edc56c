"""One state on its way into its slot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from ..errors import InternalError, StrataError
from . import fences, guard
from .device import DeviceCopy, Registered

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

    def let_write(self) -> None:
        """A forked child has its own memory."""

    def wait(self) -> None:
        """Returns when everything is copied."""
        if self._thread is not None and self._thread.is_alive():
            with self._held_up():
                self._thread.join()

    @contextmanager
    def _held_up(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            held = time.perf_counter() - started
            self.fenced += held
            self.staging.held(held)

    def in_background(self, work: Callable[[], None]) -> None:
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


class LazyTaking(Taking):
    """What is left of a state is copied while its tensors stay in use; a fence lets their writers through."""

    def __init__(
        self, staging: _core.Staging, buffers: Sequence[Buffer], held: list[Held], device: DeviceCopy, later: list[int]
    ) -> None:
        super().__init__(staging, "lazy")
        self.deferred = sum(buffers[number].nbytes for number in later)
        self._held = held
        self._device = device
        self._on_device = [number for number in later if number in device.numbers]
        self._on_host = [number for number in later if number not in device.numbers]
        self._watched = guard.Guard(staging, buffers, self._on_host)
        self._device.watch(self._on_device)
        self._read = threading.Event()
        """Nothing reads the host's tensors any more, and the device has been told of all of its own."""

    def let_write(self) -> None:
        if not self._device.numbers:
            return self.wait()
        if not self._read.is_set():
            with self._held_up():
                self._read.wait()
        self._device.fence()

    def copy(self) -> None:
        try:
            self._device.queue(self._on_device)
            self.staging.copy(self._on_host)
            written = self._watched.written()
        except BaseException:
            self._device.give_up()
            raise
        finally:
            self._read.set()
        written = self._device.wait() or written
        self._held.clear()
        if written is None:
            self.staging.seal()
            return
        self.staging.fail(
            f"{written} was written to before it was copied",
            "fence the optimizer that wrote to it (strata.torch.fence), let handle.wait_staged() return first, "
            'or save with mode="copy"',
        )


def take_over(
    staging: _core.Staging, buffers: Sequence[Buffer], held: list[Held], mode: Mode, registered: Registered
) -> Taking:
    """Copies the state, or sees to it that it will be, and seals. Returns when the caller may go on; tensors that are
    not copied by then stay alive and are guarded until they are.

    Raises:
        StrataError: the step is given up.
    """
    everything = range(len(buffers))
    if mode == "fork" and not staging.over:
        return _fork(staging, buffers, held, list(everything))
    later = [] if mode == "copy" or staging.over else guard.deferrable(buffers, forced=mode == "lazy")
    device = DeviceCopy(staging, buffers, held, registered)
    now = sorted(set(everything) - set(later))
    try:
        device.queue([number for number in now if number in device.numbers])
        staging.copy([number for number in now if number not in device.numbers])
        if not later:
            device.wait()
            staging.seal()
            return Taking(staging, "copy")
        device.hold_back()
        taking = LazyTaking(staging, buffers, held, device, later)
        if not staging.over:
            taking.in_background(taking.copy)
    except BaseException as error:
        device.give_up()
        if not isinstance(error, RuntimeError) or isinstance(error, StrataError):
            raise
        staging.fail(f"taking it over: {error}", "please report it")
        raise InternalError(f"taking a state over: {error}") from error
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
