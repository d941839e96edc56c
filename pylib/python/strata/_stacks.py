"""What the threads of this process are doing, for `strata stacks` and for a rank that stands still.

`all_threads` is called with the interpreter's lock, by a thread of the core. Where that lock can't be had, the core has
faulthandler write the stacks: it is registered for a real-time signal that the core's thread sends to itself alone.
"""

from __future__ import annotations

import os
import sys
import threading
from types import FrameType

from . import _core

_FRAMES = 100  # of a thread; as many as faulthandler shows
_THREADS = 100

_registered: tuple[int, int, int] | None = None
"""(process, signal, file); a forked child that connects by itself has its own."""


def all_threads() -> str:
    """One block a thread, the main thread's first, in the form of faulthandler. Reads no source files: they may lie on
    what hangs."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    main, own = threading.main_thread().ident, threading.get_ident()
    frames = sys._current_frames()
    idents = sorted((ident for ident in frames if ident != own), key=lambda ident: (ident != main, ident))
    blocks = [_block(ident, names.get(ident, "not Python's"), frames[ident]) for ident in idents[:_THREADS]]
    if len(idents) > _THREADS:
        blocks.append(f"… and {len(idents) - _THREADS} more threads\n")
    return "\n".join(blocks)


def _block(ident: int, name: str, top: FrameType) -> str:
    lines = [f"Thread {ident:#018x} [{name}] (most recent call first):"]
    frame: FrameType | None = top
    while frame is not None and len(lines) <= _FRAMES:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_qualname}')
        frame = frame.f_back
    if frame is not None:
        lines.append("  …")
    return "\n".join(lines) + "\n"


def outside(signals: bool) -> tuple[int, int] | str:
    """Registers faulthandler, once in a process: the signal and the file that it writes to, or why there is none."""
    global _registered
    if not signals:
        return "strata.connect was called with signals=False"
    if _registered is None or _registered[0] != os.getpid():
        import faulthandler

        number = _core.free_signal()
        if number is None:
            return "every real-time signal has a handler"
        file = os.memfd_create("strata-stacks", os.MFD_CLOEXEC)
        faulthandler.register(number, file=file, all_threads=True, chain=False)
        _registered = (os.getpid(), number, file)
    return _registered[1:]
