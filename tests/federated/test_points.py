import numpy as np
import pytest
from two_sides import phones, play

from federated._native import Scalar
from federated.channel import Channel
from federated.errors import InvalidPoint, ProtocolViolation
from federated.points import (
    CHUNK,
    chunks,
    hash_ids,
    index_of,
    parse_points,
    product,
    receive_points,
    send_points,
)
from protos.concordat.v1.run_pb2 import Points

P = 2**255 - 19
# The u-coordinates whose order divides 8, on the curve and on its twist (RFC 7748, section 7).
SMALL_ORDER = [
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
]


def encode(*coordinates: int) -> bytes:
    return b"".join(u.to_bytes(32, "little") for u in coordinates)


def sending(*messages: Points):
    def role(channel: Channel) -> None:
        for message in messages:
            channel.send(message)

    return role


def receiving(expected: int, scalar: Scalar | None = None):
    return lambda channel: receive_points(channel, expected, scalar)


def test_chunks_cover_everything_once() -> None:
    assert [list(range(10))[part] for part in chunks(10, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(chunks(8, 4)) == [slice(0, 4), slice(4, 8)]
    assert list(chunks(0)) == [slice(0, 0)]


def test_points_arrive_in_order_over_many_frames() -> None:
    points = hash_ids(phones(range(100)))
    sender, receiver = play(
        lambda channel: send_points(channel, points), receiving(100), max_frame=32 * 7 + 70
    )
    assert sender.error is receiver.error is None
    assert (receiver.result == points).all()


def test_both_sides_multiply_to_the_same_points() -> None:
    points = hash_ids(phones(range(10)))
    a, b = Scalar.random(), Scalar.random()
    _, receiver = play(lambda channel: send_points(channel, points, a), receiving(10, b))
    assert (receiver.result == product(product(points, b), a)).all()


def test_an_empty_sequence_is_one_frame() -> None:
    empty = np.empty((0, 32), np.uint8)
    sender, receiver = play(lambda channel: send_points(channel, empty), receiving(0))
    assert sender.error is receiver.error is None
    assert receiver.result.shape == (0, 32)


def test_hashing_chunk_by_chunk_changes_nothing() -> None:
    ids = phones(range(CHUNK + 10))
    hashed = hash_ids(ids)
    assert (hashed[-10:] == hash_ids(phones(range(CHUNK, CHUNK + 10)))).all()


def test_the_kind_is_part_of_the_hash() -> None:
    ids = phones(range(1))
    other = type(ids)("email", ids.data, ids.offsets)
    assert (hash_ids(ids) != hash_ids(other)).any()


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([Points(points=encode(2, 3, 4), last=True)], "more points"),
        ([Points(points=encode(2)), Points(points=encode(3, 4))], "more points"),
        ([Points(points=encode(2), last=True)], "fewer points"),
        ([Points(last=True)], "fewer points"),
        ([Points(points=encode(2)), Points()], "fewer points"),
        ([Points(points=encode(2, 3)[:-1], last=True)], "32 bytes each"),
    ],
)
def test_a_wrong_number_of_points_is_refused(messages, match: str) -> None:
    _, receiver = play(sending(*messages), receiving(2))
    assert isinstance(receiver.error, ProtocolViolation)
    assert match in receiver.error.message


def test_a_sequence_that_does_not_end_is_refused() -> None:
    _, receiver = play(sending(Points(points=encode(2, 3))), receiving(2))
    assert isinstance(receiver.error, ProtocolViolation)


@pytest.mark.parametrize(
    "u", [0, P, P + 1, 2**255 - 1, 2**255, 2**255 + 9, 2**256 - 1], ids=lambda u: f"{u:x}"[:8]
)
def test_zero_and_what_is_not_canonical_is_refused(u: int) -> None:
    with pytest.raises(InvalidPoint):
        parse_points(encode(9, u), 2, last=True)


@pytest.mark.parametrize("u", [2, 9, P - 2, 2**255 - 2**64, 2**254])
def test_canonical_points_are_taken(u: int) -> None:
    assert parse_points(encode(u), 1, last=True).tobytes() == encode(u)


@pytest.mark.parametrize("u", SMALL_ORDER, ids=lambda u: f"{u:x}"[:8])
def test_a_point_of_small_order_is_refused(u: int) -> None:
    _, receiver = play(
        sending(Points(points=encode(9, u), last=True)), receiving(2, Scalar.random())
    )
    assert isinstance(receiver.error, InvalidPoint)


@pytest.mark.parametrize("scalar", [None, Scalar.random()], ids=["as they are", "multiplied"])
def test_a_repeated_point_is_refused_across_frames(scalar: Scalar | None) -> None:
    frames = [Points(points=encode(9, 10)), Points(points=encode(11, 9), last=True)]
    _, receiver = play(sending(*frames), receiving(4, scalar))
    assert isinstance(receiver.error, InvalidPoint)
    assert "twice" in receiver.error.message


def test_an_index_refuses_two_points_it_could_not_tell_apart() -> None:
    points = np.frombuffer(encode(9, 9 + 2**200), np.uint8).reshape(2, 32)
    with pytest.raises(InvalidPoint):
        index_of(points)


def test_progress_goes_from_nothing_to_all() -> None:
    seen: list[tuple[str, int, int]] = []
    points = hash_ids(phones(range(20)))
    play(
        lambda channel: send_points(
            channel, points, stage="send", progress=lambda *step: seen.append(step)
        ),
        receiving(20),
        max_frame=32 * 7 + 70,
    )
    assert seen == [("send", 0, 20), ("send", 7, 20), ("send", 14, 20), ("send", 20, 20)]
