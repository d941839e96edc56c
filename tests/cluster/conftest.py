"""What every test may ask for: the executable, a Python with the wheel, nodes, trainers, an S3 server.

The makefile says where things are: STRATA_EXE, STRATA_TEST_PYTHON (numpy, torch, grpcio), STRATA_VERSITYGW.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.cluster import Cluster
from harness.coordinators import Coordinators
from harness.machines import Machines
from harness.node import Node
from harness.process import Process
from harness.s3 import S3Server
from harness.script import Start
from harness.trainer import Trainer

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="session")
def exe() -> Path:
    path = Path(os.environ.get("STRATA_EXE", ROOT / "dist" / "strata"))
    assert path.exists(), f"{path} is missing: run `make build`"
    return path


@pytest.fixture(scope="session")
def python() -> Path:
    """The interpreter of trainers: the one that runs the tests unless STRATA_TEST_PYTHON names another."""
    return Path(os.environ.get("STRATA_TEST_PYTHON", sys.executable))


@pytest.fixture(scope="session")
def wheels(exe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheels that the executable writes."""
    folder = tmp_path_factory.mktemp("wheels")
    subprocess.run([exe, "wheel", folder], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def site(wheels: Path, python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed, for PYTHONPATH: the interpreter itself stays as it is."""
    folder = tmp_path_factory.mktemp("site")
    pip = [python, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", wheels, "--target", folder]
    subprocess.run([*pip, "strata-runtime"], check=True)
    return folder


@pytest.fixture
def make_node(exe: Path, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Makes nodes that end with the test; their logs are printed when it fails."""
    nodes: list[Node] = []

    def make(store: str | None = None, extra: dict[str, str] | None = None) -> Node:
        node = Node(exe, tmp_path / f"node-{len(nodes)}", store, extra)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.close()
        print(node.logs())


@pytest.fixture
def make_coordinators(exe: Path, tmp_path: Path) -> Iterator[Callable[[int], Coordinators]]:
    """Makes so many coordinators of one cluster, which end with the test; their logs are printed when it fails."""
    sets: list[Coordinators] = []

    def make(count: int) -> Coordinators:
        sets.append(Coordinators(exe, tmp_path, count=count))
        return sets[-1]

    yield make
    for coordinators in sets:
        coordinators.close()
        print(coordinators.logs())


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """A node with `strata up` running."""
    return make_node().up()


@pytest.fixture
def make_trainers(python: Path, site: Path) -> Iterator[Callable[..., list[Trainer]]]:
    """Starts the ranks of a job on a node: `make_trainers(node, world=2, job="t")`; not yet connected."""
    started: list[Trainer] = []

    def make(node: Node, world: int = 1, job: str = "t", **env: str) -> list[Trainer]:
        environment = node.env | {"PYTHONPATH": str(site)} | env
        ranks = [Trainer(python, environment, rank, world, job) for rank in range(world)]
        started.extend(ranks)
        return ranks

    yield make
    for trainer in started:
        trainer.close()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    binary = os.environ.get("STRATA_VERSITYGW") or shutil.which("versitygw")
    if not binary:
        missing = "no S3 server: `make test` builds one where there is Go and sets STRATA_VERSITYGW"
        assert "CI" not in os.environ, missing
        pytest.skip(missing)
    server = S3Server(Path(binary), tmp_path_factory.mktemp("s3"))
    yield server
    server.close()


@pytest.fixture
def script(python: Path, site: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts Python code as a rank of job `t`; what it prints is its log."""
    started: list[Process] = []

    def start(code: str, env: dict[str, str], rank: int = 0, world: int = 1) -> Process:
        prelude = "import os, signal, sys, time, numpy as np, strata\n"
        place = {"PYTHONPATH": str(site), "STRATA_JOB": "t", "RANK": str(rank), "WORLD_SIZE": str(world)}
        command = [python, "-u", "-W", "error::DeprecationWarning", "-c", prelude + textwrap.dedent(code)]
        started.append(Process(command, env | place, tmp_path / f"script-{len(started) + 1}-{rank}.log"))
        return started[-1]

    yield start
    for process in started:
        process.kill()


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
    made = Machines(["n1", "n2", "n3"], reached, tmp_path / "machines")
    yield made
    made.close()


@pytest.fixture
def cluster(exe: Path, python: Path, site: Path, machines: Machines, tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(exe, python, site, machines, tmp_path / "store")
    yield made
    made.close()
