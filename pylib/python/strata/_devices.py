"""Accelerators whose own engines copy tensors to the host, beside the work that is queued on them."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from ._state.buffers import Held

Lies = Literal["host", "device", "elsewhere"]


class Copier(Protocol):
    """Copies of tensors as they are once all that was queued before its making is done."""

    def queue(self, copies: Sequence[tuple[Any, int]]) -> None:
        """Begins to copy tensors (flat, uint8) to host addresses. From any thread; returns before they are copied."""

    def hold_back(self) -> None:
        """What the calling thread queues from now on, on its current streams, waits for the copies queued so far."""

    def wait(self) -> None:
        """Returns when all is copied."""


class Engine(Protocol):
    def holds(self, tensor: Any) -> bool: ...

    def copier(self, tensors: Sequence[Any]) -> Copier:
        """For some of `tensors`, as they are at this moment of the calling thread's current streams."""

    def register(self, address: int, nbytes: int) -> None:
        """Lets the device write to host memory by itself. RuntimeError where it may not: copies are slower then."""

    def unregister(self, address: int) -> None: ...


class Cuda:
    """CUDA and ROCm, through torch: a side stream a device, one event a copy."""

    PORTABLE = 1  # cudaHostRegisterPortable: for every device's context

    def __init__(self) -> None:
        self.streams: dict[Any, Any] = {}

    def holds(self, tensor: Any) -> bool:
        return bool(tensor.is_cuda)

    def copier(self, tensors: Sequence[Any]) -> Copier:
        return _CudaCopier(self.streams, {tensor.device for tensor in tensors})

    def register(self, address: int, nbytes: int) -> None:
        _checked(_cudart().cudaHostRegister(address, nbytes, self.PORTABLE))

    def unregister(self, address: int) -> None:
        _checked(_cudart().cudaHostUnregister(address))


class _CudaCopier:
    def __init__(self, streams: dict[Any, Any], devices: set[Any]) -> None:
        import torch

        self._streams = {}
        self._done: dict[Any, Any] = {}
        for device in devices:
            if device not in streams:
                streams[device] = torch.cuda.Stream(device)
            self._streams[device] = streams[device]
            streams[device].wait_event(torch.cuda.current_stream(device).record_event())

    def queue(self, copies: Sequence[tuple[Any, int]]) -> None:
        import torch

        for source, address in copies:
            with torch.cuda.stream(self._streams[source.device]):
                host_bytes(address, source.numel()).copy_(source, non_blocking=True)
        for device in {source.device for source, _ in copies}:
            self._done[device] = self._streams[device].record_event()

    def hold_back(self) -> None:
        import torch

        for device, done in self._done.items():
            torch.cuda.current_stream(device).wait_event(done)

    def wait(self) -> None:
        for done in self._done.values():
            done.synchronize()


def _cudart() -> Any:
    import torch

    return torch.cuda.cudart()


def _checked(outcome: Any) -> None:
    import torch

    if int(outcome) == 0:
        return
    # The runtime keeps the error for the next kernel of this thread: one of ours, not the caller's.
    with contextlib.suppress(RuntimeError):
        torch.zeros(1, device="cuda")
    torch.cuda.check_error(int(outcome))


def host_bytes(address: int, nbytes: int) -> Any:
    """The memory there as a torch tensor (uint8); whoever calls keeps it mapped."""
    import torch

    return torch.frombuffer((ctypes.c_byte * nbytes).from_address(address), dtype=torch.uint8)


ENGINES: list[Engine] = [Cuda()]
"""Asked in this order whose a tensor is."""


def engine_of(tensor: Any) -> Engine | None:
    return next((engine for engine in ENGINES if engine.holds(tensor)), None)


def lies(tensor: Any) -> Lies:
    """On the host, on a device that copies by itself, or where it must be brought to the host first."""
    if engine_of(tensor) is not None:
        return "device"
    return "host" if tensor.device.type == "cpu" else "elsewhere"


def reads(held: Held) -> Engine | None:
    """Whose engine reads these bytes where they lie."""
    address, keeper = held
    torch = sys.modules.get("torch")
    is_elsewhere = address == 0 and torch is not None and isinstance(keeper, torch.Tensor)
    return engine_of(keeper) if is_elsewhere else None


def bring(held: Held) -> Held:
    """Bytes on the host; those that a device's engine `reads` stay where they are."""
    _, keeper = held
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(keeper, torch.Tensor) or lies(keeper) != "elsewhere":
        return held
    host = keeper.cpu()
    return host.data_ptr(), host
