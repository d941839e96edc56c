"""Options and fixtures of all tests."""

from __future__ import annotations

import random
import signal

import pytest

# A shell without job control starts what runs in its background with Ctrl-C ignored, and so would every process be that
# the tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


ROUNDS = 56


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rounds", type=int, default=ROUNDS, help="crash rounds (tests/cluster/test_crash.py)")
    parser.addoption("--preemptions", type=int, default=6, help="SIGTERM rounds (tests/cluster/test_preemption.py)")
    parser.addoption("--seed", type=int, default=None, help="replays a randomised test; printed by the run that failed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """More crash rounds than usual have as much more time."""
    times = config.getoption("--rounds") / ROUNDS
    for item in items:
        if "sigkill" in item.name and times > 1 and (limit := item.get_closest_marker("timeout")):
            item.add_marker(pytest.mark.timeout(limit.args[0] * times), append=False)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The one seed of a randomised test, printed so that a failure can be replayed with --seed."""
    given: int | None = request.config.getoption("--seed")
    chosen = random.SystemRandom().randrange(2**32) if given is None else given
    print(f"seed: {chosen} (replay with --seed {chosen})")
    return chosen
