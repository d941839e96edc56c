"""Options and fixtures of all tests."""

from __future__ import annotations

import random

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=56, help="crash rounds (tests/cluster/test_crash.py)")
    parser.addoption("--seed", type=int, default=None, help="replays a randomised test; printed by the run that failed")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The one seed of a randomised test, printed so that a failure can be replayed with --seed."""
    given: int | None = request.config.getoption("--seed")
    chosen = random.SystemRandom().randrange(2**32) if given is None else given
    print(f"seed: {chosen} (replay with --seed {chosen})")
    return chosen
