"""The native kernels, given arbitrary bytes as points, strings, keys and ciphertexts."""

import math
from pathlib import Path

import numpy as np

from federated import _native
from federated._native import GroupSum, Index, PublicKey, Scalar, SecretKey
from federated.arrays import U8, U64
from federated.paillier import keys
from federated.points import TAG
from fuzz.target import Setup, Target

SECRET = keys.generate(1024, allow_small=True)  # the smallest size there is: the quickest
PUBLIC = SECRET.public

_BYTES = PUBLIC.bits // 4  # of a ciphertext
_REFUSALS = (ValueError,)


def _rows(data: bytes, width: int) -> U8:
    whole = len(data) // width * width
    return np.frombuffer(data[:whole], np.uint8).reshape(-1, width)


def _words(data: bytes, width: int) -> U64:
    """Rows of `width` bytes as 64-bit limbs."""
    return np.ascontiguousarray(_rows(data, width)).view("<u8").astype(np.uint64)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _numbers(rows: U64) -> list[int]:
    return [_number(row.astype("<u8").tobytes()) for row in rows]


def _points(_: Path) -> Target:
    scalar = Scalar.random()

    def call(data: bytes) -> None:
        points = _rows(data, 32)
        repeats = _native.repeated(points)
        products = _native.multiply(points, scalar)
        assert products.shape == points.shape
        if not repeats:
            assert len(Index(points).find(products)) == len(points)

    text = b"".join(b"+86139%08d" % number for number in range(5))
    offsets = np.arange(6, dtype=np.uint64) * np.uint64(14)
    return Target(call, [_native.hash_to_curve(b"phone:", text, offsets, TAG).tobytes()], _REFUSALS)


def _scalar(_: Path) -> Target:
    def call(data: bytes) -> None:
        scalar = Scalar.from_bytes(data)
        assert scalar.to_bytes() == data
        scalar.inverse()

    return Target(call, [Scalar.random().to_bytes()], _REFUSALS)


def _strings(_: Path) -> Target:
    """A byte that says how many offsets follow, the offsets, then the strings."""

    def call(data: bytes) -> None:
        count = 8 * sum(data[:1])
        ends = data[1 : 1 + count]
        offsets = np.frombuffer(ends[: len(ends) // 8 * 8], "<u8").astype(np.uint64)
        joined = data[1 + count :]
        hashed = _native.hmac_sha256(b"key", joined, offsets)
        assert _native.hmac_sha256_each(hashed, joined, offsets).shape == hashed.shape
        assert len(_native.merkle_root(joined, offsets)) == 32
        assert _native.hash_to_curve(b"phone:", joined, offsets, TAG).shape == hashed.shape

    offsets = np.array([0, 3, 3, 10], "<u8")
    seeds = [b"\x04" + offsets.tobytes() + b"onetwo and", b"\x01" + bytes(8)]
    return Target(call, seeds, _REFUSALS)


def _public_key(_: Path) -> Target:
    """A modulus of any size, with the plaintext 1 and a ciphertext of it."""

    def call(data: bytes) -> None:
        public = PublicKey(data)
        limbs = public.bits // 64
        one = np.eye(1, limbs, dtype=np.uint64)
        ciphertexts = public.encrypt_uniform(one)
        public.check(np.eye(1, 2 * limbs, dtype=np.uint64))
        assert ciphertexts.shape == (1, 2 * limbs)
        # -1 modulo n^2 has full digits.
        square = _number(data) ** 2
        last = (square - 1).to_bytes(16 * limbs, "little")
        row = np.frombuffer(last, "<u8").astype(np.uint64)[np.newaxis]
        assert _numbers(public.add(row, row)) == [1]
        assert _numbers(public.add(row, ciphertexts)) == [square - _numbers(ciphertexts)[0]]

    return Target(call, [PUBLIC.modulus], _REFUSALS)


def _secret_key(_: Path) -> Target:
    def call(data: bytes) -> None:
        half = (len(data) + 1) // 2
        key = SecretKey.from_primes(data[:half], data[half:])
        one = np.eye(1, key.public.bits // 64, dtype=np.uint64)
        assert (key.decrypt(key.encrypt(one)) == one).all()

    return Target(call, [b"".join(SECRET.primes())], _REFUSALS)


def _ciphertexts(_: Path) -> Target:
    def call(data: bytes) -> None:
        ciphertexts = _words(data, _BYTES)
        PUBLIC.check(ciphertexts)
        plain = SECRET.decrypt(PUBLIC.rerandomise(ciphertexts))
        total = GroupSum(PUBLIC, 2)
        total.add(ciphertexts, np.arange(len(ciphertexts)) % 2)
        doubled = PUBLIC.add(ciphertexts, ciphertexts)
        assert total.result().shape == (2, _BYTES // 8)
        assert doubled.shape == ciphertexts.shape
        assert plain.shape == (len(ciphertexts), PUBLIC.bits // 64)

    numbers = np.eye(3, PUBLIC.bits // 64, dtype=np.uint64)
    return Target(call, [PUBLIC.encrypt(numbers).astype("<u8").tobytes()], _REFUSALS)


def _unchecked_ciphertexts(_: Path) -> Target:
    """Any numbers below n^2: what is not coprime to n slips past the range checks. Against Python's
    integers."""
    n, (p, q) = _number(PUBLIC.modulus), map(_number, SECRET.primes())

    def decrypted(c: int) -> int:
        residues = [
            (pow(c, prime - 1, prime**2) - 1) // prime * pow(-other, -1, prime) % prime
            for prime, other in ((p, q), (q, p))
        ]
        return residues[1] + q * ((residues[0] - residues[1]) * pow(q, -1, p) % p)

    def call(data: bytes) -> None:
        ciphertexts = _words(data, _BYTES)
        groups = np.frombuffer(data[: len(ciphertexts)], np.uint8) % np.int64(4)
        total = GroupSum(PUBLIC, 4)
        total.add(ciphertexts, groups)
        numbers, sums = _numbers(ciphertexts), [1] * 4
        for number, group in zip(numbers, groups.tolist(), strict=True):
            sums[group] = sums[group] * number % n**2
        assert _numbers(total.result()) == sums
        added = PUBLIC.add(ciphertexts, total.result()[groups])
        expected = [c * sums[g] % n**2 for c, g in zip(numbers, groups.tolist(), strict=True)]
        assert _numbers(added) == expected
        PUBLIC.rerandomise(added)
        coprime = [math.gcd(c, n) == 1 for c in numbers]
        plain = _numbers(SECRET.decrypt(ciphertexts))
        # Python's powers are slower than the kernels, and count in what an input may take.
        compared = list(zip(numbers, plain, coprime, strict=True))[:64]
        assert all(m == decrypted(c) for c, m, good in compared if good)
        try:
            PUBLIC.check(ciphertexts)
        except ValueError:
            assert not all(coprime)
        else:
            assert all(coprime)

    numbers = np.eye(2, PUBLIC.bits // 64, dtype=np.uint64)
    seed = PUBLIC.encrypt(numbers).astype("<u8").tobytes()
    return Target(call, [seed, b"", SECRET.primes()[0].ljust(_BYTES, b"\0")], _REFUSALS)


def _paillier_file(_: Path) -> Target:
    def call(data: bytes) -> None:
        key = keys.load(data, allow_small=True)
        assert keys.load(keys.dump(key), allow_small=True).public.modulus == key.public.modulus

    return Target(call, [keys.dump(SECRET)], _REFUSALS)


TARGETS: dict[str, Setup] = {
    "native-points": _points,
    "native-scalar": _scalar,
    "native-strings": _strings,
    "native-public-key": _public_key,
    "native-secret-key": _secret_key,
    "native-ciphertexts": _ciphertexts,
    "native-unchecked": _unchecked_ciphertexts,
    "paillier-file": _paillier_file,
}
