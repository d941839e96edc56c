"""Restoring a part of a state, and restoring in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from codec import Stored, assert_same, trained
from strata._state import decode, restore_into
from strata._state.rules import glob
from strata.errors import InvalidError


def test_only_prunes_to_what_matches() -> None:
    state = {"model": {"a": torch.ones(2), "b": [torch.zeros(1), 5]}, "lr": 0.1, "optimizer": {"m": torch.ones(3)}}
    assert_same(decode(Stored(state), "model.*"), {"model": state["model"]})
    assert_same(decode(Stored(state), "model.b.1"), {"model": {"b": [None, 5]}})
    with pytest.raises(InvalidError, match=r"nothing in the step has such a name; hint: it holds model\.a"):
        decode(Stored(state), "nothing")
    assert glob("model.*")("model.b.1") and not glob("model")("model.b")


def test_into_fills_the_callers_tensors_in_place() -> None:
    state = trained()
    target = trained()
    for value in target["model"].values():
        value.zero_()
    kept = [id(value) for value in target["model"].values()]
    pointers = [value.data_ptr() for value in target["model"].values()]
    assert restore_into(Stored(state), target) is target
    assert_same(target, state)
    assert [id(value) for value in target["model"].values()] == kept
    assert [value.data_ptr() for value in target["model"].values()] == pointers


def test_into_serves_views_arrays_and_new_entries() -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    state = {"w": weight, "tied": weight, "n": np.arange(4), "t": (torch.ones(2), 5), "new": {"x": [1]}}
    base = torch.zeros(3, 2)
    n = np.zeros((4, 2), dtype=np.int64)
    pair = torch.zeros(2)
    target = {"w": base.t(), "tied": torch.zeros(2, 3, requires_grad=True), "n": n[:, 0], "t": (pair, 0), "new": {}}
    restore_into(Stored(state), target)
    assert torch.equal(base.t(), weight) and torch.equal(target["tied"].detach(), weight)
    assert n[:, 0].tolist() == [0, 1, 2, 3] and target["t"] == (pair, 5) and pair.tolist() == [1.0, 1.0]
    assert target["new"] == {"x": [1]}


WRONG_TARGETS = [
    (
        {"a": torch.zeros(3), "w": torch.zeros(3, 2)},
        r"state\['w'\]: stored as float32 \(2, 3\), but the target is float32 \(3, 2\)",
    ),
    ({"a": torch.zeros(3), "w": torch.zeros(2, 3).half()}, "but the target is float16"),
    ({"a": torch.zeros(3), "w": np.zeros((2, 3), np.float32)}, "the target is one of numpy"),
    ({"a": torch.zeros(3), "w": torch.zeros(2, 3), "x": torch.zeros(1)}, r"state\['x'\]: the step holds no such entry"),
    ({"a": torch.zeros(3), "w": {"deep": torch.zeros(2)}}, r"state\['w'\]: the step holds float32"),
    ({"a": torch.zeros(3), "w": torch.zeros(2, 3), "n": torch.zeros(1)}, r"state\['n'\]: the step holds a plain value"),
]


@pytest.mark.parametrize(("target", "message"), WRONG_TARGETS, ids=[message[:30] for _, message in WRONG_TARGETS])
def test_a_wrong_target_is_refused_before_anything_is_changed(target: Any, message: str) -> None:
    stored = Stored({"a": torch.ones(3), "w": torch.ones(2, 3), "n": 4})
    with pytest.raises(InvalidError, match=message):
        restore_into(stored, target)
    assert torch.equal(target["a"], torch.zeros(3))
