"""Inputs nearly valid: bits flipped, cut, spliced, repeated."""

from collections.abc import Callable, Sequence
from random import Random

from fuzz.target import MAX_INPUT


def mutate(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """`data` after one to four changes; some take a piece of one of the others."""
    for _ in range(random.randint(1, 4)):
        change = random.choice(_CHANGES)
        data = change(random, data, random.choice(others))[:MAX_INPUT]
    return data


def repeat(random: Random, data: bytes, _: bytes = b"") -> bytes:
    """A piece of the input said over and over, up to the largest input."""
    start, stop = _piece(random, data)
    times = random.choice([1, 2, 3, 4, 8, 16, 64, MAX_INPUT])
    room = max(0, MAX_INPUT - len(data)) // max(1, stop - start)
    return data[:stop] + data[start:stop] * min(times, room) + data[stop:]


def _flip(random: Random, data: bytes, _: bytes) -> bytes:
    at = random.randint(0, max(0, len(data) - 1))
    return (
        data[:at]
        + bytes(byte ^ 1 << random.randint(0, 7) for byte in data[at : at + 1])
        + (data[at + 1 :])
    )


def _cut(random: Random, data: bytes, _: bytes) -> bytes:
    return data[: random.randint(0, len(data))]


def _drop(random: Random, data: bytes, _: bytes) -> bytes:
    start, stop = _piece(random, data)
    return data[:start] + data[stop:]


def _insert(random: Random, data: bytes, _: bytes) -> bytes:
    at = random.randint(0, len(data))
    return data[:at] + random.choice(_STRANGE) + data[at:]


def _overwrite(random: Random, data: bytes, _: bytes) -> bytes:
    at = random.randint(0, len(data))
    strange = random.choice(_STRANGE)
    return data[:at] + strange + data[at + len(strange) :]


def _splice(random: Random, data: bytes, other: bytes) -> bytes:
    return data[: random.randint(0, len(data))] + other[random.randint(0, len(other)) :]


def _implant(random: Random, data: bytes, other: bytes) -> bytes:
    at = random.randint(0, len(data))
    start, stop = _piece(random, other)
    return data[:at] + other[start:stop] + data[at:]


def _piece(random: Random, data: bytes) -> tuple[int, int]:
    start = random.randint(0, len(data))
    return start, min(len(data), start + random.choice([1, 2, 8, 32, 256]))


Change = Callable[[Random, bytes, bytes], bytes]
_CHANGES: list[Change] = [_flip, _cut, _drop, _insert, _overwrite, _splice, _implant, repeat]

# What parsers are known to trip over.
_STRANGE = [
    b"",
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\x00" * 32,
    b"\xff" * 8,
    b"\xff" * 32,
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\n\n",
    b'"',
    b",",
    b"[",
    b"{",
    b"-",
    b"0",
    b"-1",
    b"1e999",
    b"9223372036854775807",
    b"18446744073709551616",
    b"99999999999999999999999999999999",
    b"1E-999999999",
    b"1E+999999999",
    b"nan",
    b"null",
    b"true",
    b'"\\ud800"',
    "é".encode(),
    "\u2028".encode(),
    "\u202e".encode(),
    "𝟙".encode(),
]
