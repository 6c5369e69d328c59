"""The run protocol: frames from a peer, through the channel and the protocols' own functions.

An input is a sequence of frames, each after its length (2 bytes, big-endian).
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
from google.protobuf.message import Message

from federated._native import Scalar
from federated.aggregation import evaluate, insight
from federated.aggregation.schema import Bins, BinTable, Feature, FeatureTable, Groups
from federated.arrays import I64, U8
from federated.channel import Channel, memory_pair
from federated.disclosure.noise import Noise, Privacy
from federated.errors import ConnectionLost
from federated.identifiers import Ids
from federated.paillier.ciphertexts import encode
from federated.paillier.packing import Layout, to_integers
from federated.points import hash_ids, receive_points
from federated.psi import intersect, lookup, overlap
from federated.psi.lookup import Terms
from federated.risk import score
from federated.risk.binning import Edges
from federated.risk.scorecard import Grid, Weights
from fuzz.kernels import PUBLIC, SECRET
from fuzz.target import Setup, Target
from protos.concordat.v1 import run_pb2
from protos.concordat.v1.run_pb2 import (
    BinEdges,
    EncryptedRows,
    Frame,
    MaskedSums,
    Points,
    ReleasedSums,
    RemovedRows,
)

Role = Callable[[Channel], object]

MINIMUM = 2
ROWS = 5


def split(data: bytes) -> Iterator[bytes]:
    """The frames of an input; the last one may be short of its length."""
    while data:
        size = int.from_bytes(data[:2])
        yield data[2 : 2 + size]
        data = data[2 + size :]


def join(frames: list[bytes]) -> bytes:
    return b"".join(len(frame).to_bytes(2) + frame for frame in frames)


class Script:
    """A transport on which the peer says what the input says, whatever it is told."""

    def __init__(self, data: bytes) -> None:
        self._frames = split(data)

    def send(self, _: bytes, /) -> None:
        pass

    def receive(self) -> bytes:
        for frame in self._frames:
            return frame
        raise ConnectionLost("The input ends here.", "")

    def close(self) -> None:
        pass


def channel(data: bytes) -> Channel:
    return Channel(Script(data), initiator=True, max_frame=1 << 16)


def said(*messages: Message) -> bytes:
    """An input that says these messages."""
    frames = []
    for message in messages:
        frame = Frame()
        for name in Frame.DESCRIPTOR.fields_by_name:
            if isinstance(message, type(getattr(frame, name))):
                getattr(frame, name).CopyFrom(message)
        frames.append(frame.SerializeToString())
    return join(frames)


# Whole protocols. Both tables hold other people, so that what a peer answered in one run fits any
# other, whatever the scalars.


def _people(start: int) -> Ids:
    numbers = [b"+86%011d" % number for number in range(start, start + ROWS)]
    offsets = np.cumsum([0, *map(len, numbers)]).astype(np.uint64)
    return Ids("phone", np.frombuffer(b"".join(numbers), np.uint8), offsets)


_OURS, _THEIRS = _people(0), _people(ROWS)
_AGE = Feature("age", frozenset({"sum", "variance"}), Decimal(18), Decimal(99))
_CITY = Feature(
    "city",
    frozenset({"histogram"}),
    Decimal(0),
    Decimal(3),
    bins=(Decimal(1),),
    may_be_missing=False,
)
_FEATURES = [_AGE, _CITY]
_GROUPS = Groups(_OURS, np.arange(ROWS) % 2, 2)
_TABLE = FeatureTable(_THEIRS, np.array([[30, 2]] * ROWS), np.ones((ROWS, 2), bool))
_BINS = [Bins("age", 3), Bins("city", 2)]
_EDGES = [Edges((20.0, 30.5), missing=True), Edges((1.0,), missing=False)]
_BIN_TABLE = BinTable(_THEIRS, np.array([[2, 1]] * ROWS, np.uint8))
_COLUMNS = [feature.columns for feature in _FEATURES]
_NOISE = Noise.of(_COLUMNS, Privacy(Fraction(1), Fraction(1, 10**9)))
_DRAWN = _NOISE.draw(1)[0].tolist()
_LAYOUT = Layout.plan(_COLUMNS, ROWS, PUBLIC.bits, [one.bound for one in _NOISE.columns])

_TERMS = Terms("suite", bytes(32), b"", 4)
_SCORE_TERMS = Terms("suite", bytes(32), b"", score.payload_bytes(PUBLIC.bits))
_PLACES = (np.arange(ROWS) % 5)[:, np.newaxis]


def _zeros(rows: I64) -> U8:
    return np.zeros((len(rows), _TERMS.payload), np.uint8)


_TABLE_OF = lookup.Table.build(_THEIRS, _zeros, _TERMS, made=lambda _: None)


def _release() -> None:
    pass


def _sign(statement: bytes) -> bytes:
    return bytes(64)


def _nothing(*_: object) -> None:
    """Whatever is signed holds; nothing is kept."""


_ROLES: dict[str, tuple[Role, Role]] = {
    "overlap": (
        lambda ch: overlap.run_bank(ch, _OURS, ROWS, release=_release),
        lambda ch: overlap.run_partner(ch, _THEIRS, ROWS, release=_release),
    ),
    "intersect": (
        lambda ch: intersect.run_bank(ch, _OURS, ROWS, partner_learns_ids=True, release=_release),
        lambda ch: intersect.run_partner(
            ch, _THEIRS, ROWS, partner_learns_ids=True, release=_release
        ),
    ),
    "insight": (
        lambda ch: insight.run_bank(
            ch,
            _GROUPS,
            _FEATURES,
            PUBLIC,
            partner_size=ROWS,
            minimum_group=MINIMUM,
            key_bits=PUBLIC.bits,
            release=_release,
        ),
        lambda ch: insight.run_partner(
            ch,
            _TABLE,
            _FEATURES,
            SECRET,
            bank_size=ROWS,
            groups=2,
            minimum_group=MINIMUM,
            release=_release,
        ),
    ),
    "lookup": (
        lambda ch: lookup.run_bank(
            ch,
            _OURS,
            None,
            _TERMS,
            partner_size=ROWS,
            verify=_nothing,
            keep=_nothing,
            release=_release,
        ),
        lambda ch: lookup.run_partner(
            ch,
            lookup.make_table(ch, _THEIRS, _zeros, _TERMS),
            None,
            _TERMS,
            bank_size=ROWS,
            sign=_sign,
            release=_release,
        ),
    ),
    "score": (
        lambda ch: score.run_bank(
            ch,
            _OURS,
            Weights(np.arange(5), 0, 4),
            SECRET,
            held=None,
            terms=_SCORE_TERMS,
            partner_size=ROWS,
            verify=_nothing,
            keep=_nothing,
            release=_release,
        ),
        lambda ch: lookup.run_partner(
            ch,
            score.make_table(
                ch,
                _THEIRS,
                _PLACES,
                [Grid("age", (30, 50), 0)],
                public=PUBLIC,
                terms=_SCORE_TERMS,
            ),
            None,
            _SCORE_TERMS,
            bank_size=ROWS,
            sign=_sign,
            release=_release,
        ),
    ),
    "evaluate": (
        lambda ch: evaluate.run_bank(
            ch,
            _GROUPS,
            _BINS,
            PUBLIC,
            partner_size=ROWS,
            minimum_group=MINIMUM,
            key_bits=PUBLIC.bits,
            release=_release,
        ),
        lambda ch: evaluate.run_partner(
            ch,
            _BIN_TABLE,
            _EDGES,
            _BINS,
            SECRET,
            bank_size=ROWS,
            groups=2,
            minimum_group=MINIMUM,
            release=_release,
        ),
    ),
}


def _record(role: Role, end: Channel) -> bytes:
    """Plays a role to its end; what it received."""
    heard: list[bytes] = []
    receive = end._transport.receive

    def listen() -> bytes:
        heard.append(receive())
        return heard[-1]

    end._transport.receive = listen  # type: ignore[method-assign]
    role(end)
    return join(heard)


def _role(name: str, side: int) -> Setup:
    def setup(_: Path) -> Target:
        with ThreadPoolExecutor(2) as pool:
            heard = list(pool.map(_record, _ROLES[name], memory_pair()))
        role = _ROLES[name][side]
        return Target(lambda data: role(channel(data)), [heard[side]])

    return setup


# One kind of message at a time


def _frame(_: Path) -> Target:
    """The first byte says which message is expected."""
    kinds = [type(getattr(Frame(), name)) for name in Frame.DESCRIPTOR.fields_by_name]

    def receive(data: bytes) -> None:
        message = channel(join([data[1:]])).receive(kinds[sum(data[:1]) % len(kinds)])
        message.SerializeToString()

    seeds = [
        bytes([at]) + said(kind.FromString(b""))[2:]
        for at, kind in enumerate(kinds)
        if kind is not run_pb2.Abort
    ]
    return Target(receive, seeds)


def _points(_: Path) -> Target:
    """The first byte says how many points are expected."""
    scalar = Scalar.random()

    def receive(data: bytes) -> None:
        expected = sum(data[:1])
        points = receive_points(channel(data[1:]), expected, scalar)
        assert points.shape == (expected, 32)

    points = hash_ids(_OURS)
    first, rest = (
        Points(points=points[:2].tobytes()),
        Points(points=points[2:].tobytes(), last=True),
    )
    return Target(receive, [bytes([ROWS]) + said(first, rest), b"\x00" + said(Points(last=True))])


def _encrypted_rows(_: Path) -> Target:
    def receive(data: bytes) -> None:
        for points, ciphertexts in insight._receive_rows(
            channel(data), _LAYOUT, PUBLIC, ROWS, lambda *_: None
        ):
            PUBLIC.check(ciphertexts)
            assert len(ciphertexts) == len(points) * len(_LAYOUT.plaintexts)

    rows = EncryptedRows(
        points=hash_ids(_THEIRS).tobytes(),
        ciphertexts=encode(PUBLIC.encrypt(_packed())).tobytes(),
        last=True,
    )
    return Target(receive, [said(rows)])


def _masked_sums(_: Path) -> Target:
    """What the key's owner decrypts and reads the counts of."""

    def receive(data: bytes) -> None:
        sums = insight._receive_ciphertexts(channel(data), len(_packed()), PUBLIC)
        plain = to_integers(SECRET.decrypt(sums))
        for counts in insight._read_counts(plain, _LAYOUT):
            insight._answer(counts, _LAYOUT, MINIMUM, _DRAWN)

    data = encode(PUBLIC.encrypt(_packed())).tobytes()
    parts = [data[:100], data[100:]]
    messages = [MaskedSums(ciphertexts=part, last=part is parts[-1]) for part in parts]
    return Target(receive, [said(*messages)])


def _released_sums(_: Path) -> Target:
    """What the bank unmasks, of two groups that share enough and one that does not."""
    masks = tuple(range(1, 1 + len(_LAYOUT.blocks)))

    def receive(data: bytes) -> None:
        for answer in insight._receive_answers(channel(data), len(groups)):
            if len(answer.blocks) == len(masks):
                insight._unmask(answer, masks, _LAYOUT, _FEATURES, MINIMUM, noise=_NOISE.columns)

    group = ReleasedSums.Group(count=ROWS)
    for mask in masks:
        group.blocks.add(count=ROWS, sums=mask.to_bytes(8, "little"))
    groups = [group, ReleasedSums.Group(count=1), group]
    return Target(receive, [said(ReleasedSums(groups=groups, last=True))])


def _removed_rows(_: Path) -> Target:
    """What the bank takes out of its copy of a table."""
    held = lookup.Copy(_TABLE_OF.head, bytes(64), _TABLE_OF.rows)

    def receive(data: bytes) -> None:
        copy = lookup._receive_table(channel(data), held, _TERMS, ROWS - 1, _nothing)
        assert copy.rows.shape == (ROWS - 1, _TERMS.width)

    head = lookup.Head(_TABLE_OF.epoch, 1, ROWS - 1, bytes(32))
    keys = RemovedRows(keys=_TABLE_OF.rows[0, : lookup.KEY].tobytes(), last=True)
    return Target(receive, [said(keys, head.message(bytes(64)))])


def _bin_edges(_: Path) -> Target:
    def receive(data: bytes) -> None:
        for edges, feature in zip(
            evaluate._receive_edges(channel(data), _BINS), _BINS, strict=True
        ):
            assert len(edges.inner) < feature.most
            assert list(edges.inner) == sorted(set(edges.inner))

    told = [BinEdges.Feature(inner=one.inner, missing=one.missing) for one in _EDGES]
    frames = [BinEdges(features=told[:1]), BinEdges(features=told[1:], last=True)]
    return Target(receive, [said(*frames)])


def _packed() -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
    rows = np.arange(ROWS).astype(np.uint64)
    return _TABLE.pack(rows, _FEATURES, _LAYOUT)


TARGETS: dict[str, Setup] = {
    "frame": _frame,
    "points": _points,
    "encrypted-rows": _encrypted_rows,
    "masked-sums": _masked_sums,
    "released-sums": _released_sums,
    "removed-rows": _removed_rows,
    "bin-edges": _bin_edges,
    **{
        f"{name}-{side}": _role(name, at)
        for name in _ROLES
        for at, side in enumerate(["bank", "partner"])
    },
}
