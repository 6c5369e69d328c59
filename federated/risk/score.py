"""The bank's private scorecard over the partner's features: a lookup whose payload is a ciphertext.

    bank -> partner   once an epoch: Enc(points) of every place of every feature, zero where unused
    the lookup        the payload of a row is the sum of Enc(points) of its places, times r^n

The partner learns neither points nor which of them are zero. The bank decrypts the sums of those it
asked for; with points chosen for it, a sum would spell out the places it was made of.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from federated._native import PublicKey, Rerandomiser, SecretKey
from federated.arrays import I64, U8, U64
from federated.channel import Channel
from federated.errors import InvalidKey, ProtocolViolation
from federated.hooks import Progress, Release, silent
from federated.identifiers import Ids
from federated.paillier import keys
from federated.paillier.ciphertexts import encode, parse, sound
from federated.paillier.packing import from_integers, to_integers
from federated.points import chunks
from federated.psi import lookup
from federated.psi.lookup import Copy, Table, Terms, Verify
from federated.risk.scorecard import Grid, Weights, starts
from protos.concordat.v1.run_pb2 import EncryptedPoints

ROWS = 2048  # sums made at a time: the bank must not wait too long for any


def payload_bytes(key_bits: int) -> int:
    return key_bits // 4


@dataclass(frozen=True)
class Scores:
    """rows: int64 (k,), ascending: which of the ids have a score. keys: uint8 (k, 16), of those
    rows of the table. sums: of points, one for each.

    unsound: how many more have a row, but one that tells no score.
    """

    rows: I64
    keys: U8
    sums: list[int]
    unsound: int


def run_bank(
    channel: Channel,
    ids: Ids,
    weights: Weights,
    secret: SecretKey,
    *,
    held: Copy | None,
    terms: Terms,
    partner_size: int,
    verify: Verify,
    keep: Callable[[Copy], None],
    release: Release,
    progress: Progress = silent,
) -> Scores:
    """held: the copy of the epoch that both have agreed to go on with; made with the same weights.

    Raises as lookup.run_bank. A payload that is no ciphertext, or of no possible sum, raises
    nothing: by a run that fails, the partner could tell who was asked for, or compare points that
    are the bank's with numbers of its choice.
    """
    if held is None:
        plain = from_integers(weights.values.tolist(), secret.public.bits // 64)
        _send_points(channel, keys.encrypt(secret, plain))
    found = lookup.run_bank(
        channel,
        ids,
        held,
        terms,
        partner_size=partner_size,
        verify=verify,
        keep=keep,
        release=release,
        progress=progress,
    )
    progress("decrypt", 0, len(found.rows))
    ciphertexts = found.payloads.view("<u8")
    good = sound(ciphertexts, secret.public)
    sums = decrypt_small(secret, ciphertexts[good], weights.most)
    progress("decrypt", len(found.rows), len(found.rows))
    scored = {
        row: one + weights.offset
        for row, one in zip(found.rows[good].tolist(), sums, strict=True)
        if one is not None
    }
    unsound = found.unsound + len(found.rows) - len(scored)
    rows = np.array(list(scored), np.int64)
    own = found.keys[np.isin(found.rows, rows)]
    return Scores(rows, own, list(scored.values()), unsound)


def make_table(
    channel: Channel,
    ids: Ids,
    places: I64,
    grids: Sequence[Grid],
    *,
    public: PublicKey,
    terms: Terms,
    progress: Progress = silent,
) -> Table:
    """The partner's table of an epoch, from the points that the bank sends for it, and sent to it.

    places: int64 (n, grids), where each row stands on each grid. Raises InvalidKey,
    InvalidCiphertext, ProtocolViolation.
    """
    points = _receive_points(channel, sum(grid.places for grid in grids), public)
    try:
        masks = Rerandomiser(public)
    except ValueError:
        raise InvalidKey("The other side's modulus has a small factor.") from None
    choices = np.ascontiguousarray(places + starts(grids))

    def payloads(rows: I64) -> U8:
        return encode(masks.sums(points, choices[rows]))

    return lookup.make_table(channel, ids, payloads, terms, at_once=ROWS, progress=progress)


def decrypt_small(secret: SecretKey, ciphertexts: U64, most: int) -> list[int | None]:
    """Plaintexts known to be at most `most`, many to a decryption.

    Each sum of theirs, shifted one past another, is decrypted once. None for all of a sum that
    shows a plaintext to be larger after all; one that the partner chose may also change others
    without a trace, as it could have chosen them.
    """
    public, count = secret.public, len(ciphertexts)
    if not count:
        return []
    width = max(most.bit_length(), 1)
    depth = max(1, min((public.bits - 2) // width, -(-count // 16)))
    batches = -(-count // depth)
    padded = np.zeros((depth * batches, ciphertexts.shape[1]), np.uint64)
    padded[:, 0] = 1  # a ciphertext of zero
    padded[:count] = ciphertexts
    layers = padded.reshape(depth, batches, -1)
    total = layers[0]
    for layer in layers[1:]:
        for _ in range(width):
            total = public.add(total, total)
        total = public.add(total, layer)
    apart = [_apart(one, depth, width, most) for one in to_integers(secret.decrypt(total))]
    return [one for layer in zip(*apart, strict=True) for one in layer][:count]


def _apart(total: int, depth: int, width: int, most: int) -> list[int] | list[None]:
    """The plaintexts that were added up, the first from the top; None for each if it cannot be."""
    shifts = range(width * (depth - 1), -1, -width)
    digits = [total >> shift & ((1 << width) - 1) for shift in shifts]
    possible = not total >> (width * depth) and max(digits) <= most
    return digits if possible else [None] * depth


# Ciphertexts


def _send_points(channel: Channel, ciphertexts: U64) -> None:
    data = encode(ciphertexts).tobytes()
    for part in chunks(len(data), channel.room):
        channel.send(EncryptedPoints(ciphertexts=data[part], last=part.stop == len(data)))


def _receive_points(channel: Channel, count: int, public: PublicKey) -> U64:
    data = bytearray()
    last = False
    while not last:
        frame = channel.receive(EncryptedPoints)
        last = frame.last
        data += frame.ciphertexts
        whole = len(data) >= count * payload_bytes(public.bits)
        if not (frame.ciphertexts or last) or last != whole:
            raise ProtocolViolation("The other side sent a wrong number of points.")
    return parse(bytes(data), count, public)
