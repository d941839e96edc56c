"""What the data benches count is so: damaged records are told, and so is what a loader loses, doubles or moves.

No peer is installed here; the loaders are those of dealt.py, whose faults are known.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benches" / "peers" / "data"))

import chaos
import loaders
from job import Job
from packages import HERE, Packages
from records import Corpus, numbers, verified

TESTS = Path(__file__).resolve().parent
SAMPLES, BATCH, EVERY = 3600, 4, 3


class Bare(Packages):
    def environment(self, name: str) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": f"{TESTS}:{HERE}"}


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path / "corpus", 64, SAMPLES)


def test_a_changed_byte_or_words_in_each_others_place_are_told(corpus: Corpus) -> None:
    whole = corpus.block(0)
    assert (verified(whole) == np.arange(SAMPLES)).all()
    assert (whole == corpus.block(0)).all() and (whole != Corpus(corpus.home, 64, SAMPLES, 8).block(0)).any()
    for byte in range(corpus.size):
        damaged = whole.copy()
        damaged[1234, byte] ^= 1
        with pytest.raises(ValueError, match="record 1234 "):
            verified(damaged)
    swapped = whole.copy()
    swapped[5, 16:24], swapped[5, 24:32] = whole[5, 24:32], whole[5, 16:24]
    with pytest.raises(ValueError, match="record 5 "):
        verified(swapped)


def test_a_format_that_is_there_is_whole_and_not_written_again(corpus: Corpus) -> None:
    path = corpus.make("npy") / "data.npy"
    assert (verified(np.load(path)) == np.arange(SAMPLES)).all()
    raw = np.fromfile(corpus.make("bin") / "data.bin", np.uint8).reshape(SAMPLES, 64)
    assert (numbers(raw) == np.arange(SAMPLES)).all()
    before = path.stat().st_mtime_ns
    assert corpus.make("npy") == path.parent and path.stat().st_mtime_ns == before


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path) -> None:
    huge = Corpus(tmp_path, 2**20, 2**40)
    with pytest.raises(SystemExit, match="GB are free below"):
        huge.make("bin")
    assert not huge.path("bin").exists()


def course(
    corpus: Corpus,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    scenario: chaos.Scenario,
    kind: type[Job] = Job,
) -> chaos.Course:
    monkeypatch.setitem(loaders.LOADERS, name, f"dealt:{name}")
    monkeypatch.setitem(loaders.PACKAGES, name, [])
    folder.mkdir()
    monkeypatch.syspath_prepend(str(TESTS))
    packages = Bare(sys.executable, Path(), Path(), folder)
    with kind(packages, name, corpus, 0, 1, folder, folder / "ranks.log") as job:
        return scenario.run(job)


def disturbed(kills: int) -> chaos.Scenario:
    moments = [chaos.Kill(number % 7, chaos.MOMENTS[number % 3], number / kills) for number in range(kills)]
    return chaos.Scenario(chaos.WORLDS, moments, lambda world: BATCH * world, EVERY)


def undisturbed() -> chaos.Scenario:
    return chaos.Scenario(chaos.WORLDS[:1], [], lambda world: BATCH * world, EVERY)


def test_a_loader_that_keeps_its_place_loses_nothing_through_kills_and_resizes(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = course(corpus, tmp_path / "whole", monkeypatch, "Exact", undisturbed())
    assert whole.stream == list(range(SAMPLES)) and whole.killed == 0
    found = course(corpus, tmp_path / "found", monkeypatch, "Exact", disturbed(21))
    assert (found.stream, found.refused) == (whole.stream, "")
    assert (found.resizes, found.kills) == (4, dict.fromkeys(chaos.MOMENTS, 7))
    assert chaos.counted(found, whole.stream, SAMPLES)[3:6] == ("0", "0", "as undisturbed")


@pytest.mark.parametrize(("name", "lost", "doubled"), [("Ahead", True, False), ("Behind", False, True)])
def test_what_a_loader_loses_or_doubles_is_counted(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, lost: bool, doubled: bool
) -> None:
    resized = chaos.Scenario(chaos.WORLDS, [], lambda world: BATCH * world, EVERY)
    found = course(corpus, tmp_path / "found", monkeypatch, name, resized)
    counted = chaos.counted(found, list(range(SAMPLES)), SAMPLES)
    # One step of each world but the last, which nothing comes after.
    step = str(sum(BATCH * world for world in chaos.WORLDS[:-1]))
    assert counted[3:5] == (step if lost else "0", step if doubled else "0")
    assert "other than undisturbed" in counted[5]


class Slow(Job):
    """A kill comes when what was asked for is done, and nobody has been told of it."""

    def kill(self, number: int) -> None:
        self.answers()
        super().kill(number)


def saving(kills: int) -> chaos.Scenario:
    moments = [chaos.Kill(number % 7, "saving", number / kills) for number in range(kills)]
    return chaos.Scenario(chaos.WORLDS, moments, lambda world: BATCH * world, EVERY)


def test_a_commit_that_was_made_and_not_acknowledged_counts(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = course(corpus, tmp_path / "found", monkeypatch, "Committing", saving(8), Slow)
    assert (found.stream, found.refused, found.killed) == (list(range(SAMPLES)), "", 8)
    assert found.unacknowledged == 8
    found = course(corpus, tmp_path / "again", monkeypatch, "Committing", disturbed(21))
    assert (found.stream, found.refused, found.killed) == (list(range(SAMPLES)), "", 21)


def test_going_on_from_another_commit_than_the_last_is_told(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = course(corpus, tmp_path / "found", monkeypatch, "Astray", saving(3), Slow)
    assert "go on from commits [" in found.refused


def test_a_refusal_is_told_in_the_loaders_own_words(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = course(corpus, tmp_path / "found", monkeypatch, "OneWorld", disturbed(3))
    assert "1 resizes: ValueError: saved in a world of 8, this is one of 5" in found.refused
    assert 0 < len(found.stream) < SAMPLES
