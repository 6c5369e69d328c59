"""The vault: who the consents speak of, kept apart from the log so that a person can be forgotten.

A row holds HMAC(lookup key, id) and a random secret of the person's own, encrypted at rest. The
log holds only HMACs under that secret: once the row is gone, nothing ties its entries together.
"""

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import Self

import numpy as np
import pandas as pd
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import Boolean, Column, Connection, LargeBinary, String, Table, select

from compliance.batch import I64, U8, Strings, add, as_bytes, fetch_in, from_bytes, joined, next_id
from compliance.errors import VaultKey
from compliance.store import Integer64, metadata
from federated import _native

KEY_BYTES = 32
NONCE_BYTES = 12

subjects = Table(
    "subjects",
    metadata,
    Column("id", Integer64, primary_key=True),
    Column("subject", LargeBinary(32), nullable=False, unique=True),
    Column("secret", LargeBinary, nullable=False),  # nonce, AES-256-GCM ciphertext and tag
    Column("wrapping_key", String(16), nullable=False),
    Column("restricted", Boolean, nullable=False),
)


@dataclass(frozen=True, repr=False)
class VaultKeys:
    """The lookup key finds a person; the wrapping key opens the person's secret."""

    lookup: bytes
    wrapping: bytes

    @classmethod
    def load(cls, lookup: Path, wrapping: Path) -> Self:
        """Raises VaultKey (E404) unless both are files of 32 bytes that only their owner reads."""
        return cls(_read_key(lookup), _read_key(wrapping))

    @property
    def wrapping_id(self) -> str:
        """Names the wrapping key in the vault: 16 hex digits of a SHA-256 over it."""
        return hashlib.sha256(b"concordat wrapping key id\0" + self.wrapping).hexdigest()[:16]

    def subjects_of(self, ids: Strings) -> U8:
        """HMAC-SHA256 of each `kind:id` under the lookup key: uint8 (n, 32)."""
        return _native.hmac_sha256(self.lookup, *joined(ids))

    def wrap(self, plain: U8, of: U8) -> list[bytes]:
        """Encrypts secrets, uint8 (n, 32), each bound to its subject, uint8 (n, 32)."""
        cipher = AESGCM(self.wrapping)
        nonces = token_bytes(NONCE_BYTES * len(plain))
        return [
            (nonce := nonces[at : at + NONCE_BYTES]) + cipher.encrypt(nonce, secret, subject)
            for at, secret, subject in zip(
                range(0, len(nonces), NONCE_BYTES), as_bytes(plain), as_bytes(of), strict=True
            )
        ]

    def unwrap(self, wrapped: pd.DataFrame) -> U8:
        """The secrets of vault rows (columns subject, secret, wrapping_key): uint8 (n, 32).

        Raises VaultKey (E404) if this is not the key they were wrapped with.
        """
        if not (wrapped["wrapping_key"] == self.wrapping_id).all():
            raise _wrong_key()
        cipher = AESGCM(self.wrapping)
        try:
            plain = b"".join(
                cipher.decrypt(secret[:NONCE_BYTES], secret[NONCE_BYTES:], subject)
                for secret, subject in zip(wrapped["secret"], wrapped["subject"], strict=True)
            )
        except (InvalidTag, ValueError):
            raise _wrong_key() from None
        return from_bytes([plain], KEY_BYTES)


def create_key(path: Path) -> None:
    """Writes a new random key where no file is yet, readable by its owner only."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(token_bytes(KEY_BYTES))


def enrol(conn: Connection, keys: VaultKeys, people: U8) -> tuple[I64, U8]:
    """Row id, int64 (n,), and secret, uint8 (n, 32), of each person; whoever is new gets both.

    people: distinct subjects, uint8 (n, 32). Raises VaultKey (E404).
    """
    names = as_bytes(people)
    known = fetch_in(conn, select(subjects), subjects.c.subject, names)
    at = pd.Index(names, dtype=object).get_indexer(pd.Index(known["subject"], dtype=object))
    ids = np.zeros(len(people), np.int64)
    secrets = from_bytes([token_bytes(people.size)], KEY_BYTES).copy()
    ids[at] = known["id"]
    secrets[at] = keys.unwrap(known)

    new = ids == 0
    ids[new] = next_id(conn, subjects) + np.arange(new.sum())
    rows = {
        "id": ids[new],
        "subject": as_bytes(people[new]),
        "secret": keys.wrap(secrets[new], people[new]),
        "wrapping_key": keys.wrapping_id,
        "restricted": False,
    }
    add(conn, subjects, pd.DataFrame(rows))
    return ids, secrets


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            shared = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077
            key = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise VaultKey(
            f"A vault key cannot be read: {error.strerror}.",
            "Restore the node's key files from their backup.",
        ) from None
    if shared:
        raise VaultKey(
            "Others than its owner may read a vault key.",
            "Check who has had access, then restrict the key file to mode 0600.",
        )
    if len(key) != KEY_BYTES:
        raise VaultKey(
            f"A vault key file does not hold {KEY_BYTES} bytes.",
            "Restore the node's key files from their backup.",
        )
    return key


def _wrong_key() -> VaultKey:
    return VaultKey(
        "The wrapping key does not open the vault.",
        "Restore the key file that belongs to this database.",
    )
