"""Several nodes: machines with networks, mounts, processes and memory file systems of their own, and one directory that
all see. Cables are pulled, power goes; Slurm's job is the very script of docs/CLUSTER.md."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness.epoch import BATCH, SCRIPT, STEPS, Epoch
from harness.machines import Machine, Machines
from harness.process import PATIENCE, Process, wait_until
from harness.refusal import commit, fails
from harness.slurm import Job, Slurm
from harness.states import digest, make_state
from harness.trainer import StrataFailure, Trainer, all_do

ROOT = Path(__file__).resolve().parent.parent.parent
GUIDE = ROOT / "docs" / "CLUSTER.md"
NAMES = ["n1", "n2", "n3"]


@pytest.fixture
def reached(exe: Path, python: Path, site: Path, tmp_path: Path) -> list[Path]:
    """What all machines have in common: programs, and the test's folder."""
    site.chmod(0o755)
    programs = [exe.parent, exe.resolve().parent, python.parent.parent, python.resolve().parent.parent]
    paths = [Path(path) for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    paths += [Path(given)] if (given := os.environ.get("STRATA_SLURM")) else []
    return [*programs, Path(sys.base_prefix), *paths, site, ROOT, tmp_path]


@pytest.fixture
def machines(reached: list[Path], tmp_path: Path) -> Iterator[Machines]:
    made = Machines(NAMES, reached, tmp_path / "machines")
    yield made
    made.close()


class Cluster:
    """A coordinator on the first machine, a sidecar on each, trainers where a test wants them."""

    def __init__(self, exe: Path, python: Path, site: Path, machines: Machines, store: Path) -> None:
        self.exe, self.python, self.machines, self.folder = exe, python, machines, store.parent
        self.processes: list[Process] = []
        self.trainers: list[Trainer] = []
        self.env = {"PATH": os.environ["PATH"], "HOME": str(Path.home()), "PYTHONPATH": str(site)}
        self.env |= {"STRATA_STORE": str(store), "STRATA_COORDINATOR": "http://n1:50051", "STRATA_LEASE": "4s"}

    def start(self, machine: Machine, *arguments: str, **env: str) -> Process:
        log = self.folder / f"{arguments[0]}-{machine.name}.log"
        process = machine.start([self.exe, *arguments], self.env | env, log)
        self.processes.append(process)
        return process

    def coordinator(self, machine: Machine, **env: str) -> Process:
        return self.start(machine, "coordinator", "--listen", "0.0.0.0:50051", "--insecure", **env)

    def sidecar(self, machine: Machine, **env: str) -> Process:
        process = self.start(machine, "sidecar", **env)
        done = machine.call([self.exe, "sidecar", "--wait-ready"], self.env | env)
        assert done.returncode == 0, done.stderr
        return process

    def begin(self, **env: str) -> Cluster:
        self.coordinator(self.machines[0], **env)
        for machine in self.machines:
            self.sidecar(machine)
        return self

    def trainer(self, machine: Machine, rank: int, world: int, job: str = "t", **env: str) -> Trainer:
        trainer = Trainer(self.python, self.env | env, rank, world, job, machine.enter)
        self.trainers.append(trainer)
        return trainer

    def ranks(self) -> list[Trainer]:
        """One on each machine, connected."""
        ranks = [self.trainer(machine, number, len(NAMES)) for number, machine in enumerate(self.machines)]
        all_do(ranks, "connect")
        return ranks

    def ranks_told(self) -> dict[int, dict[str, Any]]:
        done = self.machines[0].call([self.exe, "status", "--json"], self.env)
        assert done.returncode == 0, done.stderr
        [job] = json.loads(done.stdout)["jobs"]
        return {rank["rank"]: rank for rank in job["ranks"]}

    def states(self) -> list[str]:
        return [member["state"] for _, member in sorted(self.ranks_told().items())]

    def close(self) -> None:
        for trainer in self.trainers:
            trainer.close()
        for process in self.processes:
            print(f"--- {process.log.name}\n{process.text()}")


@pytest.fixture
def cluster(exe: Path, python: Path, site: Path, machines: Machines, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(exe, python, site, machines, tmp_path / "store")
    yield made
    made.close()


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


# -- Slurm, as the guide says


class Training:
    """A user's folder: `strata` and `torchrun` on the path, and a `train.py` that trains one epoch."""

    def __init__(self, exe: Path, python: Path, site: Path, machines: Machines, folder: Path) -> None:
        self.machines, self.folder = machines, folder
        folder.mkdir()
        (folder / "bin").mkdir()
        (folder / "bin" / "strata").symlink_to(exe)
        (folder / "bin" / "torchrun").write_text(f'#!/bin/sh\nexec {python} -m torch.distributed.run "$@"\n')
        (folder / "bin" / "torchrun").chmod(0o755)
        self.epoch = Epoch(folder / "epoch")
        arguments = [str(SCRIPT), str(self.epoch.folder), str(STEPS)]
        code = f"import runpy, sys\nsys.argv = {arguments}\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
        (folder / "train.py").write_text(code)
        self.env = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(site)}
        self.env |= {"STRATA_STORE": str(folder / "store"), "OMP_NUM_THREADS": "1", "ELASTIC_PATIENCE": "15"}

    def used(self) -> list[list[float]]:
        """How often each rank that came to the epoch's end says that each sample was used."""
        return [row["used"] for row in self.epoch.rows() if "ended" in row]


def block(language: str) -> str:
    """The only one of this language in the guide."""
    [found] = re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return str(found)


class Batch(Training):
    """Jobs of the guide's batch script on the machines' Slurm."""

    def __init__(self, exe: Path, python: Path, site: Path, machines: Machines, folder: Path) -> None:
        super().__init__(exe, python, site, machines, folder)
        self.script = folder / "train.sbatch"
        self.script.write_text(block("bash"))
        self.slurm = Slurm(machines, folder / "slurm")
        self.jobs: list[Job] = []

    def submit(self, *options: str) -> Job:
        self.jobs.append(self.slurm.submit(self.script, self.folder, self.env, *options))
        return self.jobs[-1]

    def reach(self, job: Job, step: int, world: int) -> None:
        """All its ranks commit this step, and wait before the next."""

        def there() -> bool:
            assert job.state() in ("PENDING", "RUNNING"), f"the job is {job.state()}\n{job.text()}"
            return self.epoch.committed(world) >= step

        self.epoch.allow(step)
        wait_until(there, f"step {step} in a world of {world}", 2 * PATIENCE)

    def close(self) -> None:
        print(*(f"--- {job.log.name}\n{job.text()}" for job in self.jobs), self.slurm.logs(), sep="\n")


@pytest.fixture
def batch(exe: Path, python: Path, site: Path, machines: Machines, tmp_path: Path) -> Iterator[Batch]:
    pytest.importorskip("torch")
    made = Batch(exe, python, site, machines, tmp_path / "batch")
    yield made
    made.close()


def test_p7_p8_the_guides_script_trains_over_three_nodes_through_the_death_of_its_coordinator(batch: Batch) -> None:
    job = batch.submit()
    batch.reach(job, 5, world=3)
    for pid in batch.machines[0].processes("coordinator", "--listen"):
        os.kill(pid, signal.SIGKILL)
    batch.reach(job, 10, world=3)
    batch.epoch.allow(STEPS)
    assert job.wait_until_ended(2 * PATIENCE) == "COMPLETED", job.text()
    batch.epoch.check()
    assert batch.epoch.starts(world=3) == 3, "nobody was started again"
    assert batch.used() == [[1.0] * STEPS * BATCH] * 3
    wait_until(
        lambda: not any(machine.processes("strata") for machine in batch.machines), "Slurm to end what the job started"
    )


def test_p3_p8_the_guides_job_goes_on_when_a_node_is_lost_and_the_next_one_takes_up_its_checkpoints(
    batch: Batch,
) -> None:
    """Two nodes train on; the job is cancelled, and the same script submitted again begins where it was."""
    job = batch.submit()
    batch.reach(job, 5, world=3)
    batch.machines.power_off(batch.machines[2])
    batch.reach(job, 10, world=2)
    job.cancel()
    job.wait_until_ended(2 * PATIENCE)
    again = batch.submit("--nodes=2")
    wait_until(lambda: batch.epoch.starts(world=2) == 4, "the next job to begin", 2 * PATIENCE)
    batch.epoch.allow(STEPS)
    assert again.wait_until_ended(2 * PATIENCE) == "COMPLETED", again.text()
    batch.epoch.check()
    assert batch.used() == [[1.0] * STEPS * BATCH] * 2


def test_p8_the_guides_commands_without_slurm_train_over_three_nodes(
    exe: Path, python: Path, site: Path, machines: Machines, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    training = Training(exe, python, site, machines, tmp_path / "by-hand")
    training.epoch.allow(STEPS)
    env = training.env | {"HOME": str(Path.home()), "HEAD": "n1", "GPUS": "1"}
    lines = [line.partition("  # on ") for line in block("sh").splitlines()]
    assert [where for _, _, where in lines] == ["$HEAD, as a service", "each node, as a service", *["each node"] * 2]
    processes: list[Process] = []
    for number, (command, _, where) in enumerate(lines):
        started = [
            machine.start(
                ["bash", "-c", f"cd {training.folder}; {command}"],
                env,
                training.folder / f"{number}-{machine.name}.log",
            )
            for machine in (machines.all[:1] if where.startswith("$HEAD") else machines.all)
        ]
        processes += started
        if "as a service" not in where:
            for process in started:
                assert process.popen.wait(2 * PATIENCE) == 0, "\n".join(each.text() for each in processes)
    training.epoch.check()
    assert training.used() == [[1.0] * STEPS * BATCH] * 3


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
