"""Ciphertexts as they travel: little-endian, of fixed size, joined."""

import numpy as np

from federated._native import PublicKey
from federated.arrays import U8, U64, Bool
from federated.errors import InvalidCiphertext, ProtocolViolation


def parse(data: bytes, count: int, public: PublicKey) -> U64:
    """`count` ciphertexts from the peer: uint64 (count, 2L).

    Raises ProtocolViolation for another number of them, InvalidCiphertext for one that is none of
    this key.
    """
    limbs = public.bits // 32
    if len(data) != 8 * limbs * count:
        raise ProtocolViolation("The other side sent a wrong number of ciphertexts.")
    ciphertexts = np.frombuffer(data, "<u8").reshape(count, limbs)
    try:
        public.check(ciphertexts)
    except ValueError:
        raise InvalidCiphertext(
            "The other side sent a ciphertext that is zero, too large or not coprime to the key."
        ) from None
    return ciphertexts


def sound(ciphertexts: U64, public: PublicKey) -> Bool:
    """bool (n,): which are ciphertexts of this key."""
    try:
        public.check(ciphertexts)
    except ValueError:
        if len(ciphertexts) == 1:
            return np.zeros(1, np.bool_)
        halves = np.array_split(ciphertexts, 2)
        return np.concatenate([sound(half, public) for half in halves])
    return np.ones(len(ciphertexts), np.bool_)


def encode(ciphertexts: U64) -> U8:
    """uint64 (n, 2L) -> uint8 (n, 16L)."""
    return ciphertexts.astype("<u8", copy=False).view(np.uint8)
