"""`connect(local=True)`: a sidecar that comes and goes by itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from harness.node import Node
from harness.process import wait_until
from harness.script import Start, finish


def test_private_sidecar_comes_and_goes_by_itself(
    make_node: Callable[..., Node], script: Start, tmp_path: Path
) -> None:
    node = make_node()
    env = {key: value for key, value in node.env.items() if key != "STRATA_SOCKET"} | {"XDG_RUNTIME_DIR": str(node.run)}
    save = """
        with strata.connect(local=True) as job:
            print("before", job.latest_step())
            handle = job.save(int(os.environ["STEP"]), {"w": np.arange(1000)})
        assert handle.state == "committed"
        """
    assert "before None" in finish(script(save, env | {"STEP": "1"}))[0]
    sockets = node.run / "strata"
    wait_until(lambda: not any(sockets.rglob("*.sock")), "the private sidecar to end")
    assert "before 1" in finish(script(save, env | {"STEP": "2"}))[0]
    alone = script("with strata.connect() as job:\n    assert job.restore().step == 2", env)
    finish(alone)  # nothing is named and no sidecar answers: a private one without asking
    wait_until(lambda: not any(sockets.rglob("*.sock")), "the private sidecar to end")


def test_several_worlds_of_one_share_no_private_sidecar(make_node: Callable[..., Node], script: Start) -> None:
    """One rank of one job lives once: the second says so instead of starting another sidecar."""
    node = make_node()
    env = {key: value for key, value in node.env.items() if key != "STRATA_SOCKET"} | {"XDG_RUNTIME_DIR": str(node.run)}
    first = script("job = strata.connect(local=True)\nprint('up')\nsys.stdin.read()", env)
    first.wait_until(lambda: "up" in first.text(), "the first trainer")
    second = script(
        """
        try:
            strata.connect(local=True, timeout=5)
        except strata.ConflictError as error:
            print("conflict:", error)
        """,
        env,
    )
    assert "rank 0" in finish(second)[0]
    first.kill()
    assert os.path.exists(node.env["STRATA_HOME"])
