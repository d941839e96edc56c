"""torch tensors, sizes, dtypes and devices. Imported only once the caller's state holds one, or a stored one does."""

from __future__ import annotations

import math
import sys
from typing import Any

import torch

from .. import _devices
from ..errors import InvalidError
from . import path as paths
from .buffers import Held, View
from .path import Path
from .rules import GENERATOR_STATE_BYTES

TAG = "torch"
_LEAF = sys.modules[__name__]
_TENSOR_TYPES = (torch.Tensor, torch.nn.Parameter)


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def decode_dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise InvalidError(
            f"restoring torch.{name}: this torch ({torch.__version__}) has no such dtype; hint: update it"
        )
    return dtype


def encode_small(value: Any) -> Any:
    """The node of a Size, dtype or device, or None when `value` is something else."""
    if isinstance(value, torch.Size):
        return {"torch.size": list(value)}
    if isinstance(value, torch.dtype):
        return {"torch.dtype": dtype_name(value)}
    if isinstance(value, torch.device):
        return {"torch.device": str(value)}
    return None


def decode_small(tag: str, body: Any) -> Any:
    if tag == "torch.size":
        return torch.Size(body)
    return decode_dtype(body) if tag == "torch.dtype" else torch.device(body)


def view(tensor: torch.Tensor, path: Path, name: str, replicated: bool) -> View:
    _refuse_unusual(tensor, path)
    node: dict[str, Any] = {"dtype": dtype_name(tensor.dtype), "shape": list(tensor.shape)}
    if tensor.requires_grad:
        node["requires_grad"] = True
    if type(tensor) is torch.nn.Parameter:
        node["parameter"] = True
    begin = tensor.untyped_storage().data_ptr()
    return View(
        leaf=_LEAF,
        source=tensor,
        name=name,
        node=node,
        dtype=node["dtype"],
        shape=tuple(tensor.shape),
        stride=tensor.stride(),
        itemsize=tensor.element_size(),
        address=tensor.data_ptr(),
        owner=("torch", begin),
        origin=begin,
        replicated=replicated and not _is_generator_state(tensor),
        must_densify=tensor.is_conj() or tensor.is_neg(),
        lies=_devices.lies(tensor),
        sort=(type(tensor), tensor.dtype, tensor.device, tensor.requires_grad),
    )


def is_same(view: View, tensor: Any) -> bool:
    return bool(
        type(tensor) is view.sort[0]
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and (type(tensor), tensor.dtype, tensor.device, tensor.requires_grad) == view.sort
        and tensor.shape == view.shape
        and tensor.stride() == view.stride
        and tensor.data_ptr() == view.address
        and tensor.untyped_storage().data_ptr() == view.origin
        and (tensor.is_conj() or tensor.is_neg()) == view.must_densify
    )


def _refuse_unusual(tensor: torch.Tensor, path: Path) -> None:
    if type(tensor) not in _TENSOR_TYPES:
        kind, remedy = f"a {type(tensor).__name__}", "store its plain tensors, one by one"
    elif tensor.layout is not torch.strided:
        kind, remedy = f"a tensor of layout {tensor.layout}", "store its values and indices, or call .to_dense()"
    elif tensor.is_quantized:
        kind, remedy = "a quantized tensor", "store its int_repr(), scale and zero point"
    elif tensor.is_meta:
        kind, remedy = "a tensor on the meta device, which has no values,", "materialise it first"
    elif tensor.is_nested:
        kind, remedy = "a nested tensor", "store its components as a list"
    else:
        return
    raise InvalidError(f"{paths.shown(path)}: {kind} can't be stored; hint: {remedy}")


def _held(tensor: torch.Tensor) -> Held:
    if _devices.lies(tensor) == "host":
        return tensor.data_ptr(), tensor
    return 0, tensor.reshape(-1).view(torch.uint8)


def densify(tensor: torch.Tensor) -> Held:
    return _held(tensor.detach().resolve_conj().resolve_neg().contiguous())


def extent(tensor: torch.Tensor, low: int, nbytes: int) -> Held:
    if _devices.lies(tensor) == "host":
        return low, tensor
    storage = tensor.untyped_storage()
    run = torch.empty(0, dtype=torch.uint8, device=tensor.device)
    run.set_(storage, low - storage.data_ptr(), (nbytes,), (1,))
    return _held(run)


def _is_generator_state(tensor: torch.Tensor) -> bool:
    """Whether it may be what `get_rng_state` returned; these differ by rank."""
    return bool(tensor.ndim == 1 and tensor.dtype == torch.uint8 and tensor.numel() <= GENERATOR_STATE_BYTES)


def dense_bytes(node: dict[str, Any]) -> int:
    """Of the tensor that `node` describes, without gaps."""
    return int(math.prod(node["shape"]) * decode_dtype(node["dtype"]).itemsize)


def address(tensor: torch.Tensor) -> int:
    return int(tensor.data_ptr())


def allocate(nbytes: int) -> torch.Tensor:
    """Memory for a buffer of several views, or of one with steps."""
    return torch.empty(nbytes, dtype=torch.uint8)


def allocate_for(node: dict[str, Any]) -> torch.Tensor:
    """A tensor with a storage of its own, for a buffer that holds just this contiguous one."""
    return torch.empty(node["shape"], dtype=decode_dtype(node["dtype"]))


def adopt(memory: Any) -> torch.Tensor:
    """`memory` itself, as a buffer, for as long as any view of it lives."""
    return torch.frombuffer(memory, dtype=torch.uint8)


def build(node: dict[str, Any], memory: torch.Tensor) -> torch.Tensor:
    """The view that `node` describes, over `memory` (uint8)."""
    dtype, shape = decode_dtype(node["dtype"]), node["shape"]
    tensor = torch.empty(0, dtype=dtype)
    stride = node.get("stride") or _contiguous(shape)
    tensor.set_(memory.untyped_storage(), node.get("offset", 0) // tensor.element_size(), shape, stride)
    return tensor


def _contiguous(shape: list[int]) -> list[int]:
    return [math.prod(max(size, 1) for size in shape[number + 1 :]) for number in range(len(shape))]


def finish(node: dict[str, Any], tensor: torch.Tensor) -> torch.Tensor:
    """Gives back what makes it a leaf or a parameter."""
    if node.get("parameter"):
        return torch.nn.Parameter(tensor, requires_grad=bool(node.get("requires_grad")))
    return tensor.requires_grad_() if node.get("requires_grad") else tensor


def copy_into(target: torch.Tensor, value: torch.Tensor) -> None:
    """In place, whatever the target's device and strides; autograd does not see it."""
    with torch.no_grad():
        target.copy_(value)
