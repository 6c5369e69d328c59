"""Erasing people: the vault forgets them, the log keeps what it had, and nothing ties the two.

With the row goes the secret, and with the secret whatever could show that an entry is about this
person. The wrapping key is destroyed too, so that older copies of the row open no more. What stays
is a tombstone: whoever has the lookup keys and the identifier can tell that the person was erased,
and when, and nothing else. Tombstones also lie in a file outside the store: when a backup of the
store is restored, the people erased since are erased again.
"""

import hmac
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from secrets import token_bytes
from typing import Any, Self

import pandas as pd
from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from compliance.batch import BATCH, U8, as_bytes, fetch, fetch_in, from_bytes, joined_rows
from compliance.canonical import canonical
from compliance.consent import (
    consent_leaves,
    consents,
    microseconds,
    refusals,
    restrictions,
    terms,
    when,
)
from compliance.errors import RetentionRuns, TombstonesUnreadable, VaultKey
from compliance.log import Log
from compliance.people import check_may
from compliance.person import Changes, Person
from compliance.vault import (
    KEY_BYTES,
    WRAPPING_KEYS,
    VaultKeys,
    lookup_keys,
    replace_keys,
    subjects,
    tombstones,
    tombstones_of,
    vault,
)
from federated import _native

# Where rows about people lie.
PEOPLE = (subjects, consents, consent_leaves, refusals, restrictions)


@dataclass(frozen=True)
class Tombstone:
    """That somebody was erased. The salt opens what the log's entry says of it."""

    tombstone: bytes  # 32
    salt: bytes  # 32
    lookup_keys: int
    erased_at: int  # microseconds since 1970

    @classmethod
    def of(cls, subject: bytes, keys: VaultKeys, now: datetime) -> Self:
        (stone,) = as_bytes(tombstones_of(from_bytes([subject], 32)))
        return cls(stone, token_bytes(32), len(keys.lookups), microseconds(now))

    def record(self, above: int) -> str:
        """HMAC under the salt of what is recorded, in hex, as the log holds it."""
        said = {
            "above": above,
            "erased_at": when(self.erased_at),
            "lookup_keys": self.lookup_keys,
            "tombstone": self.tombstone.hex(),
        }
        return hmac.digest(self.salt, canonical(said), "sha256").hex()


@dataclass(frozen=True)
class Files:
    """What lies beside the store: two files of keys, and the list of those who were erased."""

    lookup: Path
    wrapping: Path
    erased: Path

    def keys(self) -> VaultKeys:
        """Raises VaultKey (E404)."""
        return VaultKeys.load(self.lookup, self.wrapping)


@dataclass(frozen=True)
class Erased:
    """An erasure: its entry, and how many leaves and entries of the log it has set loose."""

    entry: int
    leaves: int
    erased_at: int


def erase(conn: Connection, log: Log, files: Files, subject: str, *, now: datetime) -> Erased:
    """Erases whoever this is; `settle` has to follow once the transaction is committed.

    subject: `kind:` and canonical id. The tombstone is in the list from the start: an erasure that
    was interrupted is completed by `catch_up`. Raises PersonUnknown (E408), RetentionRuns (E409).
    """
    check_may(log, "consent.erased")  # before the tombstone is in the list
    changes = Changes(conn, log, files.keys(), now)
    person = changes.find(subject)
    check_retention(changes, person)
    (name,) = as_bytes(changes.keys.subjects_of([subject]))
    stone = Tombstone.of(name, changes.keys, now)
    enlist(files.erased, [stone])
    (done,) = _forget(conn, log, files, [(name, stone)], now=now)
    return done


def check_retention(changes: Changes, person: Person) -> None:
    """Raises RetentionRuns (E409) while the law keeps a person's records."""
    until = changes.restricted_until(person)
    if until > microseconds(changes.now):
        raise RetentionRuns(
            f"The records of this person have to be kept until {when(until)}; until then they are "
            "restricted and enter no run.",
            "Erase the person after that date; if it was set by mistake, `concordat consent lift` "
            "first.",
        )


def _forget(
    conn: Connection,
    log: Log,
    files: Files,
    stones: Sequence[tuple[bytes, Tombstone]],
    *,
    now: datetime,
) -> list[Erased]:
    """Erases subjects; whoever the vault does not know gets the tombstone only."""
    names = list({name for name, _ in stones})
    people = fetch_in(conn, select(subjects), subjects.c.subject, names)
    above = int(conn.execute(select(func.coalesce(func.max(subjects.c.id), 0))).scalar_one())
    if len(people):
        _rewrap(conn, files, people)
    ids = dict(zip(people["subject"], people["id"], strict=True))
    done = []
    for name, stone in stones:
        leaves = _delete(conn, int(ids.pop(name))) if name in ids else 0
        body = {"leaves": leaves, "record": stone.record(above)}
        entry = log.append(conn, "consent.erased", body, time=now)
        conn.execute(insert(tombstones).values(entry=entry, above=above, **vars(stone)))
        done.append(Erased(entry, leaves, stone.erased_at))
    conn.execute(delete(terms).where(terms.c.id.not_in(select(consents.c.terms))))
    return done


def behind(conn: Connection, files: Files) -> bool:
    """Whether the store lacks an erasure or a rotation that the files know of, or they lack one.

    So it is with a store that was restored from a backup, and after a crash.
    """
    keys = files.keys()
    listed = files.erased.stat().st_size // _LINE if files.erased.exists() else 0
    held = conn.execute(select(func.count()).select_from(tombstones)).scalar_one()
    return (
        listed != held or len(keys.by_id) > WRAPPING_KEYS or lookup_keys(conn) != len(keys.lookups)
    )


def catch_up(conn: Connection, log: Log, files: Files, *, now: datetime) -> int:
    """Erases again whom the list says were erased; how many that were. `settle` has to follow.

    Takes the vault to the latest lookup key, too. Raises VaultKey (E404).
    """
    keys = files.keys()
    if lookup_keys(conn) > len(keys.lookups):
        raise VaultKey(
            "The lookup keys are older than the vault.",
            "Restore the node's key files from the backup that belongs to this store.",
        )
    known = set(conn.execute(select(tombstones.c.salt)).scalars())
    listed = enlisted(files.erased)
    lacking = [stone for stone in listed if stone.salt not in known]
    again = 0
    while True:
        stage = lookup_keys(conn)
        last = stage == len(keys.lookups)
        due = [stone for stone in lacking if last or stone.lookup_keys <= stage]
        lacking = [] if last else [stone for stone in lacking if stone.lookup_keys > stage]
        if due:
            people = fetch(conn, select(subjects.c.subject))["subject"].tolist()
            stones = as_bytes(tombstones_of(from_bytes(people, 32)))
            names = dict(zip(stones, people, strict=True))
            named = [(names.get(stone.tombstone, stone.salt), stone) for stone in due]
            again += sum(done.leaves > 0 for done in _forget(conn, log, files, named, now=now))
        if last:
            break
        _advance(conn, log, files.keys(), now=now)
    columns = (tombstones.c[name] for name in ("tombstone", "salt", "lookup_keys", "erased_at"))
    held = [Tombstone(*row) for row in conn.execute(select(*columns).order_by(tombstones.c.entry))]
    salts = {stone.salt for stone in listed}
    enlist(files.erased, [stone for stone in held if stone.salt not in salts])
    return again


def settle(conn: Connection, files: Files) -> None:
    """Destroys the wrapping keys that no row needs any more.

    In a write transaction of its own, after the one that stopped using them.
    """
    used = set(conn.execute(select(subjects.c.wrapping_key).distinct()).scalars())
    kept = [key for name, key in files.keys().by_id.items() if name in used]
    spare = token_bytes(KEY_BYTES * max(0, WRAPPING_KEYS - len(kept)))
    replace_keys(files.wrapping, b"".join(kept) + spare)


# Rotating keys


def rotate_wrapping(conn: Connection, log: Log, files: Files, *, now: datetime) -> int:
    """Wraps every secret under fresh keys; the entry's index. `settle` has to follow."""
    _rewrap(conn, files, None)
    return log.append(conn, "vault.rewrapped", {}, time=now)


def rotate_lookup(conn: Connection, log: Log, files: Files, *, now: datetime) -> int:
    """Adds a lookup key; the entry's index.

    Identifiers are not stored: whoever is in the vault is known from now on by an HMAC, under the
    new key, of what they were known by before.
    """
    keys = files.keys()
    replace_keys(files.lookup, keys.lookup + token_bytes(KEY_BYTES))
    return _advance(conn, log, files.keys(), now=now)


def _advance(conn: Connection, log: Log, keys: VaultKeys, *, now: datetime) -> int:
    """Takes the vault to the next lookup key."""
    stage = lookup_keys(conn)
    people = fetch(conn, select(subjects))
    before = from_bytes(people["subject"], 32)
    after: U8 = _native.hmac_sha256(keys.lookups[stage], *joined_rows(before))
    wrapped = keys.wrap(keys.unwrap(people), after, people["wrapping_key"].tolist())
    _update(conn, people["id"], subject=as_bytes(after), secret=wrapped)
    conn.execute(delete(vault))
    conn.execute(insert(vault).values(lookup_keys=stage + 1))
    return log.append(conn, "vault.rekeyed", {"lookup_keys": stage + 1}, time=now)


def _rewrap(conn: Connection, files: Files, gone: pd.DataFrame | None) -> None:
    """Gives fresh wrapping keys to whoever shares one with those gone; to everybody if None.

    The old ones stay in the file until `settle`, so that nothing is lost if this does not commit.
    """
    keys = files.keys()
    query, count = select(subjects), WRAPPING_KEYS
    if gone is not None and len(keys.by_id) >= WRAPPING_KEYS:
        shared = gone["wrapping_key"].unique().tolist()
        query, count = query.where(subjects.c.wrapping_key.in_(shared)), len(shared)
    people = fetch(conn, query)
    if gone is not None:
        people = people[~people["id"].isin(gone["id"])]
    fresh = token_bytes(count * KEY_BYTES)
    replace_keys(files.wrapping, keys.wrapping + fresh)
    names = from_bytes(people["subject"], 32)
    under = VaultKeys(keys.lookup, fresh).wrapping_of(names)
    wrapped = files.keys().wrap(keys.unwrap(people), names, under)
    _update(conn, people["id"], secret=wrapped, wrapping_key=under)


def _update(conn: Connection, ids: "pd.Series[int]", **columns: list[Any]) -> None:
    """Sets columns of vault rows."""
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in columns}
    statement = update(subjects).where(subjects.c.id == bindparam("row")).values(values)
    rows = ids.tolist()
    for start in range(0, len(rows), BATCH):
        part = slice(start, start + BATCH)
        parts = {f"new_{name}": column[part] for name, column in columns.items()}
        parts["row"] = rows[part]
        conn.execute(
            statement,
            [dict(zip(parts, row, strict=True)) for row in zip(*parts.values(), strict=True)],
        )


def _delete(conn: Connection, person: int) -> int:
    """Deletes all that the vault holds of a person; how much of the log was about them."""
    theirs = select(consents.c.id).where(consents.c.subject == person)
    leaves = conn.execute(
        delete(consent_leaves).where(consent_leaves.c.consent.in_(theirs))
    ).rowcount
    conn.execute(delete(consents).where(consents.c.subject == person))
    for table in (refusals, restrictions):
        leaves += conn.execute(delete(table).where(table.c.subject == person)).rowcount
    conn.execute(delete(subjects).where(subjects.c.id == person))
    return int(leaves)


# The list outside the store

_LINE = 32 + 32 + 2 + 8  # bytes: tombstone, salt, number of lookup keys, time


def enlist(listed: Path, stones: Iterable[Tombstone]) -> None:
    """Adds tombstones to the list; they are on the disk when this returns."""
    lines = b"".join(
        stone.tombstone
        + stone.salt
        + stone.lookup_keys.to_bytes(2, "big")
        + stone.erased_at.to_bytes(8, "big")
        for stone in stones
    )
    if not lines:
        return
    with os.fdopen(os.open(listed, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(size - size % _LINE)  # over a line that a power cut has left short
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def enlisted(listed: Path) -> list[Tombstone]:
    """The list; what a power cut has left short was never acknowledged. Raises E413."""
    try:
        data = listed.read_bytes() if listed.exists() else b""
    except OSError as error:
        raise TombstonesUnreadable(
            f"The list of those who were erased cannot be read: {error.strerror}.",
            "Let the node's user read the file `erased` in its home, or restore it.",
        ) from None
    lines = [data[at : at + _LINE] for at in range(0, len(data) - _LINE + 1, _LINE)]
    return [
        Tombstone(
            line[:32],
            line[32:64],
            int.from_bytes(line[64:66], "big"),
            int.from_bytes(line[66:], "big"),
        )
        for line in lines
    ]
