"""Paillier keys: make, store, exchange with `phe`, encrypt as the key allows.

Paillier, EUROCRYPT 1999; Damgård, Jurik, Nielsen, IJIS 2010 for the faster encryption; Goldberg,
Reyzin, Sagga, Baldimtsi, ASIACRYPT 2019 for the proof that a key is one.
"""

import base64
import hashlib
import re
import textwrap

from phe import paillier as phe

from federated._native import PublicKey, SecretKey
from federated.arrays import U64
from federated.errors import InvalidKey

# Modulus sizes an agreement may choose, and the short exponent each allows.
SHORT_EXPONENT_BITS = {2048: 448, 3072: 512}
DEFAULT_BITS = 3072

# A proof consists of so many roots. Unless n is coprime to φ(n), a prime that divides both divides
# the share of numbers that have one; no prime below 2^16 divides n: 2^-128 in all.
ROOTS = 8
_SMOOTH = 1 << 16

_BEGIN = "-----BEGIN CONCORDAT PAILLIER KEY-----"
_END = "-----END CONCORDAT PAILLIER KEY-----"


def generate(bits: int = DEFAULT_BITS, *, allow_small: bool = False) -> SecretKey:
    """A key of two safe primes. `allow_small` is for tests; ValueError for any other size."""
    _check_size(bits, allow_small=allow_small)
    return SecretKey.generate(bits)


def prove(secret: SecretKey) -> bytes:
    """That n is coprime to φ(n): n-th roots modulo n of numbers that nobody could choose."""
    p, q = (int.from_bytes(prime, "little") for prime in secret.primes())
    n = p * q
    root = pow(n, -1, (p - 1) * (q - 1))
    lift = q * pow(q, -1, p)
    numbers = _numbers(secret.public)
    mod_p = [pow(number, root % (p - 1), p) for number in numbers]
    mod_q = [pow(number, root % (q - 1), q) for number in numbers]
    roots = ((y + lift * (x - y)) % n for x, y in zip(mod_p, mod_q, strict=True))
    return b"".join(one.to_bytes(secret.public.bits // 8, "little") for one in roots)


def peer_key(modulus: bytes, proof: bytes, bits: int) -> PublicKey:
    """The peer's key, of the size the agreement demands. Raises InvalidKey.

    modulus: little-endian, as it came. proof: what `prove` made. Of another key, ciphertexts could
    carry more than a plaintext, which no mask would hide.
    """
    try:
        key = PublicKey(modulus)
    except ValueError:
        raise InvalidKey("The other side sent a modulus that is not a Paillier modulus.") from None
    check_key_size(key, bits)
    _check_proof(key, proof)
    return key


def check_key_size(key: PublicKey, bits: int) -> None:
    if key.bits != bits:
        raise InvalidKey(
            f"The other side's Paillier key has {key.bits} bits; the agreement demands {bits}."
        )


def _check_proof(key: PublicKey, proof: bytes) -> None:
    n, width = int.from_bytes(key.modulus, "little"), key.bits // 8
    roots = [int.from_bytes(proof[i : i + width], "little") for i in range(0, len(proof), width)]
    if (
        len(proof) != ROOTS * width
        or any(n % divisor == 0 for divisor in range(3, _SMOOTH, 2))
        or [pow(root, n, n) for root in roots] != _numbers(key)
    ):
        raise InvalidKey("The other side does not prove that its modulus is a Paillier modulus.")


def _numbers(key: PublicKey) -> list[int]:
    """Below n, uniform but for 2^-128, from n itself."""
    n = int.from_bytes(key.modulus, "little")
    start = hashlib.shake_256(b"concordat paillier key\n" + key.modulus)
    size = key.bits // 8 + 16
    data = start.digest(ROOTS * size)
    return [int.from_bytes(data[i : i + size], "little") % n for i in range(0, len(data), size)]


def encrypt(secret: SecretKey, plaintexts: U64, *, short_exponents: bool = False) -> U64:
    """uint64 (n, L) -> (n, 2L). An imported key without safe primes encrypts with r^n instead."""
    if not secret.safe:
        return secret.public.encrypt_uniform(plaintexts)
    bits = SHORT_EXPONENT_BITS[secret.public.bits] if short_exponents else 0
    return secret.encrypt(plaintexts, bits)


def to_phe(secret: SecretKey) -> phe.PaillierPrivateKey:
    p, q = (int.from_bytes(prime, "little") for prime in secret.primes())
    return phe.PaillierPrivateKey(phe.PaillierPublicKey(p * q), p, q)


def from_phe(key: phe.PaillierPrivateKey, *, allow_small: bool = False) -> SecretKey:
    """ValueError if it is of no size we take."""
    _check_size(key.public_key.n.bit_length(), allow_small=allow_small)
    return SecretKey.from_primes(_little(key.p), _little(key.q))


def public_to_phe(public: PublicKey) -> phe.PaillierPublicKey:
    return phe.PaillierPublicKey(int.from_bytes(public.modulus, "little"))


def dump(secret: SecretKey) -> bytes:
    """The two primes as PEM text. Whoever reads it can decrypt: store it as a secret."""
    width = secret.public.bits // 16
    primes = b"".join(prime.ljust(width, b"\0") for prime in secret.primes())
    lines = [_BEGIN, *textwrap.wrap(base64.b64encode(primes).decode(), 64), _END, ""]
    return "\n".join(lines).encode()


def load(pem: bytes, *, allow_small: bool = False) -> SecretKey:
    """What `dump` wrote. ValueError if it is not that."""
    match = re.fullmatch(f"{_BEGIN}\\s([A-Za-z0-9+/=\\s]+){_END}\\s*", pem.decode(errors="replace"))
    if not match:
        raise ValueError("not a Paillier key")
    primes = base64.b64decode("".join(match[1].split()))
    _check_size(len(primes) * 8, allow_small=allow_small)
    width = len(primes) // 2
    return SecretKey.from_primes(primes[:width], primes[width:])


def _check_size(bits: int, *, allow_small: bool) -> None:
    if bits not in SHORT_EXPONENT_BITS and not allow_small:
        raise ValueError(f"a Paillier key has 2048 or 3072 bits, not {bits}")


def _little(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "little")
