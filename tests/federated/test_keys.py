import secrets
from random import Random

import numpy as np
import pytest
from phe import paillier as phe

from federated._native import PublicKey, SecretKey
from federated.errors import InvalidKey
from federated.paillier import keys
from federated.paillier.packing import from_integers, to_integers

PLAINTEXTS = [0, 1, 2**64, 3**300]


@pytest.fixture(scope="module")
def secret() -> SecretKey:
    return keys.generate(1024, allow_small=True)


@pytest.fixture(scope="module")
def imported() -> SecretKey:
    """A key that phe made: its primes are not safe."""
    _, private = phe.generate_paillier_keypair(n_length=1024)
    return keys.from_phe(private, allow_small=True)


def in_phe(secret: SecretKey) -> phe.PaillierPrivateKey:
    p, q = (int.from_bytes(prime, "little") for prime in secret.primes())
    return phe.PaillierPrivateKey(phe.PaillierPublicKey(p * q), p, q)


@pytest.mark.parametrize("bits", [512, 1024, 2040, 4096])
def test_other_sizes_than_agreements_may_choose_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="2048 or 3072"):
        keys.generate(bits)


@pytest.mark.parametrize("whose", ["secret", "imported"])
def test_phe_decrypts_what_we_encrypt(whose: str, request: pytest.FixtureRequest) -> None:
    secret = request.getfixturevalue(whose)
    ciphertexts = keys.encrypt(secret, from_integers(PLAINTEXTS, 16))
    decrypted = [in_phe(secret).raw_decrypt(c) for c in to_integers(ciphertexts)]
    assert decrypted == PLAINTEXTS


@pytest.mark.parametrize("whose", ["secret", "imported"])
def test_we_decrypt_what_phe_encrypts(whose: str, request: pytest.FixtureRequest) -> None:
    secret = request.getfixturevalue(whose)
    public = keys.public_to_phe(secret.public)
    ciphertexts = from_integers([public.raw_encrypt(m) for m in PLAINTEXTS], 32)
    assert to_integers(secret.decrypt(ciphertexts)) == PLAINTEXTS


def test_a_key_goes_to_phe_and_back(secret: SecretKey) -> None:
    private = keys.to_phe(secret)
    assert sorted([private.p, private.q]) == sorted([in_phe(secret).p, in_phe(secret).q])
    assert keys.from_phe(private, allow_small=True).public.modulus == secret.public.modulus


def test_a_small_phe_key_is_refused() -> None:
    _, private = phe.generate_paillier_keypair(n_length=1024)
    with pytest.raises(ValueError, match="1024"):
        keys.from_phe(private)


def test_a_key_is_stored_and_read(secret: SecretKey) -> None:
    stored = keys.dump(secret)
    assert stored.startswith(b"-----BEGIN CONCORDAT PAILLIER KEY-----\n")
    assert keys.load(stored, allow_small=True).primes() == secret.primes()


def test_a_stored_key_that_is_damaged_is_refused(secret: SecretKey) -> None:
    stored = keys.dump(secret)
    for damaged in [
        b"",
        stored[:-30],
        stored.replace(b"PAILLIER", b"PALLIER"),
        stored.replace(b"\n", b"\n!", 1),
        stored.replace(stored[60:64], b"", 1),
        b"\xff" + stored,
    ]:
        with pytest.raises(ValueError):
            keys.load(damaged, allow_small=True)


def test_a_stored_small_key_is_refused(secret: SecretKey) -> None:
    with pytest.raises(ValueError, match="1024"):
        keys.load(keys.dump(secret))


def test_a_peers_key_of_another_size_is_refused(secret: SecretKey) -> None:
    proof = keys.prove(secret)
    assert keys.peer_key(secret.public.modulus, proof, 1024).bits == 1024
    with pytest.raises(InvalidKey, match="1024 bits; the agreement demands 3072"):
        keys.peer_key(secret.public.modulus, proof, 3072)


def test_a_key_without_its_proof_is_refused(secret: SecretKey) -> None:
    modulus, proof = secret.public.modulus, keys.prove(secret)
    other = keys.prove(keys.generate(1024, allow_small=True))
    for wrong in (b"", proof[:-128], proof + proof[:128], bytes(len(proof)), other):
        with pytest.raises(InvalidKey, match="prove"):
            keys.peer_key(modulus, wrong, 1024)
    for at in range(0, len(proof), 128):
        with pytest.raises(InvalidKey, match="prove"):
            keys.peer_key(modulus, proof[:at] + bytes([proof[at] ^ 1]) + proof[at + 1 :], 1024)


def ill_formed() -> tuple[int, int]:
    """Primes p and q of which p divides q - 1, and pq has 1024 bits."""
    random = Random(7)

    def prime(number: int) -> bool:
        return all(pow(base, number - 1, number) == 1 for base in (2, 3, 5))

    while True:
        p = random.getrandbits(300) | 1 | 1 << 299
        if prime(p):
            break
    while True:
        q = 2 * p * (random.getrandbits(423) | 1 << 422) + 1
        if prime(q) and (p * q).bit_length() == 1024:
            return p, q


def test_a_key_that_is_none_carries_marks_past_any_mask_and_is_refused() -> None:
    """What the proof is for: (q-1)/p-th powers modulo q know neither the mask nor r^n."""
    p, q = ill_formed()
    n = p * q
    public = PublicKey(_little(n))
    mark = pow(3, (q - 1) // p, q)  # of order p, so that a mark may have any size
    marked = (mark * p * pow(p, -1, q) + q * pow(q, -1, p)) % n
    masks = from_integers([secrets.randbelow(n), secrets.randbelow(n)], 16)
    masked = to_integers(public.rerandomise(from_integers([1, marked], 32), masks))
    seen = [pow(one, (q - 1) // p, q) for one in masked]
    assert seen == [1, pow(mark, (q - 1) // p, q)] and seen[1] != 1

    # The best its owner can do: the roots of those numbers that have one.
    rest = (p - 1) * ((q - 1) // p)
    root = pow(n, -1, rest)
    roots = [pow(number, root, n) for number in keys._numbers(public)]
    proof = b"".join(one.to_bytes(128, "little") for one in roots)
    with pytest.raises(InvalidKey, match="prove"):
        keys.peer_key(public.modulus, proof, 1024)


def test_a_modulus_with_a_small_factor_is_refused() -> None:
    """Of those every number may have a root by chance."""
    modulus = _little(65_521 * (2**1023 // 65_521 + 2 | 1))
    assert PublicKey(modulus).bits == 1024
    with pytest.raises(InvalidKey, match="prove"):
        keys.peer_key(modulus, bytes(keys.ROOTS * 128), 1024)


def _little(number: int) -> bytes:
    return number.to_bytes(128, "little")


@pytest.mark.parametrize("modulus", [b"", b"\x01", bytes(384), b"\xfe" + b"\xff" * 383])
def test_what_is_no_modulus_is_refused(modulus: bytes) -> None:
    with pytest.raises(InvalidKey):
        keys.peer_key(modulus, b"", 3072)


def test_short_exponents_decrypt_the_same() -> None:
    secret = keys.generate(2048)
    plaintexts = from_integers(PLAINTEXTS, 32)
    for short in (False, True):
        ciphertexts = keys.encrypt(secret, plaintexts, short_exponents=short)
        assert (secret.decrypt(ciphertexts) == plaintexts).all()
    once, again = (keys.encrypt(secret, plaintexts, short_exponents=True) for _ in range(2))
    assert not np.array_equal(once, again)
