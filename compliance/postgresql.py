"""The store in a PostgreSQL database. All SQL that only PostgreSQL knows is in this file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from functools import cache
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Dialect,
    Engine,
    LargeBinary,
    Table,
    Text,
    and_,
    cast,
    create_engine,
    event,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.exc import DBAPIError

from compliance.errors import (
    StoreDamaged,
    StoreFull,
    StoreLocked,
    StoreNotDurable,
    StoreReadOnly,
    StoreUnavailable,
)
from protos.errors import ConcordatError

WRITES = {"concordat_writes": True}
"""Execution options of a transaction that writes."""

_LOCK_TIMEOUT = "10s"  # unless the database, its user or the URL's `options` set lock_timeout
_LOCK = 0x636F6E63  # this program's, among a database's advisory locks; with the schema it is in


def connect(url: URL, *, create: bool) -> Engine:
    """`create` makes no difference: a database is made on its server."""
    # Parameters are people's data: they must not reach an error message. A server that was
    # restarted leaves dead connections behind: each is tried before it is used.
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"), hide_parameters=True, pool_pre_ping=True
    )
    event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "before_cursor_execute", _choose_format)
    return engine


def migrating(engine: Engine) -> AbstractContextManager[Connection]:
    """A write transaction; tables may be changed in any."""
    return engine.execution_options(**WRITES).begin()


def insert_columns(conn: Connection, table: Table, columns: Mapping[str, list[Any]]) -> None:
    """Inserts rows, many of them by COPY, given the values of each column."""
    if not conn.in_transaction():
        conn.begin()  # `_begin` decides whether it may write
    driver: Any = conn.connection.driver_connection
    rows = [*zip(*columns.values(), strict=True)]
    try:
        if 0 < len(rows) <= _FEW:
            statement = _inserting(table.name, tuple(columns), len(rows))
            driver.execute(statement, [value for row in rows for value in row])
            return
        statement, types = _copying(conn.dialect, table, tuple(columns))
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        raise DBAPIError.instance("INSERT", None, error, psycopg.Error, True) from error


_FEW = 8  # rows; COPY takes the server three answers, however few there are


@cache
def _inserting(table: str, columns: tuple[str, ...], rows: int) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    row = f"({', '.join(['%s'] * len(columns))})"
    return f"INSERT INTO {table} ({names}) VALUES {', '.join([row] * rows)}"  # noqa: S608


@cache
def _copying(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> tuple[str, list[str]]:
    """The statement, and the types of the values, which their binary form has to be of."""
    names = ", ".join(f'"{name}"' for name in columns)
    types = [table.c[name].type.compile(dialect) for name in columns]
    statement = f"COPY {table.name} ({names}) FROM STDIN (FORMAT BINARY)"
    return statement, [kind.partition("(")[0].lower() for kind in types]


def scrub(engine: Engine, tables: Sequence[str]) -> None:
    """Frees the tables' dead rows, once no transaction can see them."""
    with closing(engine.raw_connection()) as conn:
        connection: Any = conn.driver_connection
        for name in tables:
            connection.execute(sql.SQL("VACUUM {}").format(sql.Identifier(name)))


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
        kind, width = column.type.python_type, getattr(column.type, "length", None)
        if kind is bytes:
            sound += [func.length(column) == width] if width else []
            gap: ColumnElement[bytes] = literal_column("''::bytea" if width else r"'\x0a'::bytea")
            values.append(func.string_agg(column, _ordered(gap, by), type_=LargeBinary))
        else:
            value = func.coalesce(cast(column, Text), literal_column("''"))
            text = func.string_agg(value, _ordered(literal_column("chr(10)"), by))
            values.append(func.convert_to(text, literal_column("'UTF8'"), type_=LargeBinary))
    query = select(func.count(), func.bool_and(and_(*sound)), *values).where(where)
    count, right, *found = conn.execute(query, execution_options=_BINARY).one()
    return (count, [value or b"" for value in found]) if right is not False else None


def _ordered(gap: ColumnElement[Any], by: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
    """The last argument of an aggregate, with the order in which it takes the rows."""
    return aggregate_order_by(gap, *by) if by else gap


def tree_hashes(
    conn: Connection, nodes: Sequence[tuple[int, int]], ranges: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, object]]:
    """As `store.tree_hashes`: level, index and hash; of leaves, level 0 and the first index."""
    wanted = (*zip(*nodes, strict=True),) or ((), ())
    parts = (*zip(*ranges, strict=True),) or ((), ())
    # Written as text, lists have the same type whatever they hold, and are written faster.
    lists = ["{" + ",".join(map(str, numbers)) + "}" for numbers in (*wanted, *parts)]
    driver: Any = conn.connection.driver_connection
    yield from driver.execute(_TREE_HASHES, lists, prepare=True, binary=True).fetchall()


# All by searches of keys, however large the planner takes the tables for: a range without the limit
# would be to it a part of the whole log. And it plans once: a plan for these lists alone could make
# no use of what sub-selects return.
_TREE_HASHES = """
SELECT level, "index", (
    SELECT hash FROM log_nodes AS node WHERE node.level = one.level AND node."index" = one."index"
) FROM unnest((SELECT %s::bigint[]), (SELECT %s::bigint[])) AS one (level, "index")
UNION ALL
SELECT 0, start, (
    SELECT string_agg(leaf_hash, ''::bytea ORDER BY "index") FROM (
        SELECT "index", leaf_hash FROM log_entries
        WHERE "index" >= start AND "index" < stop ORDER BY "index" LIMIT 256
    ) AS leaf
) FROM unnest((SELECT %s::bigint[]), (SELECT %s::bigint[])) AS part (start, stop)
"""


def mistyped(conn: Connection, table: Table) -> Iterator[tuple[Column[Any], int]]:
    """None: PostgreSQL holds columns to their types."""
    yield from ()


def problem(error: BaseException | None) -> ConcordatError | None:
    """What a user can do about the driver's error; None if nothing.

    By the classes of appendix A of PostgreSQL's manual.
    """
    if not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate
    if state is None:  # no answer from a server
        return _unavailable() if isinstance(error, psycopg.OperationalError) else None
    known = _ERRORS.get(state) or _ERRORS.get(state[:2])
    return None if known is None else known[0](*known[1:])


def _configure(connection: "psycopg.Connection[Any]", _: object) -> None:
    connection.autocommit = True  # the driver begins no transaction: `_begin` does
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('fsync'), current_setting('lock_timeout')")
        fsync, timeout = cursor.fetchone() or ("", "")
        # An entry that was acknowledged must survive a power cut.
        if fsync != "on":
            raise StoreNotDurable(
                "The PostgreSQL server does not sync to disk (fsync is off): a power cut would "
                "lose entries that were acknowledged.",
                "Set fsync = on in the server's configuration and restart it.",
            )
        cursor.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
        )
        if timeout == "0":
            cursor.execute(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")


def _begin(conn: Connection) -> None:
    # Past SQLAlchemy, and as one text: one answer to wait for. Two statements cannot be prepared.
    driver: Any = conn.connection.driver_connection
    driver.execute(
        _BEGIN_WRITE if "concordat_writes" in conn.get_execution_options() else _BEGIN_READ,
        prepare=False,
    )


# Each statement sees what is committed by then; with the lock, nobody else commits. A snapshot of
# the whole transaction would be as old as the wait for the lock.
_BEGIN_WRITE = f"""
BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;
SELECT pg_advisory_xact_lock({_LOCK}, hashtext(coalesce(current_schema(), '')))
"""
_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


# Bytes are sent as text otherwise, twice as long and slowly read.
_BINARY = {"concordat_binary": True}


def _choose_format(
    _: Connection, cursor: "psycopg.Cursor[Any]", __: str, ___: object, context: Any, ____: bool
) -> None:
    if "concordat_binary" in context.execution_options:
        cursor.format = psycopg.pq.Format.BINARY


_UNAVAILABLE = (
    StoreUnavailable,
    "The PostgreSQL server does not answer, or does not let the node in.",
    "Check that it runs, that the store's URL names its host, database and user, and that the "
    "password in PGPASSFILE is right.",
)
_LOCKED = (
    StoreLocked,
    "Another process has been writing to the store for too long.",
    "Wait until it is done, or stop it; then try again.",
)
_READ_ONLY = (
    StoreReadOnly,
    "The store is read-only.",
    "Connect to the primary server, as a user who may create and write tables there.",
)
_DAMAGED = (
    StoreDamaged,
    "The store's database is damaged.",
    "Stop the node, keep the database as evidence and restore the latest backup.",
)
_ERRORS: dict[str, tuple[type[ConcordatError], str, str]] = {
    "08": _UNAVAILABLE,  # connection exception
    "28": _UNAVAILABLE,  # invalid authorization specification
    "3D": _UNAVAILABLE,  # invalid catalog name: no such database
    "57": _UNAVAILABLE,  # operator intervention: shutting down, starting up
    "25006": _READ_ONLY,  # read-only transaction, as on a standby
    "42501": _READ_ONLY,  # insufficient privilege
    "40": _LOCKED,  # transaction rollback: deadlock
    "55P03": _LOCKED,  # lock not available
    "53100": (
        StoreFull,
        "There is no room left for the store.",
        "Free some disk space on the server and try again; nothing was half written.",
    ),
    "53": _UNAVAILABLE,  # insufficient resources: too many connections
    "58": (
        StoreUnavailable,
        "The server's disk failed while the store was being used.",
        "Look at the server's log and check its disk; then start the node again.",
    ),
    "XX001": _DAMAGED,  # data corrupted
    "XX002": _DAMAGED,  # index corrupted
}


def _unavailable() -> ConcordatError:
    kind, message, next_step = _UNAVAILABLE
    return kind(message, next_step)
