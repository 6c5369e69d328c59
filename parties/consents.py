"""Consents: a table of them, or one person's. Identifiers are normalised here, the rest is the
consent room's.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
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
from federated.identifiers import Kind, normalise, with_kind
from parties.agreements import read_document
from parties.errors import NoConsentIdentifier, PersonUnclear
from parties.files import write_private
from parties.node import Node
from parties.people import read as note_read
from parties.sources import Identifier, csv_header, read_columns

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


def import_file(node: Node, path: Path) -> dict[str, Any]:
    """Bring in a CSV table of consents; what became of its rows.

    The identifier's column is named after its kind. Rows that are refused go to a file of their
    own in the home. Raises E11x for the table, NoConsentIdentifier, VaultKey.
    """
    header = csv_header(path)
    kind = _identifier(header, path)
    identifier = Identifier(column=kind, kind=kind, region=node.config.region)
    columns = [*_COLUMNS, *(name for name in _OPTIONAL if name in header)]
    table = read_columns(path, None, identifier, columns)
    found = normalise(table.column(0), kind, region=identifier.region)
    rows = table.remove_column(0).rename_columns(columns).to_pandas()
    rows["subject"] = with_kind(kind, found.ids).to_pandas()
    identified = rows["subject"].notna()
    with node.writing() as conn:
        log = people.acting(conn, node.log, node.actor)
        done = consent.import_consents(
            conn, log, node.vault_keys, rows[identified], time=node.now()
        )
        log.checkpoint(conn)
    unnamed = pd.Series(found.reasons.to_pandas()[~identified], dtype=str)
    rejected = pd.concat([unnamed, done.rejected]).sort_index()
    return {
        "read": len(rows),
        "new": done.new,
        "withdrawn": done.withdrawn,
        "noticed": done.noticed,
        "known": done.known,
        "erased": done.erased,
        "rejected": {str(reason): int(n) for reason, n in rejected.value_counts().items()},
        "rejects_file": _write_rejects(node, path, rejected, table.column(0).to_pandas()),
    }


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
    files = _forget_in_files(node, subject)
    return {
        "entry": done.entry,
        "leaves": done.leaves,
        "erased_at": when(done.erased_at),
        "files": [str(path) for path in files],
    }


def _forget_in_files(node: Node, subject: str) -> list[Path]:
    """Takes the rows about a person out of the results and rejects in clear; which files."""
    kind, _, _ = subject.partition(":")
    changed = []
    for path in [*node.home.path.glob("runs/*/*.csv"), *node.home.path.glob("rejects/*.csv")]:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        theirs = np.zeros(len(table), np.bool_)
        for name in table:
            ids = with_kind(kind, normalise(table[name], kind, region=node.config.region).ids)
            theirs |= (ids.to_pandas() == subject).to_numpy()
        if theirs.any():
            write_private(path, table[~theirs].to_csv(index=False).encode(), overwrite=True)
            changed.append(path)
    return changed


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


def _write_rejects(node: Node, path: Path, rejected: pd.Series, values: pd.Series) -> str | None:
    """CSV row (the first data row is 1), reason and identifier as it stood, mode 0600."""
    if rejected.empty:
        return None
    rejects = pd.DataFrame(
        {"row": rejected.index + 1, "reason": rejected, "value": values[rejected.index]}
    )
    file = node.home.path / "rejects" / f"{path.stem}.csv"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_private(file, rejects.to_csv(index=False).encode(), overwrite=True)
    return str(file)
