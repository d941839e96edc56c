"""A death is seen at once, and never forgotten, whoever else dies in that moment."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from harness.node import Node
from harness.process import wait_until
from harness.trainer import StrataFailure, Trainer, all_do


def test_a_death_the_coordinator_never_heard_of_is_told_by_the_next_sidecar(
    make_node: Callable[..., Node], make_trainers: Callable[..., list[Trainer]]
) -> None:
    """P3: the coordinator's log says that the rank lives, and the only process that knew better is gone too. A rank
    that comes back must not be refused as a second one until the lease of the first ends."""
    node = make_node().coordinator().sidecar()
    [trainer] = make_trainers(node)
    trainer.do("connect")
    trainer.do("save", step=1, rank=0)
    trainer.do("wait_committed", step=1)
    node.parts["coordinator"].popen.send_signal(signal.SIGSTOP)
    trainer.kill()
    wait_until(lambda: "trainer died" in node.parts["sidecar"].text(), "the sidecar to see the death")
    for part in ("sidecar", "coordinator"):
        node.kill(part)
    node.coordinator().sidecar()
    [again] = make_trainers(node)
    again.do("connect")
    assert again.do("restore")["step"] == 1


def test_the_death_of_a_large_rank_is_known_before_its_memory_is_freed(
    make_node: Callable[..., Node], make_trainers: Callable[..., list[Trainer]]
) -> None:
    """Freeing takes 70 ms a GiB and more, in which neither its pidfd nor its socket tells anything; a forked child that
    lives on a moment longer says nothing for it either."""
    node = make_node().coordinator().sidecar()
    killed, survivor = make_trainers(node, world=2)
    all_do([killed, survivor], "connect")
    killed.do("grow", megabytes=1024, children=2)
    all_do([killed, survivor], "call", name="barrier", arguments=["ready"])
    survivor.send("call", name="barrier", arguments=["never"])
    killed.popen.kill()
    with pytest.raises(StrataFailure, match=r"rank 0 on .*its life line") as lost:
        survivor.answer()
    assert lost.value.kind == "Fenced"
    killed.kill()
