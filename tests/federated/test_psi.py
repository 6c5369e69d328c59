import random
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_sides import Gate, Withdrawn, phones, play, succeed

from federated.channel import Channel
from federated.errors import InvalidPoint, PeerAborted, ProtocolViolation
from federated.psi import intersect, overlap
from protos.concordat.v1.run_pb2 import Matches, Points

PROTOCOLS = [overlap, intersect]


def both(protocol, bank: list[int], partner: list[int], *, max_frame: int = 4 << 20, **agreed):
    return succeed(
        lambda ch: protocol.run_bank(ch, phones(bank), len(partner), release=Gate(), **agreed),
        lambda ch: protocol.run_partner(ch, phones(partner), len(bank), release=Gate(), **agreed),
        max_frame=max_frame,
    )


sets = st.lists(st.integers(0, 60), unique=True, max_size=40)


@given(sets, sets)
@settings(max_examples=30, deadline=None)
def test_overlap_counts_what_both_have(bank, partner) -> None:
    found, nothing = both(overlap, bank, partner)
    assert found.count == len(set(bank) & set(partner))
    assert nothing is None


@given(sets, sets)
@settings(max_examples=30, deadline=None)
def test_intersect_names_the_banks_rows(bank, partner) -> None:
    found, nothing = both(intersect, bank, partner)
    assert found.rows.dtype == np.int64
    assert found.rows.tolist() == [i for i, x in enumerate(bank) if x in partner]
    assert nothing is None


@given(sets, sets)
@settings(max_examples=30, deadline=None)
def test_the_partner_learns_its_rows_if_agreed(bank, partner) -> None:
    ours, theirs = both(intersect, bank, partner, partner_learns_ids=True)
    assert ours.rows.tolist() == [i for i, x in enumerate(bank) if x in partner]
    assert theirs.rows.tolist() == [i for i, x in enumerate(partner) if x in bank]


@pytest.mark.parametrize("agreed", [False, True])
def test_both_sides_call_a_person_by_the_same_place(agreed) -> None:
    bank, partner = list(range(30)), list(range(20, 60))
    names: dict[str, np.ndarray] = {}
    ours, theirs = succeed(
        lambda ch: intersect.run_bank(
            ch,
            phones(bank),
            40,
            partner_learns_ids=agreed,
            named=lambda places: names.update(bank=places),
            release=Gate(),
        ),
        lambda ch: intersect.run_partner(
            ch,
            phones(partner),
            30,
            partner_learns_ids=agreed,
            named=lambda places: names.update(partner=places),
            release=Gate(),
        ),
    )
    assert sorted(names["partner"]) == list(range(40))
    assert names["partner"].tolist() != list(range(40)), "it would be the table's order"
    called = dict(zip(partner, names["partner"].tolist(), strict=True))
    assert [called[bank[row]] for row in ours.rows] == ours.places.tolist()
    assert names["bank"].tolist() == [called.get(person, -1) for person in bank]
    if agreed:
        assert [called[partner[row]] for row in theirs.rows] == theirs.places.tolist()


def test_a_larger_run_takes_many_frames() -> None:
    everyone = random.Random(1).sample(range(10**9), 4000)
    bank, partner = everyone[:2500], everyone[2000:]
    found, _ = both(overlap, bank, partner, max_frame=4096)
    assert found.count == 500
    ours, theirs = both(intersect, bank, partner, max_frame=4096, partner_learns_ids=True)
    assert ours.rows.tolist() == list(range(2000, 2500))
    assert theirs.rows.tolist() == list(range(500))


def observed(protocol, bank: list[int], partner: list[int]) -> list[bytes]:
    """Every frame the bank receives."""
    frames: list[bytes] = []

    def bank_role(channel: Channel) -> None:
        transport = channel._transport
        receive = transport.receive

        def keep() -> bytes:
            frames.append(receive())
            return frames[-1]

        transport.receive = keep
        protocol.run_bank(channel, phones(bank), len(partner), release=Gate())

    succeed(
        bank_role,
        lambda ch: protocol.run_partner(ch, phones(partner), len(bank), release=Gate()),
    )
    return frames


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_the_same_in_two_runs(protocol) -> None:
    first, second = (observed(protocol, [1, 2, 3], [2, 3, 4]) for _ in range(2))
    assert not set(first) & set(second)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_release_is_called_once_on_each_side(protocol) -> None:
    ours, theirs = Gate(), Gate()
    succeed(
        lambda ch: protocol.run_bank(ch, phones([1, 2]), 1, release=ours),
        lambda ch: protocol.run_partner(ch, phones([2]), 2, release=theirs),
    )
    assert ours.calls == theirs.calls == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shut_gate_at_the_partner_keeps_its_ids_back(protocol) -> None:
    def bank(channel: Channel) -> None:
        protocol.run_bank(channel, phones([1, 2]), 2, release=Gate())

    ours, theirs = play(
        bank, lambda ch: protocol.run_partner(ch, phones([2, 3]), 2, release=Gate(shut=True))
    )
    assert isinstance(theirs.error, Withdrawn)
    assert isinstance(ours.error, PeerAborted)
    assert ours.error.peer_code == "E499"
    # The bank has its own two points back and the abort, nothing of the partner's.
    assert ours.channel.bytes_received < 2 * 32 + 100


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shut_gate_at_the_bank_gives_no_result(protocol) -> None:
    ours, _ = play(
        lambda ch: protocol.run_bank(ch, phones([1, 2]), 2, release=Gate(shut=True)),
        lambda ch: protocol.run_partner(ch, phones([2, 3]), 2, release=Gate()),
    )
    assert isinstance(ours.error, Withdrawn)
    assert ours.result is None


def test_a_shut_gate_at_the_bank_keeps_the_matches_back() -> None:
    agreed = {"partner_learns_ids": True}
    _, theirs = play(
        lambda ch: intersect.run_bank(ch, phones([1]), 1, release=Gate(shut=True), **agreed),
        lambda ch: intersect.run_partner(ch, phones([1]), 1, release=Gate(), **agreed),
    )
    assert isinstance(theirs.error, PeerAborted)
    assert theirs.result is None


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("announced", [2, 4])
def test_another_size_than_announced_is_refused(protocol, announced: int) -> None:
    _, theirs = play(
        lambda ch: protocol.run_bank(ch, phones([1, 2, 3]), 2, release=Gate()),
        lambda ch: protocol.run_partner(ch, phones([1, 2]), announced, release=Gate()),
    )
    assert isinstance(theirs.error, ProtocolViolation)
    ours, _ = play(
        lambda ch: protocol.run_bank(ch, phones([1, 2]), announced, release=Gate()),
        lambda ch: protocol.run_partner(ch, phones([1, 2, 3]), 2, release=Gate()),
    )
    assert isinstance(ours.error, ProtocolViolation)


def answering(answer: bytes, own: bytes):
    """A partner that takes the bank's points and sends bytes of its choice."""

    def role(channel: Channel) -> None:
        channel.receive(Points)
        channel.send(Points(points=answer, last=True))
        channel.send(Points(points=own, last=True))

    return role


def point(u: int) -> bytes:
    return u.to_bytes(32, "little")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("answer", "own"),
    [
        (point(9) * 2, point(9) + point(10)),
        (point(9) + point(9 + 2**200), point(9) + point(10)),
        (point(9) + point(0), point(9) + point(10)),
        (point(9) + point(10), point(9) * 2),
        (point(9) + point(10), point(9) + point(1)),
        (point(9) + point(10), point(9) + point(2**255 - 1)),
    ],
)
def test_a_partners_bad_points_are_refused(protocol, answer: bytes, own: bytes) -> None:
    ours, _ = play(
        lambda ch: protocol.run_bank(ch, phones([1, 2]), 2, release=Gate()), answering(answer, own)
    )
    assert isinstance(ours.error, InvalidPoint)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("points", [point(9) * 2, point(9) + point(1), point(9) + point(2**255)])
def test_a_banks_bad_points_are_refused(protocol, points: bytes) -> None:
    _, theirs = play(
        lambda ch: ch.send(Points(points=points, last=True)),
        lambda ch: protocol.run_partner(ch, phones([1, 2]), 2, release=Gate()),
    )
    assert isinstance(theirs.error, InvalidPoint)


def matching(*frames: Matches):
    """A bank that follows the protocol up to the matches, which it makes up."""

    def role(channel: Channel) -> None:
        channel.send(Points(points=point(9) + point(10) + point(11), last=True))
        channel.receive(Points)
        channel.receive(Points)
        for frame in frames:
            channel.send(frame)

    return role


def places(*positions: int) -> bytes:
    return b"".join(p.to_bytes(8, "little") for p in positions)


learning = partial(intersect.run_partner, bank_size=3, partner_learns_ids=True)


@pytest.mark.parametrize(
    "frames",
    [
        [Matches(positions=places(2), last=True)],
        [Matches(positions=places(2**64 - 1), last=True)],
        [Matches(positions=places(1, 1), last=True)],
        [Matches(positions=places(1, 0), last=True)],
        [Matches(positions=places(0, 1, 1), last=True)],
        [Matches(positions=places(0)), Matches(positions=places(1)), Matches(positions=places(1))],
        [Matches(positions=places(0)), Matches()],
        [Matches(positions=places(0)[:-1], last=True)],
    ],
)
def test_matches_that_cannot_be_are_refused(frames: list[Matches]) -> None:
    _, theirs = play(matching(*frames), lambda ch: learning(ch, phones([1, 2]), release=Gate()))
    assert isinstance(theirs.error, ProtocolViolation)


def test_matches_over_several_frames_are_taken() -> None:
    frames = [Matches(positions=places(0)), Matches(positions=places(1)), Matches(last=True)]
    _, theirs = play(matching(*frames), lambda ch: learning(ch, phones([1, 2]), release=Gate()))
    assert theirs.result.rows.tolist() == [0, 1]
