"""What every call takes and tells: time-outs, coroutines, warnings at the caller's line."""

from __future__ import annotations

from harness.node import Node
from harness.script import Start, finish


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
