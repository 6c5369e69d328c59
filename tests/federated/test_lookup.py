"""The lookup against a dict, and against peers that deviate."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st
from two_sides import Gate, Withdrawn, phones, play, succeed, tampering

from federated import _native
from federated._native import Scalar, multiply
from federated.channel import Channel
from federated.errors import InvalidPoint, ProtocolViolation, TableUnsound
from federated.points import chunks, hash_ids
from federated.psi import lookup
from federated.psi.lookup import Copy, Table, Terms
from protos.concordat.v1.run_pb2 import Points, RemovedRows, TableHead, TableRows

TERMS = Terms("C25519-SHA512", bytes(range(32)), b"a number of eight bytes", 8)


def sign(statement: bytes) -> bytes:
    """Stands for a signature that only this module can make."""
    return hashlib.sha512(b"secret" + statement).digest()


class Forged(ProtocolViolation):
    pass


def verify(signature: bytes, statement: bytes) -> None:
    if signature != sign(statement):
        raise Forged("The signature does not hold.")


def payloads(people: list[int]) -> np.ndarray:
    return np.array(people, "<u8").reshape(-1, 1).view(np.uint8) ^ 255


def build(people: list[int], terms: Terms = TERMS) -> Table:
    values = payloads(people)
    return Table.build(phones(people), values.__getitem__, terms, made=lambda _: None)


class Bank:
    """The bank's side, run by run."""

    def __init__(self) -> None:
        self.copy: Copy | None = None

    def role(self, asked: list[int], size: int, *, gate: Gate | None = None, terms: Terms = TERMS):
        def keep(copy: Copy) -> None:
            self.copy = copy

        held = self.copy
        return lambda ch: lookup.run_bank(
            ch,
            phones(asked),
            held,
            terms,
            partner_size=size,
            verify=verify,
            keep=keep,
            release=gate or Gate(),
        )

    @property
    def known(self) -> int | None:
        return self.copy.head.version if self.copy else None

    def ask(self, table: Table, asked: list[int], **play_as) -> dict[int, int]:
        found, nothing = succeed(
            self.role(asked, len(table.rows)), partner(table, len(asked), self.known), **play_as
        )
        assert nothing is None
        return read(asked, found)


def partner(table: Table, asked: int, known: int | None = None, *, gate: Gate | None = None):
    def role(channel: Channel) -> None:
        if known is None:  # as `make_table` sends them
            for part in chunks(len(table.rows), channel.room // TERMS.width):
                channel.send(TableRows(rows=table.rows[part].tobytes()))
        lookup.run_partner(
            channel, table, known, TERMS, bank_size=asked, sign=sign, release=gate or Gate()
        )

    return role


def test_a_table_is_sent_as_it_is_made() -> None:
    bank, people, tables = Bank(), list(range(500)), []

    def make(channel: Channel) -> None:
        values = payloads(people)
        table = lookup.make_table(channel, phones(people), values.__getitem__, TERMS, at_once=100)
        tables.append(table)
        lookup.run_partner(channel, table, None, TERMS, bank_size=2, sign=sign, release=Gate())

    found, _ = succeed(bank.role([3, 600], 500), make, max_frame=4096)
    assert read([3, 600], found) == {3: 3}
    assert bank.ask(tables[0], [4]) == {4: 4}


def read(asked: list[int], found: lookup.Found) -> dict[int, int]:
    assert found.rows.dtype == np.int64
    assert (np.diff(found.rows) > 0).all()
    values = (found.payloads ^ 255).view("<u8").ravel().tolist()
    return {asked[row]: value for row, value in zip(found.rows, values, strict=True)}


sets = st.lists(st.integers(0, 60), unique=True, min_size=1, max_size=30)


@given(sets, st.lists(sets, min_size=1, max_size=3), st.data())
@settings(max_examples=30, deadline=None)
def test_the_bank_finds_whom_it_asks_for_and_who_is_still_there(people, asked, data) -> None:
    table, bank = build(people), Bank()
    there = list(people)
    for ask in asked:
        assert bank.ask(table, ask) == {one: one for one in ask if one in there}
        gone = data.draw(st.sets(st.sampled_from(people), max_size=5)) if len(there) > 6 else set()
        there = [one for one in there if one not in gone]
        table.keep(np.array([one in there for one in people]))
        assert len(table.rows) == len(there)


def test_a_row_is_what_the_design_says() -> None:
    """Computed once more with hashlib and cryptography."""
    table = build([7])
    (row,) = table.rows
    point = multiply(hash_ids(phones([7])), table.scalar).tobytes()
    label = hashlib.sha512(b"phone:+8600000000007" + point).digest()
    assert row[:16].tobytes() == label[:16]
    opened = AESGCM(label[16:48]).decrypt(
        row[16:28].tobytes(), row[28:].tobytes(), TERMS.bind(table.epoch)
    )
    assert opened == payloads([7]).tobytes()
    assert len(row) == TERMS.width


def test_a_large_table_takes_many_frames() -> None:
    people = list(range(3000))
    table, bank = build(people), Bank()
    asked = list(range(2900, 3100))
    expected = {one: one for one in range(2900, 3000)}
    assert bank.ask(table, asked, max_frame=4096) == expected
    table.keep(np.arange(3000) % 2 == 0)
    expected = {one: one for one in range(2900, 3000, 2)}
    assert bank.ask(table, asked, max_frame=4096) == expected
    assert len(bank.copy.rows) == 1500


def test_a_second_run_sends_no_table() -> None:
    table, bank = build(list(range(100))), Bank()
    sent = []
    for _ in range(2):
        ours, _ = play(bank.role([1, 200], 100), partner(table, 2, bank.known))
        sent.append(ours.channel.bytes_received)
    assert sent[0] > 100 * TERMS.width > sent[1]


def test_removed_rows_are_named_once() -> None:
    table, bank = build(list(range(10))), Bank()
    bank.ask(table, [1])
    for gone in (3, 4):
        table.keep(np.arange(10) != gone)
    heard: list[int] = []

    def listen(frame: RemovedRows) -> None:
        heard.append(len(frame.keys))

    table.keep(np.ones(10, bool))
    role = tampering(partner(table, 1, bank.known), RemovedRows, listen)
    succeed(bank.role([1], 8), role)
    assert heard == [32]


def test_every_table_has_a_scalar_and_an_epoch_of_its_own() -> None:
    first, second = build([1, 2]), build([1, 2])
    assert first.scalar.to_bytes() != second.scalar.to_bytes()
    assert first.epoch != second.epoch
    assert not set(map(bytes, first.rows[:, :16])) & set(map(bytes, second.rows[:, :16]))


def test_a_payload_opens_under_its_own_terms_only() -> None:
    people = [1, 2]
    for other in (
        replace(TERMS, suite="other"),
        replace(TERMS, agreement=bytes(32)),
        replace(TERMS, schema=b"another"),
    ):
        found, _ = succeed(Bank().role([1], 2), partner(build(people, other), 1))
        assert (len(found.rows), found.unsound) == (0, 1)
    table = build(people)
    table.epoch = bytes(16)
    found, _ = succeed(Bank().role([1], 2), partner(table, 1))
    assert (len(found.rows), found.unsound) == (0, 1)


def test_terms_that_run_together_differ() -> None:
    one, other = Terms("a", bytes(32), b"bc", 8), Terms("ab", bytes(32), b"c", 8)
    assert one.bind(bytes(16)) != other.bind(bytes(16))


# The gate


def test_release_is_called_once_on_each_side() -> None:
    ours, theirs = Gate(), Gate()
    succeed(Bank().role([1], 2, gate=ours), partner(build([1, 2]), 1, gate=theirs))
    assert ours.calls == theirs.calls == 1


def test_a_shut_gate_at_the_partner_answers_nothing() -> None:
    ours, theirs = play(Bank().role([1], 1), partner(build([1]), 1, gate=Gate(shut=True)))
    assert isinstance(theirs.error, Withdrawn)
    assert ours.result is None


def test_a_shut_gate_at_the_bank_gives_no_result() -> None:
    ours, _ = play(Bank().role([1], 1, gate=Gate(shut=True)), partner(build([1]), 1))
    assert isinstance(ours.error, Withdrawn)
    assert ours.result is None


# What a partner may not do


def edit(**fields):
    def change(message) -> None:
        for name, value in fields.items():
            setattr(message, name, value(getattr(message, name)))

    return change


@pytest.mark.parametrize(
    ("kind", "change", "error"),
    [
        (TableHead, edit(epoch=lambda old: old[:-1]), ProtocolViolation),
        (TableHead, edit(epoch=lambda old: bytes(16)), Forged),
        (TableHead, edit(version=lambda old: old + 1), Forged),
        (TableHead, edit(rows=lambda old: old + 1), TableUnsound),
        (TableHead, edit(digest=lambda old: bytes(32)), TableUnsound),
        (TableHead, edit(digest=lambda old: b""), ProtocolViolation),
        (TableHead, edit(signature=lambda old: bytes(64)), Forged),
        (TableHead, edit(signature=lambda old: b""), ProtocolViolation),
        (TableRows, edit(rows=lambda old: old[:-1]), ProtocolViolation),
        (TableRows, edit(rows=lambda old: old + old), ProtocolViolation),
        (TableRows, edit(rows=lambda old: old[: TERMS.width]), ProtocolViolation),
        (TableRows, edit(rows=lambda old: b""), ProtocolViolation),
        (TableRows, edit(rows=lambda old: bytes(len(old))), TableUnsound),
        (Points, edit(points=lambda old: bytes(len(old))), InvalidPoint),
        (Points, edit(points=lambda old: old[:32] * 2), InvalidPoint),
        (Points, edit(points=lambda old: old + old), ProtocolViolation),
    ],
)
def test_a_partner_that_deviates_is_refused(kind, change, error) -> None:
    bank = Bank()
    ours, _ = play(bank.role([1, 5], 3), tampering(partner(build([1, 2, 3]), 2), kind, change))
    assert isinstance(ours.error, error)
    assert ours.result is None


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (TableHead, edit(epoch=lambda old: bytes(16))),
        (TableHead, edit(version=lambda old: 0)),
        (RemovedRows, edit(keys=lambda old: b"")),
        (RemovedRows, edit(keys=lambda old: old[:15])),
        (RemovedRows, edit(keys=lambda old: bytes(16))),
        (RemovedRows, edit(keys=lambda old: old * 2)),
        (RemovedRows, edit(last=lambda old: False)),
    ],
)
def test_a_partner_that_deviates_in_what_it_removes_is_refused(kind, change) -> None:
    table, bank = build([1, 2, 3]), Bank()
    bank.ask(table, [1])
    table.keep(np.array([True, False, True]))
    bank.ask(table, [1])
    held = bank.copy
    table.keep(np.array([True, False, False]))
    ours, _ = play(bank.role([1], 1), tampering(partner(table, 1, bank.known), kind, change))
    assert isinstance(ours.error, ProtocolViolation)
    assert bank.copy is held


def test_a_table_with_two_rows_of_one_key_is_refused() -> None:
    table = build([1, 2])
    table.rows[1] = table.rows[0]
    ours, _ = play(Bank().role([1], 2), partner(table, 1))
    assert isinstance(ours.error, TableUnsound)


def test_a_partner_cannot_tell_by_a_spoilt_row_whether_it_was_asked_for() -> None:
    """A run that failed on that row would answer: is person 2 among those asked for?"""
    for asked, values, unsound in (
        ([3, 1], {3: 3, 1: 1}, 0),
        ([3, 2, 1], {3: 3, 1: 1}, 1),
        ([2], {}, 1),
    ):
        table = build([1, 2, 3])
        table.rows[table.people == 1, -1] ^= 1  # person 2's
        found, _ = succeed(Bank().role(asked, 3), partner(table, len(asked)))
        assert read(asked, found) == values
        assert found.unsound == unsound


# What a bank may not do


def test_a_bank_that_asks_for_more_than_it_announced_is_refused() -> None:
    _, theirs = play(Bank().role([1, 2, 3], 2), partner(build([1, 2]), 2))
    assert isinstance(theirs.error, ProtocolViolation)


def test_a_bank_that_claims_a_later_version_is_refused() -> None:
    _, theirs = play(Bank().role([1], 2), partner(build([1, 2]), 1, known=1))
    assert isinstance(theirs.error, ProtocolViolation)


def test_a_bank_that_deviates_can_open_a_removed_row_until_the_scalar_is_gone() -> None:
    """Why b does not live longer than a day: what was once fetched cannot be taken back."""
    people = [1, 2]
    table, bank = build(people), Bank()
    bank.ask(table, [1])
    old = bank.copy
    table.keep(np.array([True, False]))
    assert bank.ask(table, [2]) == {}
    bank.copy = old  # it kept the rows it should have deleted
    point = multiply(hash_ids(phones([2])), table.scalar)  # what it may still ask for
    labels = lookup._labels(phones([2]), point)
    place = old.index.find(labels)
    payload, opened = lookup._open(old, labels, place, TERMS)
    assert opened.all() and (payload ^ 255).view("<u8").item() == 2
    other = lookup._labels(phones([2]), multiply(point, Scalar.random()))
    _, opened = lookup._open(old, other, place, TERMS)
    assert not opened.any()  # the next epoch's scalar opens nothing of it


# The kernels


@given(st.lists(st.binary(max_size=20), max_size=5), st.binary(max_size=9))
def test_labels_are_sha512(strings: list[bytes], prefix: bytes) -> None:
    points = np.frombuffer(hashlib.shake_128(b"x").digest(32 * len(strings)), np.uint8)
    points = points.reshape(-1, 32)
    offsets = np.cumsum([0, *map(len, strings)]).astype(np.uint64)
    found = _native.derive_labels(prefix, b"".join(strings), offsets, points)
    expected = [
        hashlib.sha512(prefix + text + point.tobytes()).digest()[:48]
        for text, point in zip(strings, points, strict=True)
    ]
    assert [label.tobytes() for label in found] == expected


@given(st.integers(0, 40), st.integers(0, 600), st.binary(max_size=40))
@settings(max_examples=30)
def test_sealed_rows_are_aes_gcm(width: int, rows: int, associated: bytes) -> None:
    noise = np.frombuffer(hashlib.shake_128(b"y").digest(rows * (32 + width)), np.uint8)
    keys, plain = noise[: rows * 32].reshape(rows, 32), noise[rows * 32 :].reshape(rows, width)
    sealed = _native.seal(keys, plain, associated)
    assert sealed.shape == (rows, width + 28)
    opened = _native.unseal(keys, sealed, associated)
    assert (opened[0] == plain).all() and opened[1].all()
    for key, row, text in list(zip(keys, sealed, plain, strict=True))[:3]:
        cipher = AESGCM(key.tobytes())
        assert cipher.decrypt(row[:12].tobytes(), row[12:].tobytes(), associated) == text.tobytes()


def test_a_row_that_does_not_open_is_told_and_the_others_open() -> None:
    keys = np.zeros((3, 32), np.uint8)
    for width in (0, 5):
        plain = np.full((3, width), 7, np.uint8)
        sealed = _native.seal(keys, plain, b"")
        for at in range(sealed.shape[1]):
            wrong = sealed.copy()
            wrong[1, at] ^= 1
            payloads, opened = _native.unseal(keys, wrong, b"")
            assert opened.tolist() == [True, False, True]
            assert (payloads == plain * opened[:, np.newaxis]).all()
        assert not _native.unseal(keys, sealed, b"other")[1].any()
    with pytest.raises(ValueError, match="at least 28"):
        _native.unseal(keys, np.zeros((3, 27), np.uint8), b"")
    with pytest.raises(ValueError, match="one key"):
        _native.seal(keys[:2], np.zeros((3, 4), np.uint8), b"")
    with pytest.raises(ValueError, match="points for"):
        _native.derive_labels(b"", b"ab", np.array([0, 1, 2], np.uint64), keys)


def test_nonces_differ() -> None:
    keys = np.zeros((1000, 32), np.uint8)
    sealed = _native.seal(keys, np.zeros((1000, 1), np.uint8), b"")
    assert len({row[:12].tobytes() for row in sealed}) == 1000
