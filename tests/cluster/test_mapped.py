"""Restored tensors that are views of the arena: what was saved, in memory of this process, whoever dies or forks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness.node import Node
from harness.process import wait_until
from harness.script import Start, finish

STATE = """
import hashlib, torch
def state(seed):
    torch.manual_seed(seed)
    flat = torch.randn(3_000_000)
    return {
        "model": {"w": torch.randn(1500, 1000), "half": torch.randn(700_001).bfloat16(),
                  "odd": torch.randn(3, 5)[:, 1:4], "tied": flat[:10], "flat": flat,
                  "scalar": torch.tensor(float(seed)), "empty": torch.empty(0, 4)},
        "parameter": torch.nn.Parameter(torch.randn(1025, 1023)),
        "numpy": {"a": np.random.default_rng(seed).random((1001, 501)), "b": np.arange(4096 * 3, dtype="u1"),
                  "read": np.full(70_000, seed, "i4"), "zero": np.array(seed)},
        "bytes": bytes(range(256)) * 4096,
        "lr": 0.1 * seed,
    }
def digest(value):
    found = hashlib.sha256()
    def visit(part):
        if isinstance(part, torch.Tensor):
            plain = part.detach().contiguous()
            found.update(f"{type(part)}{part.dtype}{tuple(part.shape)}{part.requires_grad}".encode())
            found.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
        elif isinstance(part, np.ndarray):
            found.update(f"{part.dtype}{part.shape}".encode() + part.tobytes())
        elif isinstance(part, dict):
            for key, child in part.items():
                found.update(repr(key).encode())
                visit(child)
        else:
            found.update(repr(part).encode())
    visit(value)
    return found.hexdigest()
def committed(step, value):
    job.save(step, value).wait_committed(timeout=60)
"""


@pytest.fixture
def rank(script: Start) -> Start:
    return lambda code, env, **options: script(STATE + "\n" + code, env, **options)


def test_restored_state_is_equal_writable_and_saved_again_as_it_was(node: Node, rank: Start) -> None:
    code = """
job = strata.connect()
committed(1, state(1))
restored = job.restore()
assert restored.mapped and restored.source == "arena", restored
assert digest(restored.state) == digest(state(1))
model = restored.state["model"]
assert model["tied"].untyped_storage().data_ptr() == model["flat"].untyped_storage().data_ptr(), "they share memory"
model["flat"].fill_(7)
assert (model["tied"] == 7).all()
restored.state["numpy"]["a"][:] = 3
kept = digest(restored.state)
for step in range(2, 7):  # more than there are slots: views of one of them are in nobody's way
    committed(step, restored.state)
    assert digest(restored.state) == kept
again = job.restore(6)
assert digest(again.state) == kept
names = {t.name for t in strata.inspect(os.environ["STRATA_STORE"] + "/t", 6).tensors}
assert names == {t.name for t in strata.inspect(os.environ["STRATA_STORE"] + "/t", 1).tensors}, "stored as before"
assert not job.restore(1, only="*.scalar").mapped, "small ones are copied"
into = state(9)
third = job.restore(6, into=into)
assert third.state is into and not third.mapped and digest(into) == kept
job.close()
assert digest(restored.state) == kept == digest(again.state)
"""
    finish(rank(code, node.env))


def test_killed_trainer_leaves_no_lease_behind(node: Node, rank: Start) -> None:
    reads = """
job = strata.connect()
committed(1, state(1))
restored = job.restore()
assert restored.mapped
print("views")
time.sleep(600)
"""
    first = rank(reads, node.env)
    first.wait_until(lambda: "views" in first.text(), "the views")
    first.kill()
    saves = """
job = strata.connect()
restored = job.restore()
assert restored.mapped and restored.source == "arena" and digest(restored.state) == digest(state(1))
for step in range(2, 7):
    committed(step, state(step))
assert digest(restored.state) == digest(state(1))
job.close()
"""
    finish(rank(saves, node.env))


@pytest.mark.parametrize("way", ["os.fork", "multiprocessing"])
def test_forked_child_sees_what_was_restored_whatever_its_parent_saves(node: Node, rank: Start, way: str) -> None:
    fork = {
        "os.fork": """
child = os.fork()
if child == 0:
    os.read(wait, 1)
    os._exit(0 if digest(restored.state) == kept else 1)
def ended():
    return os.waitpid(child, 0)[1]
""",
        "multiprocessing": """
import multiprocessing
def look():
    os.read(wait, 1)
    sys.exit(0 if digest(restored.state) == kept else 1)
child = multiprocessing.get_context("fork").Process(target=look)
child.start()
def ended():
    child.join()
    return child.exitcode
""",
    }[way]
    code = f"""
job = strata.connect()
committed(1, state(1))
kept = digest(state(1))
wait, go = os.pipe()
restored = job.restore()
assert restored.mapped
{fork}
for step in range(2, 7):
    committed(step, state(step))
os.write(go, b"x")
assert ended() == 0, "the child's tensors changed"
assert digest(restored.state) == kept
job.close()
"""
    finish(rank(code, node.env))


def test_restored_tensors_outlive_sidecar_and_arena(make_node: Callable[..., Node], rank: Start) -> None:
    """The sidecar is killed and comes back; then a larger state takes a new arena; then the job is closed."""
    node = make_node().coordinator().sidecar()
    code = """
job = strata.connect()
committed(1, state(1))
restored = job.restore()
assert restored.mapped
print("views")
while not os.path.exists("{go}"):
    time.sleep(0.01)
for step in range(2, 6):
    committed(step, state(step))
    assert digest(restored.state) == digest(state(1))
for step in range(6, 9):
    committed(step, [state(step), state(step + 100)])
    assert digest(restored.state) == digest(state(1))
job.close()
assert digest(restored.state) == digest(state(1))
"""
    go = node.folder / "go"
    trainer = rank(code.replace("{go}", str(go)), node.env)
    trainer.wait_until(lambda: "views" in trainer.text(), "the views")
    node.kill("sidecar")
    node.restart("sidecar")
    go.touch()
    finish(trainer)
    wait_until(lambda: not list(Path(node.env["STRATA_ARENA_DIR"]).rglob("*.arena")), "arenas to be removed")
