"""The child process that runs an operator's hooks file: `python -m strata._hooks FILE`, started by the coordinator.

The protocol, one JSON object a line over standard input and output, stands in core/src/coordinator/hooks.rs. The hooks
themselves see neither: their standard input is empty, and what they print goes to standard error.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import operator
import os
import queue
import reprlib
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from .hooks import CommitEvent, WorkerLost
from .info import StepInfo

Call = dict[str, Any]

LONGEST = 8192
"""Characters of a failure that are told: a message may quote anything, such as a whole state."""


def on_commit(hook: Callable[..., Any], call: Call) -> None:
    hook(CommitEvent.from_fields(call))


def on_worker_lost(hook: Callable[..., Any], call: Call) -> None:
    hook(WorkerLost.from_fields(call))


def retain(hook: Callable[..., Any], call: Call) -> list[int]:
    """The steps to keep.

    Raises:
        TypeError: the hook did not return a set of step numbers.
        ValueError: it named steps that it was not asked about.
    """
    asked = {fields["step"] for fields in call["steps"]}
    answer = hook([StepInfo.from_fields(fields) for fields in call["steps"]])
    if not isinstance(answer, Iterable) or isinstance(answer, (str, bytes, dict)):
        raise TypeError(f"retain returned {reprlib.repr(answer)}, not a set of step numbers")
    kept = {step_number(step) for step in answer}
    if unknown := kept - asked:
        raise ValueError(f"retain named steps that are not among those it was asked about: {reprlib.repr(unknown)}")
    return sorted(kept)


def step_number(step: object) -> int:
    """NumPy's integers are step numbers too. True, an int to Python, is the slip of a hook that filters wrongly."""
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise TypeError(f"retain returned a set with {reprlib.repr(step)} in it, not a set of step numbers")
    return operator.index(step)


HOOKS: dict[str, Callable[[Callable[..., Any], Call], Any]] = {
    "on_commit": on_commit,
    "on_worker_lost": on_worker_lost,
    "retain": retain,
}


def load(path: Path) -> ModuleType:
    """Executes the file, with its own folder to import from."""
    sys.path.insert(0, str(path.parent))
    loader = importlib.machinery.SourceFileLoader("strata_hooks_file", str(path))
    spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    assert spec is not None, "a spec is made of every path when its loader is given"
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


def defined(module: ModuleType) -> list[str]:
    """Which hooks the file has. A misspelt one would be passed over in silence, and steps that it should have kept be
    removed: a file without any, or with something under a hook's name that can't be called, is refused.

    Raises:
        TypeError: the file has no hook, or one that is no function.
    """
    found = [name for name in HOOKS if hasattr(module, name)]
    if not found:
        raise TypeError(f"{module.__file__} defines none of {', '.join(HOOKS)}")
    for name in found:
        if not callable(getattr(module, name)):
            raise TypeError(f"{name} in {module.__file__} is {reprlib.repr(getattr(module, name))}, not a function")
    return found


def told(error: BaseException) -> str:
    """The traceback, from the hooks file on; its end where it is endless. It goes to the log and into `status`."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith((__file__, "<frozen importlib")):
        trace = trace.tb_next
    text = "".join(traceback.format_exception(type(error), error, trace)).rstrip()
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"


def answer(module: ModuleType, call: Call) -> dict[str, Any]:
    name = call["call"]
    try:
        return {"id": call["id"], "ok": HOOKS[name](getattr(module, name), call)}
    except BaseException as error:  # sys.exit in a hook ends the call, not the process
        return {"id": call["id"], "error": told(error)}


def calls(lines: IO[str]) -> queue.Queue[Call]:
    """Reads ahead, so that the end of the coordinator ends this process even when a hook hangs."""
    waiting: queue.Queue[Call] = queue.Queue()

    def read() -> None:
        for line in lines:
            waiting.put(json.loads(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return waiting


def private_streams() -> tuple[IO[str], IO[str]]:
    """The protocol's own pipes; what hooks read is empty, what they print goes to standard error."""
    lines, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    return lines, replies


def main(arguments: list[str]) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the coordinator
    lines, replies = private_streams()
    waiting = calls(lines)
    try:
        module = load(Path(arguments[0]).absolute())
        hooks = defined(module)
    except BaseException as error:
        print(json.dumps({"error": told(error)}), file=replies)
        return 1
    print(json.dumps({"hooks": hooks}), file=replies)
    while True:
        print(json.dumps(answer(module, waiting.get())), file=replies)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
