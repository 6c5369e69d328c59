"""The store in a file: SQLite in WAL mode. All SQL that only SQLite knows is in this file."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Engine,
    LargeBinary,
    Table,
    and_,
    cast,
    create_engine,
    event,
    func,
    literal_column,
    or_,
    select,
    true,
)
from sqlalchemy.exc import DataError, DBAPIError

from compliance.errors import (
    NotAStore,
    StoreDamaged,
    StoreFull,
    StoreLocked,
    StoreReadOnly,
    StoreUnavailable,
    missing_store,
)
from protos.errors import ConcordatError

WRITES = {"concordat_writes": True}
"""Execution options of a transaction that writes."""

_LOCK_TIMEOUT = 10.0  # seconds; `?timeout=` in the URL overrides it


def connect(url: URL, *, create: bool) -> Engine:
    """A new file is readable by its owner only. Raises StoreMissing (E708), StoreUnavailable."""
    try:
        if create:
            _create_private(url)
        elif not _file(url).exists():
            raise missing_store()
    except OSError as error:
        raise _problem(sqlite3.SQLITE_CANTOPEN) from error
    timeout = {} if "timeout" in url.query else {"timeout": _LOCK_TIMEOUT}
    # Parameters are people's data: they must not reach an error message.
    engine = create_engine(url, connect_args=timeout, hide_parameters=True)
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    return engine


@contextmanager
def migrating(engine: Engine) -> Iterator[Connection]:
    """A write transaction in which tables may be dropped that others refer to.

    References have to hold again when it ends.
    """
    with engine.execution_options(**WRITES, concordat_migrates=True).begin() as conn:
        yield conn
        if conn.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
            raise _problem(sqlite3.SQLITE_CORRUPT)


def insert_columns(conn: Connection, table: Table, columns: Mapping[str, list[Any]]) -> None:
    """Inserts many rows, given the values of each column."""
    # Straight to the driver: SQLAlchemy's handling of each value takes thrice as long as SQLite's.
    if not conn.in_transaction():
        conn.begin()  # `_begin` decides whether it may write
    driver: Any = conn.connection.driver_connection
    rows = len(next(iter(columns.values())))
    given = {
        name: _bound(values)
        for name, values in columns.items()
        if values[:1] != [None] or values.count(None) < rows or table.c[name].server_default
    }
    names, width = tuple(given), len(given)
    flat: list[Any] = [None] * (rows * width)
    for at, values in enumerate(given.values()):
        flat[at::width] = values
    try:
        # Several rows a statement: starting one takes as long as a row.
        whole, part = rows // _ROWS * _ROWS * width, _ROWS * width
        for start in range(0, whole, part):
            driver.execute(_inserting(table.name, names, _ROWS), flat[start : start + part])
        one = [iter(flat[whole:])] * width
        driver.executemany(_inserting(table.name, names, 1), zip(*one, strict=True))
    except sqlite3.Error as error:
        raise DBAPIError.instance("INSERT", None, error, sqlite3.Error, True) from error


_ROWS = 50  # inserted by one statement


def _bound(values: list[Any]) -> list[Any]:
    """Values that the driver takes as they are.

    Of bytes and of None it looks for an adapter, which takes as long as to insert them.
    """
    if type(values[0] if values else None) is not bytes:
        return values
    return [bytearray(value) if type(value) is bytes else value for value in values]


@cache
def _inserting(table: str, columns: tuple[str, ...], rows: int) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({names}) VALUES {', '.join([row] * rows)}"  # noqa: S608


def scrub(engine: Engine, _: Sequence[str]) -> None:
    """Empties the write-ahead log, once nobody reads from it."""
    with closing(engine.raw_connection()) as conn:
        conn.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def packed(
    conn: Connection,
    columns: Sequence[ColumnElement[Any]],
    where: ColumnElement[bool],
    by: Sequence[ColumnElement[Any]],
) -> tuple[int, list[bytes]] | None:
    """As `store.packed`."""
    values: list[ColumnElement[Any]] = []
    sound: list[ColumnElement[bool]] = [true()]
    for column in columns:
        fixed = column.type.length if isinstance(column.type, LargeBinary) else None
        nullable = getattr(column, "nullable", False)
        if isinstance(column, Column) and fixed:
            sound.append(func.length(column) == fixed)
        elif isinstance(column, Column):
            of_type = func.typeof(column) == _STORAGE[column.type.python_type]
            sound.append(or_(of_type, column.is_(None)) if nullable else of_type)
        value = func.coalesce(column, literal_column("''")) if nullable else column
        # A literal, because char(10) is called for every row.
        gap: ColumnElement[str] = literal_column("''" if fixed else "'\n'")
        values.append(cast(func.group_concat(value, gap), LargeBinary))
    query = select(func.count(), func.count().filter(and_(*sound)), *values).where(where)
    try:
        count, right, *found = conn.execute(query).one()
    except DataError:  # larger than the largest value there is
        return None
    return (count, [value or b"" for value in found]) if right == count else None


_STORAGE = {bool: "integer", int: "integer", str: "text", bytes: "blob"}


def tree_hashes(
    conn: Connection, nodes: Sequence[tuple[int, int]], ranges: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, object]]:
    """As `store.tree_hashes`: level, index and hash; of leaves, level 0 and the first index."""
    # The same texts whatever is asked for, which the driver keeps prepared.
    driver: Any = conn.connection.driver_connection
    for start, stop in ranges:
        yield 0, start, driver.execute(_LEAF_HASHES, (start, stop)).fetchone()[0]
    for level, index in nodes:
        for (value,) in driver.execute(_NODE, (level, index)).fetchall():
            yield level, index, value


_LEAF_HASHES = """
SELECT CAST(group_concat(leaf_hash, '') AS BLOB) FROM log_entries
WHERE "index" >= ? AND "index" < ?
"""
_NODE = 'SELECT hash FROM log_nodes WHERE level = ? AND "index" = ?'


def mistyped(conn: Connection, table: Table) -> Iterator[tuple[Column[Any], int]]:
    """Columns that hold values of another type than their own, which SQLite lets in; how many."""
    strays = []
    for column in table.c:
        kinds = [_STORAGE[column.type.python_type]] + ["null"] * bool(column.nullable)
        strays.append(func.count().filter(func.typeof(column).not_in(kinds)))
    counts = conn.execute(select(*strays).select_from(table)).one()
    yield from ((column, n) for column, n in zip(table.c, counts, strict=True) if n)


def problem(error: BaseException | None) -> ConcordatError | None:
    """What a user can do about the driver's error; None if nothing."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None and isinstance(error, sqlite3.OperationalError):
        code = sqlite3.SQLITE_CORRUPT  # a text that the driver cannot decode
    return _problem(code) if code is not None and code & 0xFF in _ERRORS else None


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
        "secure_delete = ON",
        "cache_size = -131072",  # KiB: an import touches pages all over the indexes
        # Pages are kept as they were before a statement of many rows. In files that takes a quarter
        # of an import, and leaves people's data on the disk, outside of this file.
        "temp_store = MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(conn: Connection) -> None:
    options = conn.get_execution_options()
    writes, migrates = "concordat_writes" in options, "concordat_migrates" in options
    driver: Any = (
        conn.connection.driver_connection
    )  # past SQLAlchemy, which takes ten times as long
    # Setting one, even to what it is, has SQLite prepare every statement anew. The second cannot
    # be set within a transaction.
    for pragma, wanted in (("query_only", not writes), ("foreign_keys", not migrates)):
        if conn.info.get(pragma) != wanted:
            driver.execute(f"PRAGMA {pragma} = {wanted:d}")
            conn.info[pragma] = wanted
    driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")


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


def _problem(code: int) -> ConcordatError:
    kind, message, next_step = _ERRORS[code & 0xFF]
    return kind(message, next_step)
