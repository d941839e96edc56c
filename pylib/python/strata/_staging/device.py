"""What accelerators copy into a slot by themselves, and the arenas they were shown for it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._devices import Copier, Engine, reads
from .guard import Versions

if TYPE_CHECKING:
    from .. import _core
    from .._state.buffers import Buffer, Held


class Registered:
    """The arenas of one job that devices may write to by themselves, each shown to them once."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[Engine, _core.ArenaMemory]] = {}
        self._lock = threading.Lock()
        self._refusal: str | None = None
        self._untold = False

    def show(self, engines: set[Engine], memory: _core.ArenaMemory) -> None:
        with self._lock:
            for key, (engine, known) in list(self._known.items()):
                if known.abandoned:
                    self._forget(key, engine)
            for engine in engines:
                key = (id(engine), memory.address)
                if key in self._known or self._refusal is not None:
                    continue
                try:
                    engine.register(memory.address, memory.nbytes)
                except RuntimeError as error:
                    self._refusal = f"the device can't write to the arena by itself, saves are slower: {error}"
                    self._untold = True
                else:
                    self._known[key] = (engine, memory)

    def doubts(self) -> list[str]:
        """Why a device refused an arena; told once."""
        with self._lock:
            found = [self._refusal] if self._untold and self._refusal else []
            self._untold = False
        return found

    def let_go(self) -> None:
        """Nothing is copied any more."""
        with self._lock:
            for key, (engine, _) in list(self._known.items()):
                self._forget(key, engine)

    def _forget(self, key: tuple[int, int], engine: Engine) -> None:
        del self._known[key]
        with contextlib.suppress(RuntimeError):  # the driver has forgotten it by itself, with its context
            engine.unregister(key[1])


class DeviceCopy:
    """The tensors of one save that lie on devices, as they are at its making; none is an ordinary case.

    The copies follow what is queued already and run beside what is queued later, except for writes: those wait on the
    device for `hold_back`, the host for nothing.
    """

    def __init__(
        self, staging: _core.Staging, buffers: Sequence[Buffer], held: Sequence[Held], registered: Registered
    ) -> None:
        self._staging = staging
        self._buffers = buffers
        self._registered = registered
        self._of = {
            number: engine
            for number, one in enumerate(held)
            if buffers[number].nbytes and (engine := reads(one)) is not None
        }
        self.numbers = list(self._of)
        self._sources: dict[int, Any] = {number: held[number][1] for number in self.numbers}
        self._copiers: dict[Engine, Copier] = {
            engine: engine.copier([self._sources[number] for number in self.numbers if self._of[number] is engine])
            for engine in set(self._of.values())
        }
        self._began = time.perf_counter()
        self._lock = threading.Lock()
        self._late: Versions | None = None
        self._written: str | None = None

    def queue(self, which: Sequence[int]) -> None:
        """Begins to copy these."""
        if not which or (memory := self._staging.memory()) is None:
            return
        self._registered.show(set(self._copiers), memory)
        targets = dict(zip(which, self._staging.targets(list(which)), strict=False))
        for engine, copier in self._copiers.items():
            copier.queue([(self._sources[number], to) for number, to in targets.items() if self._of[number] is engine])

    def hold_back(self) -> None:
        """Whatever the caller queues from now on waits, on the device, for the copies queued so far."""
        for copier in self._copiers.values():
            copier.hold_back()

    def watch(self, which: Sequence[int]) -> None:
        """These are queued late: nobody may write to them before `fence`."""
        self._late = Versions(self._buffers, which)

    def fence(self) -> None:
        """All are queued, and the caller is about to queue writes. What was written before is noted."""
        with self._lock:
            self._note_writes()
            self.hold_back()

    def wait(self) -> str | None:
        """Returns when all is copied: the name of a tensor that was written to before its fence."""
        for copier in self._copiers.values():
            copier.wait()
        with self._lock:
            self._note_writes()
        if self.numbers:
            self._staging.arrived(self.numbers, time.perf_counter() - self._began)
        self._sources.clear()
        return self._written

    def give_up(self) -> None:
        """Returns when nothing writes to the slot any more, whatever became of the copies."""
        for copier in self._copiers.values():
            with contextlib.suppress(RuntimeError):
                copier.wait()

    def _note_writes(self) -> None:
        if self._late is not None:
            self._written, self._late = self._late.written(), None
