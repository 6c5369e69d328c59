"""One database a node: consents, agreements, log, runs. An SQLite file, or PostgreSQL.

Modules add their tables to `metadata` when they are imported. A change of a table that has been
released needs a step in `compliance.migrations`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    insert,
    inspect,
    make_url,
    update,
)
from sqlalchemy.exc import ArgumentError, DBAPIError

from compliance import migrations, postgresql, sqlite
from compliance.errors import (
    NotAStore,
    StoreDamaged,
    StoreTooNew,
    UnsupportedStore,
    missing_store,
)
from protos.errors import ConcordatError

metadata = MetaData()

# A 64-bit integer that SQLite, too, accepts as a primary key.
Integer64 = BigInteger().with_variant(Integer(), "sqlite")

_schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))


class _Backend(Protocol):
    """What the module of a database provides."""

    WRITES: dict[str, bool]

    def connect(self, url: URL, *, create: bool) -> Engine: ...
    def migrating(self, engine: Engine) -> AbstractContextManager[Connection]: ...
    def insert_columns(
        self, conn: Connection, table: Table, columns: Mapping[str, list[Any]]
    ) -> None: ...
    def scrub(self, engine: Engine, tables: Sequence[str]) -> None: ...
    def packed(
        self,
        conn: Connection,
        columns: Sequence[ColumnElement[Any]],
        where: ColumnElement[bool],
        by: Sequence[ColumnElement[Any]],
    ) -> tuple[int, list[bytes]] | None: ...
    def tree_hashes(
        self, conn: Connection, nodes: Sequence[tuple[int, int]], ranges: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[int, int, object]]: ...
    def mistyped(self, conn: Connection, table: Table) -> Iterator[tuple[Column[Any], int]]: ...
    def problem(self, error: BaseException | None) -> ConcordatError | None: ...


_BACKENDS: dict[str, _Backend] = {"sqlite": sqlite, "postgresql": postgresql}


def open_store(url: str, *, create: bool = False) -> Engine:
    """Open the database at a SQLAlchemy URL; one of an older version is brought up to date.

    `sqlite:////path/to/file`, or `postgresql+psycopg://user@host/database`.

    A store that is not there is made only if `create`: an empty one in its place would know of no
    consent, no withdrawal and no run. Raises E70x.
    """
    parsed = _parse(url)
    backend = _BACKENDS[parsed.get_backend_name()]
    with _translated(backend):
        engine = backend.connect(parsed, create=create)
        with backend.migrating(engine) as conn:
            _bring_up_to_date(conn, create=create)
            metadata.create_all(conn)
    return engine


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """A write transaction, durable once the block is left. One at a time, across processes.

    What is read inside stays true until the end. An exception rolls everything back. Raises E70x.
    """
    backend = _BACKENDS[engine.dialect.name]
    with _translated(backend), engine.connect() as conn:
        conn.execution_options(**backend.WRITES)
        with conn.begin():
            if _version(conn) != migrations.VERSION:  # by a process that started after this one
                raise _too_new()
            yield conn


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A snapshot to read from; writers go on meanwhile. Raises E70x."""
    with _translated(_BACKENDS[engine.dialect.name]), engine.begin() as conn:
        yield conn


def insert_columns(conn: Connection, table: Table, columns: Mapping[str, list[Any]]) -> None:
    """Inserts many rows at once, given the values of each column, none of them of NumPy's types."""
    _BACKENDS[conn.dialect.name].insert_columns(conn, table, columns)


def quick(conn: Connection, statement: str) -> list[tuple[Any, ...]]:
    """The rows of a statement without parameters, as the driver gives them.

    For a row or two, SQLAlchemy takes several times as long as the database.
    """
    if not conn.in_transaction():
        conn.begin()  # as SQLAlchemy would: the back end says what it may do
    driver: Any = conn.connection.driver_connection
    return list(driver.execute(statement).fetchall())


def scrub(engine: Engine, tables: Iterable[Table]) -> None:
    """Leaves nothing of deleted rows where the database still keeps it for itself. Raises E70x.

    In SQLite's file deleted rows are overwritten already; this empties the write-ahead log.
    PostgreSQL's dead rows are freed; its own log goes with its retention.
    """
    backend = _BACKENDS[engine.dialect.name]
    with _translated(backend):
        backend.scrub(engine, [table.name for table in tables])


def packed(
    conn: Connection,
    columns: Sequence[ColumnElement[Any]],
    where: ColumnElement[bool],
    by: Sequence[ColumnElement[Any]] = (),
) -> tuple[int, list[bytes]] | None:
    """How many rows there are, and what they hold in a few columns, in the order of a key.

    Values of bytes that have a length stand back to back, others as text joined by newlines,
    missing ones as empty text: a million values take less time than a million rows. `where` is a
    range of the key, if there is one. None if that cannot be told: a value is of another type or
    length than its column, or there is too much. What is computed from columns is not looked at,
    and text stands for bytes where it has their length.
    """
    found = _BACKENDS[conn.dialect.name].packed(conn, columns, where, by)
    if found is None:
        return None
    for column, values in zip(columns, found[1], strict=True):
        width = column.type.length if isinstance(column.type, LargeBinary) else None
        if width is not None and len(values) != found[0] * width:
            return None
    return found


def tree_hashes(
    conn: Connection, nodes: Sequence[tuple[int, int]], ranges: Sequence[tuple[int, int]]
) -> tuple[dict[tuple[int, int], bytes], dict[int, bytes]]:
    """Hashes of the log's tree that are stored, in one query.

    Those of nodes, by level and index; and those of the leaves [start, stop), at most 256, back to
    back, by the start of the range. What is missing, or no bytes, is left out.
    """
    inner, leaves = {}, {}
    for level, index, value in _BACKENDS[conn.dialect.name].tree_hashes(conn, nodes, ranges):
        if isinstance(value, bytes):
            if level:
                inner[level, index] = value
            else:
                leaves[index] = value
    return inner, leaves


def mistyped(conn: Connection) -> Iterator[tuple[Column[Any], int]]:
    """Each column that holds values of another type than its own, if a database lets them in.

    And how many. Nothing the program writes is found here, only what was changed behind its back.
    """
    for table in metadata.sorted_tables:
        yield from _BACKENDS[conn.dialect.name].mistyped(conn, table)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _unsupported() from error
    known = parsed.drivername in {"sqlite", "postgresql", "postgresql+psycopg"}
    if not known or parsed.database in {None, "", ":memory:"}:
        raise _unsupported()
    return parsed


def _unsupported() -> UnsupportedStore:
    return UnsupportedStore(
        "The store's URL names neither an SQLite file nor a PostgreSQL database.",
        "Write it as sqlite:///relative/path.db, sqlite:////absolute/path.db or "
        "postgresql+psycopg://user@host/database.",
    )


def _bring_up_to_date(conn: Connection, *, create: bool) -> None:
    tables = inspect(conn).get_table_names()
    if not (tables or create):
        raise missing_store()
    if _schema_version.name not in tables:
        if tables:
            raise NotAStore(
                "The database belongs to another program.",
                "Name one of Concordat's, or one that is new.",
            )
        _schema_version.create(conn)
        conn.execute(insert(_schema_version).values(version=migrations.VERSION))
        return
    version = _version(conn)
    if version > migrations.VERSION:
        raise _too_new()
    if version < migrations.VERSION:
        migrations.migrate(conn, version)
        conn.execute(update(_schema_version).values(version=migrations.VERSION))


def _version(conn: Connection) -> int:
    versions = [version for (version,) in quick(conn, "SELECT version FROM schema_version")]
    if len(versions) != 1 or not isinstance(versions[0], int) or versions[0] < 1:
        raise StoreDamaged(
            "The store does not say by which version it was written.",
            "Stop the node, keep the store as evidence and restore the latest backup.",
        )
    return versions[0]


def _too_new() -> StoreTooNew:
    return StoreTooNew(
        "The store was written by a newer Concordat.",
        "Restart this node with that version or a later one; this one would damage the store.",
    )


@contextmanager
def _translated(backend: _Backend) -> Iterator[None]:
    """Turn what a user can act on into numbered errors; let programming errors through."""
    try:
        yield
    except Exception as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        known = backend.problem(cause)
        if known is None:
            raise
        raise known from error
