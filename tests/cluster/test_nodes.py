"""Several nodes: machines with networks, mounts, processes and memory file systems of their own, and one directory that
all see. Cables are pulled, power goes, users and clusters meet."""

from __future__ import annotations

import os
import re
import signal
from functools import partial
from pathlib import Path

import pytest
from harness.cluster import Cluster
from harness.machines import Machine
from harness.process import wait_until
from harness.refusal import commit, fails
from harness.states import digest, make_state
from harness.trainer import StrataFailure, Trainer, all_do


def restored(ranks: list[Trainer]) -> int:
    """The step, the same on all; each has its own state of it."""
    answers = all_do(ranks, "restore")
    [step] = {answer["step"] for answer in answers}
    for rank, answer in zip(ranks, answers, strict=True):
        assert answer["digest"] == digest(make_state(0, step, rank.rank))
    return int(step)


# -- a node that is cut off


def test_p6_a_node_that_is_cut_off_is_suspected_then_fenced_and_refused_when_it_is_back(cluster: Cluster) -> None:
    ranks = cluster.begin().ranks()
    commit(ranks, 1)
    cut = cluster.machines[2]
    cluster.machines.pull(cut)
    wait_until(lambda: cluster.states() == ["live", "live", "suspect"], "the cut off rank to be suspect")
    for rank in ranks[:2]:
        rank.send("call", name="barrier", arguments=["never"])
    for rank in ranks[:2]:
        with fails("Fenced", "FencedError") as caught:
            rank.answer()
        assert "rank 2 on n3" in caught[0].message
    # The zombie doesn't know: it seals a step, and its sidecar brings it to the store.
    ranks[2].do("save", step=2, rank=2)
    cluster.machines.plug(cut)
    with fails("Fenced", "FencedError"):
        ranks[2].do("wait_committed", step=2)
    with fails("Fenced", "FencedError"):
        ranks[2].do("call", name="barrier", arguments=["never"])
    with fails("Fenced", "FencedError"):
        ranks[2].do("save", step=3, rank=2)
    assert not (cluster.folder / "store" / "t" / "steps" / f"{2:020}" / "COMMIT").exists()
    again = cluster.ranks()
    assert restored(again) == 1
    commit(again, 2)


def test_a_node_that_is_back_within_its_lease_has_lost_nothing(cluster: Cluster) -> None:
    ranks = cluster.begin(STRATA_LEASE="30s").ranks()
    commit(ranks, 1)
    cut = cluster.machines[2]
    cluster.machines.pull(cut)
    wait_until(lambda: cluster.states() == ["live", "live", "suspect"], "the cut off rank to be suspect")
    cluster.machines.plug(cut)
    wait_until(lambda: cluster.states() == ["live"] * 3, "it to be live again")
    commit(ranks, 2)
    assert restored(ranks) == 2
    assert "generation=2" not in cluster.processes[0].text(), "nobody was evicted"


def test_p3_ranks_of_a_node_without_power_are_named_and_the_others_go_on(cluster: Cluster) -> None:
    """No connection of it ends: only its silence tells. The job goes on from what was committed, in the world that is
    left."""
    ranks = cluster.begin().ranks()
    commit(ranks, 1)
    cluster.machines.power_off(cluster.machines[2])
    for rank in ranks[:2]:
        rank.send("call", name="barrier", arguments=["never"])
    for rank in ranks[:2]:
        with fails("Fenced", "FencedError") as caught:
            rank.answer()
        assert "rank 2 on n3" in caught[0].message
    left = [cluster.trainer(machine, number, 2) for number, machine in enumerate(cluster.machines.all[:2])]
    for rank in ranks[:2]:
        rank.do("close")
    all_do(left, "connect")
    assert [answer["value"] for answer in all_do(left, "call", name="latest_step", arguments=[])] == [1, 1]
    commit(left, 2)


def test_p7_a_killed_coordinator_comes_back_and_no_node_was_evicted(cluster: Cluster) -> None:
    ranks = cluster.begin().ranks()
    commit(ranks, 1)
    for pid in cluster.machines[0].processes("coordinator", "--listen"):
        os.kill(pid, signal.SIGKILL)
    for rank in ranks:
        rank.send("save", step=2, rank=rank.rank)
    for rank in ranks:
        rank.answer()
    cluster.coordinator(cluster.machines[0])
    all_do(ranks, "wait_committed", step=2)
    assert restored(ranks) == 2
    assert "generation=2" not in cluster.processes[-1].text()


# -- starting


def test_wait_ready_says_why_a_sidecar_is_not_usable_and_returns_once_it_is(cluster: Cluster) -> None:
    """Before there is a sidecar, before there is a coordinator, and while there is no way to it."""
    second = cluster.machines[1]

    def wait_ready() -> str:
        done = second.call([cluster.exe, "sidecar", "--wait-ready", "--timeout", "1s"], cluster.env)
        assert done.returncode == 6 and "hint:" in done.stderr, done.stderr
        return done.stderr

    assert "/run/strata/sidecar.sock: No such file" in wait_ready()
    sidecar = cluster.start(second, "sidecar")
    wait_until(lambda: "http://n1:50051 can't be reached: Connection refused" in sidecar.text(), "its log to say why")
    assert "/run/strata/sidecar.sock: it has not reached its coordinator" in wait_ready()
    cluster.machines.pull(second)
    cluster.coordinator(cluster.machines[0])
    assert "/run/strata/sidecar.sock: it has not reached its coordinator" in wait_ready()
    cluster.machines.plug(second)
    done = second.call([cluster.exe, "sidecar", "--wait-ready"], cluster.env)
    assert (done.returncode, done.stdout) == (0, "/run/strata/sidecar.sock\n"), done.stderr


def test_a_store_that_is_another_directory_on_each_node_is_refused_before_a_step_is_lost_in_it(
    cluster: Cluster,
) -> None:
    cluster.env["STRATA_STORE"] = "/mnt/own/store"
    cluster.begin()
    first, *others = [cluster.trainer(machine, number, 3) for number, machine in enumerate(cluster.machines)]
    first.do("connect")
    for rank in others:
        with fails("Conflict", "ConflictError") as caught:
            rank.do("connect", timeout=10.0)
        assert f"rank {rank.rank} of job t: the store /mnt/own/store" in caught[0].message, caught[0].message
        assert "mount" in (caught[0].hint or ""), caught[0].hint


def test_two_clusters_are_kept_apart_in_one_store_also_from_different_nodes(cluster: Cluster) -> None:
    first, second, _ = cluster.machines
    other = {"STRATA_COORDINATOR": "http://n2:50051"}
    for machine, env in ((first, {}), (second, other)):
        cluster.coordinator(machine, **env)
        cluster.sidecar(machine, **env)
    owner, intruder = cluster.trainer(first, 0, 1), cluster.trainer(second, 0, 1, **other)
    owner.do("connect")
    commit([owner], 1)
    with fails("Conflict", "ConflictError") as caught:
        intruder.do("connect", timeout=5.0)
    clusters = [re.findall(r" cluster=(\S+)", process.text())[0] for process in cluster.processes[::2]]
    assert all(uuid in caught[0].message for uuid in clusters), caught[0].message
    assert "--take-over-store" in (caught[0].hint or "")
    commit([owner], 2)


# -- several on one node

USERS = {"first": 12341, "second": 12342}


def test_p9_two_users_with_sidecars_of_their_own_on_one_node_do_not_meet(cluster: Cluster) -> None:
    """A job of the same name, the paths that Strata itself picks, a coordinator each."""
    machine = cluster.machines[0]
    trainers: dict[int, Trainer] = {}
    sockets: dict[int, str] = {}
    for number, (name, uid) in enumerate(USERS.items()):
        home = f"/mnt/own/{name}"
        assert machine.call(["install", "-d", "-o", str(uid), "-m", "700", home]).returncode == 0
        url = f"http://127.0.0.1:{50061 + number}"
        env = {"HOME": home, "STRATA_HOME": f"{home}/state", "STRATA_STORE": f"{home}/store", "STRATA_COORDINATOR": url}
        as_user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
        for part in (["coordinator", "--port", url.rpartition(":")[2]], ["sidecar"]):
            log = cluster.folder / f"{part[0]}-{name}.log"
            command: list[str | Path] = [*as_user, cluster.exe, *part, "--http-port", "0"]
            cluster.processes.append(machine.start(command, cluster.env | env, log))
        done = machine.call([*as_user, cluster.exe, "sidecar", "--wait-ready"], cluster.env | env)
        assert done.returncode == 0, done.stderr
        sockets[uid] = done.stdout.strip()
        enter = partial(entering, machine, as_user)
        trainers[uid] = Trainer(cluster.python, cluster.env | env, enter=enter)
        cluster.trainers.append(trainers[uid])
    assert len(set(sockets.values())) == 2
    for uid, trainer in trainers.items():
        trainer.do("connect")
        trainer.do("save", step=1, seed=uid)
        trainer.do("wait_committed", step=1)
    for uid, trainer in trainers.items():
        assert trainer.do("restore")["digest"] == digest(make_state(uid, 1, 0))
        done = machine.call(["find", f"/dev/shm/strata-{uid}", "-name", "*.arena", "-user", str(uid)])
        assert len(done.stdout.split()) == 1, done
        [other] = set(USERS.values()) - {uid}
        assert not trainer.do("may_read", path=f"/dev/shm/strata-{other}/sidecar.lock")["value"]
        intruder = Trainer(
            cluster.python,
            cluster.env | {"STRATA_SOCKET": sockets[other]},
            enter=partial(entering, machine, ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]),
        )
        cluster.trainers.append(intruder)
        with pytest.raises(StrataFailure) as refusal:
            intruder.do("connect", timeout=5.0)
        assert str(other) in refusal.value.message or "Permission denied" in refusal.value.message, refusal.value


def entering(machine: Machine, as_user: list[str], command: list[str | Path]) -> list[str | Path]:
    return machine.enter([*as_user, *command])
