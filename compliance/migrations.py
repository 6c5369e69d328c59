"""Steps that bring a store of an older version to the current one and lose nothing.

To change a table that has been released:

1. Change its definition, as a new store should have it.
2. Append a step to STEPS, which makes the same change in a store that exists. New tables count:
   a program that does not know them must refuse the store.
3. Say in that step's docstring what is new. What it cannot fill in truthfully stays empty.

A step runs inside one transaction, with those before and after it: a store is of the old version
or of the current one, never in between. It must not use the tables that modules define, which go
on changing; the helpers below take columns as they were at that step. Tests bring a store of every
earlier version up to date, on both databases, compare its schema with that of a new one, and audit
it.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    inspect,
    text,
)
from sqlalchemy.engine.interfaces import ReflectedForeignKeyConstraint
from sqlalchemy.schema import CreateColumn, SchemaItem

from compliance.merkle import Frontier
from federated import _native

Step = Callable[[Connection], None]


def _people_and_notices(conn: Connection) -> None:
    """Users, what they propose, and notices about agreements. There are none before."""
    create(
        conn,
        "users",
        Column("name", String(64), primary_key=True),
        Column("role", String(16), nullable=False),
        Column("key", LargeBinary(32), nullable=False),
    )
    create(
        conn,
        "proposals",
        Column("id", String(32), primary_key=True),
        Column("act", String(64), nullable=False),
        Column("body", LargeBinary, nullable=False),
        Column("state", String(16), nullable=False),
        Column("proposed_by", String(64), nullable=False),
        Column("entry", ForeignKey("log_entries.index"), nullable=False),
        Column("salt", LargeBinary, nullable=False),
        Column("detail", LargeBinary, nullable=False),
    )
    create(
        conn,
        "agreement_notices",
        Column("agreement", String(64), primary_key=True),
        Column("party", String(64), primary_key=True),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("step", String(16), nullable=False),
        Column("entry", ForeignKey("log_entries.index"), nullable=False),
        Column("envelope", LargeBinary, nullable=False),
    )


def _people_one_by_one(conn: Connection) -> None:
    """Refusals, notices, restrictions, erasures, rotation of the lookup keys.

    No consent had a notice, nobody was restricted or erased.
    """
    long = _long
    create(
        conn,
        "notices",
        Column("id", long, primary_key=True),
        Column("notice", String(64), nullable=False, unique=True),
        Column("digest", String(64), nullable=False, unique=True),
        Column("document", LargeBinary, nullable=False),
        Column("entry", ForeignKey("log_entries.index"), nullable=False, unique=True),
    )
    if not inspect(conn).has_table("refusals"):  # it came before this step
        create(
            conn,
            "refusals",
            Column("entry", ForeignKey("log_entries.index"), primary_key=True),
            Column("subject", ForeignKey("subjects.id"), nullable=False, index=True),
            Column("purpose", String(64), nullable=False),
            Column("recipient", String(64), nullable=False),
            Column("state", String(32), nullable=False),
            Column("at", BigInteger, nullable=False),
            Column("reason", String(64), nullable=False),
        )
    create(
        conn,
        "restrictions",
        Column("entry", ForeignKey("log_entries.index"), primary_key=True),
        Column("subject", ForeignKey("subjects.id"), nullable=False, index=True),
        Column("until", BigInteger, nullable=False),
        Column("reason", String(64), nullable=False),
    )
    create(
        conn,
        "tombstones",
        Column("entry", ForeignKey("log_entries.index"), primary_key=True),
        Column("tombstone", LargeBinary(32), nullable=False, index=True),
        Column("salt", LargeBinary(32), nullable=False, unique=True),
        Column("lookup_keys", Integer, nullable=False),
        Column("erased_at", BigInteger, nullable=False),
        Column("above", long, nullable=False),
    )
    create(conn, "vault", Column("lookup_keys", Integer, primary_key=True))
    kind = long.compile(conn.dialect)
    for table in ("consents", "consent_leaves"):
        reference = f"ADD COLUMN notice {kind} REFERENCES notices (id)"
        conn.execute(text(f"ALTER TABLE {_quoted(conn, table)} {reference}"))
    conn.execute(text("CREATE INDEX ix_subjects_wrapping_key ON subjects (wrapping_key)"))


def _tiles(conn: Connection) -> None:
    """Of the log's tree, subtrees of 256 entries and more stay; those below are made when needed.

    Of sub-trees, such hashes are stored now, made of their leaves. Entries of no run leave the
    index by runs.
    """
    conn.execute(text("DELETE FROM log_nodes WHERE level < 8"))
    conn.execute(text("DROP INDEX ix_log_entries_run"))
    conn.execute(text("CREATE INDEX ix_log_entries_run ON log_entries (run) WHERE run IS NOT NULL"))
    create(
        conn,
        "subtree_nodes",
        Column("root", LargeBinary, primary_key=True),
        Column("level", _long, primary_key=True, autoincrement=False),
        Column("index", _long, primary_key=True, autoincrement=False),
        Column("hash", LargeBinary(32), nullable=False),
        sqlite_with_rowid=False,
    )
    insert = text('INSERT INTO subtree_nodes (root, level, "index", hash) VALUES (:r, :l, :i, :h)')
    for (root,) in conn.execute(text("SELECT DISTINCT root FROM subtree_leaves")).all():
        frontier, rows = Frontier(), []
        query = text('SELECT leaf FROM subtree_leaves WHERE root = :r ORDER BY "index"')
        for page in conn.execute(query, {"r": root}).partitions(4096):
            leaves = [leaf if isinstance(leaf, bytes) else b"" for (leaf,) in page]
            for level, first, nodes in frontier.extend(_native.leaf_hashes(*_joined(leaves))):
                if level >= 8:
                    named = enumerate(nodes, first)
                    rows += [{"r": root, "l": level, "i": i, "h": bytes(h)} for i, h in named]
        if rows:
            conn.execute(insert, rows)


def _withdrawal_notices(conn: Connection) -> None:
    """Notices that somebody has withdrawn, and what people are called in runs that name them.

    Nobody was told before; in the runs there were, nobody has a name that a notice could use.
    """
    create(
        conn,
        "run_rows",
        Column("run", ForeignKey("run_inputs.run"), primary_key=True),
        Column("tokens", LargeBinary, nullable=False),
    )
    create(
        conn,
        "withdrawal_notices",
        Column("notice", String(32), primary_key=True),
        Column("agreement", String(64), nullable=False),
        Column("party", String(64), nullable=False),
        Column("recipient", String(64), nullable=False),
        Column("time", String(20), nullable=False),
        Column("entry", ForeignKey("log_entries.index"), nullable=False),
        Column("envelope", LargeBinary, nullable=False),
        Column("acknowledgement", LargeBinary),
        Column("problem", String(8)),
    )


def _periods(conn: Connection) -> None:
    """What was released in a period, for the agreements that have one. Nothing was kept before."""
    create(
        conn,
        "periods",
        Column("id", _long, primary_key=True),
        Column("agreement", String(64), nullable=False),
        Column("job", String(16), nullable=False),
        Column("period", String(10), nullable=False),
        Column("terms", LargeBinary(32), nullable=False),
        Column("root", LargeBinary(32), nullable=False),
        Column("released", Integer, nullable=False),
        UniqueConstraint("agreement", "job", "period"),
    )
    create(
        conn,
        "period_segments",
        Column("period", ForeignKey("periods.id"), primary_key=True),
        Column("segment", Integer, primary_key=True, autoincrement=False),
        Column("people", LargeBinary, nullable=False),
        Column("counts", String, nullable=False),
    )


# A 64-bit integer that SQLite, too, accepts as a primary key.
_long = BigInteger().with_variant(Integer(), "sqlite")

# Version n + 2 is made of version n + 1 by STEPS[n].
STEPS: list[Step] = [
    _people_and_notices,
    _people_one_by_one,
    _tiles,
    _withdrawal_notices,
    _periods,
]

VERSION = 1 + len(STEPS)


def migrate(conn: Connection, version: int) -> None:
    """Bring a store of this version to the current one, in the caller's transaction."""
    for step in STEPS[version - 1 :]:
        step(conn)


def create(conn: Connection, name: str, *items: SchemaItem, sqlite_with_rowid: bool = True) -> None:
    """Create a table. Its columns may refer to tables that exist."""
    known = MetaData()
    known.reflect(conn)
    Table(name, known, *items, sqlite_with_rowid=sqlite_with_rowid).create(conn)


def add_column(conn: Connection, table: str, column: Column[object]) -> None:
    """Add a column: nullable, or with a `server_default`, which existing rows then have."""
    Table(table, MetaData(), column)
    specification = CreateColumn(column).compile(dialect=conn.dialect)
    conn.execute(text(f"ALTER TABLE {_quoted(conn, table)} ADD COLUMN {specification}"))


def rebuild(conn: Connection, name: str, *items: SchemaItem, **values: str) -> None:
    """Make a table anew, with other columns or constraints, and carry its rows over.

    values: an SQL expression over the old row for each column that is not simply kept. What others
    refer to has to be kept.
    """
    known = MetaData()
    known.reflect(conn)
    old = known.tables[name]
    new = Table(f"{name}_new", known, *items)
    new.create(conn)
    kept = [column.name for column in new.c if column.name in values or column.name in old.c]
    columns = ", ".join(_quoted(conn, column) for column in kept)
    sources = ", ".join(values.get(column) or _quoted(conn, column) for column in kept)
    before, after = _quoted(conn, name), _quoted(conn, new.name)
    conn.execute(text(f"INSERT INTO {after} ({columns}) SELECT {sources} FROM {before}"))  # noqa: S608
    # SQLite keeps the references of other tables by name; PostgreSQL drops and needs them again.
    references = _references(conn, name) if conn.dialect.name == "postgresql" else []
    for table, key in references:
        conn.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {_quoted(conn, key['name'])}"))
    conn.execute(text(f"DROP TABLE {before}"))
    conn.execute(text(f"ALTER TABLE {after} RENAME TO {before}"))
    for table, key in references:
        own = ", ".join(_quoted(conn, column) for column in key["constrained_columns"])
        others = ", ".join(_quoted(conn, column) for column in key["referred_columns"])
        reference = f"FOREIGN KEY ({own}) REFERENCES {before} ({others})"
        conn.execute(text(f"ALTER TABLE {table} ADD {reference}"))


def _joined(values: list[bytes]) -> tuple[bytes, NDArray[np.uint64]]:
    """As the kernels take strings."""
    return b"".join(values), np.cumsum([0, *map(len, values)], dtype=np.uint64)


def _references(conn: Connection, name: str) -> list[tuple[str, ReflectedForeignKeyConstraint]]:
    """The foreign keys of other tables to this one."""
    looked_at = inspect(conn)
    return [
        (_quoted(conn, table), key)
        for table in looked_at.get_table_names()
        for key in looked_at.get_foreign_keys(table)
        if key["referred_table"] == name
    ]


def _quoted(conn: Connection, name: str | None) -> str:
    return conn.dialect.identifier_preparer.quote(name or "")
