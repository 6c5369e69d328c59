"""Our own kernels."""

import numpy as np

from benchmarks.worker import Job
from federated._native import GroupSum, Scalar, SecretKey, hash_to_curve
from federated._native import multiply as multiply_points
from federated.arrays import U8, U64
from federated.points import TAG


def multiply(count: int) -> Job:
    points = _hash(_ids(count), count)
    scalar = Scalar.random()

    def job() -> int:
        multiply_points(points, scalar)
        return count

    return job


def hash_ids(count: int) -> Job:
    ids = _ids(count)

    def job() -> int:
        _hash(ids, count)
        return count

    return job


def _ids(count: int) -> bytes:
    """Phone numbers, 14 bytes each, joined."""
    return b"".join(b"+86%011d" % (13_000_000_000 + i) for i in range(count))


def _hash(ids: bytes, count: int) -> U8:
    return hash_to_curve(b"phone:", ids, np.arange(count + 1, dtype=np.uint64) * 14, TAG)


# Paillier


def _plaintexts(count: int, bits: int) -> U64:
    plaintexts = np.random.default_rng(1).integers(0, 2**64, (count, bits // 64), np.uint64)
    plaintexts[:, -1] = 0  # below n
    return plaintexts


def encrypt_secret(key: str, bits: int, count: int, exponent_bits: int) -> Job:
    secret, plaintexts = _key(key), _plaintexts(count, bits)
    secret.encrypt(plaintexts[:1], exponent_bits)  # tables

    def job() -> int:
        secret.encrypt(plaintexts, exponent_bits)
        return count

    return job


def encrypt_public(key: str, bits: int, count: int, exponent_bits: int) -> Job:
    public, plaintexts = _key(key).public, _plaintexts(count, bits)
    public.encrypt(plaintexts[:1], exponent_bits)  # tables

    def job() -> int:
        public.encrypt(plaintexts, exponent_bits)
        return count

    return job


def add(key: str, bits: int, count: int, rounds: int) -> Job:
    """One sum of `count` ciphertexts, `rounds` times."""
    secret = _key(key)
    ciphertexts = secret.encrypt(_plaintexts(count, bits))
    groups = np.zeros(count, np.int64)

    def job() -> int:
        for _ in range(rounds):
            total = GroupSum(secret.public, 1)
            total.add(ciphertexts, groups)
            total.result()
        return rounds * count

    return job


def decrypt(key: str, bits: int, count: int) -> Job:
    secret = _key(key)
    ciphertexts = secret.encrypt(_plaintexts(count, bits))

    def job() -> int:
        secret.decrypt(ciphertexts)
        return count

    return job


def _key(primes: str) -> SecretKey:
    """p and q in hexadecimal, joined."""
    data = bytes.fromhex(primes)
    return SecretKey.from_primes(data[: len(data) // 2], data[len(data) // 2 :])
