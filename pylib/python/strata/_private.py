"""A private sidecar with its coordinator, for a world of one: nothing has to be started by hand.

One per user, node and job. It runs from this wheel as a session of its own, outlives the trainer until what it was
given is committed, and ends when its last client is gone. Several processes may start one at once: the arena
directory's lock lets one live, the others use it.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from . import _core
from .errors import ConflictError, UnavailableError

_log = logging.getLogger("strata")

_POLL = 0.02  # seconds between looks at the socket


def private_socket(job: str, timeout: float, coordinator: str | None = None) -> Path:
    """The socket of the job's private sidecar, which is started if none answers: with a coordinator of its own, or for
    the one at the URL `coordinator`.

    Raises:
        UnavailableError: it ended, with its last words, or did not answer within `timeout` seconds.
    """
    home, socket, _ = _core.private_places(job)
    log = home / "private.log"
    deadline = time.monotonic() + timeout
    child: subprocess.Popen[bytes] | None = None
    while True:
        try:
            return _core.find_sidecar(socket)
        except UnavailableError:
            pass  # not yet
        if child is None:
            _log.info("starting a private sidecar for job %r; its log: %s", job, log)
            child = _start(job, log, coordinator)
        elif (code := child.poll()) is not None:
            if code != ConflictError.exit_code:
                raise UnavailableError(
                    f"starting a private sidecar for job {job!r}: it ended with code {code}: {_last_words(log)}",
                    hint=f"its whole log is {log}",
                )
            child = None  # another process's is starting, or one that was leaving has gone meanwhile
            time.sleep(5 * _POLL)
        if time.monotonic() >= deadline:
            raise UnavailableError(
                f"starting a private sidecar for job {job!r}: no answer at {socket} within {timeout:.0f} s",
                hint=f"its log is {log}",
            )
        time.sleep(_POLL)


def _start(job: str, log: Path, coordinator: str | None) -> subprocess.Popen[bytes]:
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    ours = str(Path(__file__).resolve().parent.parent)
    others = os.environ.get("PYTHONPATH")
    environment = os.environ | {"PYTHONPATH": ours if not others else os.pathsep.join([ours, others])}
    if coordinator is not None:
        environment["STRATA_COORDINATOR"] = coordinator
    with log.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "strata", "up" if coordinator is None else "sidecar", "--private", job],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            cwd=log.parent,
            env=environment,
        )


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return " / ".join(lines[-3:]) or "it said nothing"
