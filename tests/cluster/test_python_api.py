"""What the Python package promises beyond saving and restoring: interrupts, signals, forks, coroutines, datasets that
go on where a step stood, a private sidecar."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.node import Node
from harness.process import PATIENCE, Process, wait_until

Start = Callable[..., Process]


@pytest.fixture
def script(python: Path, site: Path, tmp_path: Path) -> Start:
    """Starts Python code as a rank of job `t`; what it prints is its log."""
    count = 0

    def start(code: str, env: dict[str, str], rank: int = 0, world: int = 1) -> Process:
        nonlocal count
        count += 1
        prelude = "import os, signal, sys, time, numpy as np, strata\n"
        place = {"PYTHONPATH": str(site), "STRATA_JOB": "t", "RANK": str(rank), "WORLD_SIZE": str(world)}
        command = [python, "-u", "-W", "error::DeprecationWarning", "-c", prelude + textwrap.dedent(code)]
        return Process(command, env | place, tmp_path / f"script-{count}-{rank}.log")

    return start


def finish(*processes: Process) -> list[str]:
    for process in processes:
        assert process.popen.wait(PATIENCE) == 0, process.text()
    return [process.text() for process in processes]


# -- interrupts and signals


def test_ctrl_c_ends_a_blocking_call(node: Node, script: Start) -> None:
    lonely = script(
        """
        job = strata.connect()
        print("waiting")
        try:
            job.barrier("nobody else comes")
        except KeyboardInterrupt:
            print("interrupted")
        """,
        node.env,
        world=2,
    )
    lonely.wait_until(lambda: "waiting" in lonely.text(), "the barrier")
    lonely.popen.send_signal(signal.SIGINT)
    assert "interrupted" in finish(lonely)[0]


PREEMPTED = """
def handler(number, frame):
    print("chained")

signal.signal(signal.SIGTERM, handler)
with strata.connect() as job:
    job.restore()
    for step in range(1, 100_000):
        if step == 3:
            print("training")
        if job.reached_preemption(step):
            job.save(step, {"step": step})
            print(f"stopped at {step}")
            break
        time.sleep(0.002 * (1 + job.rank))
assert signal.getsignal(signal.SIGTERM) is handler
"""


def test_sigterm_on_one_rank_stops_all_at_the_same_step(node: Node, script: Start) -> None:
    ranks = [script(PREEMPTED, node.env, rank, 2) for rank in range(2)]
    for rank in ranks:
        rank.wait_until(lambda rank=rank: "training" in rank.text(), "the third step")
    ranks[0].popen.send_signal(signal.SIGTERM)
    said = finish(*ranks)
    stops = {text.split("stopped at ")[1].split()[0] for text in said}
    assert len(stops) == 1, said
    assert "chained" in said[0] and "chained" not in said[1]


def test_sigterm_still_ends_a_script_that_never_asks(node: Node, script: Start) -> None:
    deaf = script("job = strata.connect()\nprint('up')\ntime.sleep(600)", node.env)
    deaf.wait_until(lambda: "up" in deaf.text(), "the script to connect")
    assert deaf.stop() == -signal.SIGTERM


# -- processes and coroutines


def test_forked_child_looks_up_but_does_not_save(node: Node, script: Start) -> None:
    said = finish(
        script(
            """
            with strata.connect() as job:
                job.save(1, {"a": np.arange(4)}).wait_committed()
                child = os.fork()
                if child == 0:
                    assert job.latest_step() == 1
                    try:
                        job.save(2, {"a": np.arange(4)})
                    except strata.InvalidError as error:
                        print("refused:", error)
                        os._exit(0)
                    os._exit(1)
                assert os.waitpid(child, 0)[1] == 0
                job.save(2, {"a": np.arange(4)}).wait_committed()
                assert job.all_steps() == [1, 2]
            """,
            node.env,
        )
    )[0]
    assert "forked child" in said


def test_look_ups_take_a_timeout(node: Node, script: Start) -> None:
    finish(
        script(
            """
            import asyncio
            from strata import aio

            with strata.connect() as job:
                job.save(1, {"a": np.arange(4)}).wait_committed()
                assert job.latest_step(timeout=30) == 1 and job.all_steps(timeout=30) == [1]
                job.pin(1, timeout=30)
                assert job.steps(timeout=30)[0].pinned
                job.unpin(1, timeout=30)
                try:
                    job.delete(1, timeout=30)
                except strata.ConflictError as error:
                    assert "newest whole" in str(error)

            async def again():
                async with await aio.connect() as job:
                    assert await job.latest_step(timeout=30) == 1 and await job.all_steps(timeout=30) == [1]
                    await job.pin(1, timeout=30)
                    await job.unpin(1, timeout=30)
                    assert len(await job.steps(timeout=30)) == 1

            asyncio.run(again())
            """,
            node.env,
        )
    )


def test_coroutines_wait_side_by_side_and_can_be_cancelled(node: Node, script: Start) -> None:
    finish(
        script(
            """
            import asyncio
            from strata import aio

            async def rank(number):
                async with await aio.connect(rank=number, world_size=2) as job:
                    await job.barrier("both")
                    if number == 0:
                        try:
                            async with asyncio.timeout(0.3):
                                await job.barrier("alone")
                        except TimeoutError:
                            pass
                    handle = await job.save(1, {"x": np.full(1000, number)})
                    info = await handle.wait_committed()
                    assert (info.step, info.world_size) == (1, 2)
                    restored = await job.restore()
                    assert restored.state["x"][0] == number
                    if number == 1:
                        await job.barrier("alone")
                    else:
                        await job.barrier("alone")  # the same round: the cancelled call may simply be made again

            async def main():
                await asyncio.gather(rank(0), rank(1))

            asyncio.run(main())
            """,
            node.env,
        )
    )


def test_job_may_be_joined_again_after_an_error(node: Node, script: Start) -> None:
    finish(
        script(
            """
            for attempt in range(2):
                try:
                    with strata.connect() as job:
                        job.save(attempt, {"a": attempt})
                        raise RuntimeError("the user's own")
                except RuntimeError:
                    pass
            with strata.connect() as job:
                assert job.restore().state == {"a": 1}
            """,
            node.env,
        )
    )


def test_world_may_be_joined_again_after_errors_of_its_ranks(node: Node, script: Start) -> None:
    code = """
        try:
            with strata.connect() as job:
                job.save(1, {"rank": job.rank}).wait_committed()
                job.barrier("saved")
                raise RuntimeError("the user's own")
        except RuntimeError:
            pass
        with strata.connect() as job:
            assert job.restore().state == {"rank": job.rank}
            job.barrier("restored")
        """
    finish(*[script(code, node.env, rank, 2) for rank in range(2)])


def test_script_that_ends_without_close_leaves_in_good_order(node: Node, script: Start) -> None:
    """Its last save is committed, and the other rank is not told that it was lost."""
    short = script("job = strata.connect()\njob.save(1, {'a': np.zeros(10**6)})", node.env, 0, 2)
    long = script(
        """
        job = strata.connect()
        handle = job.save(1, {"a": np.zeros(10**6)})
        sys.stdin.read()
        handle.wait_committed()
        assert job.latest_step() == 1 and not job.reached_preemption(2)
        job.close()
        """,
        node.env,
        1,
        2,
    )
    finish(short)
    long.close_stdin()
    finish(long)


def test_script_that_ends_with_an_error_is_a_lost_rank(node: Node, script: Start) -> None:
    failed = script("job = strata.connect()\njob.barrier('up')\nraise RuntimeError('of the user')", node.env, 0, 2)
    other = script(
        """
        job = strata.connect()
        job.barrier("up")
        try:
            job.barrier("never")
        except strata.FencedError as error:
            print("fenced:", error)
        """,
        node.env,
        1,
        2,
    )
    assert "rank 0" in finish(other)[0]
    assert failed.popen.wait(PATIENCE) == 1


# -- what comes back


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


def test_save_after_prepare_touches_no_page_first(node: Node, script: Start) -> None:
    finish(
        script(
            """
            state = {"a": np.zeros(2_000_000), "b": [np.zeros(10)] * 3}
            with strata.connect() as job:
                job.prepare(state)
                for step in range(1, 100):
                    handle = job.save(step, state)  # the first ones may still be quicker than the preparing
                    handle.wait_committed()
                    if not handle.cold:
                        break
                    time.sleep(0.05)
                assert not handle.cold and handle.mode == "copy" and handle.stats.bytes >= 16_000_000
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


def test_a_loss_that_diverged_stops_no_save(node: Node, script: Start) -> None:
    """JSON has no such number: null is stored, and the warning names where it stood."""
    said = finish(
        script(
            """
            import math, warnings
            with strata.connect() as job:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    metrics, meta = {"loss": math.nan, "lr": 0.1, "note": "NaN"}, {"best": [1.0, -math.inf]}
                    job.save(1, {"a": 1}, metrics=metrics, meta=meta).wait_committed()
                [warning] = caught
                assert issubclass(warning.category, strata.StrataWarning) and warning.filename == "<string>", caught
                print(warning.message)
                [info] = job.steps()
                assert info.metrics == {"loss": None, "lr": 0.1, "note": "NaN"}, info
                assert info.meta == {"best": [1.0, None]}, info
            """,
            node.env,
        )
    )
    assert "metrics['loss'] is nan" in said[0] and "meta['best'][1] is -inf" in said[0]


def test_a_glob_that_matches_no_tensor_is_told(node: Node, script: Start) -> None:
    said = finish(
        script(
            """
            import warnings, numpy
            state = {"model": {"w": numpy.zeros(3)}}
            with strata.connect() as job, warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                job.save(1, state, replicated="model.*").wait_committed()
                job.save(2, state, replicated="modle.*").wait_committed()
                [warning] = caught
                print(warning.message)
            """,
            node.env,
        )
    )
    assert "step 2: replicated='modle.*' matches no tensor" in said[0] and "'model.w'" in said[0]


def test_background_failure_warns_on_the_next_call_and_is_raised_at_the_end(node: Node, script: Start) -> None:
    """P5: the store's place is taken by a file; training goes on."""
    said = finish(
        script(
            """
            import shutil, warnings
            warnings.simplefilter("always")
            job = strata.connect()
            job.save(1, {"a": 1}).wait_committed()
            place = f"{job.store}/{job.name}/data"
            shutil.rmtree(place)
            open(place, "w").close()
            handle = job.save(2, {"a": 2})
            with warnings.catch_warnings(record=True) as caught:
                for _ in range(600):
                    assert job.latest_step() == 1
                    if caught:
                        break
                    time.sleep(0.1)
            [warning] = caught
            assert issubclass(warning.category, strata.StrataWarning) and "step 2" in str(warning.message), caught
            assert warning.filename == "<string>", warning.filename
            try:
                job.close()
            except strata.StrataError as error:
                print("raised:", error)
            """,
            node.env,
        )
    )
    assert "raised:" in said[0] and "step 2" in said[0]


def test_dataset_goes_on_where_the_restored_step_stood(node: Node, script: Start, tmp_path: Path) -> None:
    """P8, on one rank, over an epoch's end and two crashes."""
    data = tmp_path / "tokens.bin"
    data.write_bytes(b"".join(n.to_bytes(2, "little") + (n + 1000).to_bytes(2, "little") for n in range(101)))
    for stop in (7, 18, 0):
        run = script(DATA, node.env | {"DATA": str(data), "STOP": str(stop)})
        assert run.popen.wait(PATIENCE) == (-signal.SIGKILL if stop else 0), run.text()
    assert "seen 202" in run.text()


# -- a private sidecar


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
