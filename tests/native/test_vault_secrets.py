"""Wrapped secrets beside the AES-256-GCM of the cryptography package."""

import secrets

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from federated import _native

KEYS = np.frombuffer(secrets.token_bytes(3 * 32), np.uint8).reshape(3, 32)
CIPHERS = [AESGCM(key.tobytes()) for key in KEYS]


def which(count):
    """Which key each secret is under: all of them, in turn."""
    return np.arange(count) % len(KEYS)


def rows(count, width=32):
    return np.frombuffer(secrets.token_bytes(count * width), np.uint8).reshape(count, width)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_another_implementation_opens_them(count):
    plain, people = rows(count), rows(count)
    wrapped = _native.wrap_secrets(KEYS, which(count), plain, people)
    for at, secret, row, person in zip(which(count), plain, wrapped, people, strict=True):
        data = row.tobytes()
        assert CIPHERS[at].decrypt(data[:12], data[12:], person.tobytes()) == secret.tobytes()
    assert len({row.tobytes()[:12] for row in wrapped}) == count


def test_those_of_another_implementation_are_opened():
    plain, people = rows(500), rows(500)
    wrapped = b"".join(
        (nonce := secrets.token_bytes(12))
        + CIPHERS[at].encrypt(nonce, one.tobytes(), person.tobytes())
        for at, one, person in zip(which(500), plain, people, strict=True)
    )
    found, opened = _native.unwrap_secrets(
        KEYS, which(500), np.frombuffer(wrapped, np.uint8).reshape(-1, 60), people
    )
    assert opened.all()
    assert (found == plain).all()


def test_a_changed_bit_another_person_or_key_does_not_open():
    plain, people = rows(60), rows(60)
    wrapped = _native.wrap_secrets(KEYS, which(60), plain, people)
    changed = wrapped.copy()
    changed[np.arange(60), np.arange(60)] ^= 1
    for keys, of, data, bound_to in (
        (KEYS, which(60), changed, people),
        (KEYS, which(60), wrapped, people[::-1].copy()),
        (KEYS, (which(60) + 1) % 3, wrapped, people),
        (rows(3), which(60), wrapped, people),
    ):
        found, opened = _native.unwrap_secrets(keys, of, data, bound_to)
        assert not opened.any()
        assert not found.any()
    one = wrapped.copy()
    one[7, 30] ^= 1
    found, opened = _native.unwrap_secrets(KEYS, which(60), one, people)
    assert np.flatnonzero(~opened).tolist() == [7]
    assert (np.delete(found, 7, 0) == np.delete(plain, 7, 0)).all()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="1 associated values for 2"):
        _native.wrap_secrets(KEYS, which(2), rows(2), rows(1))
    with pytest.raises(ValueError, match="1 keys"):
        _native.wrap_secrets(KEYS, which(1), rows(2), rows(2))
    with pytest.raises(ValueError, match="there are 3 keys"):
        _native.wrap_secrets(KEYS, np.array([3]), rows(1), rows(1))
    with pytest.raises(ValueError, match="there are 3 keys"):
        _native.wrap_secrets(KEYS, np.array([-1]), rows(1), rows(1))
    with pytest.raises(ValueError, match="columns"):
        _native.unwrap_secrets(KEYS, which(2), rows(2, 59), rows(2))
