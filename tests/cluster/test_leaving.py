"""A rank that ends, well or with an error, forks, or joins again."""

from __future__ import annotations

from harness.node import Node
from harness.process import PATIENCE
from harness.script import Start, finish


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
