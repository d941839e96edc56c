"""A plan that was made with what is known of the save before is the plan that would be made without."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import random
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from strata._state import Planner, encode
from strata._state.rules import replicated_glob

State = dict[str, Any]


def described(plan: Any) -> tuple[Any, ...]:
    """All that a save reads of a plan."""

    def held(buffer: Any) -> bytes:
        address, owner = buffer.hold()
        data = ctypes.string_at(address, buffer.nbytes) if buffer.nbytes else b""
        del owner
        return data

    buffers = [
        (b.name, b.dtype, b.shape, b.nbytes, b.replicated, b.in_place, held(b), [id(view.source) for view in b.views])
        for b in plan.buffers
    ]
    return plan.tree, buffers


def same(planner: Planner, state: State, replicated: bool | str = False) -> None:
    fresh = encode(state, replicated_glob(replicated))
    assert described(planner.plan(state, None, replicated)) == described(fresh)


def make_state() -> State:
    base = torch.arange(4000.0)
    numbers = np.arange(60, dtype="<i4")
    return {
        "model": {f"layer.{n}": torch.nn.Parameter(torch.rand(n + 1, 7)) for n in range(5)},
        "optimizer": {"state": {n: {"exp_avg": torch.rand(n + 1, 7), "step": torch.tensor(1.0)} for n in range(5)}},
        "shared": [base[10:500], base[300:1000], base[2000:]],
        "apart": torch.rand(6, 8).t(),
        "gaps": torch.rand(40)[::2],
        "conj": torch.randn(9, dtype=torch.complex64).conj(),
        "empty": [torch.empty(0, 3), torch.empty(0)],
        "rng": torch.get_rng_state(),
        "array": numbers,
        "window": numbers[10:20],
        "alone": np.zeros((3, 4), "<f8"),
        "text": bytes(300),
        "epoch": 3,
        "keys": {1: torch.ones(3), True + 1: torch.ones(4)},
    }


def swapped(state: State) -> None:
    state["model"] = dict(reversed(state["model"].items()))


def joined(state: State) -> None:
    """A tensor that lay alone now shares memory with another."""
    state["optimizer"]["state"][0]["step"] = state["shared"][0][:1].view(())


CHANGES: dict[str, Callable[[State], Any]] = {
    "nothing": lambda state: None,
    "values": lambda state: state["apart"].add_(1),
    "moved": lambda state: state["model"].update({"layer.1": torch.nn.Parameter(torch.rand(2, 7))}),
    "generator": lambda state: state.update(rng=torch.get_rng_state().clone()),
    "array moved": lambda state: state.update(alone=np.ones((3, 4), "<f8")),
    "array's byte order": lambda state: state.update(alone=np.ones((3, 4), ">f8")),
    "array read-only": lambda state: state["alone"].setflags(write=False),
    "window elsewhere": lambda state: state.update(window=state["array"][20:30]),
    "bytes": lambda state: state.update(text=bytes(301)),
    "bytes moved": lambda state: state.update(text=bytes(bytearray(len(state["text"])))),
    "dtype": lambda state: state.update(apart=state["apart"].view(torch.int32)),
    "shape": lambda state: state.update(apart=state["apart"].reshape(-1)),
    "stride": lambda state: state.update(apart=state["apart"].t()),
    "grad": lambda state: state["model"]["layer.2"].requires_grad_(not state["model"]["layer.2"].requires_grad),
    "no parameter": lambda state: state["model"].update({"layer.2": state["model"]["layer.2"].data}),
    "joined": joined,
    "parted": lambda state: state["shared"].__setitem__(1, state["shared"][1].clone()),
    "longer": lambda state: state["shared"].append(torch.rand(3)),
    "shorter": lambda state: state["shared"].pop(),
    "wider": lambda state: state.update(gaps=torch.rand(60)[::3]),
    "swapped": swapped,
    "resolved": lambda state: state.update(conj=state["conj"].resolve_conj()),
    "epoch": lambda state: state.update(epoch=state["epoch"] + 1),
    "epoch is a bool": lambda state: state.update(epoch=True),
    "key": lambda state: state.update(keys={True: torch.ones(3), 2: torch.ones(4)}),
    "filled": lambda state: state["empty"].__setitem__(1, torch.rand(5)),
    "array for tensor": lambda state: state.update(apart=np.ones(3)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_state_is_planned_as_if_it_were_the_first(change: str) -> None:
    planner, state = Planner(), make_state()
    for _ in range(2):
        same(planner, state)
        CHANGES[change](state)
        same(planner, state)


def test_a_state_that_changes_again_and_again_is_planned_as_if_each_were_the_first(seed: int) -> None:
    print(f"seed {seed}")
    source = random.Random(seed)
    for _ in range(20):
        planner, state = Planner(), make_state()
        for _ in range(10):
            for change in source.sample(sorted(CHANGES), k=source.randint(0, 3)):
                with contextlib.suppress(IndexError, RuntimeError, TypeError, AttributeError):
                    CHANGES[change](state)  # or it is impossible after the changes before
            same(planner, state, source.choice((False, True, "model.*", "*rng")))


def test_what_is_remembered_keeps_no_tensor_alive() -> None:
    planner, tensor = Planner(), torch.rand(1000)
    plan = planner.plan({"a": tensor, "b": np.ones(5)}, None, False)
    gone = weakref.ref(tensor)
    del tensor, plan
    gc.collect()
    assert gone() is None


def test_a_state_like_the_one_before_is_compared_not_planned() -> None:
    planner, state = Planner(), make_state()

    def nodes() -> list[Any]:
        return [view.node for buffer in planner.plan(state, None, False).buffers for view in buffer.views]

    first = nodes()
    state["rng"] = torch.get_rng_state()
    state["alone"] = np.ones((3, 4), "<f8")
    state["epoch"] += 1
    assert all(node is before for node, before in zip(nodes(), first, strict=True))
