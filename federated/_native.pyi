"""Batch kernels on byte arrays; the crate is in native/.

Arrays are C-contiguous. Points are uint8 (n, 32), little-endian u-coordinates of Curve25519.
Plaintexts are uint64 (n, L) and ciphertexts uint64 (n, 2L), little-endian limbs, where L = bits/64
of the modulus n. A batch of byte strings is one joined buffer with n+1 uint64 offsets.
Every function releases the GIL and uses the thread pool. ValueError means malformed input.
"""

from typing import final

import numpy as np
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

def set_threads(count: int) -> None:
    """Size of the thread pool for the whole process; 0 means one thread a core. Before first use."""

def permutation(n: int) -> U64:
    """A uniformly random permutation of range(n) from the operating system's generator."""

def hmac_sha256(key: bytes, data: bytes | U8, offsets: U64) -> U8:
    """HMAC-SHA256 of every string under one key: uint8 (n, 32)."""

def hmac_sha256_each(keys: U8, data: bytes | U8, offsets: U64) -> U8:
    """HMAC-SHA256 of string i under keys[i], uint8 (n, 32): uint8 (n, 32)."""

def merkle_root(data: bytes | U8, offsets: U64) -> bytes:
    """RFC 6962 tree head over the strings as leaves (32 bytes)."""

# Curve25519

@final
class Scalar:
    """A secret multiplier, zeroised when dropped. Never a multiple of the group order."""

    @staticmethod
    def random() -> Scalar:
        """8*s, s uniform and non-zero modulo the prime order."""
    @staticmethod
    def from_bytes(data: bytes) -> Scalar:
        """32 little-endian bytes, used as they are (not clamped)."""
    def to_bytes(self) -> bytes: ...
    def inverse(self) -> Scalar:
        """8*((64*s)^-1 mod l): undoes a multiplication by this scalar on the prime-order group."""

def hash_to_curve(prefix: bytes, data: bytes | U8, offsets: U64, tag: bytes) -> U8:
    """RFC 9380 curve25519_XMD:SHA-512_ELL2_RO_ of prefix || string, as u-coordinates."""

def multiply(points: U8, scalar: Scalar) -> U8:
    """scalar * point by the Montgomery ladder (RFC 7748), constant time.

    ValueError names the first row whose u >= p, whose top bit is set, or whose product is zero.
    """

def repeated(points: U8) -> int:
    """How many rows equal an earlier row."""

@final
class Index:
    """Where a 16-byte key stands: the first 16 bytes of each row."""

    def __init__(self, keys: U8) -> None:
        """keys: uint8 (n, >=16). ValueError if two rows share a key."""
    def __len__(self) -> int: ...
    def find(self, keys: U8) -> I64:
        """Row of each key, or -1: int64 (m,)."""

# Paillier

@final
class PublicKey:
    def __init__(self, modulus: bytes) -> None:
        """modulus: little-endian. ValueError if even, or shorter than 1024 bits, or not a multiple of 128 bits."""
    @property
    def bits(self) -> int: ...
    @property
    def modulus(self) -> bytes: ...
    def encrypt(self, plaintexts: U64, exponent_bits: int = 0) -> U64:
        """Damgard-Jurik-Nielsen: (1+n)^m * h_n^r, r of exponent_bits (0: half the bits of n)."""
    def encrypt_uniform(self, plaintexts: U64) -> U64:
        """(1+n)^m * r^n, r uniform: assumes nothing of the key."""
    def add(self, left: U64, right: U64) -> U64:
        """Row by row, a ciphertext of the sum of the plaintexts."""
    def rerandomise(self, ciphertexts: U64, plaintexts: U64 | None = None) -> U64:
        """Multiply each by r^n, r uniform, and by (1+n)^m of the plaintexts if given."""
    def check(self, ciphertexts: U64) -> None:
        """ValueError names the first row that is zero, not below n^2, or not coprime to n."""

@final
class SecretKey:
    @staticmethod
    def generate(bits: int) -> SecretKey:
        """Two safe primes of bits/2 bits each, their product of exactly `bits` bits."""
    @staticmethod
    def from_primes(p: bytes, q: bytes) -> SecretKey:
        """Little-endian primes (not necessarily safe). ValueError if unusable as a Paillier key."""
    def primes(self) -> tuple[bytes, bytes]: ...
    @property
    def safe(self) -> bool:
        """Both primes are safe, so fixed-base encryption draws exactly Paillier's randomness."""
    @property
    def public(self) -> PublicKey: ...
    def encrypt(self, plaintexts: U64, exponent_bits: int = 0) -> U64:
        """As Paillier, modulo p^2 and q^2 with fixed-base tables; 0 means uniform exponents."""
    def decrypt(self, ciphertexts: U64) -> U64: ...

@final
class GroupSum:
    """Running sums of ciphertexts by group, kept in Montgomery form. Memory does not grow with rows."""

    def __init__(self, key: PublicKey, groups: int) -> None: ...
    def add(self, ciphertexts: U64, groups: I64) -> None:
        """Adds row i to the sum of groups[i], 0 <= groups[i] < groups."""
    def result(self) -> U64:
        """uint64 (groups, 2L); the ciphertext 1 for an empty group."""
