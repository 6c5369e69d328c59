"""python-paillier (`phe`), with gmpy2."""

from phe import paillier

from benchmarks.worker import Job


def encrypt(bits: int, count: int) -> Job:
    public, _ = paillier.generate_paillier_keypair(n_length=bits)

    def job() -> int:
        for i in range(count):
            public.raw_encrypt(i)
        return count

    return job


def add(bits: int, count: int, rounds: int) -> Job:
    """One sum of `count` ciphertexts, `rounds` times; few of them are different."""
    public, _ = paillier.generate_paillier_keypair(n_length=bits)
    few = [paillier.EncryptedNumber(public, public.raw_encrypt(i)) for i in range(8)]

    def job() -> int:
        for _ in range(rounds):
            total = few[0]
            for i in range(1, count):
                total += few[i % 8]
        return rounds * count

    return job


def decrypt(bits: int, count: int) -> Job:
    public, secret = paillier.generate_paillier_keypair(n_length=bits)
    ciphertexts = [public.raw_encrypt(i) for i in range(count)]

    def job() -> int:
        for ciphertext in ciphertexts:
            secret.raw_decrypt(ciphertext)
        return count

    return job
