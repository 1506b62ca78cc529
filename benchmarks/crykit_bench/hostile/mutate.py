"""Damage to bytes and to JSON, the same for the same seed.

Every function takes a `random.Random` and gives something other than what it was given.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

EXTREMES = (0, 1, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
END_BYTES = (256, 4096, 65536)
"""A .pte begins with its tables, an .onnx with its graph; most of either is weights."""

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**30,
    0.5,
    -1e308,
    "",
    "x" * 5000,
    "../../etc/passwd",
    "\u0000\ud7ff\n",
    [],
    [[]],
    {},
    {"a": {"b": []}},
    [1, 2, 3],
)
DEEP = "[" * 3000 + "]" * 3000


def _position(rng: random.Random, size: int) -> int:
    """Near an end of the file two times of three: there is the structure."""
    near = min(size, rng.choice(END_BYTES))
    where = rng.random()
    if where < 0.5:
        return rng.randrange(near)
    if where < 0.65:
        return size - 1 - rng.randrange(near)
    return rng.randrange(size)


def _flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.choice((1, 1, 4, 32))):
        data[_position(rng, len(data))] ^= rng.randrange(1, 256)


def _header(rng: random.Random, data: bytearray) -> None:
    start = rng.randrange(64)
    data[start : start + 8] = rng.randbytes(8)


def _size(rng: random.Random, data: bytearray) -> None:
    width = rng.choice((1, 2, 4, 8))
    start = _position(rng, len(data)) // width * width
    data[start : start + width] = (rng.choice(EXTREMES) % 256**width).to_bytes(width, "little")


def _truncate(rng: random.Random, data: bytearray) -> None:
    del data[rng.choice((0, 1, _position(rng, len(data)), len(data) - 1)) :]


def _insert(rng: random.Random, data: bytearray) -> None:
    n = rng.choice((1, 4, 100))
    start = _position(rng, len(data))
    data[start:start] = rng.choice((bytes(n), rng.randbytes(n)))


def _remove(rng: random.Random, data: bytearray) -> None:
    start = _position(rng, len(data))
    del data[start : start + rng.choice((1, 4, 100))]


def _blank(rng: random.Random, data: bytearray) -> None:
    start = _position(rng, len(data))
    stop = min(len(data), start + rng.choice((16, 256, 4096)))
    data[start:stop] = rng.choice((b"\0", b"\xff")) * (stop - start)


def _repeat(rng: random.Random, data: bytearray) -> None:
    start, target = _position(rng, len(data)), _position(rng, len(data))
    data[target : target + 64] = data[start : start + 64]


BYTES: dict[str, Callable[[random.Random, bytearray], None]] = {
    "flip": _flip,
    "header": _header,
    "size": _size,
    "truncate": _truncate,
    "insert": _insert,
    "remove": _remove,
    "blank": _blank,
    "repeat": _repeat,
}


def damage_bytes(rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """(what was done, the damaged content)."""
    while True:
        how = rng.choice(list(BYTES))
        data = bytearray(content)
        BYTES[how](rng, data)
        if bytes(data) != content:
            return how, bytes(data)


PROSE = ("training", "metrics", "evidence")
"""Most of a manifest's text, and nothing that a runtime reads."""


def _containers(value: Any) -> list[Any]:
    """Every non-empty list and object in a JSON value, itself included."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value] if inside else []
    for item in inside:
        found += _containers(item)
    return found


def damage_json(rng: random.Random, text: bytes) -> tuple[str, bytes]:
    """One value of the document swapped, moved, removed or made absurd; or bytes of its text."""
    how = rng.choice(("swap", "swap", "swap", "move", "remove", "number", "number", "deep", "text"))
    if how == "text":
        done, content = damage_bytes(rng, text)
        return f"text {done}", content
    while True:
        document = json.loads(text)
        prose = rng.random() < 0.2
        read = {key: item for key, item in document.items() if prose or key not in PROSE}
        container = rng.choice([document, *_containers(list(read.values()))[1:]])
        keys = list(container) if isinstance(container, dict) else list(range(len(container)))
        key = rng.choice(keys)
        before = container[key]
        if how == "remove":
            del container[key]
        elif how == "move":
            container[key] = container[rng.choice(keys)]
        elif how == "deep":
            container[key] = "DEEP"
        elif how == "swap":
            container[key] = rng.choice(ODD_VALUES)
        elif isinstance(before, int | float) and not isinstance(before, bool):
            container[key] = rng.choice((-before, before * 2, before + 1, before * 10**9, 0))
        content = json.dumps(document).encode().replace(b'"DEEP"', DEEP.encode())
        if content != json.dumps(json.loads(text)).encode():
            return how, content
