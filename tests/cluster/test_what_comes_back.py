"""What a restore gives: parts, a state in place, shared memory, a training run, the place in a dataset."""

from __future__ import annotations

import signal
from pathlib import Path

from harness.node import Node
from harness.process import PATIENCE
from harness.script import Start, finish


def test_restore_takes_parts_and_fills_in_place(node: Node, script: Start) -> None:
    finish(
        script(
            """
            state = {
                "model": {"a": np.arange(1000.0), "b": np.ones((3, 5), np.float16)},
                "optimizer": {"m": np.zeros(7), "steps": [1, 2**70]},
            }
            with strata.connect() as job:
                job.save(5, state, metrics={"loss": 0.5}, meta="run 7").wait_committed()
                part = job.restore(only="model.*").state
                assert list(part) == ["model"] and (part["model"]["a"] == state["model"]["a"]).all()
                target = {
                    "model": {"a": np.zeros(1000), "b": np.zeros((3, 5), np.float16)},
                    "optimizer": {"m": np.ones(7), "steps": None},
                }
                a = target["model"]["a"]
                restored = job.restore(5, into=target)
                assert restored.state is target and target["model"]["a"] is a and (a == state["model"]["a"]).all()
                assert target["optimizer"]["steps"] == [1, 2**70]
                assert (restored.info.metrics, restored.info.meta) == ({"loss": 0.5}, "run 7")
                restored.state["model"]["b"][:] = 7  # the caller's own memory
                assert job.restore().state["model"]["b"][0, 0] == 1
                place = f"{job.store}/{job.name}"
            found = strata.inspect(place)
            assert found.info.step == 5 and found == strata.inspect(place, 5)
            assert {(t.name, t.dtype, t.shape) for t in found.tensors} >= {
                ("model.a", "float64", (1000,)), ("model.b", "float16", (3, 5))
            }
            """,
            node.env,
        )
    )


def test_tensors_that_share_memory_are_found_by_each_name_and_share_it_again(node: Node, script: Start) -> None:
    finish(
        script(
            """
            shared = np.arange(1000.0)
            state = {"embed": {"weight": shared}, "head": {"weight": shared[:500]}, "other": np.zeros(3)}
            with strata.connect() as job:
                job.save(1, state).wait_committed()
            with strata.connect() as job:
                part = job.restore(only="head.*").state
                assert list(part) == ["head"] and (part["head"]["weight"] == shared[:500]).all()
                whole = job.restore().state
                whole["embed"]["weight"][0] = 7.0
                assert whole["head"]["weight"][0] == 7.0
            """,
            node.env,
        )
    )


def test_real_training_state_comes_back_bit_for_bit(node: Node, script: Start) -> None:
    """AdamW, a scheduler, GradScaler and the generators of torch, NumPy and Python."""
    finish(
        script(
            """
            try:
                import torch
            except ImportError:
                sys.exit(0)  # the environment without torch; `make test` has it
            import random

            torch.manual_seed(3)
            model = torch.nn.Sequential(torch.nn.Linear(30, 50), torch.nn.LayerNorm(50), torch.nn.Linear(50, 2))
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=20)
            scaler = torch.amp.GradScaler("cpu")

            def step():
                loss = model(torch.randn(8, 30)).square().mean() * (1 + random.random()) * np.random.rand()
                optimizer.zero_grad()
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                schedule.step()
                return loss.item()

            def state():
                return {
                    "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                    "schedule": schedule.state_dict(), "scaler": scaler.state_dict(),
                    "rng": (torch.get_rng_state(), np.random.get_state(), random.getstate()),
                }

            for _ in range(5):
                step()
            with strata.connect() as job:
                job.save(5, state()).wait_committed()
                expected = [step() for _ in range(5)]
                found = job.restore().state
                model.load_state_dict(found["model"])
                optimizer.load_state_dict(found["optimizer"])
                schedule.load_state_dict(found["schedule"])
                scaler.load_state_dict(found["scaler"])
                torch.set_rng_state(found["rng"][0])
                np.random.set_state(found["rng"][1])
                random.setstate(found["rng"][2])
                assert [step() for _ in range(5)] == expected
                target = state()
                weight = target["model"]["0.weight"]
                job.restore(into=target)
                assert target["model"]["0.weight"] is weight and torch.equal(weight, found["model"]["0.weight"])
            """,
            node.env,
        )
    )


DATA = """
path, stop = sys.argv[1] if len(sys.argv) > 1 else os.environ["DATA"], int(os.environ["STOP"])
seen = []
with strata.connect() as job:
    job.register_dataset("d", path=path, format="tokens", dtype="uint16", sample_len=2, shard_size=7, seed=3)
    restored = job.restore()
    first = 0 if restored is None else restored.step
    seen = [] if restored is None else restored.state["seen"]
    dataset, step = job.dataset("d", batch_size=8), first
    for epoch in range(dataset.epoch, 2):
        for step, batch in enumerate(dataset, start=step + 1):
            assert (batch.samples[:, 1] == batch.samples[:, 0] + 1000).all()
            assert (batch.samples[:, 0] == batch.indices).all() and batch.epoch == dataset.epoch
            seen += batch.indices.tolist()
            if step % 5 == 0:
                job.save(step, {"seen": list(seen)})
            if step == stop:
                job.wait_until_finished()
                os.kill(os.getpid(), signal.SIGKILL)
print("seen", len(seen))
assert sorted(seen) == sorted(list(range(101)) * 2), "a sample was lost or doubled"
"""


def test_dataset_goes_on_where_the_restored_step_stood(node: Node, script: Start, tmp_path: Path) -> None:
    """P8, on one rank, over an epoch's end and two crashes."""
    data = tmp_path / "tokens.bin"
    data.write_bytes(b"".join(n.to_bytes(2, "little") + (n + 1000).to_bytes(2, "little") for n in range(101)))
    for stop in (7, 18, 0):
        run = script(DATA, node.env | {"DATA": str(data), "STOP": str(stop)})
        assert run.popen.wait(PATIENCE) == (-signal.SIGKILL if stop else 0), run.text()
    assert "seen 202" in run.text()
