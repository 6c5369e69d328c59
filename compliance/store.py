"""One database a node: consents, agreements, log, runs. SQLite in WAL mode.

Modules add their tables to `metadata` when they are imported. All SQL that only SQLite knows is in
this file.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DBAPIError

from compliance.errors import (
    NotAStore,
    StoreDamaged,
    StoreFull,
    StoreLocked,
    StoreMissing,
    StoreReadOnly,
    StoreTooNew,
    StoreUnavailable,
    UnsupportedStore,
)
from protos.errors import ConcordatError

SCHEMA_VERSION = 1

metadata = MetaData()

# A 64-bit integer that SQLite, too, accepts as a primary key.
Integer64 = BigInteger().with_variant(Integer(), "sqlite")

_schema_version = Table("schema_version", metadata, Column("version", Integer, primary_key=True))

_LOCK_TIMEOUT = 10.0  # seconds; `?timeout=` in the URL overrides it
_WRITES = "concordat_writes"


def open_store(url: str, *, create: bool = False) -> Engine:
    """Open the database at a SQLAlchemy URL (`sqlite:////path/to/file`).

    A store that is not there is made only if `create`, readable by its owner only: an empty one in
    its place would know of no consent, no withdrawal and no run. Raises E70x.
    """
    parsed = _parse(url)
    with _translated():
        if create:
            _create_private(parsed)
        elif not _file(parsed).exists():
            raise _missing()
        timeout = {} if "timeout" in parsed.query else {"timeout": _LOCK_TIMEOUT}
        # Parameters are people's data: they must not reach an error message.
        engine = create_engine(parsed, connect_args=timeout, hide_parameters=True)
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        with write(engine) as conn:
            _check_version(conn, create=create)
            metadata.create_all(conn)
    return engine


@contextmanager
def write(engine: Engine) -> Iterator[Connection]:
    """A write transaction, durable once the block is left. One at a time, across processes.

    What is read inside stays true until the end. An exception rolls everything back. Raises E70x.
    """
    with _translated(), engine.execution_options(**{_WRITES: True}).begin() as conn:
        yield conn


@contextmanager
def read(engine: Engine) -> Iterator[Connection]:
    """A snapshot to read from; writers go on meanwhile. Raises E70x."""
    with _translated(), engine.begin() as conn:
        yield conn


def mistyped(conn: Connection) -> Iterator[tuple[Column[Any], int]]:
    """Each column that holds values of another type than its own, which SQLite lets in; how many.

    Nothing the program writes is found here, only what was changed behind its back.
    """
    storage = {bool: "integer", int: "integer", str: "text", bytes: "blob"}
    for table in metadata.sorted_tables:
        strays = []
        for column in table.c:
            kinds = [storage[column.type.python_type]] + ["null"] * bool(column.nullable)
            strays.append(func.count().filter(func.typeof(column).not_in(kinds)))
        counts = conn.execute(select(*strays).select_from(table)).one()
        yield from ((column, n) for column, n in zip(table.c, counts, strict=True) if n)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise _unsupported() from error
    if parsed.get_backend_name() != "sqlite" or parsed.database in {None, "", ":memory:"}:
        raise _unsupported()
    return parsed


def _unsupported() -> UnsupportedStore:
    return UnsupportedStore(
        "The store's URL does not name an SQLite file.",
        "Write it as sqlite:///relative/path.db or sqlite:////absolute/path.db.",
    )


def _missing() -> StoreMissing:
    return StoreMissing(
        "There is no store at the place that the configuration names.",
        "Correct `store` in config.yaml, or restore the latest backup; only `concordat init` makes "
        "a new store, for a new node.",
    )


def _file(url: URL) -> Path:
    """The file that a URL names, also as an SQLite URI."""
    name = url.database or ""
    return Path(unquote(name.removeprefix("file:").partition("?")[0]))


def _create_private(url: URL) -> None:
    """SQLite would create the file by the umask; its -wal and -shm take over the file's mode."""
    if url.database and not url.database.startswith("file:"):
        os.close(os.open(Path(url.database), os.O_RDWR | os.O_CREAT, 0o600))


def _configure(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # the driver begins no transaction: `_begin` does
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(conn: Connection) -> None:
    writes = conn.get_execution_options().get(_WRITES, False)
    conn.exec_driver_sql(f"PRAGMA query_only = {'OFF' if writes else 'ON'}")
    conn.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_version(conn: Connection, *, create: bool) -> None:
    tables = inspect(conn).get_table_names()
    if not (tables or create):
        raise _missing()
    if _schema_version.name not in tables:
        if tables:
            raise NotAStore(
                "The database belongs to another program.",
                "Name a file of Concordat's, or one that does not exist yet.",
            )
        _schema_version.create(conn)
        conn.execute(insert(_schema_version).values(version=SCHEMA_VERSION))
    versions = conn.execute(select(_schema_version.c.version)).scalars().all()
    if len(versions) != 1:
        kind, message, next_step = _ERRORS[sqlite3.SQLITE_CORRUPT]
        raise kind(message, next_step)
    version = versions[0]
    if version > SCHEMA_VERSION:
        raise StoreTooNew(
            f"The store was written by a newer Concordat (schema {version}).",
            "Install that version or a later one; this one would damage the store.",
        )


_ERRORS: dict[int, tuple[type[ConcordatError], str, str]] = {
    sqlite3.SQLITE_BUSY: (
        StoreLocked,
        "Another process has been writing to the store for too long.",
        "Wait until it is done, or stop it; then try again.",
    ),
    sqlite3.SQLITE_READONLY: (
        StoreReadOnly,
        "The store is read-only.",
        "Give the node's user write permission on the file and its folder.",
    ),
    sqlite3.SQLITE_FULL: (
        StoreFull,
        "There is no room left for the store.",
        "Free some disk space and try again; nothing was half written.",
    ),
    sqlite3.SQLITE_NOTADB: (
        NotAStore,
        "The file is not an SQLite database.",
        "Check the store's URL in the node's configuration.",
    ),
    sqlite3.SQLITE_CORRUPT: (
        StoreDamaged,
        "The store's file is damaged.",
        "Stop the node, keep the file as evidence and restore the latest backup.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        StoreUnavailable,
        "The store cannot be opened.",
        "Check that its folder exists and that the node's user may write there.",
    ),
    sqlite3.SQLITE_IOERR: (
        StoreUnavailable,
        "The disk failed while the store was being used.",
        "Check the disk; then start the node again.",
    ),
}
_ERRORS[sqlite3.SQLITE_LOCKED] = _ERRORS[sqlite3.SQLITE_BUSY]


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what a user can act on into numbered errors; let programming errors through."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause: Any = error.orig if isinstance(error, DBAPIError) else error
        code = getattr(cause, "sqlite_errorcode", None)
        if code is None and isinstance(cause, sqlite3.OperationalError):
            code = sqlite3.SQLITE_CORRUPT  # a text that the driver cannot decode
        known = _ERRORS.get((code or 0) & 0xFF)
        if known is None:
            raise
        kind, message, next_step = known
        raise kind(message, next_step) from error
    except OSError as error:
        kind, message, next_step = _ERRORS[sqlite3.SQLITE_CANTOPEN]
        raise kind(message, next_step) from error
