"""Views of memory, and the dense runs of bytes that hold them.

Views that overlap or touch inside one allocation become one buffer, stored once and restored shared. A view with gaps
that stands alone is made dense first, so that a slice of a large tensor costs its own size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._devices import Lies

Held = tuple[int, Any]  # host address of some bytes (0: they lie elsewhere), and the object that keeps them


_TOGETHER = " | "  # between the names of views that share a buffer: the core matches `only=` against each
_PACKED = ("buffer", "offset", "stride")  # what `pack` adds to a node
_ALIGNMENT = 64  # views closer than this lie in one buffer: flattened parameters are padded to it at most


@dataclass(slots=True)
class View:
    """One tensor or array as it lies in memory; addresses in bytes, strides in elements of `itemsize`."""

    leaf: ModuleType  # of the framework: `densify(source)`, `extent(source, low, nbytes)`, `is_same(view, source)`
    source: Any  # the tensor or array itself; None where it is only remembered
    name: str
    node: dict[str, Any]  # its body in the tree; `buffer` (and `offset`, `stride`) are filled in by `pack`
    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    itemsize: int
    address: int  # of its first element
    owner: tuple[str, int]  # names the allocation it lies in
    origin: int | None  # where the allocation begins, if offsets in it must be whole numbers of elements
    replicated: bool
    must_densify: bool = False  # its bytes are not its values (a lazy conjugate)
    lies: Lies = "host"
    sort: Any = None  # what else its `leaf` compares

    def of(self, source: Any) -> View:
        """The same of another object that lies at the same place."""
        return View(
            self.leaf,
            source,
            self.name,
            self.node,
            self.dtype,
            self.shape,
            self.stride,
            self.itemsize,
            self.address,
            self.owner,
            self.origin,
            self.replicated,
            self.must_densify,
            self.lies,
            self.sort,
        )

    def is_like(self, other: View) -> bool:
        """Whether it lies alike, wherever that is, and its node says the same but for what `pack` has added."""
        return (
            self.leaf is other.leaf
            and self.name == other.name
            and self.shape == other.shape
            and self.stride == other.stride
            and self.itemsize == other.itemsize
            and self.replicated == other.replicated
            and self.must_densify == other.must_densify
            and self.lies == other.lies
            and self.dtype == other.dtype
            and self.bare() == other.bare()
        )

    def bare(self) -> dict[str, Any]:
        return {key: value for key, value in self.node.items() if key not in _PACKED}

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    def bounds(self) -> tuple[int, int]:
        """Addresses [low, high) that its elements touch."""
        if self.elements == 0:
            return self.address, self.address
        low = high = 0
        for size, stride in zip(self.shape, self.stride, strict=True):
            reach = (size - 1) * stride
            low, high = low + min(reach, 0), high + max(reach, 0)
        return self.address + low * self.itemsize, self.address + (high + 1) * self.itemsize


@dataclass(slots=True)
class Buffer:
    """A dense run of bytes to store; `hold` gives what keeps them, and their address where they lie on the host.

    `in_place`: what is copied is the memory of `views` themselves, no copy of it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    replicated: bool
    views: list[View]
    in_place: bool
    low: int  # where its bytes begin, unless they are made
    is_made: bool  # they lie with gaps, or are not the values: `hold` makes them

    def hold(self) -> Held:
        first = self.views[0]
        held: Held
        if self.is_made:
            held = first.leaf.densify(first.source)
        else:
            held = first.leaf.extent(first.source, self.low, self.nbytes)
        return held

    def of(self, views: Sequence[View], shift: int = 0) -> Buffer:
        """The same of other views that lie alike, `shift` bytes further on."""
        return Buffer(
            self.name,
            self.dtype,
            self.shape,
            self.nbytes,
            self.replicated,
            list(views),
            self.in_place,
            self.low + shift,
            self.is_made,
        )

    @property
    def lies(self) -> Lies:
        return self.views[0].lies


@dataclass(slots=True)
class _Cluster:
    low: int
    high: int
    views: list[View] = field(default_factory=list)


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    stride, step = [], 1
    for size in reversed(shape):
        stride.append(step)
        step *= max(size, 1)
    return tuple(reversed(stride))


def pack(views: list[View]) -> list[Buffer]:
    """Decides the buffers of `views`, in order of first appearance, and completes each view's node."""
    owners: dict[tuple[str, int], list[View]] = {}
    for number, view in enumerate(views):
        alone = view.elements == 0 or view.must_densify
        owners.setdefault(("alone", number) if alone else view.owner, []).append(view)
    order = {id(view): number for number, view in enumerate(views)}
    clusters = [cluster for group in owners.values() for cluster in _clusters(group)]
    clusters.sort(key=lambda cluster: order[id(cluster.views[0])])
    names: dict[str, int] = {}
    return [_buffer(cluster, number, names) for number, cluster in enumerate(clusters)]


def _clusters(group: list[View]) -> list[_Cluster]:
    """Views of one allocation, joined where they overlap or touch; inside a cluster in order of appearance."""
    if len(group) == 1:
        low, high = group[0].bounds()
        return [_Cluster(low, high, group)]
    found: list[_Cluster] = []
    ranges = sorted(((*view.bounds(), number) for number, view in enumerate(group)))
    for low, high, number in ranges:
        if found and low < found[-1].high + _ALIGNMENT:
            found[-1].high = max(found[-1].high, high)
            found[-1].views.append(group[number])
        else:
            found.append(_Cluster(low, high, [group[number]]))
    position = {id(view): number for number, view in enumerate(group)}
    for cluster in found:
        cluster.views.sort(key=lambda view: position[id(view)])
    return found


def _buffer(cluster: _Cluster, number: int, names: dict[str, int]) -> Buffer:
    first = cluster.views[0]
    shown = _TOGETHER.join(view.name for view in cluster.views)
    count = names[shown] = names.get(shown, 0) + 1
    name = shown if count == 1 else f"{shown}~{count}"
    if len(cluster.views) == 1:
        return _single(cluster, first, name, number)
    # The origin is aligned for every type, so an offset from a 16-byte step of it is a whole number of elements.
    low = cluster.low if first.origin is None else first.origin + (cluster.low - first.origin) // 16 * 16
    nbytes = cluster.high - low
    for view in cluster.views:
        _complete(view, number, view.address - low, view.stride)
    replicated = all(view.replicated for view in cluster.views)
    return Buffer(name, "uint8", (nbytes,), nbytes, replicated, cluster.views, first.lies != "elsewhere", low, False)


def _single(cluster: _Cluster, view: View, name: str, number: int) -> Buffer:
    extent = cluster.high - cluster.low
    dense = view.elements * view.itemsize
    as_it_lies = extent <= dense and not view.must_densify
    if as_it_lies:
        _complete(view, number, view.address - cluster.low, view.stride)
    else:
        extent = dense
        _complete(view, number, 0, contiguous_stride(view.shape))
    whole = extent == dense
    return Buffer(
        name,
        view.dtype if whole else "uint8",
        view.shape if whole else (extent,),
        extent,
        view.replicated,
        [view],
        as_it_lies and view.lies != "elsewhere",
        cluster.low,
        not as_it_lies,
    )


def _complete(view: View, number: int, offset: int, stride: tuple[int, ...]) -> None:
    view.node["buffer"] = number
    if offset:
        view.node["offset"] = offset
    if view.elements and stride != contiguous_stride(view.shape):
        view.node["stride"] = list(stride)
