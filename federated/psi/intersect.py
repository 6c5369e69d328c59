"""Which of the bank's ids are also the partner's, and, if agreed, the other way round.

Meadows 1986; Huberman, Franklin, Hogg 1999: Diffie-Hellman intersection.

    bank -> partner   shuffled a·H(x)
    partner -> bank   b·(a·H(x)) in the bank's order, then shuffled b·H(y)
    bank -> partner   if agreed: which places of the partner's sequence matched
"""

from dataclasses import dataclass

import numpy as np

from federated._native import Scalar, permutation
from federated.arrays import I64, U64
from federated.channel import Channel
from federated.errors import ProtocolViolation
from federated.hooks import Progress, Release, silent
from federated.identifiers import Ids
from federated.points import chunks, hash_ids, index_of, receive_points, send_points
from protos.concordat.v1.run_pb2 import Matches


@dataclass(frozen=True)
class Intersection:
    """rows: int64, ascending: which of this side's own ids matched."""

    rows: I64


def run_bank(
    channel: Channel,
    ids: Ids,
    partner_size: int,
    *,
    partner_learns_ids: bool = False,
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
    release()
    place = index_of(ours).find(theirs)
    if partner_learns_ids:
        _send_matches(channel, np.flatnonzero(place >= 0).astype(np.uint64))
    return Intersection(_rows(order, place[place >= 0]))


def run_partner(
    channel: Channel,
    ids: Ids,
    bank_size: int,
    *,
    partner_learns_ids: bool = False,
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
    release()
    send_points(channel, hashed, b, stage="blind ids", progress=progress)
    if not partner_learns_ids:
        return None
    return Intersection(_rows(order, _receive_matches(channel, min(len(ids), bank_size), len(ids))))


def _rows(order: U64, places: I64 | U64) -> I64:
    """Row numbers of the ids at these places of the shuffled sequence."""
    return np.sort(order[places].astype(np.int64))


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
