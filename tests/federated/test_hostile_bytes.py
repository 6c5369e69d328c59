"""Whatever bytes arrive, a side ends with a numbered error or a result, never with a crash."""

from collections.abc import Callable
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from two_sides import Gate, Role, phones, play

from federated.aggregation import insight
from federated.aggregation.schema import Feature, FeatureTable, Groups
from federated.channel import Channel
from federated.paillier import keys
from federated.psi import intersect, lookup, overlap
from federated.psi.lookup import Terms
from federated.risk import score
from federated.risk.scorecard import Grid, Weights
from protos.errors import ConcordatError

N = 6
SECRET = keys.generate(1024, allow_small=True)
AGE = Feature("age", frozenset({"sum", "variance"}), Decimal(18), Decimal(99))
GROUPS = Groups(phones(range(N)), np.arange(N) % 2, 2)
TABLE = FeatureTable(phones(range(N)), np.full((N, 1), 30), np.ones((N, 1), bool))

TERMS = Terms("suite", bytes(32), b"", 4)
SCORE_TERMS = Terms("suite", bytes(32), b"", score.payload_bytes(1024))
GRIDS = [Grid("age", (30, 50), 0)]
WEIGHTS = Weights(np.arange(5), 0, 4)


def payload_table(channel: Channel) -> lookup.Table:
    payloads = np.zeros((N, 4), np.uint8)
    return lookup.make_table(channel, phones(range(N)), payloads.__getitem__, TERMS)


def score_table(channel: Channel) -> lookup.Table:
    places = np.arange(N)[:, np.newaxis] % 5
    public = SECRET.public
    return score.make_table(
        channel, phones(range(N)), places, GRIDS, public=public, terms=SCORE_TERMS
    )


def sign(statement: bytes) -> bytes:
    return bytes(64)


def nothing(*_: object) -> None:
    """Whatever is signed holds; nothing is kept."""


ROLES: dict[str, tuple[Role, Role]] = {
    "overlap": (
        lambda ch: overlap.run_bank(ch, phones(range(N)), N, release=Gate()),
        lambda ch: overlap.run_partner(ch, phones(range(N)), N, release=Gate()),
    ),
    "intersect": (
        lambda ch: intersect.run_bank(
            ch, phones(range(N)), N, partner_learns_ids=True, release=Gate()
        ),
        lambda ch: intersect.run_partner(
            ch, phones(range(N)), N, partner_learns_ids=True, release=Gate()
        ),
    ),
    "insight": (
        lambda ch: insight.run_bank(
            ch,
            GROUPS,
            [AGE],
            SECRET.public,
            partner_size=N,
            minimum_group=2,
            key_bits=1024,
            release=Gate(),
        ),
        lambda ch: insight.run_partner(
            ch, TABLE, [AGE], SECRET, bank_size=N, groups=2, minimum_group=2, release=Gate()
        ),
    ),
    "lookup": (
        lambda ch: lookup.run_bank(
            ch,
            phones(range(N)),
            None,
            TERMS,
            partner_size=N,
            verify=nothing,
            keep=nothing,
            release=Gate(),
        ),
        lambda ch: lookup.run_partner(
            ch, payload_table(ch), None, TERMS, bank_size=N, sign=sign, release=Gate()
        ),
    ),
    "score": (
        lambda ch: score.run_bank(
            ch,
            phones(range(N)),
            WEIGHTS,
            SECRET,
            held=None,
            terms=SCORE_TERMS,
            partner_size=N,
            verify=nothing,
            keep=nothing,
            release=Gate(),
        ),
        lambda ch: lookup.run_partner(
            ch, score_table(ch), None, SCORE_TERMS, bank_size=N, sign=sign, release=Gate()
        ),
    ),
}


def spoiling(role: Role, number: int, spoil: Callable[[bytes], bytes]) -> Role:
    """The same role, but its frame of that number is spoilt on the way."""

    def spoilt(channel: Channel) -> object:
        transport, sent = channel._transport, [0]
        send = transport.send

        def send_spoilt(frame: bytes) -> None:
            sent[0] += 1
            send(spoil(frame) if sent[0] == number else frame)

        transport.send = send_spoilt
        return role(channel)

    return spoilt


def flip(place: int, bits: int) -> Callable[[bytes], bytes]:
    def spoil(frame: bytes) -> bytes:
        at = place % len(frame)
        return frame[:at] + bytes([frame[at] ^ bits]) + frame[at + 1 :]

    return spoil


def cut(place: int) -> Callable[[bytes], bytes]:
    return lambda frame: frame[: place % len(frame)]


# The first bytes of a frame are tags and lengths, where a change does most.
places = st.one_of(st.integers(0, 12), st.integers(0, 10_000))
spoils = st.one_of(
    st.builds(flip, places, st.integers(1, 255)),
    st.builds(cut, places),
    st.binary(max_size=80).map(lambda garbage: lambda frame: garbage),
    st.binary(min_size=1, max_size=80).map(lambda more: lambda frame: frame + more),
)


@pytest.mark.parametrize("name", ROLES)
@given(spoils, st.integers(1, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_spoilt_frame_never_crashes_a_side(name, spoil, number: int, by_bank: bool) -> None:
    bank, partner = ROLES[name]
    if by_bank:
        bank = spoiling(bank, number, spoil)
    else:
        partner = spoiling(partner, number, spoil)
    for side in play(bank, partner):
        assert side.error is None or isinstance(side.error, ConcordatError), repr(side.error)
