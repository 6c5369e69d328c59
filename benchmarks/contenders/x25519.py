"""`cryptography`: OpenSSL's X25519, one multiplication a call."""

import os

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from benchmarks.worker import Job


def multiply(count: int) -> Job:
    """The keys are parsed beforehand: only the multiplications are measured."""
    scalar = X25519PrivateKey.generate()
    keys = [X25519PublicKey.from_public_bytes(os.urandom(32)) for _ in range(count)]

    def job() -> int:
        for key in keys:
            scalar.exchange(key)
        return count

    return job
