"""Tensors on accelerators: copied into the slot by the device itself, in the order of its own streams.

Where there is no GPU a device of threads stands for one: it holds the tensors it is given, and its streams are queues
that do one thing after another. The code of the package is the same.
"""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.node import Node
from harness.training import Start, script

__all__ = ["script"]

DEVICE = """
import ctypes, queue
from strata import _devices

class Stream:
    '''Does what it is given, one after another.'''
    def __init__(self):
        self.work = queue.SimpleQueue()
        threading.Thread(target=self.loop, daemon=True).start()
    def loop(self):
        while True:
            self.work.get()()
    def event(self):
        done = threading.Event()
        self.work.put(done.set)
        return done

class Device:
    '''Its copies begin once `gate` is open.'''
    def __init__(self):
        self.storages, self.registered, self.copied = set(), [], []
        self.current, self.side, self.gate = Stream(), Stream(), threading.Event()
        self.refusal = None
    def own(self, *tensors):
        self.storages |= {tensor.untyped_storage().data_ptr() for tensor in tensors}
        return tensors[0]
    def holds(self, tensor):
        return tensor.untyped_storage().data_ptr() in self.storages
    def copier(self, tensors):
        return Copier(self)
    def register(self, address, nbytes):
        if self.refusal:
            raise RuntimeError(self.refusal)
        self.registered.append((address, nbytes))
    def unregister(self, address):
        self.registered = [known for known in self.registered if known[0] != address]

class Copier:
    def __init__(self, device):
        self.device, self.done = device, None
        before = device.current.event()
        device.side.work.put(before.wait)
    def queue(self, copies):
        def copy(source, address):
            self.device.gate.wait()
            assert any(at <= address < at + nbytes for at, nbytes in self.device.registered) or self.device.refusal
            ctypes.memmove(address, source.data_ptr(), source.numel())
            self.device.copied.append(source.numel())
        for source, address in copies:
            self.device.side.work.put(lambda source=source, address=address: copy(source, address))
        self.done = self.device.side.event()
    def hold_back(self):
        if self.done is not None:
            self.device.current.work.put(self.done.wait)
    def wait(self):
        if self.done is not None:
            self.done.wait()

device = Device()
_devices.ENGINES.insert(0, device)

class OnDevice(torch.optim.Optimizer):
    '''Its step is queued on the device, and returns at once.'''
    def __init__(self, parameters):
        super().__init__(parameters, {})
    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                device.current.work.put(lambda parameter=parameter: parameter.detach().numpy().__iadd__(1))

def weights():
    weights = [torch.nn.Parameter(torch.randn(WIDE, WIDE)) for _ in range(3)]
    device.own(*weights)
    return weights
"""


@pytest.fixture
def on_device(script: Start) -> Callable[[str, Node], str]:
    return lambda code, node: script(DEVICE + textwrap.dedent(code), node.env)


def test_save_returns_before_the_device_has_copied_and_holds_the_moment_of_save(
    node: Node, on_device: Callable[[str, Node], str]
) -> None:
    """The optimizer's step is queued while the copies wait: on the device it runs behind them."""
    on_device(
        """
        with strata.connect() as job:
            own, beside = weights(), device.own(torch.randn(300, 300))
            optimizer = OnDevice(own)
            strata.torch.fence(optimizer)
            for step in range(1, 4):
                device.gate.clear()
                expected = [weight.detach().clone() for weight in own]
                handle = job.save(step, {"own": own, "beside": beside, "count": step})
                assert handle.mode == "lazy" and handle.state == "filling"
                assert handle.stats.deferred == 3 * 4 * WIDE * WIDE
                optimizer.step()
                assert handle.state == "filling" and not device.gate.is_set()
                device.gate.set()
                handle.wait_committed()
                device.current.event().wait()
                assert not torch.equal(own[0], expected[0]), "the step has run"
                restored = job.restore(step).state
                assert all(map(torch.equal, restored["own"], expected)), step
                assert torch.equal(restored["beside"], beside) and restored["count"] == step
                assert len(device.registered) == 1, "the arena is shown to the device once"
        assert device.registered == [], "and taken back when the job is closed"
        """,
        node,
    )


def test_write_queued_without_a_fence_abandons_the_save_and_names_the_tensor(
    node: Node, on_device: Callable[[str, Node], str]
) -> None:
    on_device(
        """
        with strata.connect() as job:
            own = weights()
            optimizer = OnDevice(own)
            strata.torch.fence(optimizer)
            handle = job.save(1, {"own": own})
            with torch.no_grad():
                own[1].mul_(2)
            optimizer.step()
            device.gate.set()
            try:
                handle.wait_committed()
                raise SystemExit("a torn state was committed")
            except strata.StrataError as error:
                assert "own.1 was written to before it was copied" in str(error), error
            warnings.simplefilter("ignore")
            job.save(2, {"own": own}).wait_committed()
            assert job.all_steps() == [2]
        """,
        node,
    )


def test_copy_waits_for_the_device_and_takes_every_kind_of_tensor(
    node: Node, on_device: Callable[[str, Node], str]
) -> None:
    on_device(
        """
        with strata.connect() as job:
            base = device.own(torch.randn(400, 300))
            state = {
                "whole": base, "row": base[3], "shared": base.t(), "steps": base[::2, ::3],
                "scalar": device.own(torch.tensor(3.5, dtype=torch.float64)),
                "half": device.own(torch.randn(77).bfloat16()), "flags": device.own(torch.rand(5, 5) > 0.5),
                "complex": device.own(torch.randn(9, dtype=torch.complex64)),
                "empty": device.own(torch.empty(0, 3)), "host": torch.randn(500),
            }
            threading.Timer(0.2, device.gate.set).start()
            handle = job.save(1, state)
            assert device.gate.is_set() and handle.mode == "copy" and handle.stats.deferred == 0
            handle.wait_committed()
            assert device.copied, "the device has copied"
            assert equal(job.restore().state, state)
        """,
        node,
    )


def test_device_that_may_not_write_to_the_arena_says_so_once_and_is_copied_from_all_the_same(
    node: Node, on_device: Callable[[str, Node], str]
) -> None:
    on_device(
        """
        device.refusal = "CUDA error: out of memory"
        device.gate.set()
        with warnings.catch_warnings(record=True) as caught, strata.connect() as job:
            warnings.simplefilter("always")
            for step in (1, 2):
                own = weights()
                job.save(step, {"own": own}).wait_committed()
                assert equal(job.restore(step).state["own"], own)
        told = [str(one.message) for one in caught if "can't write to the arena" in str(one.message)]
        assert len(told) == 1 and "out of memory" in told[0], caught
        """,
        node,
    )


def test_failing_device_costs_the_step_not_the_run(node: Node, on_device: Callable[[str, Node], str]) -> None:
    on_device(
        """
        device.gate.set()
        with strata.connect() as job:
            own = weights()
            good = Copier.queue
            def fails(self, copies):
                raise RuntimeError("an illegal memory access was encountered")
            Copier.queue = fails
            try:
                job.save(1, {"own": own})
                raise SystemExit("saved all the same")
            except strata.StrataError as error:
                assert "illegal memory access" in str(error), error
            optimizer = OnDevice(own)
            strata.torch.fence(optimizer)
            handle = job.save(2, {"own": own})
            try:
                handle.wait_committed()
                raise SystemExit("committed all the same")
            except strata.StrataError as error:
                assert "illegal memory access" in str(error), error
            Copier.queue = good
            warnings.simplefilter("ignore")
            job.save(3, {"own": own}).wait_committed()
            assert job.all_steps() == [3]
        """,
        node,
    )


def test_fork_is_refused_for_tensors_on_a_device(node: Node, on_device: Callable[[str, Node], str]) -> None:
    on_device(
        """
        with strata.connect() as job:
            try:
                job.save(1, {"own": weights()}, mode="fork")
                raise SystemExit("forked")
            except strata.InvalidError as error:
                assert "own.0 lies on a device" in str(error), error
        """,
        node,
    )


def test_real_gpu_gives_back_what_was_saved_while_training_goes_on(node: Node, script: Start, python: Path) -> None:
    probe = [python, "-c", "import torch, sys; sys.exit(not torch.cuda.is_available())"]
    if subprocess.run(probe).returncode:
        pytest.skip("no CUDA device on this machine")
    script(
        """
        with strata.connect() as job:
            net = Net().cuda()
            optimizer = torch.optim.AdamW(net.parameters())
            strata.torch.fence(optimizer)
            def step():
                optimizer.zero_grad()
                net(torch.randn(8, WIDE, device="cuda")).square().mean().backward()
                optimizer.step()
            step()
            for number in range(1, 4):
                state = {"model": net.state_dict(), "optimizer": optimizer.state_dict()}
                expected = copy.deepcopy(state)
                handle = job.save(number, state)
                assert handle.mode == "lazy"
                step()
                handle.wait_committed()
                restored = job.restore(number).state
                assert equal(restored["model"], {name: value.cpu() for name, value in expected["model"].items()})
                moments = lambda one: [
                    value.cpu() for own in one["optimizer"]["state"].values() for value in own.values()
                ]
                assert all(map(torch.equal, moments(restored), moments(expected)))
        """,
        node.env,
    )
