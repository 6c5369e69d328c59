"""What a curious partner sees of the bank's customers, and how far guessing gets it.

The same attack twice: try every phone number of a range against what was seen. Against plain
SHA-256 it names everyone in the range. Against blinded points it names no one: a guess cannot be
checked without the bank's scalar.
"""

import hashlib
import threading
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from federated._native import Scalar, multiply
from federated.channel import Channel, memory_pair
from federated.errors import ConnectionLost
from federated.identifiers import Ids
from federated.points import hash_ids, receive_points
from federated.psi import overlap


@dataclass(frozen=True)
class Attack:
    """What the partner holds of each customer, in hex, and how many of them it could name."""

    seen: list[str]
    named: int
    guesses: int
    seconds: float


def on_hashes(customers: Ids, guesses: Ids) -> Attack:
    """The partner was sent the SHA-256 of every phone number."""
    seen = _sha256(customers)
    start = time.perf_counter()
    tried = set(_sha256(guesses))
    return _attack(seen, tried, len(guesses), start)


def on_points(customers: Ids, guesses: Ids) -> Attack:
    """The partner took part in `overlap` and kept what the bank sent.

    It compares that with H(guess), and with k·H(guess) for a scalar k of its own: it has no other.
    """
    bank, partner = memory_pair()
    side = threading.Thread(target=_play_bank, args=(bank, customers))
    side.start()
    points = receive_points(partner, len(customers))
    partner.close()
    side.join()
    start = time.perf_counter()
    hashed = hash_ids(guesses)
    tried = np.concatenate([hashed, multiply(hashed, Scalar.random())])
    return _attack(
        [row.tobytes().hex() for row in points],
        {row.tobytes().hex() for row in tried},
        len(guesses),
        start,
    )


def _play_bank(channel: Channel, customers: Ids) -> None:
    with suppress(ConnectionLost):  # the partner has seen enough, and leaves
        overlap.run_bank(channel, customers, 1, release=lambda: None)


def _attack(seen: list[str], tried: Collection[str], guesses: int, start: float) -> Attack:
    named = sum(1 for one in seen if one in tried)
    return Attack(seen, named, guesses, time.perf_counter() - start)


def _sha256(ids: Ids) -> list[str]:
    return [hashlib.sha256(str(id_).encode()).hexdigest() for id_ in ids.to_strings()]
