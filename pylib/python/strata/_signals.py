"""SIGTERM: asks all ranks to save and stop at one common step.

Python runs handlers in the main thread, also inside our blocking calls, which let it every 50 ms. One handler serves
all jobs of the process and chains to the one it found.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

_Handler = Callable[[int, FrameType | None], Any] | int | None


# A launcher and its scheduler often both signal the ranks: the repetition says nothing new.
_ECHO = 2.0  # seconds


class Watch:
    """One job's interest: `notify` is called once, at the first SIGTERM, if the script asks `reached_preemption`, and
    the job has a step left to save."""

    def __init__(self, notify: Callable[[], None], has_ended: Callable[[], bool]) -> None:
        self.notify, self.has_ended = notify, has_ended
        self.asks = False  # the script asks where to stop, so it may be trusted to stop
        self.told_at: float | None = None

    def stops(self) -> bool:
        return self.told_at is not None or (self.asks and not self.has_ended())


_watches: list[Watch] = []
_previous: _Handler = signal.SIG_DFL
_pid = 0  # that installed the handler


def watch(notify: Callable[[], None], has_ended: Callable[[], bool]) -> Watch | None:
    """Installs the handler; None outside of the main thread, where Python allows none."""
    global _previous, _pid
    if threading.current_thread() is not threading.main_thread():
        return None
    if signal.getsignal(signal.SIGTERM) is not _on_sigterm:
        _previous, _pid = signal.getsignal(signal.SIGTERM), os.getpid()
        signal.signal(signal.SIGTERM, _on_sigterm)
    interest = Watch(notify, has_ended)
    _watches.append(interest)
    return interest


def forget(interest: Watch) -> None:
    """Takes the handler back with the last job, unless somebody put theirs on top of it."""
    if interest in _watches:
        _watches.remove(interest)
    in_main = threading.current_thread() is threading.main_thread()
    if not _watches and in_main and signal.getsignal(signal.SIGTERM) is _on_sigterm and _previous is not None:
        signal.signal(signal.SIGTERM, _previous)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    # In a forked child (a DataLoader worker that is told to end) the job is the parent's affair.
    ours = [interest for interest in _watches if interest.stops()] if os.getpid() == _pid else []
    now = time.monotonic()
    for interest in ours:
        if interest.told_at is None:
            interest.told_at = now
            interest.notify()
    will_stop = any(interest.told_at is not None and now - interest.told_at < _ECHO for interest in ours)
    if callable(_previous):
        _previous(number, frame)
    elif not will_stop and _previous == signal.SIG_DFL:
        # Nobody here would stop by itself, or was asked before: the signal means what it always means.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
