"""Consents: a table of them, or one person's. Identifiers are normalised here, the rest is the
consent room's.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from sqlalchemy import Connection, case, func, literal, select

from compliance import consent, erasure, notice, people, record, register
from compliance.consent import (
    GRANTED,
    INVALIDATED,
    REFUSED,
    REVOKED,
    WITHDRAWN,
    consents,
    invalid,
    microseconds,
    refusals,
    terms,
    when,
)
from compliance.log import Log
from compliance.notice import Notice
from compliance.person import Change, Changes
from federated import _native
from federated.identifiers import Kind, normalise, with_kind
from parties.agreements import read_document
from parties.errors import NoConsentIdentifier, PersonUnclear
from parties.files import write_private
from parties.node import Node
from parties.people import read as note_read
from parties.sources import Identifier, header, read_columns

_COLUMNS = [
    "purpose",
    "recipient",
    "categories",
    "kind",
    "granted_at",
    "expires_at",
    "withdrawn_at",
]
_OPTIONAL = ["notice"]


PART = 50_000  # rows at a time, about

Progress = Callable[[str, int, int], None]  # stage, rows done, rows in all


def import_file(node: Node, path: Path, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Bring in a CSV or Parquet table of consents; what became of its rows.

    The identifier's column is named after its kind. Rows that are refused go to a file of their
    own in the home. Raises E11x for the table, NoConsentIdentifier, VaultKey.
    """
    names = header(path)
    kind = _identifier(names, path)
    identifier = Identifier(column=kind, kind=kind, region=node.config.region)
    columns = [*_COLUMNS, *(name for name in _OPTIONAL if name in names)]
    progress("reading", 0, 0)
    table = read_columns(path, None, identifier, columns)
    found = normalise(table.column(0), kind, region=identifier.region)
    values, rows = table.column(0), table.remove_column(0).rename_columns(columns)
    rows = rows.append_column("subject", with_kind(kind, found.ids))
    identified, done = found.ids.is_valid().to_numpy(zero_copy_only=False), 0

    def count(part: int) -> None:
        nonlocal done
        done += part
        progress("entering", done, int(identified.sum()))

    count(0)
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        parts = _parts(rows, found.ids)
        result = consent.import_parts(
            conn, log, node.vault_keys, parts, time=node.now(), progress=count
        )
        progress("committing", 0, 0)
        log.checkpoint(conn)
    unnamed = np.flatnonzero(~identified)
    why = found.reasons.take(pa.array(unnamed, pa.int64())).to_pandas()
    reasons = pd.Series(why.to_numpy(), unnamed, dtype=str)
    rejected = pd.concat([reasons, result.rejected]).sort_index()
    return {
        "read": len(identified),
        "new": result.new,
        "withdrawn": result.withdrawn,
        "noticed": result.noticed,
        "known": result.known,
        "erased": result.erased,
        "rejected": {str(reason): int(n) for reason, n in rejected.value_counts().items()},
        "rejects_file": _write_rejects(node, path, rejected, values),
    }


def _parts(rows: pa.Table, ids: pa.LargeStringArray) -> Iterator[pd.DataFrame]:
    """The rows with an id, a part at a time, under their numbers: all rows of a person in one.

    Who is in which part is left to chance.
    """
    encoded = ids.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    count = len(rows) // PART + 1
    part = _native.permutation(len(encoded.dictionary)) % count
    where = np.where(codes < 0, count, part[codes] if len(part) else count)
    order = np.argsort(where, kind="stable")
    ends = np.searchsorted(where[order], np.arange(count + 1))
    for start, stop in pairwise(ends.tolist()):
        at = order[start:stop]
        yield rows.take(pa.array(at, pa.int64())).to_pandas().set_axis(at)


def summary(node: Node) -> list[dict[str, Any]]:
    """How many consents there are now, by their terms and state; and refusals."""
    now = microseconds(node.now())
    gone = consents.c.state.in_(GRANTED) & (consents.c.expires_at <= now)
    state = case((gone, consent.EXPIRED), else_=consents.c.state).label("state")
    columns = (terms.c.purpose, terms.c.recipient, terms.c.categories, state)
    query = (
        select(*columns, func.count().label("consents"))
        .join_from(consents, terms)
        .group_by(*columns)
        .order_by(*columns)
    )
    said = (refusals.c.purpose, refusals.c.recipient)
    refused = (
        select(*said, literal("").label("categories"), literal(REFUSED).label("state"))
        .add_columns(func.count().label("consents"))
        .where(refusals.c.state == REFUSED)
        .group_by(*said)
        .order_by(*said)
    )
    with node.reading() as conn:
        return [dict(row) for part in (query, refused) for row in conn.execute(part).mappings()]


def expiring(node: Node, until: datetime) -> list[dict[str, Any]]:
    """How many live consents expire before a time, by purpose and recipient, and when the first."""
    now, soon = microseconds(node.now()), microseconds(until)
    said = (terms.c.purpose, terms.c.recipient)
    at = consents.c.expires_at
    query = (
        select(*said, func.count().label("consents"), func.min(at).label("first"))
        .join_from(consents, terms)
        .where(consents.c.state.in_(GRANTED), consents.c.withdrawn_at > now, at > now, at <= soon)
        .group_by(*said)
        .order_by(func.min(at))
    )
    with node.reading() as conn:
        rows = [dict(row) for row in conn.execute(query).mappings()]
    return [row | {"first": when(row["first"])} for row in rows]


# One person

BY = {"person": WITHDRAWN, "institution": REVOKED, "authority": INVALIDATED}

Said = Mapping[str, str]  # what is said of a consent, by field; an empty text says nothing


def subject_of(node: Node, kind: str, identifier: str) -> str:
    """How the vault knows a person: `kind:` and canonical id. Raises PersonUnclear."""
    if kind not in get_args(Kind):
        raise PersonUnclear(
            "The kind of identifier is not one that Concordat knows.",
            f"It is one of {', '.join(get_args(Kind))}.",
        )
    found = normalise(pd.Series([identifier], dtype=str), kind, region=node.config.region)
    (reason,), (name,) = found.reasons.to_pylist(), with_kind(kind, found.ids).to_pylist()
    if name is None:
        raise PersonUnclear(
            f"The {kind.replace('_', ' ')} cannot be read: {reason}.",
            "Correct it; nothing was changed.",
        )
    return str(name)


def grant(node: Node, subject: str, said: Said) -> list[dict[str, Any]]:
    """Raises ConsentInvalid, ConsentSuperseded."""
    return _change(
        node, lambda changes: changes.grant(subject, _from_now(changes, said, "granted_at"))
    )


def renew(node: Node, subject: str, said: Said) -> list[dict[str, Any]]:
    """Raises ConsentInvalid, ConsentSuperseded, NothingToChange, PersonUnknown."""
    return _change(
        node, lambda changes: changes.renew(subject, _from_now(changes, said, "granted_at"))
    )


def refuse(node: Node, subject: str, said: Said) -> list[dict[str, Any]]:
    """Raises ConsentInvalid."""
    return _change(node, lambda changes: changes.refuse(subject, _from_now(changes, said, "at")))


def withdraw(node: Node, subject: str, said: Said, by: str = "") -> list[dict[str, Any]]:
    """Raises ConsentInvalid, NothingToChange, PersonUnknown."""
    if by and by not in BY:
        raise invalid(f"by is none of {', '.join(BY)}")
    state = BY[by or "person"]
    return _change(
        node, lambda changes: changes.withdraw(subject, _from_now(changes, said, "at"), state)
    )


def _change(node: Node, change: Callable[[Changes], Change | list[Change]]) -> list[dict[str, Any]]:
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        done = change(_changes(node, conn, log))
        log.checkpoint(conn)
    return [one.to_json() for one in (done if isinstance(done, list) else [done])]


def restrict(node: Node, subject: str, said: Said) -> dict[str, Any]:
    """Raises ConsentInvalid, PersonUnknown."""
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        done = _changes(node, conn, log).restrict(subject, said)
        log.checkpoint(conn)
    return done.to_json()


def lift(node: Node, subject: str, said: Said) -> dict[str, Any]:
    """Raises ConsentInvalid, NothingToChange, PersonUnknown."""
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        done = _changes(node, conn, log).lift(subject, said)
        log.checkpoint(conn)
    return done.to_json()


def erase(node: Node, subject: str, _: Said) -> dict[str, Any]:
    """Also takes the person's rows out of results and rejects in the home.

    Raises PersonUnknown, RetentionRuns.
    """
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        done = erasure.erase(conn, log, node.vault_files, subject, now=node.now())
        log.checkpoint(conn)
    node.destroy_old_keys()
    files, unread = _forget_in_files(node, subject)
    return {
        "entry": done.entry,
        "leaves": done.leaves,
        "erased_at": when(done.erased_at),
        "files": [str(path) for path in files],
        "unread": [str(path) for path in unread],
    }


# Where rows about people lie in clear, and how many lines there are above the header.
_IN_CLEAR = {"runs/*/*.csv": 0, "rejects/*.csv": 0, "watch/*": 1}


def _forget_in_files(node: Node, subject: str) -> tuple[list[Path], list[Path]]:
    """Takes the rows about a person out of the files of the home that are in clear.

    Which files they were in, and which cannot be read as tables.
    """
    kind, _, _ = subject.partition(":")
    changed, unread = [], []
    for pattern, above in _IN_CLEAR.items():
        for path in node.home.path.glob(pattern):
            try:
                *first, text = path.read_text("utf-8").split("\n", above)
                table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
            except (OSError, ValueError):
                unread.append(path)
                continue
            theirs = np.zeros(len(table), np.bool_)
            for name in table:
                ids = with_kind(kind, normalise(table[name], kind, region=node.config.region).ids)
                theirs |= (ids.to_pandas() == subject).to_numpy()
            if theirs.any():
                kept = "\n".join([*first, table[~theirs].to_csv(index=False)])
                write_private(path, kept.encode(), overwrite=True)
                changed.append(path)
    return changed, unread


def show(node: Node, subject: str, _: Said) -> dict[str, Any]:
    """Everything the vault holds of a person. Raises PersonUnknown, E32x."""
    note_read(node, "consent.show")
    with node.reading() as conn:
        signed = [held.agreement for held in register.every(conn) if held.state == register.SIGNED]
        return record.of_person(
            _changes(node, conn, node.log), subject, institution=node.config.name, agreements=signed
        )


def _changes(node: Node, conn: Connection, log: Log) -> Changes:
    return Changes(conn, log, node.vault_keys, node.now())


# Notices


def add_notice(node: Node, path: Path) -> dict[str, Any]:
    """Raises NoticeInvalid, NoticeConflict, JobError."""
    given = Notice.from_yaml(read_document(path))
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        entry = notice.add(conn, log, given, time=node.now())
        log.checkpoint(conn)
    return {"notice": given.notice, "digest": given.digest, "entry": entry}


def notices(node: Node) -> list[Notice]:
    with node.reading() as conn:
        return notice.every(conn)


def find_notice(node: Node, name: str) -> Notice:
    """Raises NoticeUnknown."""
    with node.reading() as conn:
        return notice.find(conn, name)


# Keys


def rotate(node: Node, key: str) -> int:
    """Rotates the vault's `lookup` or `wrapping` keys; the entry's index."""
    turn = {"lookup": erasure.rotate_lookup, "wrapping": erasure.rotate_wrapping}[key]
    with node.writing() as conn:
        entry = turn(conn, node.log, node.vault_files, now=node.now())
        node.log.checkpoint(conn)
    node.destroy_old_keys()
    return entry


_FIELDS = (
    *("purpose", "recipient", "categories", "kind", "granted_at", "expires_at"),
    *("at", "reason", "notice"),
)


def _from_now(changes: Changes, said: Said, when: str) -> Said:
    """Every field, with the present time where none is said."""
    fields = {name: said.get(name, "") for name in _FIELDS}
    return {**fields, when: fields[when] or changes.now.isoformat()}


# A table


def _identifier(names: list[str], path: Path) -> Kind:
    """The kind of identifier that one of the columns is named after."""
    kinds: list[Kind] = [kind for kind in get_args(Kind) if kind in names]
    if len(kinds) != 1:
        raise NoConsentIdentifier(
            f"The table {path.name} should have one column named {', '.join(get_args(Kind))}; "
            f"it has {len(kinds)}.",
            "Name the identifier's column after its kind; nothing was imported.",
        )
    return kinds[0]


def _write_rejects(node: Node, path: Path, rejected: pd.Series, values: Any) -> str | None:
    """CSV row (the first data row is 1), reason and identifier as it stood, mode 0600."""
    if rejected.empty:
        return None
    rejects = pd.DataFrame(
        {
            "row": rejected.index + 1,
            "reason": rejected,
            "value": values.take(
                pa.array(rejected.index.to_numpy(np.int64), pa.int64())
            ).to_pylist(),
        }
    )
    file = node.home.path / "rejects" / f"{path.stem}.csv"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(file, rejects.to_csv(index=False).encode(), overwrite=True)
    return str(file)
