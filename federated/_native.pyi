"""Batch kernels on byte arrays; the crate is in native/.

Arrays are C-contiguous. Points are uint8 (n, 32), little-endian u-coordinates of Curve25519.
Plaintexts are uint64 (n, L) and ciphertexts uint64 (n, 2L), little-endian limbs, where L = bits/64
of the modulus n. A batch of byte strings is one joined buffer with n+1 uint64 offsets.
Every function releases the GIL and uses the thread pool, unless it says so. ValueError means
malformed input, TypeError an array of another dtype or dimension. A process that has used the pool
must not fork.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "GroupSum",
    "Index",
    "PublicKey",
    "Rerandomiser",
    "Scalar",
    "SecretKey",
    "derive_labels",
    "grown_tree",
    "hash_to_curve",
    "hmac_sha256",
    "hmac_sha256_each",
    "leaf_hashes",
    "merkle_root",
    "multiply",
    "parent_hashes",
    "permutation",
    "plain_entries",
    "repeated",
    "seal",
    "set_threads",
    "unseal",
    "unwrap_secrets",
    "wrap_secrets",
    "written_entries",
]

_U8 = NDArray[np.uint8]
_U64 = NDArray[np.uint64]
_I64 = NDArray[np.int64]

def set_threads(count: int) -> None:
    """Size of the thread pool for the whole process, before first use. If never called: all cores.

    0 means half the cores this process may use (affinity and cgroup limits counted), at least 1.
    ValueError if the pool already runs with another number of threads, unless count is 0.
    """

def permutation(n: int) -> _U64:
    """A uniformly random permutation of range(n) from the operating system's generator.

    MemoryError if n is too large.
    """

def hmac_sha256(key: bytes, data: bytes | _U8, offsets: _U64) -> _U8:
    """HMAC-SHA256 of every string under one key: uint8 (n, 32)."""

def hmac_sha256_each(keys: _U8, data: bytes | _U8, offsets: _U64) -> _U8:
    """HMAC-SHA256 of string i under keys[i], uint8 (n, 32): uint8 (n, 32)."""

def merkle_root(data: bytes | _U8, offsets: _U64) -> bytes:
    """RFC 6962 tree head over the strings as leaves (32 bytes)."""

def leaf_hashes(data: bytes | _U8, offsets: _U64, gap: int = 0) -> _U8:
    """The hash of every string as a leaf of an RFC 6962 tree: uint8 (n, 32).

    gap: bytes after each string that do not belong to it, such as a newline.
    """

def parent_hashes(children: _U8) -> _U8:
    """The nodes above neighbours of an RFC 6962 tree, uint8 (n, 32): uint8 (n // 2, 32).

    An odd last one is left alone.
    """

def grown_tree(size: int, peaks: _U8, leaves: _U8) -> tuple[_U8, list[tuple[int, _U8]]]:
    """An RFC 6962 tree of a size with more leaves, all by their hashes: uint8 (n, 32).

    peaks: its largest complete subtrees, left to right. Returns them as they are then, and the
    subtrees that were completed: of each level from 1 up, the index of the first and the hashes.
    """

def plain_entries(
    data: bytes | _U8,
    offsets: _U64,
    columns: Sequence[tuple[str, bytes | _U8, _U64]],
    apart: str,
    gap: int = 0,
) -> NDArray[np.bool_]:
    """Which strings are plainly JSON objects in canonical form (RFC 8785) that say what columns do.

    columns: name, data and offsets of as many values; an object must have the value, a string,
    under the name, and no such member where the value is empty. None may have a member `apart`.
    Yes is always true. No is also said of what takes more than a glance: escapes, names that are
    not ASCII, numbers other than integers of at most 15 digits, more than 16 levels. gap: as for
    `leaf_hashes`, in the columns too.
    """

def written_entries(
    bodies: Sequence[Mapping[str, Any]], kinds: Sequence[str], time: str, nonces: str
) -> tuple[list[bytes | None], _U8]:
    """The canonical JSON (RFC 8785) of entries of a log, and its `leaf_hashes`.

    Each is a body with `type`, `time` and `nonce`, an equal part of nonces, added. None, and zeros,
    of one that needs a closer look: whose body holds these, has escapes, names that are not ASCII,
    numbers other than integers of at most 15 digits, deep nesting, or values of other types than
    JSON's own, such as their subclasses. Keeps the GIL.
    """

# Curve25519

@final
class Scalar:
    """A secret multiplier, zeroised when dropped. Never a multiple of the group order."""

    @staticmethod
    def random() -> Scalar:
        """8*s, s uniform and non-zero modulo the prime order."""
    @staticmethod
    def from_bytes(data: bytes) -> Scalar:
        """32 little-endian bytes, used as they are (not clamped).

        ValueError unless a multiple of 8 and no multiple of the prime order.
        """
    def to_bytes(self) -> bytes: ...
    def inverse(self) -> Scalar:
        """8*((64*s)^-1 mod l): undoes a multiplication by this scalar on the prime-order group."""

def hash_to_curve(prefix: bytes, data: bytes | _U8, offsets: _U64, tag: bytes) -> _U8:
    """RFC 9380 curve25519_XMD:SHA-512_ELL2_RO_ of prefix || string, as u-coordinates.

    ValueError unless the domain separation tag has 1 to 255 bytes.
    """

def multiply(points: _U8, scalar: Scalar) -> _U8:
    """scalar * point by the Montgomery ladder (RFC 7748), constant time.

    ValueError names the first row whose u >= p, whose top bit is set, or whose product is zero.
    """

def repeated(points: _U8) -> int:
    """How many rows equal an earlier row."""

@final
class Index:
    """Where a 16-byte key stands: the first 16 bytes of each row."""

    def __new__(cls, keys: _U8) -> Self:
        """keys: uint8 (n, >=16). ValueError if two rows share a key."""
    def __len__(self) -> int: ...
    def find(self, keys: _U8) -> _I64:
        """Row of each key, or -1: int64 (m,)."""

# Rows that only whoever knows their label can find and open

def derive_labels(prefix: bytes, data: bytes | _U8, offsets: _U64, points: _U8) -> _U8:
    """The first 48 bytes of SHA-512(prefix || string || point): uint8 (n, 48)."""

def seal(keys: _U8, payloads: _U8, associated: bytes) -> _U8:
    """AES-256-GCM of row i under keys[i], uint8 (n, 32), with a random nonce.

    uint8 (n, w) -> (n, 12 + w + 16): nonce, ciphertext, tag. A key is for one row only.
    """

def unseal(keys: _U8, sealed: _U8, associated: bytes) -> tuple[_U8, NDArray[np.bool_]]:
    """What `seal` has sealed, and bool (n,): which rows open. Others have a payload of zeros."""

# Secrets of a vault

def wrap_secrets(keys: _U8, which: _I64, secrets: _U8, associated: _U8) -> _U8:
    """AES-256-GCM of secret i, uint8 (n, 32), under keys[which[i]], with a random nonce.

    keys: uint8 (m, 32). associated: uint8 (n, 32), what each secret is bound to. uint8 (n, 60):
    nonce, ciphertext, tag.
    """

def unwrap_secrets(
    keys: _U8, which: _I64, wrapped: _U8, associated: _U8
) -> tuple[_U8, NDArray[np.bool_]]:
    """What `wrap_secrets` wrapped, zeros where that does not open; and which have opened."""

# Paillier

@final
class PublicKey:
    def __new__(cls, modulus: bytes) -> Self:
        """modulus: little-endian.

        ValueError if even, or not of 1024 to 4096 bits, or not of a multiple of 128 bits.
        """
    @property
    def bits(self) -> int: ...
    @property
    def modulus(self) -> bytes: ...
    def encrypt(self, plaintexts: _U64, exponent_bits: int = 0) -> _U64:
        """Damgard-Jurik-Nielsen: (1+n)^m * h_n^r, r of exponent_bits (0: half the bits of n).

        For keys of safe primes. ValueError names the first plaintext that is not below n, or if
        exponent_bits is neither 0 nor between 448 and half the bits of n.
        """
    def encrypt_uniform(self, plaintexts: _U64) -> _U64:
        """(1+n)^m * r^n, r uniform: assumes nothing of the key. ValueError as above."""
    def add(self, left: _U64, right: _U64) -> _U64:
        """Row by row, a ciphertext of the sum of the plaintexts.

        ValueError here and below names the first ciphertext that is not below n^2.
        """
    def rerandomise(self, ciphertexts: _U64, plaintexts: _U64 | None = None) -> _U64:
        """Multiply each by r^n, r uniform, and by (1+n)^m of the plaintexts if given."""
    def check(self, ciphertexts: _U64) -> None:
        """ValueError names the first row that is zero, not below n^2, or not coprime to n."""

@final
class SecretKey:
    @staticmethod
    def generate(bits: int) -> SecretKey:
        """Two safe primes of bits/2 bits each, their product of exactly `bits` bits.

        ValueError for sizes that PublicKey refuses. Takes seconds.
        """
    @staticmethod
    def from_primes(p: bytes, q: bytes) -> SecretKey:
        """Little-endian primes (not necessarily safe). ValueError if unusable as a Paillier key:

        not prime, equal, of different length, or with a product that PublicKey refuses.
        """
    def primes(self) -> tuple[bytes, bytes]: ...
    @property
    def safe(self) -> bool:
        """Both primes are safe, so fixed-base encryption draws exactly Paillier's randomness."""
    @property
    def public(self) -> PublicKey: ...
    def encrypt(self, plaintexts: _U64, exponent_bits: int = 0) -> _U64:
        """As Paillier, modulo p^2 and q^2 with fixed-base tables; 0 means uniform exponents.

        Keys without safe primes draw r^n, r uniform, and refuse other exponent_bits. ValueError
        else as for PublicKey.encrypt.
        """
    def decrypt(self, ciphertexts: _U64) -> _U64: ...

@final
class GroupSum:
    """Running sums of ciphertexts by group. Memory does not grow with rows."""

    def __new__(cls, key: PublicKey, groups: int) -> Self:
        """MemoryError if there are too many groups."""
    def add(self, ciphertexts: _U64, groups: _I64) -> None:
        """Adds row i to the sum of groups[i], 0 <= groups[i] < groups.

        After a ValueError nothing has been added.
        """
    def result(self) -> _U64:
        """uint64 (groups, 2L); the ciphertext 1 for an empty group."""

@final
class Rerandomiser:
    """Sums for the key's owner, who must not see what they were made of."""

    def __new__(cls, key: PublicKey) -> Self:
        """ValueError for a modulus that a prime below 2^20 divides."""
    def sums(self, ciphertexts: _U64, choices: _I64) -> _U64:
        """Row i: the sum of ciphertexts[choices[i]], times r^n, r uniform to within 2^-92.

        uint64 (b, 2L), int64 (n, w) -> uint64 (n, 2L). ValueError names the first ciphertext that
        is too large, or the first row that names one there is not.
        """
