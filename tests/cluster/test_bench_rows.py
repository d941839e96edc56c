"""Strata's rows of the data benches: each hands out every sample once, whole, and an epoch goes on exactly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benches" / "peers" / "data"))

import billion
import chaos
import loaders
import readers
from harness.process import PATIENCE
from job import Job
from packages import HERE, Packages
from records import Corpus
from resume import halves


class Here(Packages):
    """Everything is in one interpreter, with the wheel beside it."""

    def environment(self, name: str) -> dict[str, str]:
        inherited = [path for path in [os.environ.get("PYTHONPATH")] if path]
        return os.environ | {"PYTHONPATH": os.pathsep.join([str(self.folder), str(HERE), *inherited])}


@pytest.fixture
def packages(exe: Path, python: Path, site: Path) -> Packages:
    return Here(str(python), python, exe, site)


def ours(names: dict[str, str]) -> list[str]:
    return [name for name in names if name.startswith("strata")]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ours(readers.READERS))
def test_a_reader_of_ours_hands_out_every_record_once_and_whole(
    packages: Packages, tmp_path: Path, name: str, workers: int
) -> None:
    if workers and name in readers.WITHOUT_WORKERS:
        pytest.skip("it has none")
    corpus = Corpus(tmp_path, 64, 3000, file=2**14)
    corpus.make(readers.reader(name).form)
    given = [str(corpus.home), str(corpus.size), str(corpus.count), str(corpus.seed), str(corpus.file)]
    command = [packages.python, str(HERE / "epochs.py"), name, *given, "128", str(workers), "shuffled", "0"]
    done = subprocess.run(
        command, env=packages.environment(name), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["count"] == corpus.count


@pytest.mark.parametrize("name", ours(loaders.LOADERS))
def test_p8_a_loader_of_ours_keeps_the_order_through_kills_and_resizes(
    packages: Packages, tmp_path: Path, name: str
) -> None:
    """A global batch that no world but one divides."""
    if name == "strata-torchdata":
        pytest.importorskip("torchdata.stateful_dataloader")
    corpus = Corpus(tmp_path / "corpus", 64, 640, file=2**12)
    corpus.make("bin")
    kills = [chaos.Kill(number % 4, moment, number / 3) for number, moment in enumerate(chaos.MOMENTS)]
    streams = []
    for scenario in (
        chaos.Scenario((3,), [], lambda _: 32, 2),
        chaos.Scenario((3, 2, 5), kills, lambda _: 32, 2),
    ):
        folder = tmp_path / str(len(streams))
        folder.mkdir()
        with Job(packages, name, corpus, 0, 1, folder, folder / "ranks.log") as job:
            course = scenario.run(job)
        assert course.refused == "", (folder / "ranks.log").read_text()
        assert course.killed == len(scenario.kills) and course.resizes == len(scenario.worlds) - 1
        streams.append(course.stream)
    assert sorted(streams[0]) == list(range(corpus.count)) and streams[1] == streams[0]


@pytest.mark.parametrize(("name", "workers"), [("strata", 0), ("strata-torch", 2), ("strata-torchdata", 2)])
def test_p8_half_an_epoch_in_one_process_and_half_in_another(
    packages: Packages, tmp_path: Path, name: str, workers: int
) -> None:
    if name == "strata-torchdata":
        pytest.importorskip("torchdata.stateful_dataloader")
    corpus = Corpus(tmp_path / "corpus", 64, 3000, file=2**14)
    corpus.make("bin")
    between = tmp_path / "between"
    between.mkdir()
    assert halves(packages, corpus, name, workers, between)["same"]


def test_p8_a_fresh_process_goes_on_at_the_half_of_a_billion_samples(packages: Packages, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    [turn] = billion.measure(packages, tmp_path, 1)
    assert len(set(turn["indices"])) == billion.BATCH and max(turn["indices"]) < billion.SAMPLES
