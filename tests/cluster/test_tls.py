"""P11: nothing listens beyond loopback unless told to; TLS with and without certificates of the clients."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
import trustme
from harness.coordinators import Coordinators
from harness.node import Node
from harness.process import Process, wait_until
from harness.states import digest, make_state
from harness.trainer import Trainer
from strata.proto.strata.v1 import admin_pb2, admin_pb2_grpc

WAIT = 20.0


class Certificates:
    """An authority of its own, a certificate for the coordinator and one for its clients, as PEM files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        authority = trustme.CA()
        self.ca = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.ca))
        self.server = self.pair(authority.issue_cert("127.0.0.1", "localhost"), folder / "server")
        self.client = self.pair(authority.issue_cert("node-1"), folder / "client")

    @staticmethod
    def pair(issued: trustme.LeafCert, base: Path) -> tuple[Path, Path]:
        chain, key = base.with_suffix(".pem"), base.with_suffix(".key")
        issued.cert_chain_pems[0].write_to_path(str(chain))
        issued.private_key_pem.write_to_path(str(key))
        return chain, key

    def serving(self) -> list[str]:
        return ["--tls-cert", str(self.server[0]), "--tls-key", str(self.server[1])]


@pytest.fixture
def ours(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "ours")


@pytest.fixture
def others(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "others")


def ask(node: Node, trusted: Certificates | None, shown: Certificates | None = None) -> admin_pb2.Status:
    """The coordinator's status through grpcio, which shares no TLS code with the server."""
    address = node.endpoint()["grpc"].partition("://")[2]
    if trusted is None:
        channel = grpc.insecure_channel(address)
    else:
        chain, key = (path.read_bytes() for path in shown.client) if shown else (None, None)
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(trusted.ca.read_bytes(), key, chain))
    with channel:
        status: admin_pb2.Status = admin_pb2_grpc.AdminStub(channel).GetStatus(
            admin_pb2.GetStatusRequest(), timeout=WAIT
        )
        return status


def refused(node: Node, trusted: Certificates | None, shown: Certificates | None = None) -> None:
    with pytest.raises(grpc.RpcError) as error:
        ask(node, trusted, shown)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE


def test_p11_a_coordinator_with_tls_answers_those_who_trust_its_authority_and_nobody_in_plain(
    make_node: Callable[..., Node], ours: Certificates, others: Certificates
) -> None:
    node = make_node().coordinator(*ours.serving())
    assert node.endpoint()["grpc"].startswith("https://")
    assert ask(node, ours).role == "coordinator"
    refused(node, None)
    refused(node, others)


def test_p11_with_a_client_authority_only_its_certificates_are_let_in(
    make_node: Callable[..., Node], ours: Certificates, others: Certificates
) -> None:
    node = make_node().coordinator(*ours.serving(), "--tls-client-ca", str(ours.ca))
    assert ask(node, ours, ours).role == "coordinator"
    refused(node, ours)
    refused(node, ours, others)


def test_a_node_saves_and_restores_through_tls_in_both_directions(
    make_node: Callable[..., Node], make_trainers: Callable[..., list[Trainer]], ours: Certificates
) -> None:
    node = make_node(
        extra={
            "STRATA_COORDINATOR_CA": str(ours.ca),
            "STRATA_SIDECAR_CERT": str(ours.client[0]),
            "STRATA_SIDECAR_KEY": str(ours.client[1]),
        }
    )
    node.coordinator(*ours.serving(), "--tls-client-ca", str(ours.ca)).sidecar()
    (trainer,) = make_trainers(node)
    trainer.do("connect")
    trainer.do("save", step=1, seed=7)
    trainer.do("wait_committed", step=1)
    assert trainer.do("restore")["digest"] == digest(make_state(7, 1, 0))
    assert node.status()["jobs"]


def test_torchruns_agents_reach_the_coordinator_through_tls_and_say_why_not(
    make_node: Callable[..., Node], ours: Certificates, others: Certificates, python: Path, site: Path
) -> None:
    node = make_node().coordinator(*ours.serving())
    code = "from strata import _core; r = _core.Records('r', None); print(r.add('n', 1, 1.0), r.url)"

    def ask_as(trusted: Certificates) -> subprocess.CompletedProcess[str]:
        env = node.env | {"PYTHONPATH": str(site), "STRATA_COORDINATOR_CA": str(trusted.ca)}
        return subprocess.run([python, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=False)

    done = ask_as(ours)
    assert done.stdout == f"1 {node.endpoint()['grpc']}\n", done.stderr
    done = ask_as(others)
    assert "UnavailableError" in done.stderr and "hint: tls_ca" in done.stderr, done.stderr


def test_a_sidecar_that_does_not_trust_the_coordinator_says_so(
    make_node: Callable[..., Node], ours: Certificates, others: Certificates
) -> None:
    node = make_node().coordinator(*ours.serving())
    done = node.cli("status", check=False, STRATA_COORDINATOR_CA=str(others.ca))
    assert done.returncode == 6, done.stderr
    assert "certificate" in done.stderr and "tls_ca" in done.stderr, done.stderr
    done = node.cli("status", check=False, STRATA_COORDINATOR_CA=str(ours.server[1]))
    assert done.returncode == 2 and "holds no certificate" in done.stderr, done.stderr


def test_each_way_to_miss_each_other_has_its_own_hint(make_node: Callable[..., Node], ours: Certificates) -> None:
    node = make_node().coordinator(*ours.serving(), "--tls-client-ca", str(ours.ca))
    address = node.endpoint()["grpc"].partition("://")[2]

    def told(url: str, **env: str) -> str:
        done = node.cli("status", "--coordinator", url, check=False, **env)
        assert done.returncode == 6, done.stderr
        return done.stderr.partition("hint:")[2]

    assert "tls_cert and tls_key" in told(f"https://{address}", STRATA_COORDINATOR_CA=str(ours.ca))
    assert "https://" in told(f"http://{address}")
    plain = make_node().coordinator()
    address = plain.endpoint()["grpc"].partition("://")[2]
    assert "http://" in told(f"https://{address}", STRATA_COORDINATOR_CA=str(ours.ca))


def test_a_sidecars_log_says_why_it_is_not_attached(
    make_node: Callable[..., Node], ours: Certificates, others: Certificates
) -> None:
    node = make_node(extra={"STRATA_COORDINATOR_CA": str(others.ca)}).coordinator(*ours.serving())
    # It never gets ready, which `node.sidecar` would wait for.
    command = [node.exe, "sidecar", "--http-port", "0"]
    node.parts["sidecar"] = Process(command, node.env, node.folder / "sidecar.log")
    wait_until(lambda: "UnknownIssuer" in node.parts["sidecar"].text(), "the reason in the log")
    assert node.parts["sidecar"].text().count("UnknownIssuer") == 1
    assert "tls_ca" in node.parts["sidecar"].text()


def test_p11_beyond_loopback_is_refused_without_tls(make_node: Callable[..., Node]) -> None:
    node = make_node()
    done = node.cli("coordinator", "--listen", "0.0.0.0:0", "--http-port", "0", check=False)
    assert done.returncode == 8, done.stderr
    assert "beyond loopback" in done.stderr and "--insecure" in done.stderr
    assert node.endpoint() == {}


def test_half_a_pair_and_files_that_are_none_are_invalid(
    make_node: Callable[..., Node], ours: Certificates, tmp_path: Path
) -> None:
    node = make_node()
    half = node.cli("coordinator", "--port", "0", "--http-port", "0", *ours.serving()[:2], check=False)
    assert half.returncode == 2 and "tls_key" in half.stderr, half.stderr
    swapped = ["--tls-cert", ours.server[1], "--tls-key", ours.server[0]]
    wrong = node.cli("coordinator", "--port", "0", "--http-port", "0", *swapped, check=False)
    assert wrong.returncode == 2 and "PEM" in wrong.stderr, wrong.stderr
    missing = ["--tls-cert", tmp_path / "none.pem", "--tls-key", ours.server[1]]
    gone = node.cli("coordinator", "--port", "0", "--http-port", "0", *missing, check=False)
    assert gone.returncode == 3 and "none.pem" in gone.stderr, gone.stderr


def test_p11_coordinators_of_a_set_speak_tls_to_each_other_and_show_their_certificates(
    exe: Path, tmp_path: Path, ours: Certificates
) -> None:
    (chain, key), (own, own_key) = ours.server, ours.client
    serving = {"STRATA_TLS_CERT": str(chain), "STRATA_TLS_KEY": str(key), "STRATA_TLS_CLIENT_CA": str(ours.ca)}
    asking = {"STRATA_SIDECAR_CERT": str(own), "STRATA_SIDECAR_KEY": str(own_key)}
    trusting = {"STRATA_COORDINATOR_CA": str(ours.ca)}
    three = Coordinators(exe, tmp_path, scheme="https", **serving, **asking, **trusting)
    try:
        first = three.leader()
        three.kill(first)
        assert three.leader() != first
        done = three.cli("status", "--json")
        assert done.returncode == 0, done.stderr
    finally:
        three.close()
        print(three.logs())
