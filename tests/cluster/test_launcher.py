"""`strata run`: ranks of real processes, killed and signalled."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.epoch import STEPS, NodeEpoch
from harness.node import Node
from harness.process import PATIENCE, Process, wait_until

Nodes = Callable[..., Node]

TRAINING = """
import os, signal, sys
import numpy as np, strata
with strata.connect() as job:
    restored = job.restore()
    first = restored.step + 1 if restored else 1
    print("first", first, flush=True)
    for step in range(first, 7):
        job.save(step, {"model": {"w": np.full(1000, step)}}).wait_committed()
        if (step, first, job.rank) == (3, 1, 1):
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def run(node: Node, tmp_path: Path) -> Callable[..., Process]:
    """Starts `strata run` on a node that has its sidecar; every rank is a shell script."""

    def start(*options: str, script: str, ranks: int = 2) -> Process:
        command = [node.exe, "run", "--nproc-per-node", str(ranks), "--log-dir", tmp_path / "logs", *options]
        process = Process([*command, "--", "sh", "-c", script], node.env | {"T": str(tmp_path)}, tmp_path / "run.log")
        node.parts["run"] = process
        return process

    return start


def ended(process: Process) -> int:
    return process.popen.wait(60)


def gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def test_every_rank_learns_its_place(node: Node, run: Callable[..., Process], tmp_path: Path) -> None:
    process = run(
        "--job", "named", script="echo $RANK/$WORLD_SIZE $STRATA_JOB $STRATA_SOCKET >$T/$LOCAL_RANK; echo said"
    )
    assert ended(process) == 0
    socket = node.env["STRATA_SOCKET"]
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == [f"{r}/2 named {socket}\n" for r in range(2)]
    assert "[rank 1] said" in process.text()
    assert (tmp_path / "logs" / "rank-1.0.log").read_text() == "said\n"


def test_restarts_are_counted_and_the_first_failed_ranks_code_ends_it(
    run: Callable[..., Process], tmp_path: Path
) -> None:
    process = run("--max-restarts", "2", script="echo x >>$T/starts.$RANK; [ $RANK = 1 ] && exit 41; sleep 600")
    assert ended(process) == 41
    assert (tmp_path / "starts.1").read_text() == "x\n" * 3
    assert {path.name for path in (tmp_path / "logs").glob("rank-1.*")} == {f"rank-1.{n}.log" for n in range(3)}
    assert "all 2 restarts are used up" in process.text()


def test_death_by_signal_is_128_and_its_number(run: Callable[..., Process]) -> None:
    assert ended(run("--max-restarts", "0", script="[ $RANK = 0 ] && kill -9 $$; sleep 600")) == 128 + 9


def test_sigterm_reaches_the_ranks_and_nothing_is_restarted(run: Callable[..., Process], tmp_path: Path) -> None:
    script = "trap 'echo told; exit 0' TERM; echo x >>$T/starts.$RANK; while :; do sleep 0.02; done"
    process = run(script=script)
    wait_until(lambda: all((tmp_path / f"starts.{rank}").exists() for rank in range(2)), "the ranks to start")
    assert process.stop() == 0
    assert process.text().count("told") == 2
    assert (tmp_path / "starts.0").read_text() == "x\n"


def test_grace_ends_ranks_that_do_not(run: Callable[..., Process], tmp_path: Path) -> None:
    process = run("--grace", "200ms", script="trap '' TERM; echo >$T/started.$RANK; while :; do sleep 0.02; done")
    wait_until(lambda: all((tmp_path / f"started.{rank}").exists() for rank in range(2)), "the ranks to start")
    assert process.stop() == 128 + 9


def test_killed_launcher_takes_its_ranks_along(run: Callable[..., Process], tmp_path: Path) -> None:
    process = run(script="echo $$ >$T/pid.$RANK; exec sleep 600")
    pids = [tmp_path / f"pid.{rank}" for rank in range(2)]
    wait_until(lambda: all(path.exists() and path.read_text() for path in pids), "the ranks to start")
    process.kill()
    wait_until(lambda: all(gone(int(path.read_text())) for path in pids), "the ranks to end")


def test_lost_rank_restarts_the_job_from_its_newest_step(node: Node, python: Path, site: Path, tmp_path: Path) -> None:
    """P3."""
    (tmp_path / "train.py").write_text(TRAINING)
    command = ["run", "--nproc-per-node", "2", "--log-dir", tmp_path / "logs", "--", python, tmp_path / "train.py"]
    node.cli(*command, STRATA_JOB="t", PYTHONPATH=str(site))
    for rank in range(2):
        # The other rank may be told of the loss before the launcher ends it.
        assert (tmp_path / "logs" / f"rank-{rank}.0.log").read_text().startswith("first 1\n")
        assert (tmp_path / "logs" / f"rank-{rank}.1.log").read_text() == "first 4\n"
    assert node.status()["jobs"][0]["latest_step"] == 6


def test_p8_epoch_goes_on_without_a_place_that_fails_and_with_it_again(
    node: Node, python: Path, site: Path, tmp_path: Path
) -> None:
    """3 ranks, then 2 while the place of one is broken, then 3 again: no sample is lost or used twice."""
    epoch = NodeEpoch(node, python, site, tmp_path / "epoch")
    broken = epoch.folder / "broken"
    script = f'[ $STRATA_PLACE = 1 ] && test -e {broken} && exit 3; exec "$@"'
    options = ["--nproc-per-node", "3", "--min-nproc", "2", "--max-restarts", "1", "--grow-after", "5s"]
    command = [node.exe, "run", *options, "--", "sh", "-c", script, "rank", python, *epoch.command()]
    run = node.parts["run"] = Process(command, node.env | epoch.env, tmp_path / "run.log")
    epoch.reach(8, world=3, limit=20)
    broken.touch()
    [lost] = [row["pid"] for row in epoch.rows() if row.get("place") == "1"]
    os.kill(lost, signal.SIGKILL)
    epoch.reach(20, world=2)
    broken.unlink()
    wait_until(lambda: epoch.starts(world=3) == 6, "all three to train again", 2 * PATIENCE)
    epoch.reach(40, world=3)
    epoch.allow(STEPS)
    assert ended(run) == 0
    epoch.check()
    epoch.check_samples()
    steps = [(row["committed"], row["rank"]) for row in epoch.rows() if row.get("committed", 0) > 20]
    assert len(steps) == len(set(steps)), "growing replays nothing"
    assert "going on with 2 ranks without place 1, which is tried again in 5s" in run.text()


WORKERS = """
import os, time, numpy as np, strata, torch
from torch.utils.data import DataLoader

class Samples(torch.utils.data.Dataset):
    __len__ = lambda self: 10**9
    __getitem__ = lambda self, index: torch.zeros(4) + index

with strata.connect() as job:
    for step, batch in enumerate(DataLoader(Samples(), batch_size=8, num_workers=2), start=1):
        if job.reached_preemption(step):
            job.save(step, {"step": step}).wait_committed()
            break
        open(os.environ["T"] + f"/started.{job.rank}", "w").close()
        time.sleep(0.01)
print("left in good order", flush=True)
"""


def test_stop_lets_ranks_with_dataloader_workers_save_and_leave(
    node: Node, python: Path, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(WORKERS)
    command = [node.exe, "run", "--nproc-per-node", "2", "--", python, tmp_path / "train.py"]
    env = node.env | {"STRATA_JOB": "t", "PYTHONPATH": str(site), "T": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = node.parts["run"] = Process(command, env, tmp_path / "run.log")
    started = [tmp_path / f"started.{rank}" for rank in range(2)]
    run.wait_until(lambda: all(path.exists() for path in started), "both ranks to train")
    assert run.stop() == 0, run.text()
    assert run.text().count("left in good order") == 2
    assert node.status()["jobs"][0]["latest_step"] >= 1


LOST = """
import os, signal, strata
job = strata.connect()
ballast = b"x" * (1 << 30) if job.rank == 1 else b""
job.barrier("all are there")
if job.rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
try:
    job.barrier("never")
except strata.FencedError:
    os._exit(3)
"""


def test_killed_rank_is_named_also_where_the_others_end_before_its_memory_is_freed(
    node: Node, python: Path, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(LOST)
    command = ["run", "--nproc-per-node", "2", "--max-restarts", "0", "--", python, tmp_path / "train.py"]
    ended = node.cli(*command, check=False, STRATA_JOB="t", PYTHONPATH=str(site))
    assert ended.returncode == 128 + signal.SIGKILL, ended.stderr
    assert "rank 1 ended with code 137" in ended.stderr


def test_sidecar_is_started_where_none_answers_and_ends_with_the_run(
    make_node: Nodes, python: Path, site: Path, tmp_path: Path
) -> None:
    node = make_node()
    (tmp_path / "train.py").write_text(TRAINING)
    command = ["run", "--nproc-per-node", "2", "--log-dir", tmp_path / "logs", "--", python, tmp_path / "train.py"]
    node.cli(*command, STRATA_JOB="t", PYTHONPATH=str(site))
    assert not Path(node.env["STRATA_SOCKET"]).exists() and node.endpoint() == {}
    assert "sidecar serves" in (tmp_path / "logs" / "sidecar.log").read_text()
    told = node.cli("checkpoints", "ls", "--job", "t", "--store", node.store).stdout
    assert [line.split()[0] for line in told.splitlines()[1:]] == ["1", "2", "3", "4", "5", "6"]


def test_own_sidecar_survives_its_death_and_ends_after_the_launchers(make_node: Nodes, tmp_path: Path) -> None:
    node = make_node()
    command = [
        node.exe,
        "run",
        "--log-dir",
        tmp_path / "logs",
        "--",
        "sh",
        "-c",
        f"echo $$ >{tmp_path}/pid; exec sleep 600",
    ]
    process = Process(command, node.env, tmp_path / "run.log")
    node.parts["run"] = process
    wait_until((tmp_path / "pid").exists, "the rank to start")
    first = node.endpoint()["pid"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: node.endpoint().get("pid") not in (None, first), "the sidecar to be started again")
    second = node.endpoint()["pid"]
    process.kill()
    wait_until(lambda: gone(second), "the sidecar to end")
    assert node.endpoint() == {}


def test_sidecar_that_cannot_start_is_said_before_a_rank_runs(make_node: Nodes, tmp_path: Path) -> None:
    node = make_node(extra={"STRATA_SOCKET": f"/tmp/{'x' * 120}.sock"})
    done = node.cli("run", "--log-dir", tmp_path, "--", "touch", tmp_path / "ran", check=False)
    assert done.returncode == 6 and "hint: " in done.stderr and str(tmp_path / "sidecar.log") in done.stderr
    assert "107" in (tmp_path / "sidecar.log").read_text() and not (tmp_path / "ran").exists()


def test_wrong_requests_are_told_with_a_hint(node: Node) -> None:
    for arguments, code in (
        (["run"], 2),
        (["run", "--", "/no/such/program"], 3),
        (["run", "--grace", "x", "--", "true"], 2),
        (["run", "--nproc-per-node", "2", "--min-nproc", "3", "--", "true"], 2),
    ):
        done = node.cli(*arguments, check=False)
        assert done.returncode == code and "error: " in done.stderr and "hint: " in done.stderr, done.stderr


STANDBY = """
import os, signal, sys, time
print("imported", flush=True)
import strata
with strata.connect() as job:
    restored = job.restore()
    first = restored.step + 1 if restored else 1
    print("first", first, flush=True)
    for step in range(first, 400):
        job.save(step, {"step": step}).wait_committed()
        if first > 1:
            break
        time.sleep(0.1)
        if job.rank == 1 and os.path.exists(os.environ["T"] + "/kill"):
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_ranks_that_were_started_ahead_go_on_from_the_newest_step(
    node: Node, python: Path, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text(STANDBY)
    logs = tmp_path / "logs"
    options = ["--nproc-per-node", "2", "--standby", "--log-dir", logs]
    env = node.env | {"STRATA_JOB": "t", "PYTHONPATH": str(site), "T": str(tmp_path)}
    run = Process([node.exe, "run", *options, "--", python, tmp_path / "train.py"], env, tmp_path / "run.log")
    node.parts["run"] = run
    ahead = [logs / f"rank-{rank}.1.log" for rank in range(2)]
    run.wait_until(lambda: all(log.exists() and log.read_text() for log in ahead), "the next ranks to import")
    assert node.status()["jobs"][0]["generation"] == 1, "they wait"
    (tmp_path / "kill").touch()
    assert ended(run) == 0, run.text()
    for log in ahead:
        imported, first = log.read_text().splitlines()
        assert imported == "imported" and int(first.removeprefix("first ")) > 1
    assert not (logs / "rank-0.3.log").exists()
    assert run.text().count("starting all 2 ranks again") == 1
