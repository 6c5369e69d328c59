"""Which of the bank's ids are also the partner's, and, if agreed, the other way round.

Meadows 1986; Huberman, Franklin, Hogg 1999: Diffie-Hellman intersection.

    bank -> partner   shuffled a·H(x)
    partner -> bank   b·(a·H(x)) in the bank's order, then shuffled b·H(y)
    bank -> partner   if agreed: which places of the partner's sequence matched

A place in the partner's sequence is what both sides can call a person by later, without an id: the
partner knows whose it is, the bank only if it is one of its own. Whoever is not shared stays a
number to the bank, as its b·H(y) was.
"""

from dataclasses import dataclass

import numpy as np

from federated._native import Scalar, permutation
from federated.arrays import I64, U64
from federated.channel import Channel
from federated.errors import ProtocolViolation
from federated.hooks import Named, Progress, Release, silent, unnamed
from federated.identifiers import Ids
from federated.points import chunks, hash_ids, index_of, receive_points, send_points
from protos.concordat.v1.run_pb2 import Matches


@dataclass(frozen=True)
class Intersection:
    """rows: int64, ascending: which of this side's own ids matched. places: int64, of each of them:
    its place in the partner's sequence.
    """

    rows: I64
    places: I64


def run_bank(
    channel: Channel,
    ids: Ids,
    partner_size: int,
    *,
    partner_learns_ids: bool = False,
    named: Named = unnamed,
    release: Release,
    progress: Progress = silent,
) -> Intersection:
    """Raises ProtocolViolation if the partner deviates from the form or its announced size."""
    a = Scalar.random()
    order = permutation(len(ids))
    hashed = hash_ids(ids, progress)[order]
    send_points(channel, hashed, a, stage="blind ids", progress=progress)
    ours = receive_points(channel, len(ids), stage="receive own ids", progress=progress)
    theirs = receive_points(
        channel, partner_size, a, stage="receive partner's ids", progress=progress
    )
    place = index_of(ours).find(theirs)
    shared = np.flatnonzero(place >= 0)
    found = _found(order[place[shared]], shared)
    names = np.full(len(ids), -1, np.int64)
    names[found.rows] = found.places
    named(names)
    release()
    if partner_learns_ids:
        _send_matches(channel, shared.astype(np.uint64))
    return found


def run_partner(
    channel: Channel,
    ids: Ids,
    bank_size: int,
    *,
    partner_learns_ids: bool = False,
    named: Named = unnamed,
    release: Release,
    progress: Progress = silent,
) -> Intersection | None:
    """None unless partner_learns_ids.

    Raises ProtocolViolation if the bank deviates from the form or its announced size.
    """
    b = Scalar.random()
    order = permutation(len(ids))
    hashed = hash_ids(ids, progress)[order]
    theirs = receive_points(channel, bank_size, b, stage="blind bank's ids", progress=progress)
    send_points(channel, theirs, stage="answer", progress=progress)
    names = np.empty(len(ids), np.int64)
    names[order] = np.arange(len(ids))
    named(names)
    release()
    send_points(channel, hashed, b, stage="blind ids", progress=progress)
    if not partner_learns_ids:
        return None
    places = _receive_matches(channel, min(len(ids), bank_size), len(ids))
    return _found(order[places], places)


def _found(rows: U64, places: I64 | U64) -> Intersection:
    """In the order of the rows."""
    by_row = np.argsort(rows)
    return Intersection(rows[by_row].astype(np.int64), places[by_row].astype(np.int64))


def _send_matches(channel: Channel, places: U64) -> None:
    for part in chunks(len(places), channel.room // 8):
        data = places[part].astype("<u8").tobytes()
        channel.send(Matches(positions=data, last=part.stop == len(places)))


def _receive_matches(channel: Channel, most: int, size: int) -> U64:
    """At most `most` places below `size`, strictly increasing."""
    data = bytearray()
    last = False
    while not last:
        frame = channel.receive(Matches)
        last = frame.last
        data += frame.positions
        if len(frame.positions) % 8 or len(data) > 8 * most or not (frame.positions or last):
            raise ProtocolViolation("The other side sent a wrong number of matches.")
    places = np.frombuffer(data, "<u8").astype(np.uint64)
    if (places >= size).any() or (places[1:] <= places[:-1]).any():
        raise ProtocolViolation("The other side sent matches that cannot be.")
    return places
