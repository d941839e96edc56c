"""Ctrl-C ends whatever blocks; SIGTERM stops all ranks at one step."""

from __future__ import annotations

import signal

from harness.node import Node
from harness.script import Start, finish


def test_ctrl_c_ends_a_blocking_call(node: Node, script: Start) -> None:
    lonely = script(
        """
        job = strata.connect()
        print("waiting")
        try:
            job.barrier("nobody else comes")
        except KeyboardInterrupt:
            print("interrupted")
        """,
        node.env,
        world=2,
    )
    lonely.wait_until(lambda: "waiting" in lonely.text(), "the barrier")
    lonely.popen.send_signal(signal.SIGINT)
    assert "interrupted" in finish(lonely)[0]


PREEMPTED = """
def handler(number, frame):
    print("chained")

signal.signal(signal.SIGTERM, handler)
with strata.connect() as job:
    job.restore()
    for step in range(1, 100_000):
        if step == 3:
            print("training")
        if job.reached_preemption(step):
            job.save(step, {"step": step})
            print(f"stopped at {step}")
            break
        time.sleep(0.002 * (1 + job.rank))
assert signal.getsignal(signal.SIGTERM) is handler
"""


def test_sigterm_on_one_rank_stops_all_at_the_same_step(node: Node, script: Start) -> None:
    ranks = [script(PREEMPTED, node.env, rank, 2) for rank in range(2)]
    for rank in ranks:
        rank.wait_until(lambda rank=rank: "training" in rank.text(), "the third step")
    ranks[0].popen.send_signal(signal.SIGTERM)
    said = finish(*ranks)
    stops = {text.split("stopped at ")[1].split()[0] for text in said}
    assert len(stops) == 1, said
    assert "chained" in said[0] and "chained" not in said[1]


LEFT_OVER = """
job = strata.connect()
for step in range(1, 10):
    job.reached_preemption(step)
print("up")
if job.rank == 1:
    time.sleep(600)
while True:
    try:
        job.barrier("nobody comes")
    except strata.FencedError:
        break
print("told")
time.sleep(600)
"""


def test_sigterm_ends_a_script_that_has_nothing_left_to_save(node: Node, script: Start) -> None:
    ranks = [script(LEFT_OVER, node.env, rank, 2) for rank in range(2)]
    for rank in ranks:
        rank.wait_until(lambda rank=rank: "up" in rank.text(), "the steps")
    ranks[1].kill()
    ranks[0].wait_until(lambda: "told" in ranks[0].text(), "the survivor to know")
    assert ranks[0].stop() == -signal.SIGTERM


def test_sigterm_still_ends_a_script_that_never_asks(node: Node, script: Start) -> None:
    deaf = script("job = strata.connect()\nprint('up')\ntime.sleep(600)", node.env)
    deaf.wait_until(lambda: "up" in deaf.text(), "the script to connect")
    assert deaf.stop() == -signal.SIGTERM
