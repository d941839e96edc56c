"""One rank of deaths.py: takes memory, forks as DataLoader does, and writes down when it learns of another's death."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

CHILDREN = 2


def main() -> None:
    way, folder, megabytes, victim = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    rank = int(os.environ["RANK"])
    ballast = bytearray(megabytes << 20)
    ballast[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(ballast[:: os.sysconf("SC_PAGE_SIZE")])
    own = os.getpid()

    def say(name: str, what: object) -> None:
        """Whole, or not at all."""
        (folder / f"{rank}.new").write_text(str(what))
        (folder / f"{rank}.new").rename(folder / f"{rank}.{name}")

    def fork() -> None:
        for _ in range(CHILDREN):
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                while os.getppid() == own:
                    time.sleep(0.05)
                os._exit(0)

    def knows() -> None:
        say("told", time.monotonic())
        time.sleep(0.5)  # an end of this process would hold up the others, who are yet to be told
        os._exit(1)

    if way == "torchrun":
        signal.signal(signal.SIGTERM, lambda *_: knows())
        fork()
        say("ready", own)
        signal.pause()
        return
    import strata

    fenced = strata.FencedError  # resolved at its first use, as all names are
    job = strata.connect()
    fork()
    job.barrier("all are there")
    say("ready", own)
    if rank == victim:
        signal.pause()
    try:
        job.barrier("nobody comes")
    except fenced:
        knows()


if __name__ == "__main__":
    main()
