"""One rank's store is slower than the others': steps commit all the same, at that rank's pace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.node import Node
from harness.s3 import S3Server
from harness.slow import SlowProxy
from harness.states import digest, make_state
from harness.trainer import Trainer, all_do

STEPS = 12
MEGABYTES = 6.0


def test_steps_commit_while_one_ranks_store_is_three_times_slower(
    make_node: Callable[..., Node], python: Path, site: Path, s3: S3Server, tmp_path: Path
) -> None:
    """Two nodes, one rank each; no step is lost, skipped or committed without the slow rank."""
    store, seed, job = s3.url("slow"), 5, "slow"
    near = make_node(store, s3.env).coordinator().sidecar()
    proxy = SlowProxy(s3.port)
    place = {"AWS_ENDPOINT_URL": proxy.endpoint, "STRATA_COORDINATOR": near.env["STRATA_COORDINATOR"]}
    far = make_node(store, s3.env | place).sidecar()
    ranks = [
        Trainer(python, node.env | {"PYTHONPATH": str(site)}, rank, 2, job) for rank, node in enumerate((near, far))
    ]
    try:
        all_do(ranks, "connect")
        acks = [tmp_path / f"rank-{rank}.acks" for rank in range(2)]
        for rank, trainer in enumerate(ranks):
            options = {"rank": rank, "acks": str(acks[rank]), "megabytes": MEGABYTES}
            trainer.send("train", seed=seed, first=1, last=STEPS, **options)
        for trainer in ranks:
            assert trainer.answer()["step"] == STEPS
        for path in acks:
            assert [int(line) for line in path.read_text().split()] == list(range(1, STEPS + 1))
        assert proxy.held_back > 0, "the slow store was never asked"
        for rank, answer in enumerate(all_do(ranks, "restore", step=STEPS)):
            assert answer["digest"] == digest(make_state(seed, STEPS, rank, MEGABYTES))
        all_do(ranks, "close")
    finally:
        for trainer in ranks:
            trainer.close()
        proxy.close()
