"""docs/CLUSTER.md does what it says: its blocks are run as they stand there, over machines of their own, under Debian's
Slurm and without."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.cluster import Cluster
from harness.epoch import BATCH, SCRIPT, STEPS, Epoch
from harness.machines import Machines
from harness.process import PATIENCE, Process, wait_until
from harness.slurm import Job, Slurm
from harness.states import digest, make_state
from harness.trainer import Trainer

GUIDE = Path(__file__).resolve().parent.parent.parent / "docs" / "CLUSTER.md"


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


def test_p3_p7_p8_the_guides_script_trains_over_three_nodes_through_deaths_of_its_own_parts(batch: Batch) -> None:
    """The coordinator and a sidecar are killed; the script starts them again, and no rank notices."""
    job = batch.submit()
    batch.reach(job, 5, world=3)
    killed = [*batch.machines[0].processes("coordinator", "--listen"), *batch.machines[1].processes("sidecar")]
    assert len(killed) == 2
    for pid in killed:
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


def test_two_jobs_of_one_user_on_one_node_do_not_meet_as_the_guide_names_their_places(cluster: Cluster) -> None:
    """The lines of the batch script that name them, for two Slurm jobs; a job of the same name, a store each."""
    machine = cluster.machines[0]
    lines = block("bash").partition("set -euo pipefail")[2].partition("# The coordinator")[0]
    states: dict[int, Trainer] = {}
    for number in (7, 8):
        given = {"SLURM_JOB_ID": str(number), "SLURM_JOB_NAME": "same", "SLURM_JOB_NODELIST": "n1"}
        given |= {"PATH": os.environ["PATH"], "STRATA_STORE": str(cluster.folder / f"store-{number}")}
        done = machine.call(["bash", "-euc", f"scontrol() {{ echo n1; }}\n{lines}\nenv -0"], given)
        assert done.returncode == 0, done.stderr
        env = dict(line.split("=", 1) for line in done.stdout.split("\0") if line.startswith(("STRATA_", "PORT=")))
        options = ["--listen", f"0.0.0.0:{env['PORT']}", "--http-port", "0", "--insecure"]
        cluster.start(machine, "coordinator", *options, **env)
        cluster.start(machine, "sidecar", "--http-port", "0", **env)
        done = machine.call([cluster.exe, "sidecar", "--wait-ready"], cluster.env | env)
        assert (done.returncode, done.stdout.strip()) == (0, env["STRATA_SOCKET"]), done.stderr
        states[number] = cluster.trainer(machine, 0, 1, env["STRATA_JOB"], **env)
        states[number].do("connect")
    for number, trainer in states.items():
        trainer.do("save", step=1, seed=number)
    for trainer in states.values():
        trainer.do("wait_committed", step=1)
    for number, trainer in states.items():
        assert trainer.do("restore")["digest"] == digest(make_state(number, 1, 0))
        found = machine.call(["bash", "-c", f"ls -d /dev/shm/*-{number}/*.arena /tmp/*-{number}/coordinator"])
        assert len(found.stdout.split()) == 2, found
