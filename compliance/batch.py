"""Many values at a time: byte strings for the native kernels, keys for the database."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, Select, Table, func, select

from compliance.store import insert_columns

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Strings = Iterable[str]  # an Arrow array, a pandas column or a list

BATCH = 10_000  # values a query names at a time: SQLite takes 32766, PostgreSQL 65535


def joined(strings: Strings) -> tuple[U8, U64]:
    """Strings as the kernels take them: one buffer of UTF-8, and n + 1 offsets into it."""
    array: Any = pa.array(strings, pa.large_string())
    if array.null_count:
        raise ValueError("a string is missing")
    if not len(array):
        return np.zeros(0, np.uint8), np.zeros(1, np.uint64)
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset :][: len(array) + 1]
    return np.frombuffer(data, np.uint8)[ends[0] : ends[-1]], (ends - ends[0]).astype(np.uint64)


def lines(text: bytes) -> tuple[U8, U64]:
    """Lines, the last without a newline, as the kernels take them with a gap of one byte."""
    data = np.frombuffer(text + b"\n", np.uint8)
    return data, np.append(0, np.flatnonzero(data == ord("\n")) + 1).astype(np.uint64)


def integers(text: bytes) -> I64:
    """Whole numbers, one a line. ValueError for anything else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what is no number; told below
        numbers = np.fromstring(text, np.int64, sep="\n") if text else np.zeros(0, np.int64)
    if len(numbers) != text.count(b"\n") + bool(text):
        raise ValueError("not only whole numbers")
    return numbers


def joined_rows(rows: U8) -> tuple[U8, U64]:
    """The rows of a uint8 (n, k) array, as the kernels take them."""
    count, width = rows.shape
    return np.ascontiguousarray(rows).ravel(), np.arange(count + 1, dtype=np.uint64) * width


def joined_bytes(values: Sequence[bytes]) -> tuple[U8, U64]:
    """Byte strings, as the kernels take them."""
    ends = np.cumsum([0, *map(len, values)], dtype=np.uint64)
    return np.frombuffer(b"".join(values), np.uint8), ends


def as_bytes(rows: U8) -> list[bytes]:
    """The rows of a uint8 (n, k) array, each as bytes."""
    values: list[bytes] = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel().tolist()
    return values


def from_bytes(values: Iterable[bytes], width: int) -> U8:
    """uint8 (n, width) of values that are each `width` bytes long."""
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, width)


def sorted_rows(rows: U8) -> U8:
    """The rows of a uint8 (n, k) array in the order of their bytes."""
    if rows.shape[1] >= 8:
        # Random rows differ in their first eight bytes, and numbers are sorted faster than text.
        first = np.ascontiguousarray(rows[:, :8]).view(">u8").ravel().astype(np.uint64)
        order = np.argsort(first)
        if (np.diff(first[order]) > 0).all():
            return rows[order]
    # NumPy drops trailing zeros from an S value, which changes no order among equal widths.
    ordered = np.sort(np.ascontiguousarray(rows).view(f"S{rows.shape[1]}").ravel())
    return ordered.view(np.uint8).reshape(rows.shape)


def fetch(conn: Connection, query: Select[Any]) -> pd.DataFrame:
    """What a query yields, by the names of its columns."""
    return _frame(query, conn.execute(query).all())


def fetch_in(
    conn: Connection, query: Select[Any], column: Any, values: Sequence[Any]
) -> pd.DataFrame:
    """What a query yields where a column, one of those it selects, is among any number of values.

    Most of a table is read faster as a whole than by naming its rows.
    """
    if len(values) > BATCH:
        size = conn.execute(select(func.count()).select_from(query.subquery())).scalar_one()
        if size <= 4 * len(values):
            found = fetch(conn, query)
            held = found[column.key]
            # NumPy would cut the zeros off the ends of bytes.
            wanted = held.isin(pd.Series(list(values), dtype=held.dtype))
            some: pd.DataFrame = found[wanted].reset_index(drop=True)
            return some
    rows = [
        row
        for start in range(0, len(values), BATCH)
        for row in conn.execute(query.where(column.in_(values[start : start + BATCH])))
    ]
    return _frame(query, rows)


def _frame(query: Select[Any], rows: Sequence[Row[Any]]) -> pd.DataFrame:
    names = query.selected_columns.keys()
    # By columns: pandas would look each Row object over several times.
    columns = zip(*rows, strict=True) if rows else ((),) * len(names)
    frame = pd.DataFrame(dict(zip(names, map(list, columns), strict=True)))
    return frame if rows else frame.astype(object)


def add(conn: Connection, table: Table, rows: pd.DataFrame) -> None:
    """Inserts rows whose columns are named as the table's; other columns are left out."""
    names = [name for name in table.columns.keys() if name in rows]  # noqa: SIM118
    for start in range(0, len(rows), BATCH):
        part = rows.iloc[start : start + BATCH]
        insert_columns(conn, table, {name: part[name].tolist() for name in names})


def next_id(conn: Connection, table: Table) -> int:
    """The first free row id. It stays free: a write transaction has no rival."""
    return 1 + int(conn.execute(select(func.coalesce(func.max(table.c.id), 0))).scalar_one())
