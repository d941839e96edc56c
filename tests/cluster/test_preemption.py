"""SIGTERM to durable: the loop that is told to stop saves at its next step's end and leaves once that is committed, or
says in so many words that it was not made."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.node import Node
from harness.process import PATIENCE, Process, wait_until
from harness.torture import tell

BUDGET = 30.0
"""Seconds that a scheduler leaves between SIGTERM and SIGKILL."""

LOOP = """
import sys, torch, strata, strata.torch

mode, budget = sys.argv[1], float(sys.argv[2])
torch.manual_seed(1)
net = torch.nn.Sequential(torch.nn.Linear(1024, 1024), torch.nn.ReLU(), torch.nn.Linear(1024, 1024))
optimizer = torch.optim.AdamW(net.parameters())
if mode == "auto":
    strata.torch.fence(optimizer)
job = strata.connect()

def state():
    return {"model": net.state_dict(), "optimizer": optimizer.state_dict()}

step, handle = 0, None
while True:
    step += 1
    optimizer.zero_grad()
    net(torch.randn(8, 1024)).square().mean().backward()
    optimizer.step()
    stop = job.reached_preemption(step)
    if stop or step % 3 == 0:
        handle = job.save(step, state(), mode=mode)
        print("saved", step, handle.mode, flush=True)
    if stop:
        break
try:
    job.close(budget)
except strata.StrataError as error:
    print(f"not made: step {step}: {error}", flush=True)
    raise SystemExit(3)
print("durable", step, flush=True)
"""


@pytest.mark.timeout(3600)
def test_sigterm_makes_the_last_step_durable_or_says_that_it_was_not_made(
    request: pytest.FixtureRequest,
    make_node: Callable[..., Node],
    python: Path,
    site: Path,
    tmp_path: Path,
    seed: int,
) -> None:
    """Lazy saves and forked ones are under way when the signal comes."""
    pytest.importorskip("torch")
    rounds: int = request.config.getoption("--preemptions")
    node = make_node().up()
    source = random.Random(seed)
    durable = 0
    for number in range(rounds):
        tell(f"torture-progress preemption {number + 1} {rounds}")
        mode, delay = source.choice(("auto", "fork")), source.uniform(0.0, 0.5)
        print(f"round {number}: {mode}, SIGTERM {delay:.3f} s after a save began")
        job = f"preempted-{number}"
        place = {"PYTHONPATH": str(site), "STRATA_JOB": job, "RANK": "0", "WORLD_SIZE": "1"}
        log = tmp_path / f"{job}.log"
        trainer = Process([python, "-u", "-c", LOOP, mode, str(BUDGET)], node.env | place, log)
        try:
            trainer.wait_until(lambda trainer=trainer: "saved" in trainer.text(), "the first save")  # type: ignore[misc]
            time.sleep(delay)
            trainer.popen.send_signal(signal.SIGTERM)
            ended = trainer.popen.wait(BUDGET + PATIENCE)
        finally:
            trainer.kill()
        said = [line for line in trainer.text().splitlines() if line.startswith(("saved", "durable", "not made"))]
        taken = {"auto": "lazy", "fork": "fork"}[mode]
        assert all(line.split()[2] == taken for line in said if line.startswith("saved")), said
        last = said[-1].split()
        if ended == 0:
            assert last[0] == "durable", said
            commit = Path(node.store) / job / "steps" / f"{int(last[1]):020}" / "COMMIT"
            assert commit.exists(), said
            durable += 1
        else:
            assert ended == 3 and said[-1].startswith(f"not made: step {last[3].rstrip(':')}"), said
        # A hundred of them would fill the disk.
        shutil.rmtree(Path(node.store) / job, ignore_errors=True)
    counts = {"rounds": rounds, "durable within the budget": durable}
    tell("torture-result " + json.dumps({"name": "preemption", "seed": seed, "counts": counts}))
    assert durable == rounds, "a store that is there and has room takes every step within the budget"


def test_a_step_that_the_store_does_not_take_is_said_not_to_be_made(
    make_node: Callable[..., Node], python: Path, site: Path, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    node = make_node().up()
    place = {"PYTHONPATH": str(site), "STRATA_JOB": "lost", "RANK": "0", "WORLD_SIZE": "1"}
    trainer = Process([python, "-u", "-c", LOOP, "auto", "3"], node.env | place, tmp_path / "lost.log")
    try:
        store = Path(node.store)
        wait_until(lambda: any(store.glob("lost/steps/*/COMMIT")), "the first commit")
        store.rename(store.with_name("unmounted"))
        trainer.popen.send_signal(signal.SIGTERM)
        assert trainer.popen.wait(PATIENCE) == 3, trainer.text()
    finally:
        trainer.kill()
    assert "\nnot made: step" in trainer.text(), trainer.text()
