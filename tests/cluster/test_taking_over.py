"""How a state is taken over (copy, lazy, fork): what is stored is the state of the moment of `save`, or nothing is."""

from __future__ import annotations

import pytest
from harness.node import Node
from harness.training import Start, script

__all__ = ["script"]


@pytest.mark.parametrize(
    "optimizer",
    [
        "AdamW(net.parameters())",
        "AdamW(net.parameters(), foreach=True)",
        "AdamW(net.parameters(), fused=True)",
        "SGD(net.parameters(), lr=0.1, momentum=0.9)",
    ],
)
def test_lazy_save_holds_the_moment_of_save_while_training_goes_on(node: Node, script: Start, optimizer: str) -> None:
    """With BatchNorm's buffers, an average of the weights, GradScaler and the generators beside them."""
    script(
        f"""
        with strata.connect() as job:
            late()
            net = Net()
            optimizer = torch.optim.{optimizer}
            strata.torch.fence(optimizer)
            ema = torch.optim.swa_utils.get_ema_multi_avg_fn()
            average = torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=ema)
            scaler = torch.amp.GradScaler("cpu")
            state = lambda: {{
                "model": net.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(), "rng": torch.get_rng_state(),
            }}
            def step():
                optimizer.zero_grad()
                scaler.scale(net(torch.randn(8, WIDE)).square().mean()).backward()
                scaler.step(optimizer)
                scaler.update()
                average.update_parameters(net)
            step()
            for number in range(1, 4):
                expected = copy.deepcopy(state())
                handle = job.save(number, state())
                assert handle.mode == "lazy" and handle.state == "filling" and handle.stats.deferred > 12 * WIDE * WIDE
                average.update_parameters(net)
                step()
                assert handle.stats.fenced > 0, "the step has waited"
                handle.wait_committed()
                assert equal(job.restore(number).state, expected), number
        """,
        node.env,
    )


def test_a_write_that_nobody_fenced_abandons_the_save_and_names_the_tensor(node: Node, script: Start) -> None:
    """By an operation, by `load_state_dict`, by a second optimizer, through `.data`, through NumPy."""
    script(
        """
        def by_another_optimizer():
            other = torch.optim.SGD([net.layers[1].weight], lr=0.1)
            net.layers[1].weight.grad = torch.ones(WIDE, WIDE)
            other.step()

        def in_place():
            with torch.no_grad():
                net.layers[1].weight.mul_(2)

        def through_numpy():
            net.layers[1].weight.detach().numpy()[:] += 1

        def through_data():
            net.layers[1].weight.data.mul_(1.5)

        def by_loading():
            net.load_state_dict({name: value + 1 for name, value in net.state_dict().items()}, strict=True)

        writes = [in_place, by_another_optimizer, through_data, through_numpy, by_loading]
        with strata.connect() as job:
            late()
            net = Net()
            optimizer = torch.optim.AdamW(net.parameters())
            strata.torch.fence(optimizer)
            train_step(net, optimizer)
            first = copy.deepcopy(net.state_dict())
            job.save(1, {"model": net.state_dict(), "optimizer": optimizer.state_dict()}).wait_committed()
            for number, write in enumerate(writes, 2):
                handle = job.save(number, {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
                assert handle.mode == "lazy"
                write()
                try:
                    handle.wait_staged()
                    raise SystemExit(f"{write.__name__} was not noticed")
                except strata.InvalidError as error:
                    named = "model.layers." in str(error)
                    assert named and "was written to before it was copied" in str(error), error
                assert handle.state == "failed"
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    assert job.latest_step() == 1
                    assert any("was written to" in str(one.message) for one in caught), caught
                try:
                    handle.wait_committed()
                    raise SystemExit("an abandoned step was committed")
                except strata.StrataError as error:
                    assert "was written to" in str(error), error
            assert equal(job.restore().state["model"], first)
            # Training was never stopped, and the next save works.
            train_step(net, optimizer)
            expected = copy.deepcopy(net.state_dict())
            handle = job.save(20, {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
            train_step(net, optimizer)
            handle.wait_committed()
            assert equal(job.restore(20).state["model"], expected)
            job._unsettled.clear()
        """,
        node.env,
    )


def test_only_what_fenced_optimizers_own_is_put_off(node: Node, script: Start) -> None:
    """Two optimizers, one of them fenced; arrays, values and a shared weight of both beside them."""
    script(
        """
        with strata.connect() as job:
            late()
            fenced, unfenced = Net(), Net()
            mine, theirs = torch.optim.AdamW(fenced.parameters()), torch.optim.AdamW(unfenced.parameters())
            strata.torch.fence(mine)
            strata.torch.fence(mine)  # once is enough, twice does no harm
            train_step(fenced, mine)
            train_step(unfenced, theirs)
            array = np.arange(1_000_000.0)
            state = lambda: {
                "fenced": fenced.state_dict(), "mine": mine.state_dict(), "unfenced": unfenced.state_dict(),
                "theirs": theirs.state_dict(), "array": array, "list": [1, 2.5, "x"],
            }
            expected = copy.deepcopy(state())
            handle = job.save(1, state())
            owned = sum(p.nbytes for p in fenced.parameters())
            assert handle.mode == "lazy" and 2.5 * owned < handle.stats.deferred <= 3 * owned, handle.stats
            array[:] = 0
            train_step(unfenced, theirs)  # at once: it waits for nothing
            assert handle.state == "filling"
            train_step(fenced, mine)
            handle.wait_committed()
            assert equal({k: v for k, v in job.restore().state.items() if k != "array"},
                         {k: v for k, v in expected.items() if k != "array"})
            assert (job.restore().state["array"] == expected["array"]).all()
        """,
        node.env,
    )


def test_without_an_optimizer_wait_staged_is_the_fence(node: Node, script: Start) -> None:
    script(
        """
        with strata.connect() as job:
            late()
            weights = {f"w{n}": torch.randn(WIDE, WIDE) for n in range(4)}
            assert job.save(1, weights).mode == "copy", "nothing is fenced"
            expected = copy.deepcopy(weights)
            handle = job.save(2, weights, mode="lazy")
            assert handle.mode == "lazy" and handle.state == "filling"
            handle.wait_staged()
            assert handle.state != "filling" and handle.stats.fenced > 0
            for weight in weights.values():
                weight.zero_()
            handle.wait_committed()
            assert equal(job.restore().state, expected)
            try:
                job.save(3, weights, mode="eager")
                raise SystemExit("an unknown mode was taken")
            except strata.InvalidError as error:
                assert "lazy" in error.hint
        """,
        node.env,
    )


def test_everything_that_is_about_to_write_waits(node: Node, script: Start) -> None:
    """A second save, restoring in place, `load_state_dict` of both, closing, and the end of the interpreter."""
    script(
        """
        def loads():
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))

        def module_loads():
            net.load_state_dict({name: value + 1 for name, value in net.state_dict().items()})

        def restores():
            job.restore(1, into=state())

        def saves_again():
            job.save(100, state())

        job = strata.connect()
        late()
        net = Net()
        optimizer = torch.optim.AdamW(net.parameters())
        strata.torch.fence(optimizer, net)
        train_step(net, optimizer)
        state = lambda: {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
        job.save(1, state(), mode="copy").wait_committed()
        for number, write in enumerate([loads, module_loads, restores, saves_again], 2):
            expected = copy.deepcopy(state())
            handle = job.save(number, state())
            assert handle.state == "filling"
            write()
            assert handle.state != "filling", write
            handle.wait_committed()
            assert equal(job.restore(number).state, expected), write
        handle = job.save(200, state())
        job.close()
        job = strata.connect()
        assert job.latest_step() == 200
        job.save(300, state())  # and the script ends here
        """,
        node.env,
    )
    log = script("print('newest', strata.connect().latest_step())", node.env)
    assert "newest 300" in log


def test_a_trainer_that_dies_while_a_lazy_save_is_copied_loses_that_step_alone(node: Node, script: Start) -> None:
    """What is not sealed is given up; the slot of the dead is written to by nobody, and the next trainer has it."""
    for mode in ("lazy", "fork"):
        script(
            f"""
            job = strata.connect()
            weights = {{f"w{{n}}": torch.full((WIDE, WIDE), 1.0) for n in range(64)}}
            newest = job.latest_step() or 0
            job.save(newest + 1, weights, mode="copy").wait_committed()
            late() if {mode!r} == "lazy" else None
            job.save(newest + 2, weights, mode={mode!r})
            os.kill(os.getpid(), signal.SIGKILL)
            """,
            node.env,
            ends=-9,
        )
        script(
            """
            with strata.connect() as job:
                newest = job.latest_step()
                weights = {f"w{n}": torch.full((WIDE, WIDE), 2.0) for n in range(64)}
                for step in range(newest + 2, newest + 6):
                    expected = {name: value.clone() for name, value in weights.items()}
                    job.save(step, weights).wait_committed()
                    assert equal(job.restore(step).state, expected)
            """,
            node.env,
        )


def test_fork_holds_the_moment_of_save_whoever_writes(node: Node, script: Start) -> None:
    """No fence: tensors of every kind, arrays and the generators, written to as soon as `save` has returned."""
    script(
        """
        signal.signal(signal.SIGCHLD, lambda *_: print("a SIGCHLD that is not the script's"))
        with strata.connect() as job:
            net = Net()
            optimizer = torch.optim.AdamW(net.parameters())
            train_step(net, optimizer)
            array = np.arange(1_000_000)
            for number in range(1, 6):
                state = lambda: {
                    "model": net.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state(),
                    "strided": net.layers[0].weight.detach()[::2, ::3], "text": b"x" * 100_000,
                }
                expected, before = copy.deepcopy(state()), array.copy()
                handle = job.save(number, state() | {"array": array}, mode="fork")
                array += 1
                train_step(net, optimizer)
                assert handle.mode == "fork"
                handle.wait_committed()
                found = job.restore(number).state
                assert (found.pop("array") == before).all() and equal(found, expected), number
        try:
            os.waitpid(-1, os.WNOHANG | 0x40000000)  # __WALL: also such as give no signal
            raise SystemExit("a child is left")
        except ChildProcessError:
            pass
        """,
        node.env,
    )


def test_forked_saves_stay_right_while_their_memory_goes_back_into_huge_pages(node: Node, script: Start) -> None:
    """After each child the kernel moves the tensors; writes, further forks and freed tensors come in between."""
    log = script(
        """
        import ctypes, mmap

        def kernel_can():
            # What is asked for, as much of it and in the time that is given to it, of memory of this test's own.
            memory = mmap.mmap(-1, 66 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.write(b"x" * (66 << 20))
            start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            first, begun = -(-start // (2 << 20)) * (2 << 20), time.monotonic()
            for piece in range(first, first + (64 << 20), 2 << 20):
                if ctypes.CDLL(None).madvise(ctypes.c_void_p(piece), ctypes.c_size_t(2 << 20), 25):
                    return False
            return time.monotonic() - begun < 0.5

        def in_huge_pages(tensor):
            inside = False
            for line in open("/proc/self/smaps"):
                first = line.split()[0]
                if "-" in first and not first.endswith(":"):
                    low, high = (int(end, 16) for end in first.split("-"))
                    inside = low <= tensor.data_ptr() < high
                elif inside and first == "AnonHugePages:":
                    return int(line.split()[1]) > 0
            raise SystemExit("the tensor lies nowhere")

        moved = could = 0
        with strata.connect() as job:
            tensor = torch.arange(16 << 20, dtype=torch.float32)
            for number in range(1, 5):
                freed = torch.full((4 << 20,), number)
                expected, other = tensor.clone(), freed.clone()
                handle = job.save(number, {"tensor": tensor, "freed": freed}, mode="fork")
                tensor += 1
                handle.wait_staged()
                del freed
                # It may have none at hand just when they are asked for: once in four times is enough.
                could += kernel_can()
                until = time.monotonic() + 5
                while could > moved and not in_huge_pages(tensor) and time.monotonic() < until:
                    tensor.mul_(1)
                moved += in_huge_pages(tensor)
                handle.wait_committed()
                assert equal(job.restore(number).state, {"tensor": expected, "freed": other}), number
                assert torch.equal(tensor, expected + 1)
        assert moved or could < 4, "its memory stays in small pages"
        if not could:
            print("no huge pages on this machine")
        """,
        node.env,
    )
    if "no huge pages" in log:
        pytest.skip("no huge pages on this machine: saved and restored without them")


def test_a_fence_does_not_wait_for_a_forked_child(node: Node, script: Start) -> None:
    """It has the tensors of its moment. A second save waits for it, and so does closing."""
    script(
        """
        from strata import job as jobs
        from strata._staging import fences
        release = threading.Event()

        class Held:
            # The child has not ended until it is released.
            def __init__(self, staging):
                self.staging = staging
            def __getattr__(self, name):
                if name == "join":
                    release.wait()
                return getattr(self.staging, name)

        take_over = jobs.take_over
        jobs.take_over = lambda staging, *rest: take_over(Held(staging), *rest)
        with strata.connect() as job:
            net = Net()
            optimizer = torch.optim.AdamW(net.parameters())
            strata.torch.fence(optimizer)
            train_step(net, optimizer)
            expected = copy.deepcopy(net.state_dict())
            handle = job.save(1, {"model": net.state_dict()}, mode="fork")
            train_step(net, optimizer)  # would wait for ever
            assert handle.state == "filling" and handle.stats.fenced == 0
            threading.Timer(0.2, release.set).start()
            fences.wait()
            assert handle.state != "filling" and handle.stats.fenced > 0
            handle.wait_committed()
            assert equal(job.restore(1).state["model"], expected)
        """,
        node.env,
    )


def test_fork_is_refused_where_the_child_would_see_other_bytes(node: Node, script: Start) -> None:
    """Shared memory before a byte is copied; memory that only the kernel knows of before the step exists."""
    script(
        """
        import ctypes, mmap
        with strata.connect() as job:
            shared = torch.ones(WIDE, WIDE).share_memory_()
            try:
                job.save(1, {"good": torch.ones(9), "shared": shared}, mode="fork")
                raise SystemExit("shared memory was taken")
            except strata.InvalidError as error:
                assert "shared with other processes" in str(error) and "shared" in str(error) and "copy" in error.hint
            memory = mmap.mmap(-1, 4 * WIDE * WIDE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_DONTFORK)
            withheld = torch.frombuffer(memory, dtype=torch.float32)
            handle = job.save(2, {"withheld": withheld}, mode="fork")
            try:
                handle.wait_staged()
                raise SystemExit("withheld memory was taken")
            except strata.InvalidError as error:
                assert "DONTFORK" in str(error) and "withheld" in str(error), error
            job._unsettled.clear()
            job.save(3, {"withheld": withheld}).wait_committed()
            assert job.all_steps() == [3]
        """,
        node.env,
    )


def test_a_forked_worker_of_the_script_is_held_by_no_fence(node: Node, script: Start) -> None:
    """A DataLoader's worker that starts while a save is copied has the parent's memory, not its threads."""
    script(
        """
        torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
        with strata.connect() as job:
            late()
            net = Net()
            optimizer = torch.optim.AdamW(net.parameters())
            strata.torch.fence(optimizer)
            train_step(net, optimizer)
            handle = job.save(1, {"model": net.state_dict(), "optimizer": optimizer.state_dict()})
            assert handle.state == "filling"
            child = os.fork()
            if child == 0:
                optimizer.step()  # of its own memory
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            handle.wait_committed()
        """,
        node.env,
    )
