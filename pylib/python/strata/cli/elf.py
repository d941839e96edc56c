"""The symbol versions that an ELF file needs, read from the file itself (System V ABI; Linux Standard Base, "Symbol
Versioning"). 64-bit little-endian files only."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
FEATURES = {"ABI_DT_RELR": "2.36"}  # what a file asks of the loader, and the glibc that brought it (its NEWS)
VERSION_NEEDS = 0x6FFFFFFE  # SHT_GNU_verneed


def newest_needed(path: str, family: str) -> str | None:
    """The newest version of `family` that the file needs: "2.36" for GLIBC; None when it names none or is no such
    file."""
    try:
        with open(path, "rb") as file:
            names = [name.split("_", 1) for name in _needed(file) if name.startswith(f"{family}_")]
    except (OSError, struct.error):
        return None
    wanted = [FEATURES.get(number, number) for _, number in names]
    numbers = [number for number in wanted if all(part.isdigit() for part in number.split("."))]
    return max(numbers, key=lambda number: [int(part) for part in number.split(".")], default=None)


def _needed(file: BinaryIO) -> Iterator[str]:
    header = file.read(64)
    if header[:6] != b"\x7fELF\x02\x01":
        return
    (offset,) = struct.unpack_from("<Q", header, 40)
    width, count = struct.unpack_from("<HH", header, 58)
    sections = []
    for number in range(count):
        file.seek(offset + number * width)
        sections.append(SECTION_HEADER.unpack(file.read(SECTION_HEADER.size)))
    for section in sections:
        if section[1] == VERSION_NEEDS:
            yield from _names(_content(file, section), _content(file, sections[section[6]]), section[7])


def _content(file: BinaryIO, section: tuple[int, ...]) -> bytes:
    file.seek(section[4])
    return file.read(section[5])


def _names(needs: bytes, strings: bytes, libraries: int) -> Iterator[str]:
    """Elfxx_Verneed is a list of libraries, each with a list of Elfxx_Vernaux."""
    at = 0
    for _ in range(libraries):
        _, count, _, first, following = struct.unpack_from("<HHIII", needs, at)
        auxiliary = at + first
        for _ in range(count):
            _, _, _, name, step = struct.unpack_from("<IHHII", needs, auxiliary)
            yield strings[name : strings.index(b"\0", name)].decode()
            auxiliary += step
        at += following
