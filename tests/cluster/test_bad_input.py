"""Bad input gets its own clear error (kind, class, exit code, hint), and nothing committed is lost."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness.mounts import tmpfs
from harness.node import Node
from harness.process import Process, wait_until
from harness.s3 import S3Server, free_port
from harness.states import digest, make_state
from harness.trainer import StrataFailure, Trainer, all_do

Nodes = Callable[..., Node]
Trainers = Callable[..., list[Trainer]]


def refused(node: Node, *arguments: str | Path, code: int, **env: str) -> str:
    """Runs a command that must fail with `code`; returns what it said, which holds a hint and no traceback."""
    done = node.cli(*arguments, check=False, **env)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    assert "hint:" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "panicked" not in done.stderr
    return done.stderr


@contextmanager
def fails(kind: str, cls: str) -> Iterator[list[StrataFailure]]:
    """The block must raise a StrataError of this kind and class, with a hint."""
    caught: list[StrataFailure] = []
    with pytest.raises(StrataFailure) as failure:
        yield caught
    caught.append(failure.value)
    assert (failure.value.kind, failure.value.cls) == (kind, cls), failure.value
    assert failure.value.hint, failure.value.message


def commit(trainers: list[Trainer], step: int, **options: object) -> None:
    for trainer in trainers:
        trainer.send("save", step=step, rank=trainer.rank, **options)
    for trainer in trainers:
        trainer.answer()
    all_do(trainers, "wait_committed", step=step)


# -- configuration and start-up


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


# -- memory


def test_small_shared_memory_is_overloaded_with_the_numbers(
    make_node: Nodes, make_trainers: Trainers, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "shm", "32m") as small:
        node = make_node(extra={"STRATA_ARENA_DIR": str(small)}).up()
        [trainer] = make_trainers(node)
        trainer.do("connect")
        commit([trainer], 1, megabytes=2.0)
        with fails("Overloaded", "OverloadedError") as caught:
            trainer.do("save", step=2, rank=0, megabytes=200.0)
        assert str(small) in caught[0].message
        assert trainer.do("restore", step=1)["digest"] == digest(make_state(0, 1, 0, 2.0))
        commit([trainer], 3, megabytes=2.0)  # a smaller one still fits
        node.close()


def test_full_shared_memory_is_overloaded_never_a_bus_error(
    make_node: Nodes, make_trainers: Trainers, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "shm", "64m") as small:
        node = make_node(extra={"STRATA_ARENA_DIR": str(small)}).up()
        [trainer] = make_trainers(node)
        trainer.do("connect")
        (small / "hog").write_bytes(bytes(60 * 2**20))
        with fails("Overloaded", "OverloadedError"):
            trainer.do("save", step=1, rank=0, megabytes=8.0)
        (small / "hog").unlink()
        commit([trainer], 2, megabytes=8.0)
        node.close()


def memory_cgroup_v1() -> Path | None:
    for line in Path("/proc/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup" and "memory" in fields[3].split(","):
            return Path(fields[1])
    return None


def test_memory_cgroup_too_small_is_overloaded_not_killed(make_node: Nodes, make_trainers: Trainers) -> None:
    """cgroup v1 for real; v2 is tested in Rust through the injected reader."""
    root = memory_cgroup_v1()
    if root is None or os.geteuid() != 0:
        pytest.skip("needs a v1 memory cgroup and root")
    group = root / f"strata-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(256 * 2**20))
        node = make_node().up()
        (group / "cgroup.procs").write_text(str(node.parts["up"].pid))
        [trainer] = make_trainers(node)
        trainer.do("connect")
        with fails("Overloaded", "OverloadedError") as caught:
            trainer.do("save", step=1, rank=0, megabytes=400.0)
        assert "cgroup" in caught[0].message
        commit([trainer], 2, megabytes=2.0)
        node.close()
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text().strip(), "the cgroup to be empty")
        group.rmdir()


# -- stores


def test_full_disk_skips_saves_and_training_goes_on(make_node: Nodes, make_trainers: Trainers, tmp_path: Path) -> None:
    """P4, P5."""
    with tmpfs(tmp_path / "disk", "24m") as disk:
        node = make_node(store=str(disk / "store")).up()
        [trainer] = make_trainers(node)
        trainer.do("connect")
        commit([trainer], 1, megabytes=4.0)
        hog = disk / "hog"
        hog.write_bytes(bytes(shutil.disk_usage(disk).free - 2**20))
        trainer.do("save", step=2, rank=0, megabytes=4.0)
        with pytest.raises(StrataFailure) as failure:
            trainer.do("wait_committed", step=2, timeout=5.0)
        assert failure.value.kind in ("Overloaded", "Timeout"), failure.value
        assert trainer.do("restore", step=1)["digest"] == digest(make_state(0, 1, 0, 4.0))
        hog.unlink()
        commit([trainer], 3, megabytes=4.0)
        node.close()


def test_full_disk_is_tried_on_for_a_dead_trainers_step(
    make_node: Nodes, make_trainers: Trainers, tmp_path: Path
) -> None:
    """P3: nobody can save it again, and nobody needs its slot."""
    with tmpfs(tmp_path / "disk", "24m") as disk:
        node = make_node(store=str(disk / "store")).up()
        [trainer] = make_trainers(node)
        trainer.do("connect")
        commit([trainer], 1, megabytes=4.0)
        hog = disk / "hog"
        hog.write_bytes(bytes(shutil.disk_usage(disk).free - 2**20))
        trainer.do("save", step=2, rank=0, megabytes=4.0)
        trainer.kill()
        wait_until(lambda: node.parts["up"].text().count("persisting failed") > 3, "more than three tries")
        hog.unlink()
        [successor] = make_trainers(node)
        successor.do("connect")
        listed = ["checkpoints", "ls", "--job", "t", "--json"]
        wait_until(lambda: '"step": 2' in node.cli(*listed).stdout, "the step to be committed")
        assert successor.do("restore", step=2)["digest"] == digest(make_state(0, 2, 0, 4.0))
        node.close()


def test_unreachable_store_is_unavailable_naming_it(make_node: Nodes, make_trainers: Trainers, s3: S3Server) -> None:
    gone = s3.env | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}"}
    node = make_node("s3://nowhere/prefix", gone).up()
    [trainer] = make_trainers(node)
    with fails("Unavailable", "UnavailableError") as caught:
        trainer.do("connect", timeout=8.0)
    assert "s3://nowhere/prefix" in caught[0].message


class Proxy:
    """Forwards TCP to the S3 server, badly: holds every byte back (`stall`), or says that a refused create-only write
    was done."""

    def __init__(self, port: int, *, stall: threading.Event | None = None, ignore_create_only: bool = False) -> None:
        self.target, self.stall, self.ignore_create_only = port, stall, ignore_create_only
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self.target))
            threading.Thread(target=self._pump, args=(client, upstream, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(upstream, client, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        try:
            while data := source.recv(65536):
                if self.stall is not None and self.stall.is_set():
                    wait_until(lambda: self.stall is not None and not self.stall.is_set(), "the stall to end", 300.0)
                if not up and self.ignore_create_only:
                    data = data.replace(b"HTTP/1.1 412 Precondition Failed\r\n", b'HTTP/1.1 200 OK\r\nETag: "0"\r\n')
                sink.sendall(data)
        except OSError:
            pass  # either side hung up: so does the other
        finally:
            source.close()
            sink.close()

    def close(self) -> None:
        self.server.close()


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


# -- states


def test_state_whose_shape_changed_between_steps_is_saved(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit([trainer], 1, megabytes=1.0)
    commit([trainer], 2, megabytes=5.0)
    commit([trainer], 3, megabytes=0.5)
    for step, megabytes in ((1, 1.0), (2, 5.0), (3, 0.5)):
        assert trainer.do("restore", step=step)["digest"] == digest(make_state(0, step, 0, megabytes))


def test_restore_into_the_wrong_shape_or_dtype_is_invalid_and_changes_nothing(
    node: Node, make_trainers: Trainers
) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit([trainer], 1)
    for damage in ("shape", "dtype"):
        with fails("Invalid", "InvalidError") as caught:
            trainer.do("restore_into", step=1, damage=damage)
        assert "weight" in caught[0].message
    assert trainer.do("restore_into", step=1, damage="none")["equal"]


def test_state_that_cannot_be_stored_is_named_by_its_path(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    with fails("Invalid", "InvalidError") as caught:
        trainer.do("save_function", step=1)
    assert "state['sched']['fn']" in caught[0].message


def test_step_that_does_not_exist_is_not_found(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit([trainer], 1)
    with fails("NotFound", "NotFoundError") as caught:
        trainer.do("restore", step=99)
    assert "99" in caught[0].message
    refused(node, "checkpoints", "show", "99", "--job", "t", code=3)


def fresh_process_restores(node: Node, make_trainers: Trainers, **options: object) -> dict[str, object]:
    """A restore that must read the store: sidecar and arenas are new."""
    node.kill("up")
    shutil.rmtree(node.arenas)
    node.arenas.mkdir(mode=0o700)
    node.restart("up")
    [trainer] = make_trainers(node)
    try:
        trainer.do("connect")
        return trainer.do("restore", **options)
    finally:
        trainer.do("close")


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def two_steps(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node)
    trainer.do("connect")
    commit([trainer], 1)
    commit([trainer], 2)
    trainer.do("close")


def newest(node: Node, pattern: str) -> Path:
    return max((Path(node.store) / "t").rglob(pattern), key=lambda path: str(path.parent))


def test_damaged_commit_is_corrupt_never_absent(node: Node, make_trainers: Trainers) -> None:
    """P2."""
    two_steps(node, make_trainers)
    flip(Path(node.store) / "t" / "steps" / f"{2:020}" / "COMMIT", 40)
    with fails("Corrupt", "CorruptCheckpointError") as caught:
        fresh_process_restores(node, make_trainers)
    assert "COMMIT" in caught[0].message
    answer = fresh_process_restores(node, make_trainers, on_damage="previous")
    assert (answer["step"], answer["digest"]) == (1, digest(make_state(0, 1, 0)))


@pytest.mark.parametrize("pattern", ["*.pack", "*.manifest"])
def test_flipped_bit_is_detected_before_a_value_is_seen(pattern: str, node: Node, make_trainers: Trainers) -> None:
    """P2."""
    two_steps(node, make_trainers)
    flip(newest(node, pattern), 3000 if pattern == "*.pack" else 60)
    with fails("Corrupt", "CorruptCheckpointError") as caught:
        fresh_process_restores(node, make_trainers)
    assert pattern[1:] in caught[0].message
    refused(node, "checkpoints", "verify", "2", "--job", "t", code=7)
    answer = fresh_process_restores(node, make_trainers, on_damage="previous")
    assert (answer["step"], answer["digest"]) == (1, digest(make_state(0, 1, 0)))


def test_truncated_pack_is_corrupt(node: Node, make_trainers: Trainers) -> None:
    """P2."""
    two_steps(node, make_trainers)
    os.truncate(newest(node, "*.pack"), 4096)
    with fails("Corrupt", "CorruptCheckpointError"):
        fresh_process_restores(node, make_trainers)
    assert fresh_process_restores(node, make_trainers, step=1)["digest"] == digest(make_state(0, 1, 0))


# -- who may


def test_two_ranks_claiming_one_number_conflict(node: Node, make_trainers: Trainers) -> None:
    [first] = make_trainers(node)
    first.do("connect")
    [second] = make_trainers(node)
    with fails("Conflict", "ConflictError") as caught:
        second.do("connect", timeout=5.0)
    assert "rank 0" in caught[0].message
    commit([first], 1)


def test_worker_of_another_user_is_denied(node: Node, python: Path, site: Path) -> None:
    """P9: the socket belongs to one user."""
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    # A sidecar of root serves all; one of an ordinary user only its own.
    other = Node(node.exe, node.folder / "other")
    for path in (other.run, other.arenas, other.folder):
        os.chown(path, 1234, 1234)
    for parent in [other.folder, *other.folder.parents]:
        if parent != Path("/") and parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    drop = ["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups", "--"]
    process = Process([*drop, other.exe, "up", "--port", "0", "--http-port", "0"], other.env, node.folder / "other.log")
    try:
        process.wait_until(lambda: Path(other.env["STRATA_SOCKET"]).exists(), "the other user's sidecar")
        [trainer] = [Trainer(python, other.env | {"PYTHONPATH": str(site)})]
        try:
            with fails("Denied", "DeniedError") as caught:
                trainer.do("connect", timeout=5.0)
            assert "1234" in caught[0].message
        finally:
            trainer.close()
    finally:
        process.kill()
        other.close()


def test_worker_with_another_world_is_refused(node: Node, make_trainers: Trainers) -> None:
    [first, _] = make_trainers(node, world=2)
    first.do("connect")
    [_, _, third] = make_trainers(node, world=3)
    with fails("Conflict", "ConflictError") as caught:
        third.do("connect", timeout=5.0)
    assert "2" in caught[0].message and "3" in caught[0].message


def test_job_of_another_cluster_is_refused_until_taken_over(make_node: Nodes, make_trainers: Trainers) -> None:
    first = make_node().up()
    [trainer] = make_trainers(first)
    trainer.do("connect")
    commit([trainer], 1)
    trainer.do("close")
    first.kill("up")

    second = make_node(store=first.store).up()
    [trainer] = make_trainers(second)
    with fails("Conflict", "ConflictError") as caught:
        trainer.do("connect", timeout=8.0)
    assert "--take-over-store" in (caught[0].hint or "")
    second.kill("up")
    second.up("--take-over-store")
    [trainer] = make_trainers(second)
    trainer.do("connect")
    assert trainer.do("restore")["digest"] == digest(make_state(0, 1, 0))


def test_client_of_another_version_is_told_both(node: Node, make_trainers: Trainers) -> None:
    [trainer] = make_trainers(node, STRATA_TEST_CLIENT_VERSION="9.5.0")
    with fails("Invalid", "InvalidError") as caught:
        trainer.do("connect", timeout=5.0)
    assert "9.5.0" in caught[0].message and "strata wheel" in (caught[0].hint or "")


def test_world_without_coordinator_names_the_variable(make_node: Nodes, make_trainers: Trainers) -> None:
    node = make_node()
    trainers = make_trainers(node, world=2)
    with fails("Unavailable", "UnavailableError") as caught:
        all_do(trainers, "connect", timeout=5.0)
    assert "STRATA_" in (caught[0].hint or "")
