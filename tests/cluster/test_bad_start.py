"""A wrong configuration, a taken socket or port: said at once, with a hint."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from harness.node import Node
from harness.refusal import fails, refused
from harness.trainer import Trainer, all_do

Nodes = Callable[..., Node]
Trainers = Callable[..., list[Trainer]]


def test_unknown_configuration_key_is_refused_with_a_suggestion(make_node: Nodes, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[sidecar]\nsave_wiat = "2s"\n')
    said = refused(make_node(), "config", "check", "--config", config, code=2)
    assert "save_wiat" in said and "save_wait" in said and "config.toml" in said


def test_second_sidecar_on_the_same_socket_is_refused(node: Node, tmp_path: Path) -> None:
    said = refused(node, "sidecar", code=4, STRATA_ARENA_DIR=str(tmp_path / "other"))
    assert node.env["STRATA_SOCKET"] in said


def test_second_sidecar_on_the_same_arenas_is_refused(node: Node) -> None:
    said = refused(node, "sidecar", code=4, STRATA_SOCKET=str(node.run / "other.sock"))
    assert node.env["STRATA_ARENA_DIR"] in said


def test_socket_path_too_long_is_refused(make_node: Nodes, tmp_path: Path) -> None:
    said = refused(make_node(), "up", "--port", "0", "--http-port", "0", code=2, STRATA_SOCKET=f"/tmp/{'x' * 120}.sock")
    assert "107" in said and "STRATA_SOCKET" in said


def test_taken_port_is_named(make_node: Nodes) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert port in refused(make_node(), "up", "--port", port, "--http-port", "0", code=4)


def test_listening_beyond_loopback_wants_tls_or_insecure(make_node: Nodes) -> None:
    """P11."""
    said = refused(make_node(), "coordinator", "--listen", "0.0.0.0:0", "--http-port", "0", code=8)
    assert "--insecure" in said and "--tls-cert" in said


def test_world_without_coordinator_names_the_variable(make_node: Nodes, make_trainers: Trainers) -> None:
    node = make_node()
    trainers = make_trainers(node, world=2)
    with fails("Unavailable", "UnavailableError") as caught:
        all_do(trainers, "connect", timeout=5.0)
    assert "STRATA_" in (caught[0].hint or "")
