"""What a trainer that starts again pays for its arena's memory, counted in page faults: a clock would only guess."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from harness.node import Node
from harness.process import PATIENCE
from harness.script import Start, finish

PAGES = 16384  # of 4 KiB that the state has; the arena has two slots of it
STATE = (
    f"PAGES = {PAGES}"
    + """
import resource
state = {"w": np.zeros(PAGES * 4096, np.uint8), "b": np.ones(100)}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def works(task):
    try:
        return open(f"/proc/self/task/{task}/comm").read().strip() in ("strata-prefault", "strata-own")
    except FileNotFoundError:
        return False  # it has just ended
def settle():
    "Until no thread of this process works for its memory any more: what is not mapped then, the save pays for."
    idle = 0
    while idle < 10:  # a thread gives itself its name, a moment after it has been started
        time.sleep(0.01)
        idle = 0 if any(map(works, os.listdir("/proc/self/task"))) else idle + 1
def first_save(step):
    before = faults()
    handle = job.save(step, state)
    print("faults", faults() - before, "cold", handle.cold)
    handle.wait_committed()
"""
)
SAVES = (
    STATE
    + """
job = strata.connect()
for step in (1, 2):
    job.save(step, state).wait_committed()
"""
)
KILLED = SAVES + "os.kill(os.getpid(), signal.SIGKILL)\n"
LEFT = SAVES + "job.close()\n"


@pytest.fixture
def restarted(node: Node, script: Start) -> Callable[[str, str], tuple[int, bool]]:
    """Faults of a first save, and whether it was cold, by the code of the trainer before and of this one."""

    def run(before: str, code: str) -> tuple[int, bool]:
        first = script(before, node.env)
        assert first.popen.wait(PATIENCE) == (-signal.SIGKILL if before == KILLED else 0), first.text()
        (text,) = finish(script(f"{STATE}\n{code}\njob.close()", node.env))
        told = text.split()
        return int(told[told.index("faults") + 1]), told[told.index("cold") + 1] == "True"

    return run


@pytest.mark.parametrize("before", [KILLED, LEFT], ids=["killed", "left"])
@pytest.mark.parametrize(
    "code",
    [
        "assert job.restore(into=state).step == 2",
        "state = job.restore().state",
        "job.prepare(state)",
    ],
    ids=["in place", "as views", "prepared"],
)
def test_first_save_of_a_restarted_trainer_finds_its_pages_mapped(
    restarted: Callable[[str, str], tuple[int, bool]], before: str, code: str
) -> None:
    """The arena of one that was killed is there still; that of one that left was given back, and is made anew."""
    faults, cold = restarted(before, f"job = strata.connect()\n{code}\nsettle()\nfirst_save(3)")
    assert faults < PAGES // 8 and not cold, f"{faults} faults"


def test_first_save_that_comes_at_once_maps_many_pages_with_each_fault(
    restarted: Callable[[str, str], tuple[int, bool]],
) -> None:
    """From before it joins, so that it does not matter who mapped which."""
    code = """
before = faults()
job = strata.connect()
handle = job.save(3, state)
print("faults", faults() - before, "cold", handle.cold)
handle.wait_committed()
"""
    faults, _ = restarted(KILLED, code)
    assert faults < PAGES // 2, f"{faults} faults"
