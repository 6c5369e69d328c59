"""The partner's payload for each of the bank's ids: a labelled private set intersection.

A row of the partner's table belongs to the label F(y) = SHA-512(y || b·H(y)): its first 16 bytes
find the row, 32 more open its payload. Whoever does not know b can find nothing in the table.

    partner -> bank   once an epoch, the rows, as they are made; then only which were removed since
                      the table's head, signed
    bank -> partner   shuffled a·H(x)
    partner -> bank   b·(a·H(x)), in that order

The bank multiplies by 1/a and has the labels of the ids it asked for, and of no others. The scalar
b lives as long as the table, an epoch; a and the order are new in every run. Jarecki, Liu 2010
(oblivious evaluation of F by Diffie-Hellman); Chen, Huang, Laine, Rindal 2018 (labels).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from secrets import token_bytes
from typing import Self

import numpy as np

from federated._native import Index, Scalar, derive_labels, permutation, seal, unseal
from federated.arrays import I64, U8, Bool
from federated.channel import Channel
from federated.errors import ProtocolViolation, TableUnsound
from federated.hooks import Progress, Release, silent
from federated.identifiers import Ids
from federated.points import CHUNK, chunks, hash_ids, product, receive_points, send_points
from protos.concordat.v1.run_pb2 import RemovedRows, TableHead, TableRows

KEY = 16  # bytes that find a row
SEALED = 12 + 16  # what a payload grows by: nonce and tag
EPOCH = 16

Payloads = Callable[[I64], U8]  # of the ids at these places: uint8 (n, payload)
Sign = Callable[[bytes], bytes]
Verify = Callable[[bytes, bytes], None]  # signature, statement; raises unless it holds


@dataclass(frozen=True)
class Terms:
    """What a table is bound to. schema: says what a payload of so many bytes holds."""

    suite: str
    agreement: bytes  # digest, 32 bytes
    schema: bytes
    payload: int

    @property
    def width(self) -> int:
        """Bytes of a row."""
        return KEY + SEALED + self.payload

    def bind(self, epoch: bytes) -> bytes:
        """The associated data of every row."""
        parts = (self.suite.encode(), self.agreement, epoch, self.schema)
        return b"concordat table\n" + b"".join(len(part).to_bytes(4) + part for part in parts)


@dataclass(frozen=True)
class Head:
    """What the partner signs of its table, and again whenever it removes rows."""

    epoch: bytes
    version: int
    rows: int
    digest: bytes

    def statement(self, terms: Terms) -> bytes:
        numbers = self.version.to_bytes(8) + self.rows.to_bytes(8)
        return terms.bind(self.epoch) + numbers + self.digest

    def message(self, signature: bytes) -> TableHead:
        return TableHead(
            epoch=self.epoch,
            version=self.version,
            rows=self.rows,
            digest=self.digest,
            signature=signature,
        )


# The partner's table


@dataclass(repr=False)
class Table:
    """The table of one epoch. Its scalar is drawn for it, and zeroised with it.

    rows: uint8 (n, width) in random order. people: int64 (n,), which of the ids a row belongs to.
    removed: the keys, uint8 (k, 16), that each version after the first has taken out.
    """

    epoch: bytes
    scalar: Scalar
    rows: U8
    people: I64
    removed: list[U8] = field(default_factory=list)

    @classmethod
    def build(
        cls,
        ids: Ids,
        payloads: Payloads,
        terms: Terms,
        *,
        made: Callable[[U8], None],
        at_once: int = CHUNK,
        progress: Progress = silent,
    ) -> Self:
        """With a new scalar and a new epoch, always. made: given rows as soon as they are there."""
        epoch, b = token_bytes(EPOCH), Scalar.random()
        order = permutation(len(ids)).astype(np.int64)
        hashed = hash_ids(ids, progress)
        rows = np.empty((len(ids), terms.width), np.uint8)
        for part in chunks(len(ids), at_once):
            progress("make table", part.start, len(ids))
            taken = order[part]
            labels = _labels(ids.take(taken), product(hashed[taken], b))
            rows[part, :KEY] = labels[:, :KEY]
            rows[part, KEY:] = seal(_openers(labels), payloads(taken), terms.bind(epoch))
            made(rows[part])
        progress("make table", len(ids), len(ids))
        return cls(epoch, b, rows, order)

    @property
    def version(self) -> int:
        return len(self.removed)

    @cached_property
    def head(self) -> Head:
        """As of the last rows that were taken out."""
        return Head(self.epoch, self.version, len(self.rows), _digest(self.rows))

    def keys(self, of: I64) -> U8:
        """What finds the rows of these of the ids it was built of: uint8 (k, 16)."""
        place = np.full(int(self.people.max(initial=-1)) + 1, -1, np.int64)
        place[self.people] = np.arange(len(self.people))
        return self.rows[place[of], :KEY].copy()

    def keep(self, stay: Bool) -> None:
        """Takes out the rows of everyone else. stay: bool, for each of the ids it was built of."""
        stays = stay[self.people]
        if not stays.all():
            self.removed.append(self.rows[~stays, :KEY].copy())
            self.rows, self.people = self.rows[stays], self.people[stays]
            self.__dict__.pop("head", None)


# The bank's copy


@dataclass(frozen=True, repr=False)
class Copy:
    """The table as the bank has fetched it."""

    head: Head
    signature: bytes
    rows: U8

    @cached_property
    def index(self) -> Index:
        try:
            return Index(self.rows)
        except ValueError:
            raise _unsound("has two rows with one key") from None

    def check(self, terms: Terms, verify: Verify) -> None:
        """Raises TableUnsound, or what `verify` raises, unless it is what its head says."""
        if len(self.rows) != self.head.rows or _digest(self.rows) != self.head.digest:
            raise _unsound("is not what its head says")
        verify(self.signature, self.head.statement(terms))

    def without(self, keys: U8) -> U8:
        """The rows that are left when those with these keys are gone."""
        places = self.index.find(keys)
        if (places < 0).any():
            raise _unsound("lacks a row that was to be removed")
        return np.delete(self.rows, places, axis=0)


@dataclass(frozen=True)
class Found:
    """rows: int64 (k,), ascending: which of the ids have one. keys: uint8 (k, 16), of those rows of
    the table. payloads: uint8 (k, payload).

    unsound: how many more have a row that does not open.
    """

    rows: I64
    keys: U8
    payloads: U8
    unsound: int


# The protocol


def run_bank(
    channel: Channel,
    ids: Ids,
    held: Copy | None,
    terms: Terms,
    *,
    partner_size: int,
    verify: Verify,
    keep: Callable[[Copy], None],
    release: Release,
    progress: Progress = silent,
) -> Found:
    """held: the copy of the epoch that both have agreed to go on with, if any; it was checked.

    keep: given another copy, which has been checked, before anything is asked. Raises
    ProtocolViolation where the partner deviates in form; TableUnsound for its table. A row that
    does not open raises nothing: by a run that fails, the partner could tell who was asked for.
    """
    copy = _receive_table(channel, held, terms, partner_size, progress)
    if copy is not held:
        copy.check(terms, verify)
        keep(copy)

    a = Scalar.random()
    order = permutation(len(ids)).astype(np.int64)
    hashed = hash_ids(ids, progress)[order]
    send_points(channel, hashed, a, stage="ask", progress=progress)
    answers = receive_points(
        channel, len(ids), a.inverse(), stage="receive answers", progress=progress
    )
    release()
    labels = _labels(ids.take(order), answers)
    places = copy.index.find(labels)
    found = np.flatnonzero(places >= 0)
    found = found[np.argsort(order[found])]
    payloads, opened = _open(copy, labels[found], places[found], terms)
    keys = labels[found, :KEY][opened]
    return Found(order[found][opened], keys, payloads[opened], int((~opened).sum()))


def run_partner(
    channel: Channel,
    table: Table,
    known: int | None,
    terms: Terms,
    *,
    bank_size: int,
    sign: Sign,
    release: Release,
    progress: Progress = silent,
) -> None:
    """known: the version of this table that the bank has; None if it was just sent the rows.

    Raises ProtocolViolation where the bank deviates in form or size.
    """
    if known is not None:
        _send_removed(channel, table, known)
    head = table.head
    channel.send(head.message(sign(head.statement(terms))))
    asked = receive_points(
        channel, bank_size, table.scalar, stage="blind what is asked", progress=progress
    )
    release()
    send_points(channel, asked, stage="answer", progress=progress)


def make_table(
    channel: Channel,
    ids: Ids,
    payloads: Payloads,
    terms: Terms,
    *,
    at_once: int = CHUNK,
    progress: Progress = silent,
) -> Table:
    """The table of a new epoch, its rows sent to the bank as they are made."""
    size = min(at_once, max(1, channel.room // terms.width))

    def made(rows: U8) -> None:
        channel.send(TableRows(rows=rows.tobytes()))

    return Table.build(ids, payloads, terms, made=made, at_once=size, progress=progress)


def _labels(ids: Ids, points: U8) -> U8:
    return derive_labels(ids.prefix, ids.data, ids.offsets, points)


def _openers(labels: U8) -> U8:
    return np.ascontiguousarray(labels[:, KEY:])


def _digest(rows: U8) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(rows).data).digest()


def _open(copy: Copy, labels: U8, places: I64, terms: Terms) -> tuple[U8, Bool]:
    """The payloads, and which of them open."""
    sealed = np.ascontiguousarray(copy.rows[places, KEY:])
    return unseal(_openers(labels), sealed, terms.bind(copy.head.epoch))


# The table's frames


def _send_removed(channel: Channel, table: Table, known: int) -> None:
    if known > table.version:
        raise ProtocolViolation("The other side has a later version of the table than there is.")
    keys = np.concatenate([np.empty((0, KEY), np.uint8), *table.removed[known:]])
    for part in chunks(len(keys), channel.room // KEY):
        channel.send(RemovedRows(keys=keys[part].tobytes(), last=part.stop == len(keys)))


def _receive_table(
    channel: Channel, held: Copy | None, terms: Terms, partner_size: int, progress: Progress
) -> Copy:
    """Not yet checked but for its size, which is the one the partner has signed in the intent."""
    if held is None:
        rows = _receive_rows(channel, partner_size, terms, progress)
        return Copy(*_receive_head(channel), rows)
    if partner_size > len(held.rows):
        raise _unsound("has more rows than the one held")
    keys = _receive_removed(channel, len(held.rows) - partner_size)
    head, signature = _receive_head(channel)
    if head.epoch != held.head.epoch or head.version < held.head.version:
        raise _unsound("is not a later version of the one held")
    if head == held.head:
        return held
    return Copy(head, signature, held.without(keys) if len(keys) else held.rows)


def _receive_head(channel: Channel) -> tuple[Head, bytes]:
    sent = channel.receive(TableHead)
    if len(sent.epoch) != EPOCH or len(sent.digest) != 32 or len(sent.signature) != 64:
        raise ProtocolViolation("The other side sent a table's head that is none.")
    return Head(sent.epoch, sent.version, sent.rows, sent.digest), sent.signature


def _receive_rows(channel: Channel, expected: int, terms: Terms, progress: Progress) -> U8:
    data: list[bytes] = []
    received = 0
    while received < expected:
        progress("receive table", received, expected)
        frame = channel.receive(TableRows)
        count, rest = divmod(len(frame.rows), terms.width)
        received += count
        if rest or not count or received > expected:
            raise ProtocolViolation("The other side sent a wrong number of rows.")
        data.append(frame.rows)
    progress("receive table", expected, expected)
    return np.frombuffer(b"".join(data), np.uint8).reshape(expected, terms.width)


def _receive_removed(channel: Channel, expected: int) -> U8:
    data = bytearray()
    last = False
    while not last:
        frame = channel.receive(RemovedRows)
        last = frame.last
        data += frame.keys
        if not (frame.keys or last) or last != (len(data) >= KEY * expected):
            raise ProtocolViolation("The other side removed a wrong number of rows.")
    if len(data) != KEY * expected:
        raise ProtocolViolation("The other side removed a wrong number of rows.")
    return np.frombuffer(bytes(data), np.uint8).reshape(-1, KEY)


def _unsound(problem: str) -> TableUnsound:
    return TableUnsound(f"The other side's table {problem}.")
