"""The state codec: what is stored comes back in value and type, bit for bit; what can't be is refused with its path."""

from __future__ import annotations

import math
import os
import random
import struct
from collections import Counter, OrderedDict, defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from codec import Stored, assert_same, round_trip, trained
from strata._state import decode, encode
from strata._state.rules import replicated_glob
from strata.errors import CorruptCheckpointError, InvalidError

NAN_WITH_PAYLOAD = struct.unpack("<d", struct.pack("<Q", 0x7FF4_0000_DEAD_BEEF))[0]

PLAIN_VALUES = [
    None,
    True,
    False,
    0,
    -1,
    2**53 + 1,
    2**63,
    -(2**63),
    -(2**20_000) + 1,
    0.0,
    -0.0,
    0.1,
    5e-324,
    1.7976931348623157e308,
    1e22,
    1.0,
    math.inf,
    -math.inf,
    math.nan,
    NAN_WITH_PAYLOAD,
    complex(-0.0, NAN_WITH_PAYLOAD),
    3 + 4j,
    "",
    'größer \U0001f600 \x00 "quoted"',
    "\ud83d\ude00",  # two lone surrogates, not one character
    "\udcff",
    b"",
    bytes(range(256)),
    bytes(range(256)) * 40,
    (),
    [],
    {},
    (1, (2.0, [None, ("x",)])),
]


@pytest.mark.parametrize("value", PLAIN_VALUES, ids=range(len(PLAIN_VALUES)))
def test_plain_values_come_back_bit_exact(value: Any) -> None:
    assert_same(round_trip(value), value)
    assert_same(round_trip({"a": [value]}), {"a": [value]})


def test_keys_keep_their_type_and_order() -> None:
    state = {"b": 1, 2: "two", True: "true", (1, ("x", False)): 3, "a": 4, "\ud800": 5, 2**80: 6}
    assert_same(round_trip(state), state)


def test_a_dict_that_looks_like_a_node_is_a_dict() -> None:
    state = {"torch": {"buffer": 0}, "dict": {}, "int": "0x1", "tuple": [1]}
    assert_same(round_trip(state), state)


def test_known_mappings_keep_their_type() -> None:
    ordered: OrderedDict[Any, Any] = OrderedDict([("z", 1), ("a", np.arange(3))])
    default: defaultdict[str, list[int]] = defaultdict(list, {"a": [1]})
    state = {"o": ordered, "c": Counter({"x": 2, 3: -1}), "d": default, "n": defaultdict(None, {"q": 1})}
    assert_same(round_trip(state), state)


def test_module_state_keeps_its_metadata() -> None:
    state = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).state_dict()
    back = round_trip({"model": state})["model"]
    assert_same(back, state)
    assert back._metadata == state._metadata


NUMPY_ARRAYS = [
    np.arange(12, dtype=np.float32).reshape(3, 4),
    np.arange(12, dtype=">i2").reshape(3, 4).T,
    np.asfortranarray(np.arange(24, dtype=np.float64).reshape(2, 3, 4)),
    np.arange(20)[::-2],
    np.arange(30).reshape(5, 6)[1:4, ::3],
    np.broadcast_to(np.float16(2.5), (3, 4)),
    np.array(7, dtype=np.int8),
    np.zeros((0, 3), dtype=np.complex64),
    np.array([b"ab", b"c"], dtype="S3"),
    np.array(["ä", "bcd"]),
    np.array(["2026-11-24", "NaT"], dtype="datetime64[D]"),
    np.array([True, False]),
    np.array([(1, 2.5, (3, 4)), (5, 6.5, (7, 8))], dtype=[("a", "i4"), ("b", "<f8"), ("c", "u1", (2,))]),
    np.array([(1, 2.0)], dtype=np.dtype([("a", "i1"), ("b", "f8")], align=True)),
    np.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "<f8")])["b"],
    np.array(["", ""]),
]


@pytest.mark.parametrize("array", NUMPY_ARRAYS, ids=lambda array: f"{array.dtype}-{array.shape}")
def test_arrays_come_back_bit_exact(array: np.ndarray[Any, Any]) -> None:
    back = round_trip({"x": array, "again": [array.copy()]})
    assert_same(back, {"x": array, "again": [array.copy()]})
    assert back["x"].flags.writeable == array.flags.writeable
    assert back["x"].flags.f_contiguous == array.flags.f_contiguous or not array.flags.f_contiguous


def test_numpy_scalars_and_dtypes_come_back() -> None:
    state = [
        np.float32(0.1),
        np.float64(NAN_WITH_PAYLOAD),
        np.int64(-5),
        np.bool_(True),
        np.complex128(1 - 0j),
        np.str_("hé"),
        np.str_(""),
        np.bytes_(b"xyz"),
        np.datetime64("2026-01-01"),
        np.dtype("float16"),
        np.dtype([("a", "<i4"), ("b", "u1", (2, 3))]),
        np.longdouble("0.1"),
    ]
    assert_same(round_trip(state), state)


TORCH_DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
    torch.bool,
    torch.uint8,
    torch.int64,
    torch.uint16,
]


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", ["contiguous", "transposed", "gaps", "expanded", "scalar", "empty", "empty-2d", "channels-last"]
)
def test_tensors_come_back_bit_exact(dtype: torch.dtype, shape: str) -> None:
    base = torch.randint(0, 2, (2, 4, 6, 8)).to(dtype)
    tensor = {
        "contiguous": base,
        "transposed": base.transpose(1, 3),
        "gaps": base[:, 1:3, ::2],
        "expanded": base[0, 0, 0, :1].expand(5, 3, 1),
        "scalar": base[1, 1, 1, 1],
        "empty": base[:0, 0, 0, 0],
        "empty-2d": base.reshape(4, -1)[:, :0],
        "channels-last": base.contiguous(memory_format=torch.channels_last),
    }[shape]
    back = round_trip({"x": tensor})["x"]
    assert_same(back, tensor)
    if shape in ("contiguous", "transposed", "channels-last", "expanded"):
        assert back.stride() == tensor.stride()


def test_lazy_conjugates_are_stored_as_their_values() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 4j])
    state = {"conj": tensor.conj(), "imag": tensor.conj().imag, "plain": tensor}
    back = round_trip(state)
    assert torch.equal(back["conj"], torch.tensor([1 - 2j, 3 + 4j]))
    assert torch.equal(back["imag"], torch.tensor([-2.0, 4.0]))
    assert torch.equal(back["plain"], tensor)


def test_a_slice_of_a_large_tensor_costs_its_own_size() -> None:
    stored = Stored({"x": torch.zeros(1000, 1000)[:, 3], "y": np.zeros((1000, 1000))[5]})
    assert stored.buffer_bytes() == [4000, 8000]


def test_shared_storage_is_stored_once_and_restored_shared() -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    array = np.arange(10.0)
    state = {
        "embedding": weight,
        "head": weight,
        "transposed": weight.t(),
        "bytes": weight.reshape(-1)[1:3].view(torch.uint8)[1:],
        "half": array[:5],
        "other": array[5:],
        "reverse": array[::-1],
    }
    stored = Stored(state)
    assert stored.buffer_bytes() == [48, 80]
    back = decode(stored)
    assert_same(back, state)
    back["embedding"][0, 1] = 99.0
    assert back["head"][0, 1] == back["transposed"][1, 0] == 99.0
    assert torch.equal(back["bytes"], back["head"].reshape(-1)[1:3].view(torch.uint8)[1:])
    back["half"][0] = -1.0
    back["other"][-1] = -2.0
    assert back["reverse"][-1] == -1.0 and back["reverse"][0] == -2.0


def test_distant_views_of_one_storage_leave_out_what_lies_between() -> None:
    big = torch.arange(1_000_000.0)
    stored = Stored({"first": big[:10], "last": big[-10:]})
    assert stored.buffer_bytes() == [40, 40]
    assert_same(decode(stored), {"first": big[:10], "last": big[-10:]})


def test_parameters_and_leaves_stay_what_they_are() -> None:
    frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
    state = {"p": torch.nn.Parameter(torch.ones(3)), "leaf": torch.ones(2, requires_grad=True), "frozen": frozen}
    back = round_trip(state)
    assert_same(back, state)
    assert all(value.is_leaf for value in back.values())


def test_torch_small_values_come_back() -> None:
    state = [torch.Size([2, 3]), torch.Size([]), torch.bfloat16, torch.device("cuda:1"), torch.device("cpu")]
    assert_same(round_trip(state), state)


def test_a_real_training_state_comes_back_and_can_be_loaded() -> None:
    state = trained()
    back = round_trip(state)
    assert_same(back, state)
    random.setstate(back["python"])
    np.random.set_state(back["numpy"])
    torch.set_rng_state(back["torch"])
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), amsgrad=True)
    model.load_state_dict(back["model"])
    optimizer.load_state_dict(back["optimizer"])
    assert_same(optimizer.state_dict(), state["optimizer"])


class Custom(dict):  # type: ignore[type-arg]
    pass


REFUSED = [
    ({"sched": {"fn": len}}, "state['sched']['fn']"),
    ({"sched": {"fn": lambda: 0}}, "state['sched']['fn']: a function can't be stored; hint: "),
    ({"a": [1, {2}]}, "state['a'][1]: a set can't be stored"),
    ({"a": Custom()}, "state['a']: a value of type Custom"),
    ({"a": {1.5: 0}}, "state['a']: a key of type float"),
    ({"a": np.array([object()])}, "state['a']: an array of Python objects"),
    ({"a": np.ma.masked_array([1, 2])}, "state['a']: a value of type MaskedArray"),
    ({"a": torch.eye(2).to_sparse()}, "state['a']: a tensor of layout torch.sparse_coo"),
    ({"a": torch.empty(2, device="meta")}, "state['a']: a tensor on the meta device"),
    ({"a": torch.Generator()}, "state['a']: a value of type Generator can't be stored; hint: store it.get_state()"),
    ({"a": defaultdict(lambda: 0)}, "state['a']: a defaultdict with the factory"),
    ({"a": bytearray(b"x")}, "state['a']: a value of type bytearray can't be stored; hint: store bytes(it)"),
    ({"a": torch.nn.Linear(1, 1)}, "state['a']: a value of type Linear can't be stored"),
]


@pytest.mark.parametrize(("state", "message"), REFUSED, ids=[message[:40] for _, message in REFUSED])
def test_what_cannot_be_stored_is_refused_with_its_path(state: Any, message: str) -> None:
    with pytest.raises(InvalidError) as error:
        encode(state, replicated_glob(False))
    assert message in str(error.value)
    assert error.value.hint


def test_a_cycle_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidError, match="contains itself"):
        encode({"a": loop}, replicated_glob(False))


def test_very_deep_nesting_is_refused() -> None:
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(InvalidError, match="nested more than"):
        encode(deep, replicated_glob(False))


def test_the_same_list_twice_is_no_cycle() -> None:
    shared = [1]
    assert round_trip([shared, shared]) == [[1], [1]]


def test_random_states_are_never_replicated() -> None:
    state = {"w": torch.ones(4), "n": np.ones(3), "rng": torch.get_rng_state(), "np": np.random.get_state()[1]}
    assert [buffer.replicated for buffer in Stored(state, True).buffers] == [True, True, False, False]
    assert [buffer.replicated for buffer in Stored(state, "w*").buffers] == [True, False, False, False]


def test_a_damaged_tree_is_corrupt() -> None:
    stored = Stored({"a": torch.ones(3)})
    stored.tree = stored.tree[:-3]
    with pytest.raises(CorruptCheckpointError):
        decode(stored)
    stored = Stored({"a": torch.ones(3)})
    stored.data[0] = stored.data[0][:8]
    with pytest.raises(CorruptCheckpointError, match="buffer 0 has 8 bytes"):
        decode(stored)


def test_random_nested_states_come_back() -> None:
    seed = int(os.environ.get("STRATA_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"seed: {seed} (replay with STRATA_TEST_SEED={seed})")
    source = random.Random(seed)

    def make(depth: int) -> Any:
        pick = source.randrange(9 if depth else 6)
        if pick == 0:
            return struct.unpack("<d", source.randbytes(8))[0]
        if pick == 1:
            return source.randint(-(2 ** source.randrange(1, 200)), 2 ** source.randrange(1, 200))
        if pick == 2:
            return "".join(chr(source.randrange(0x11000)) for _ in range(source.randrange(6)))
        if pick == 3:
            return source.randbytes(source.choice([0, 3, 300]))
        if pick == 4:
            shape = [source.randrange(4) for _ in range(source.randrange(4))]
            return torch.tensor(np.random.default_rng(seed).integers(0, 99, shape))
        if pick == 5:
            return np.frombuffer(source.randbytes(24), source.choice(["u1", "<f4", ">i8"])).copy()
        children = [make(depth - 1) for _ in range(source.randrange(5))]
        if pick == 6:
            return children
        return tuple(children) if pick == 7 else {(number, str(number)): child for number, child in enumerate(children)}

    for _ in range(200):
        state = make(4)
        assert_same(round_trip(state), state)
