"""Ids as curve points: hash, blind, send, receive, compare.

Suite C25519-SHA512: RFC 9380 curve25519_XMD:SHA-512_ELL2_RO_, Montgomery ladder of RFC 7748.
A batch of points is uint8 (n, 32): little-endian u-coordinates.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from federated._native import Index, Scalar, hash_to_curve, multiply, repeated
from federated.arrays import U8
from federated.channel import Channel
from federated.errors import InvalidPoint, ProtocolViolation
from federated.hooks import Progress, silent
from federated.identifiers import Ids
from federated.pipeline import pipelined
from protos.concordat.v1.run_pb2 import Points

TAG = b"CONCORDAT-V01-CS01-with-curve25519_XMD:SHA-512_ELL2_RO_"
POINT = 32  # bytes
CHUNK = 1 << 15  # points computed and sent at a time: 1 MiB

_ONES = np.uint64(2**64 - 1)
_TOP = np.uint64(2**63 - 1)


def chunks(total: int, size: int = CHUNK) -> Iterator[slice]:
    """range(total) in slices of at most `size`; a single empty one if there is nothing."""
    for start in range(0, max(total, 1), size):
        yield slice(start, min(start + size, total))


def hash_ids(ids: Ids, progress: Progress = silent) -> U8:
    """H(x) of every id, in order: uint8 (n, 32)."""
    stage, total = "hash ids", len(ids)
    points = np.empty((total, POINT), np.uint8)
    for part in chunks(total):
        progress(stage, part.start, total)
        offsets = ids.offsets[part.start : part.stop + 1]
        data = ids.data[offsets[0] : offsets[-1]]
        points[part] = hash_to_curve(ids.prefix, data, offsets - offsets[0], TAG)
    progress(stage, total, total)
    return points


def send_points(
    channel: Channel,
    points: U8,
    scalar: Scalar | None = None,
    *,
    stage: str = "send points",
    progress: Progress = silent,
) -> None:
    """Sends the sequence, multiplied by the scalar if there is one."""
    total = len(points)
    parts = (points[part] for part in chunks(total, min(CHUNK, channel.room // POINT)))
    sent = 0
    progress(stage, sent, total)
    for chunk in parts if scalar is None else pipelined(partial(multiply, scalar=scalar), parts):
        sent += len(chunk)
        channel.send(Points(points=chunk.tobytes(), last=sent == total))
        progress(stage, sent, total)


def receive_points(
    channel: Channel,
    expected: int,
    scalar: Scalar | None = None,
    *,
    stage: str = "receive points",
    seen: Callable[[U8], object] | None = None,
    progress: Progress = silent,
) -> U8:
    """A sequence of exactly `expected` points, multiplied by the scalar if there is one.

    seen: is shown the points as they arrive.

    Raises ProtocolViolation for another number, InvalidPoint for a point that is not canonical,
    has a product of zero, or whose product occurs twice. Allocates only what arrives.
    """
    frames = _receive_frames(channel, expected, stage, progress)
    if seen is not None:
        frames = _shown(frames, seen)
    parts = frames if scalar is None else pipelined(partial(product, scalar=scalar), frames)
    points = np.concatenate(list(parts))
    refuse_repeats(points)
    return points


def _shown(frames: Iterator[U8], seen: Callable[[U8], object]) -> Iterator[U8]:
    for points in frames:
        seen(points)
        yield points


def _receive_frames(
    channel: Channel, expected: int, stage: str, progress: Progress
) -> Iterator[U8]:
    received, last = 0, False
    while not last:
        progress(stage, received, expected)
        frame = channel.receive(Points)
        last = frame.last
        points = parse_points(frame.points, expected - received, last=last)
        received += len(points)
        yield points
    progress(stage, expected, expected)


def parse_points(data: bytes, remaining: int, *, last: bool) -> U8:
    """The points of one frame, of a sequence in which `remaining` are still to come."""
    count, rest = divmod(len(data), POINT)
    if rest:
        raise ProtocolViolation(f"The other side sent points that are not {POINT} bytes each.")
    if count > remaining or (count == remaining and not last):
        raise ProtocolViolation("The other side sent more points than it announced.")
    if count < remaining and (last or not count):
        raise ProtocolViolation("The other side sent fewer points than it announced.")
    points = np.frombuffer(data, np.uint8).reshape(count, POINT)
    words = points.view("<u8")
    low, high = words[:, 0], words[:, 3]
    not_canonical = (
        (high > _TOP)
        | (  # u >= p = 2^255 - 19
            (high == _TOP) & (words[:, 1:3] == _ONES).all(axis=1) & (low >= _ONES - np.uint64(18))
        )
    )
    if not_canonical.any() or not words.any(axis=1).all():
        raise InvalidPoint("The other side sent a point that is zero or not canonical.")
    return points


def product(points: U8, scalar: Scalar) -> U8:
    """scalar * point of points from the peer."""
    try:
        return multiply(points, scalar)
    except ValueError:
        raise InvalidPoint("The other side sent a point of small order.") from None


def refuse_repeats(points: U8) -> None:
    if repeated(points):
        raise InvalidPoint("The other side sent a point twice.")


def index_of(points: U8) -> Index:
    """Where each point stands, by its first 16 bytes."""
    try:
        return Index(points)
    except ValueError:
        raise InvalidPoint("The other side sent a point twice.") from None
