"""Consents: a table of them, or one person's. Identifiers are normalised here, the rest is the
consent room's.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from sqlalchemy import case, func, literal, select

from compliance import consent, people
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
)
from compliance.person import Change, Changes
from federated.identifiers import Kind, normalise, with_kind
from parties.errors import NoConsentIdentifier, PersonUnclear
from parties.files import write_private
from parties.node import Node
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


def import_file(node: Node, path: Path) -> dict[str, Any]:
    """Bring in a CSV table of consents; what became of its rows.

    The identifier's column is named after its kind. Rows that are refused go to a file of their
    own in the home. Raises E11x for the table, NoConsentIdentifier, VaultKey.
    """
    kind = _identifier(csv_header(path), path)
    identifier = Identifier(column=kind, kind=kind, region=node.config.region)
    table = read_columns(path, None, identifier, _COLUMNS)
    found = normalise(table.column(0), kind, region=identifier.region)
    rows = table.remove_column(0).rename_columns(_COLUMNS).to_pandas()
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
        "known": done.known,
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
        done = change(Changes(conn, log, node.vault_keys, node.now()))
        log.checkpoint(conn)
    return [one.to_json() for one in (done if isinstance(done, list) else [done])]


_FIELDS = ("purpose", "recipient", "categories", "kind", "granted_at", "expires_at", "at", "reason")


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
