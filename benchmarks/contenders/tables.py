"""Tables of lookups and scores: making one, asking it; both sides in this process."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.worker import Job
from federated._native import Rerandomiser
from federated.arrays import I64, U8
from federated.channel import Channel, memory_pair
from federated.identifiers import Ids
from federated.paillier import keys
from federated.paillier.packing import from_integers
from federated.psi import intersect, lookup
from federated.psi.lookup import Copy, Table, Terms

TERMS = Terms("C25519-SHA512", bytes(32), b"benchmark", 27)


def build(rows: int) -> Job:
    """A table from ids and payloads."""
    ids = _people(rows)

    def job() -> int:
        Table.build(ids, _payloads, TERMS, made=_nothing)
        return rows

    return job


def ask(rows: int, asked: int) -> Job:
    """The bank has fetched the table before; half of those it asks for are in it."""
    table = Table.build(_people(rows), _payloads, TERMS, made=_nothing)
    held = [Copy(table.head, bytes(64), table.rows)]  # as it has been fetched
    ids = _people(asked, rows - asked // 2)

    def play() -> int:
        found = _both(
            lambda ch: lookup.run_bank(
                ch,
                ids,
                held[0],
                TERMS,
                partner_size=rows,
                verify=_nothing,
                keep=_nothing,
                release=_nothing,
            ),
            lambda ch: lookup.run_partner(
                ch,
                table,
                0,
                TERMS,
                bank_size=asked,
                sign=lambda _: bytes(64),
                release=_nothing,
            ),
        )
        if len(found.rows) != asked // 2:
            raise ValueError("the lookup found something else")
        return asked

    play()
    return play


def intersection(rows: int, asked: int) -> Job:
    """The same question without a table: an intersection with the whole set each time."""
    theirs, ids = _people(rows), _people(asked, rows - asked // 2)

    def job() -> int:
        found = _both(
            lambda ch: intersect.run_bank(ch, ids, rows, release=_nothing),
            lambda ch: intersect.run_partner(ch, theirs, asked, release=_nothing),
        )
        if len(found.rows) != asked // 2:
            raise ValueError("the intersection found something else")
        return asked

    return job


def sums(rows: int, bits: int, features: int) -> Job:
    """A score's ciphertexts: sums of points, times n-th powers made of others."""
    public = keys.generate(bits, allow_small=True).public
    points = public.encrypt(from_integers(range(8 * features), bits // 64))
    choices = np.random.default_rng(1).integers(0, 8, (rows, features)) + 8 * np.arange(features)
    masks = Rerandomiser(public)
    masks.sums(points, np.tile(choices[:1], (bits, 1)))  # the powers are drawn

    def job() -> int:
        masks.sums(points, choices)
        return rows

    return job


def uniform(rows: int, bits: int) -> Job:
    """Only the factor r^n of each."""
    public = keys.generate(bits, allow_small=True).public
    ciphertexts = public.encrypt(from_integers(range(rows), bits // 64))

    def job() -> int:
        public.rerandomise(ciphertexts)
        return rows

    return job


def _payloads(rows: I64) -> U8:
    return np.zeros((len(rows), TERMS.payload), np.uint8)


def _nothing(*_: Any) -> None:
    pass


def _people(count: int, start: int = 0) -> Ids:
    data = b"".join(b"+86%011d" % (13_000_000_000 + start + i) for i in range(count))
    offsets = np.arange(count + 1, dtype=np.uint64) * 14
    return Ids("phone", np.frombuffer(data, np.uint8), offsets)


def _both(bank: Callable[[Channel], Any], partner: Callable[[Channel], Any]) -> Any:
    """What the bank's role gives, with the partner's in a thread of its own."""
    ours, theirs = memory_pair()
    thread = threading.Thread(target=partner, args=(theirs,))
    thread.start()
    found = bank(ours)
    thread.join()
    return found
