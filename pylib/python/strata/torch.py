"""What PyTorch's users need beside `strata` itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._staging import fences

if TYPE_CHECKING:
    from ._loading import Batch, IterableDataset, MapDataset

__all__ = ["Batch", "IterableDataset", "MapDataset", "fence"]


def __getattr__(name: str) -> Any:
    """The faces of `job.dataset` are torch's subclasses: torch is imported with the first of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import _loading

    return getattr(_loading, name)


def fence(optimizer: Any, *modules: Any) -> None:
    """Lets `job.save` return before it has copied what this optimizer owns: its parameters and its state.

    Their copy then runs beside the next forward and backward, and the optimizer's step waits for the rest of it, as do
    its `load_state_dict` and that of `modules`. Call it once, after the optimizer is made. Nothing else may write to
    these tensors between `save` and the step: a save that finds one written to is abandoned on all ranks, and names it.
    Writes that torch does not count (through `.data` or NumPy) are found in samples of the bytes, one cache line in
    256 KiB: for certain where a run of 512 KiB has changed. Of tensors on a device no samples are taken.

    Args:
        optimizer: a `torch.optim.Optimizer`, also fused or foreach; several may be fenced, one by one.
        modules: the `torch.nn.Module`s that hold the parameters, if they may be loaded into after a save.

    Raises:
        InvalidError: not an optimizer, or not a module.
    """
    import torch

    from .errors import InvalidError

    if not isinstance(optimizer, torch.optim.Optimizer):
        raise InvalidError(
            f"fencing an optimizer: got a {type(optimizer).__name__}",
            hint="pass a torch.optim.Optimizer; for a wrapper, the optimizer that it wraps",
        )
    for module in modules:
        if not isinstance(module, torch.nn.Module):
            raise InvalidError(f"fencing an optimizer: got a {type(module).__name__} as a module")
    if fences.add(optimizer):
        optimizer.register_step_pre_hook(_before)
        optimizer.register_load_state_dict_pre_hook(_before)
    for module in modules:
        module.register_load_state_dict_pre_hook(_before)


def _before(*_: Any) -> None:
    fences.wait_for_tensors()
