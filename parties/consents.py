"""Import a table of consents: identifiers are normalised here, the rest is the consent room's."""

from pathlib import Path
from typing import Any, get_args

import pandas as pd
from sqlalchemy import func, select

from compliance import consent
from compliance.consent import consents, terms
from federated.identifiers import Kind, normalise, with_kind
from parties.errors import NoConsentIdentifier
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
        done = consent.import_consents(
            conn, node.log, node.vault_keys, rows[identified], time=node.now()
        )
        node.log.checkpoint(conn)
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
    """How many consents there are, by their terms and state."""
    columns = (terms.c.purpose, terms.c.recipient, terms.c.categories, consents.c.state)
    query = (
        select(*columns, func.count().label("consents"))
        .join(terms, terms.c.id == consents.c.terms)
        .group_by(*columns)
        .order_by(*columns)
    )
    with node.reading() as conn:
        return [dict(row) for row in conn.execute(query).mappings()]


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
