"""A store that is unreachable, slow, or keeps no promise."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.node import Node
from harness.proxy import Proxy
from harness.refusal import commit, fails
from harness.s3 import S3Server, free_port
from harness.trainer import Trainer

Nodes = Callable[..., Node]
Trainers = Callable[..., list[Trainer]]


@pytest.fixture
def proxied(s3: S3Server) -> Iterator[Callable[..., dict[str, str]]]:
    """Makes the environment of an S3 store behind a bad proxy."""
    proxies: list[Proxy] = []

    def make(**options: object) -> dict[str, str]:
        proxies.append(Proxy(s3.port, **options))  # type: ignore[arg-type]
        return s3.env | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxies[-1].port}"}

    yield make
    for proxy in proxies:
        proxy.close()


def test_unreachable_store_is_unavailable_naming_it(make_node: Nodes, make_trainers: Trainers, s3: S3Server) -> None:
    gone = s3.env | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    node = make_node("s3://nowhere/prefix", gone).up()
    [trainer] = make_trainers(node)
    with fails("Unavailable", "UnavailableError") as caught:
        trainer.do("connect", timeout=8.0)
    assert "s3://nowhere/prefix" in caught[0].message


def test_store_that_ignores_create_only_is_refused(
    make_node: Nodes, make_trainers: Trainers, s3: S3Server, proxied: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    node = make_node(s3.url(tmp_path.name), proxied(ignore_create_only=True)).up()
    [trainer] = make_trainers(node)
    with fails("Invalid", "InvalidError") as caught:
        trainer.do("connect")
    assert "create-only" in caught[0].message


def test_slow_store_stalls_commits_but_never_training(
    make_node: Nodes, make_trainers: Trainers, s3: S3Server, proxied: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    """P5."""
    stall = threading.Event()
    node = make_node(s3.url(tmp_path.name), proxied(stall=stall)).up()
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit([trainer], 1)
    stall.set()
    trainer.do("save", step=2, rank=0)
    with fails("Timeout", "StrataTimeoutError"):
        trainer.do("wait_committed", step=2, timeout=2.0)
    stall.clear()
    assert trainer.do("wait_committed", step=2)["step"] == 2


def test_bit_that_flips_on_its_way_to_the_store_is_refused_by_the_store_and_sent_again(
    make_node: Nodes, make_trainers: Trainers, s3: S3Server, proxied: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    """P2: the signature of a request to S3 has the SHA-256 of its body."""
    flip = threading.Event()
    node = make_node(s3.url(tmp_path.name), proxied(flip=flip)).up()
    [trainer] = make_trainers(node)
    trainer.do("connect")
    flip.set()
    commit([trainer], 1, megabytes=8.0)
    assert not flip.is_set(), "no large body was sent"
    assert "persisting failed" in node.parts["up"].text()
    assert "step 1: whole" in node.cli("checkpoints", "verify", "1", "--job", "t").stdout


def test_store_that_asks_to_slow_down_is_asked_less_and_gets_the_step_whole(
    make_node: Nodes, make_trainers: Trainers, s3: S3Server, proxied: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    """P5: the client of S3 tries again by itself, and says nothing of it."""
    node = make_node(s3.url(tmp_path.name), proxied(refuse=12)).up()
    [trainer] = make_trainers(node)
    trainer.do("connect")
    before = sends(node, s3)["requests"]
    commit([trainer], 1, megabytes=100.0)
    after = sends(node, s3)
    assert after["refusals_total"] == 12, after
    assert 1 <= after["requests"] < before, (before, after)
    assert "step 1: whole" in node.cli("checkpoints", "verify", "1", "--job", "t").stdout


def sends(node: Node, s3: S3Server) -> dict[str, int]:
    """How the node's sidecar sends to the bucket: requests at once, and how many were refused."""
    found = re.findall(rf'strata_store_(\w+){{bucket="s3://{s3.bucket}",direction="send"}} (\d+)', node.metrics())
    return {name: int(value) for name, value in found}
