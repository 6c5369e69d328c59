"""The vault: who the consents speak of, kept apart from the log so that a person can be forgotten.

A row holds HMAC(lookup key, id) and a random secret of the person's own, encrypted at rest. The
log holds only HMACs under that secret: once the row is gone, nothing ties its entries together.
"""

import hashlib
import os
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from secrets import token_bytes
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Table,
    func,
    select,
)

from compliance.batch import (
    I64,
    U8,
    Strings,
    add,
    as_bytes,
    fetch,
    fetch_in,
    from_bytes,
    joined,
    joined_rows,
    next_id,
)
from compliance.errors import VaultKey
from compliance.store import Integer64, metadata
from federated import _native

KEY_BYTES = 32
WRAPPED_BYTES = 60  # nonce, ciphertext, tag
WRAPPING_KEYS = 256  # of a new node
MAX_KEYS = 4096  # in a file
EVERYBODY = 2**63 - 1

subjects = Table(
    "subjects",
    metadata,
    Column("id", Integer64, primary_key=True),
    Column("subject", LargeBinary(32), nullable=False, unique=True),
    # Nonce, AES-256-GCM ciphertext and tag.
    Column("secret", LargeBinary(WRAPPED_BYTES), nullable=False),
    Column("wrapping_key", String(16), nullable=False, index=True),
    Column("restricted", Boolean, nullable=False),
)

# Of everybody who was erased, what tells that they were, to whoever has the lookup keys and the
# identifier; and what the log's entry commits to.
tombstones = Table(
    "tombstones",
    metadata,
    Column("entry", ForeignKey("log_entries.index"), primary_key=True),
    Column("tombstone", LargeBinary(32), nullable=False, index=True),
    Column("salt", LargeBinary(32), nullable=False, unique=True),
    Column("lookup_keys", Integer, nullable=False),  # how many there were then
    Column("erased_at", BigInteger, nullable=False),
    Column("above", Integer64, nullable=False),  # the highest row id that people had then
)


# How many lookup keys the rows of `subjects` have been taken through: one row; none means one.
vault = Table("vault", metadata, Column("lookup_keys", Integer, primary_key=True))


@dataclass(frozen=True, repr=False)
class VaultKeys:
    """Lookup keys find a person; wrapping keys open the people's secrets.

    Both are keys of 32 bytes, one after the other. A person is found by one HMAC after the other,
    under every lookup key in turn. A secret is wrapped under one of the wrapping keys, which the
    vault's row names.
    """

    lookup: bytes
    wrapping: bytes

    @classmethod
    def load(cls, lookup: Path, wrapping: Path) -> Self:
        """Raises VaultKey (E404) unless both are files of such keys that only their owner reads."""
        return cls(_read_keys(lookup), _read_keys(wrapping))

    @cached_property
    def lookups(self) -> list[bytes]:
        """The lookup keys, in the order in which they came into use."""
        return _each(self.lookup)

    @cached_property
    def by_id(self) -> dict[str, bytes]:
        """The wrapping keys by their names: 16 hex digits of a SHA-256."""
        return {wrapping_id(key): key for key in _each(self.wrapping)}

    def subjects_of(self, ids: Strings, count: int | None = None) -> U8:
        """HMAC-SHA256 of each `kind:id` under the lookup keys, or the first few: uint8 (n, 32)."""
        first, *others = self.lookups[:count]
        found: U8 = _native.hmac_sha256(first, *joined(ids))
        for key in others:
            found = _native.hmac_sha256(key, *joined_rows(found))
        return found

    def wrapping_of(self, people: U8) -> list[str]:
        """Which wrapping key each of these new subjects, uint8 (n, 32), gets: any, but evenly."""
        names = np.array(list(self.by_id), object)
        found: list[str] = names[people[:, :2].astype(np.int64) @ [256, 1] % len(names)].tolist()
        return found

    def wrap(self, plain: U8, of: U8, under: Sequence[str]) -> list[bytes]:
        """Encrypts secrets, uint8 (n, 32), each bound to its subject, under the keys named."""
        which = pd.Index(list(self.by_id)).get_indexer(pd.Index(under, dtype=object))
        plain, of = (np.ascontiguousarray(rows) for rows in (plain, of))
        return as_bytes(_native.wrap_secrets(self._table, which.astype(np.int64), plain, of))

    def unwrap(self, wrapped: pd.DataFrame) -> U8:
        """The secrets of vault rows (columns subject, secret, wrapping_key): uint8 (n, 32).

        Raises VaultKey (E404) if these are not the keys they were wrapped with.
        """
        secrets, opened = self.opened(wrapped)
        if not opened.all():
            raise _wrong_key()
        return secrets

    def opened(self, wrapped: pd.DataFrame) -> tuple[U8, NDArray[np.bool_]]:
        """As `unwrap`, with zeros for the secrets that do not open; and which do."""
        sealed, secret_sound = _rows(wrapped["secret"], WRAPPED_BYTES)
        of, subject_sound = _rows(wrapped["subject"], KEY_BYTES)
        under = np.array(wrapped["wrapping_key"].tolist(), "S16")
        secrets, opened = self.open(sealed, of, under)
        return secrets, opened & secret_sound & subject_sound

    def open(self, sealed: U8, of: U8, under: NDArray[np.bytes_]) -> tuple[U8, NDArray[np.bool_]]:
        """Secrets, uint8 (n, 32), zeros for those that do not open; and which do.

        sealed: uint8 (n, 60), each bound to its subject, uint8 (n, 32), under the key named.
        """
        which = self._names.find(under.view(np.uint8).reshape(-1, 16))
        known = which >= 0
        which[~known] = 0
        secrets, opened = _native.unwrap_secrets(self._table, which, sealed, of)
        secrets[~known] = 0
        return secrets, opened & known

    def unwrap_rows(self, sealed: U8, of: U8, under: NDArray[np.bytes_]) -> U8:
        """As `open`. Raises VaultKey (E404) unless all open."""
        secrets, opened = self.open(sealed, of, under)
        if not opened.all():
            raise _wrong_key()
        return secrets

    @cached_property
    def _names(self) -> _native.Index:
        return _native.Index(from_bytes([name.encode() for name in self.by_id], 16))

    @cached_property
    def _table(self) -> U8:
        return from_bytes(self.by_id.values(), KEY_BYTES)


def wrapping_id(key: bytes) -> str:
    return hashlib.sha256(b"concordat wrapping key id\0" + key).hexdigest()[:16]


def _each(keys: bytes) -> list[bytes]:
    return [keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)]


def _rows(values: pd.Series, width: int) -> tuple[U8, NDArray[np.bool_]]:
    """uint8 (n, width), zeros for values of another length; and which have that length."""
    sound = np.array([len(value) == width for value in values], np.bool_)
    rows = np.zeros((len(values), width), np.uint8)
    rows[sound] = from_bytes(values[sound], width)
    return rows, sound


def create_key(path: Path, count: int = 1) -> None:
    """Writes new random keys where no file is yet, readable by its owner only."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(token_bytes(count * KEY_BYTES))


def replace_keys(path: Path, keys: bytes) -> None:
    """Writes keys in place of those in a file, whole or not at all, and destroys the old file.

    What the disk itself keeps of it (spare blocks, snapshots) is out of reach from here.
    """
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(keys)
        file.flush()
        os.fsync(file.fileno())
    with path.open("r+b") as old:
        partial.replace(path)
        size = old.seek(0, os.SEEK_END)
        old.seek(0)
        old.write(token_bytes(size))
        old.flush()
        os.fsync(old.fileno())
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def enrol(conn: Connection, keys: VaultKeys, people: U8, before: int = EVERYBODY) -> tuple[I64, U8]:
    """Row id, int64 (n,), and secret, uint8 (n, 32), of each person; whoever is new gets both.

    people: distinct subjects, uint8 (n, 32). before: those known already have a row id below this.
    Raises VaultKey (E404).
    """
    names = as_bytes(people)
    known = fetch_in(
        conn, select(subjects).where(subjects.c.id < before), subjects.c.subject, names
    )
    at = pd.Index(names, dtype=object).get_indexer(pd.Index(known["subject"], dtype=object))
    ids = np.zeros(len(people), np.int64)
    secrets = from_bytes([token_bytes(people.size)], KEY_BYTES).copy()
    ids[at] = known["id"]
    secrets[at] = keys.unwrap(known)

    new = ids == 0
    ids[new] = _next_person(conn) + np.arange(new.sum())
    under = keys.wrapping_of(people[new])
    rows = {
        "id": ids[new],
        "subject": as_bytes(people[new]),
        "secret": keys.wrap(secrets[new], people[new], under),
        "wrapping_key": under,
        "restricted": False,
    }
    add(conn, subjects, pd.DataFrame(rows))
    return ids, secrets


def lookup_keys(conn: Connection) -> int:
    """How many lookup keys the vault's rows have been taken through."""
    return int(conn.execute(select(vault.c.lookup_keys)).scalar() or 1)


def tombstones_of(people: U8) -> U8:
    """What stays of subjects, uint8 (n, 32), once they are erased: uint8 (n, 32)."""
    return _native.hmac_sha256_each(people, *joined(["concordat.erased"] * len(people)))


def erased_at(conn: Connection, keys: VaultKeys, ids: Collection[str]) -> I64:
    """When each of these people was last erased, int64 (n,) microseconds; -1 if never.

    ids: `kind:` and canonical id.
    """
    columns = (tombstones.c[name] for name in ("tombstone", "lookup_keys", "erased_at"))
    stones = fetch(conn, select(*columns))
    at = np.full(len(ids), -1, np.int64)
    for count in stones["lookup_keys"].unique().tolist():
        group = stones[stones["lookup_keys"] == count]
        known = group.groupby("tombstone")["erased_at"].max()
        names = as_bytes(tombstones_of(keys.subjects_of(ids, count)))
        found = pd.Series(names, dtype=object).map(known).fillna(-1).to_numpy(np.int64)
        at = np.maximum(at, found)
    return at


def _next_person(conn: Connection) -> int:
    """A row id that nobody had: not even somebody who was erased."""
    erased = conn.execute(select(func.coalesce(func.max(tombstones.c.above), 0))).scalar_one()
    return max(next_id(conn, subjects), 1 + int(erased))


def _read_keys(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            shared = stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077
            key = file.read(MAX_KEYS * KEY_BYTES + 1)
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
    if not key or len(key) % KEY_BYTES:
        raise VaultKey(
            f"A vault key file does not hold keys of {KEY_BYTES} bytes.",
            "Restore the node's key files from their backup.",
        )
    return key


def _wrong_key() -> VaultKey:
    return VaultKey(
        "The wrapping key does not open the vault.",
        "Restore the key file that belongs to this database.",
    )
