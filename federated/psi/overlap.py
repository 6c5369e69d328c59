"""How many ids both sides share.

Meadows 1986; Huberman, Franklin, Hogg 1999: Diffie-Hellman intersection with a shuffled answer.

    bank -> partner   shuffled a·H(x)
    partner -> bank   shuffled b·(a·H(x)), then shuffled b·H(y)

The bank learns the count, the partner nothing but the size it was told before.
"""

from dataclasses import dataclass

import numpy as np

from federated._native import Scalar, permutation
from federated.channel import Channel
from federated.hooks import Progress, Release, silent
from federated.identifiers import Ids
from federated.points import hash_ids, index_of, receive_points, send_points


@dataclass(frozen=True)
class Overlap:
    count: int


def run_bank(
    channel: Channel,
    ids: Ids,
    partner_size: int,
    *,
    release: Release,
    progress: Progress = silent,
) -> Overlap:
    """Raises ProtocolViolation if the partner deviates from the form or its announced size."""
    a = Scalar.random()
    hashed = hash_ids(ids, progress)[permutation(len(ids))]
    send_points(channel, hashed, a, stage="blind ids", progress=progress)
    ours = receive_points(channel, len(ids), stage="receive own ids", progress=progress)
    theirs = receive_points(
        channel, partner_size, a, stage="receive partner's ids", progress=progress
    )
    release()
    return Overlap(count=int(np.count_nonzero(index_of(ours).find(theirs) >= 0)))


def run_partner(
    channel: Channel,
    ids: Ids,
    bank_size: int,
    *,
    release: Release,
    progress: Progress = silent,
) -> None:
    """Raises ProtocolViolation if the bank deviates from the form or its announced size."""
    b = Scalar.random()
    hashed = hash_ids(ids, progress)[permutation(len(ids))]
    theirs = receive_points(channel, bank_size, b, stage="blind bank's ids", progress=progress)
    send_points(channel, theirs[permutation(bank_size)], stage="answer", progress=progress)
    release()
    send_points(channel, hashed, b, stage="blind ids", progress=progress)
