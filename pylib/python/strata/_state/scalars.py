"""Plain values as JSON nodes, bit-exact.

Finite floats are JSON numbers (Python's repr reads back to the same bits); the others carry their 64 bits, so that a
NaN keeps its payload. Integers beyond 64 bits and text with lone surrogates would not survive other JSON readers, nor
Python's limit on decimal digits, so they are hexadecimal.
"""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

from ..errors import CorruptCheckpointError

PLAIN = (type(None), bool, int, float, complex, str)
_LARGEST_JSON_INT = 2**63


def encode_scalar(value: Any) -> Any:
    """The node of a value whose exact type is in `PLAIN`."""
    if value is None or value is True or value is False:
        return value
    if type(value) is int:
        return value if -_LARGEST_JSON_INT <= value < _LARGEST_JSON_INT else {"int": hex(value)}
    if type(value) is float:
        return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}
    if type(value) is complex:
        return {"complex": struct.pack(">dd", value.real, value.imag).hex()}
    return value if is_json_text(value) else {"str": value.encode("utf-8", "surrogatepass").hex()}


def encode_bytes(value: bytes) -> Any:
    return {"bytes": base64.b64encode(value).decode("ascii")}


def is_json_text(value: str) -> bool:
    return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)


def decode_scalar(tag: str, body: Any) -> Any:
    """The value of a tagged scalar node."""
    if tag == "int":
        return int(body, 16)
    if tag == "float":
        return struct.unpack(">d", bytes.fromhex(body))[0]
    if tag == "complex":
        return complex(*struct.unpack(">dd", bytes.fromhex(body)))
    if tag == "str":
        return bytes.fromhex(body).decode("utf-8", "surrogatepass")
    if tag == "bytes":
        return base64.b64decode(body, validate=True)
    raise CorruptCheckpointError(
        f"reading a stored state: unknown kind of value {tag!r}; hint: it was written by a newer version"
    )
