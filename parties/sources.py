"""An institution's own tables: every identifier normalised, every other value as text.

CSV and Parquet files go through DuckDB, column by column, and only the columns asked for.
Numbers and segments are made from the text, so that they are exact.
"""

import csv
import io
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from decimal import ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import available_timezones

import duckdb
import numpy as np
import pandas as pd
import phonenumbers
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from compliance.agreement import Axis
from federated.identifiers import Ids, Kind, Texts, as_text, normalise
from parties.catalogue import Library, sectors
from parties.errors import (
    DuplicateIdentifiers,
    IdentifierNotText,
    NoColumn,
    NoIdentifierColumn,
    NotUtf8,
    QueryFailed,
    TableEmpty,
    TableMalformed,
    TableNotFound,
    TableUnreadable,
)
from parties.files import write_private
from protos.errors import ConcordatError


def _check_region(region: str) -> str:
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("should be a two-letter ISO 3166 code in capitals")
    return region


Region = Annotated[str, AfterValidator(_check_region)]


def _check_zone(zone: str) -> str:
    if zone not in available_timezones():
        raise ValueError("should be a time zone of the IANA database, such as Asia/Shanghai")
    return zone


Zone = Annotated[str, AfterValidator(_check_zone)]


class Identifier(BaseModel):
    """The column that says whom a row is about."""

    model_config = ConfigDict(extra="forbid")

    column: str
    kind: Kind
    region: Region = "CN"


class Source(BaseModel):
    """Where a table lies and how to read it.

    `sql` is one SELECT over the table, named `source`. To group by person, whose identifier may be
    written in several ways, use `canonical(column)`.
    """

    model_config = ConfigDict(extra="forbid")

    path: Path
    sql: str | None = None

    @field_validator("path")
    @classmethod
    def _has_known_format(cls, path: Path) -> Path:
        if path.suffix not in {".csv", ".parquet"}:
            raise ValueError("should end in .csv or .parquet")
        return path


class FeatureSettings(BaseModel):
    """How a sector's library makes features of raw tables.

    They are made of what happened in the `window_days` before the day `as_of` begins in `timezone`
    (IANA), where times without an offset belong too. tables: those beside the dataset's own.
    """

    model_config = ConfigDict(extra="forbid")

    library: Library
    as_of: date | Literal["today"]
    window_days: int = Field(365, ge=1, le=36_525)
    timezone: Zone = "Asia/Shanghai"
    tables: dict[str, Source] = {}

    @model_validator(mode="after")
    def _knows_its_tables(self) -> Self:
        _, *others = sectors()[self.library].tables
        if unknown := set(self.tables) - set(others):
            raise ValueError(
                f"tables: {self.library} has no further table {min(unknown)!r}; it has "
                f"{', '.join(others) or 'none'}"
            )
        return self


class Dataset(Source):
    """A table of people, one row each; or, with `features`, the raw table they are made of."""

    identifier: Identifier
    duplicates: Literal["error", "first"] = "error"
    features: FeatureSettings | None = None


@dataclass(frozen=True)
class Table:
    """One row a person: ids[i] belongs to frame.iloc[i].

    frame: the columns asked for, as text (Arrow large_string), missing where empty.
    rows: rows read. duplicates: rows left out because an earlier one is about the same person.
    rejects: row (1 is the first below the header), reason and value of each row without an id.
    events: where features were made of rows, what became of those with an id.
    """

    ids: Ids
    frame: pd.DataFrame
    rows: int
    duplicates: int
    rejects: pd.DataFrame = field(repr=False)
    events: dict[str, int] | None = None

    def counts(self) -> dict[str, Any]:
        """rows = accepted + duplicates + sum(rejected), where rejected counts by reason.

        Where features were made of them, rows = sum(events) + sum(rejected).
        """
        by_reason = self.rejects["reason"].value_counts()
        return {
            "rows": self.rows,
            "accepted": len(self.ids),
            "duplicates": self.duplicates,
            "rejected": {str(reason): int(count) for reason, count in by_reason.items()},
            **({} if self.events is None else {"events": self.events}),
        }

    def write_rejects(self, path: Path) -> None:
        """CSV row,reason,value. The values stay inside the institution: mode 0600."""
        write_private(path, self.rejects.to_csv(index=False).encode(), overwrite=True)


def read_table(dataset: Dataset, home: Path, columns: Iterable[str] = ()) -> Table:
    """Reads the identifiers and these columns. A relative path starts at `home`.

    Raises TableNotFound, TableUnreadable, TableEmpty, NotUtf8, NoIdentifierColumn, NoColumn,
    TableMalformed, DuplicateIdentifiers, QueryFailed, IdentifierNotText.
    """
    identifier = dataset.identifier
    wanted = list(dict.fromkeys(columns))
    table = read_columns(home / dataset.path, dataset.sql, identifier, wanted)
    values = table.column(0)
    found = normalise(values, identifier.kind, region=identifier.region)
    repeated = _repeated(found.ids)
    if dataset.duplicates == "error" and repeated.any():
        persons = pc.count_distinct(found.ids.filter(pa.array(repeated))).as_py()
        raise several_rows(dataset, persons, int(repeated.sum()))
    accepted = found.ids.is_valid().to_numpy(zero_copy_only=False)
    kept = pa.array(accepted & ~repeated)
    wrong = pa.array(np.flatnonzero(~accepted), pa.int64())
    return Table(
        ids=Ids.from_strings(identifier.kind, found.ids.filter(kept)),
        frame=table.remove_column(0)
        .rename_columns(wanted)
        .filter(kept)
        .to_pandas(types_mapper=pd.ArrowDtype),
        rows=table.num_rows,
        duplicates=int(repeated.sum()),
        rejects=pd.DataFrame(
            {
                "row": wrong.to_numpy() + 1,
                "reason": found.reasons.take(wrong).to_pylist(),
                "value": values.take(wrong).to_pylist(),
            }
        ),
    )


def several_rows(dataset: Dataset, persons: int, rows: int) -> DuplicateIdentifiers:
    """The refusal of a table with so many rows about somebody that an earlier row is about."""
    return DuplicateIdentifiers(
        f"The table {dataset.path.name} holds {persons} persons more than once: "
        f"{rows} rows repeat an identifier of an earlier row.",
        "Make it one row a person, for instance with `sql` and GROUP BY canonical("
        f"{dataset.identifier.column}), or set `duplicates: first` on the dataset to keep each "
        "person's first row.",
    )


def _repeated(ids: pa.LargeStringArray) -> NDArray[np.bool_]:
    """Which rows have the id of an earlier row."""
    if len(pc.unique(ids)) == len(ids):
        return np.zeros(len(ids), bool)
    codes = ids.dictionary_encode().indices.fill_null(-1).to_numpy()
    return pd.Series(codes).duplicated().to_numpy() & (codes >= 0)


# Files

_EXPORT = "Check that its export ran to the end."
_BATCH = 1 << 20  # rows

# What DuckDB raises, and its binding to Python for names and values that are not UTF-8; Arrow, for
# what DuckDB finds while a table is read a part at a time.
_REFUSALS = (duckdb.Error, RuntimeError, UnicodeDecodeError, OSError, pa.ArrowException)


def read_columns(
    path: Path, sql: str | None, identifier: Identifier, columns: list[str]
) -> pa.Table:
    """The identifier and these columns of a CSV or Parquet file, in this order, as text.

    `sql`: one SELECT over the file, named `source`. Raises as `read_table`, but for duplicates.
    """
    with reading(path, sql, identifier, columns) as reader:
        table: pa.Table = reader.read_all()
    if not table.num_rows:
        raise TableEmpty(f"The table {path.name} holds no rows.", _EXPORT)
    return table


@contextmanager
def reading(
    path: Path,
    sql: str | None,
    identifier: Identifier | None,
    columns: Sequence[str],
    optional: Collection[str] = (),
) -> Iterator[pa.RecordBatchReader]:
    """The same, if there is an identifier, a part at a time; `optional` columns where there are."""
    with _relation(path, sql, identifier) as relation:
        types = dict(zip(relation.columns, map(str, relation.types), strict=True))
        wanted = [name for name in columns if name in types or name not in optional]
        _check_columns(path, types, identifier.column if identifier else None, wanted)
        if identifier:
            wanted.insert(0, identifier.column)
        selected = ", ".join(_as_text(name, types[name]) for name in wanted)
        yield relation.project(selected).to_arrow_reader(_BATCH)


@contextmanager
def _relation(
    path: Path, sql: str | None, identifier: Identifier | None
) -> Iterator[duckdb.DuckDBPyRelation]:
    """The table, and what DuckDB says of it in our words."""
    _check_file(path)
    query = f"({sql.strip().rstrip(';')}\n)" if sql else "source"
    with _database(path.resolve()) as db:
        if identifier:
            _create_canonical(db, identifier)
        try:
            _open_source(db, path.resolve())
            yield db.sql(f"FROM {query}")
        except _REFUSALS as error:
            raise _failure(error, path, sql) from None


def present(path: Path, sql: str | None, identifier: Identifier | None) -> list[str]:
    """The columns there are. Raises as `read_table`."""
    with _relation(path, sql, identifier) as relation:
        return list(relation.columns)


def _create_canonical(db: duckdb.DuckDBPyConnection, identifier: Identifier) -> None:
    db.create_function(  # type: ignore[call-overload]  # enumerations by name
        "canonical",
        lambda ids: normalise(ids, identifier.kind, region=identifier.region).ids,
        ["VARCHAR"],
        "VARCHAR",
        type="arrow",
        null_handling="special",
    )


def _database(path: Path) -> duckdb.DuckDBPyConnection:
    """In memory. Its queries see this one file and nothing else, and write nowhere."""
    db = duckdb.connect()
    settings = {
        "arrow_large_buffer_size": True,
        "python_enable_replacements": False,
        "temp_directory": "",
        "allowed_paths": [str(path)],
        "enable_external_access": False,
    }
    for name, value in settings.items():
        db.execute(f"SET {name} = $value", {"value": value})
    return db


def _check_file(path: Path) -> None:
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise TableNotFound(
            f"There is no file {path}.",
            "Correct its name, or `path` in the node's configuration, which starts at the home.",
        ) from None
    except OSError as error:
        raise TableUnreadable(
            f"The file {path} cannot be read: {error.strerror}.",
            "Check that it is a file and that the node's user may read it.",
        ) from None
    if empty:
        raise TableEmpty(f"The file {path.name} is empty.", _EXPORT)


def _open_source(db: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Makes the file the view `source`. CSV is RFC 4180, all columns text; nothing is guessed."""
    if path.suffix == ".parquet":
        db.execute(f"CREATE VIEW source AS FROM read_parquet({_literal(str(path))})")
        return
    names, line_ends = _scan_csv(path)
    if line_ends > 1:  # somebody appended rows: DuckDB's strict parser takes one kind only
        db.register("source", _read_mixed(path, names))
        return
    columns = ", ".join(f"{_literal(name)}: 'VARCHAR'" for name in names)
    db.execute(
        f"CREATE VIEW source AS FROM read_csv({_literal(str(path))}, columns = {{{columns}}}, "
        "auto_detect = false, header = true, delim = ',', quote = '\"', escape = '\"', "
        "strict_mode = true)"
    )


def _read_mixed(path: Path, names: list[str]) -> pa.Table:
    try:
        return pa.csv.read_csv(
            path,
            pa.csv.ReadOptions(column_names=names, skip_rows=1),
            pa.csv.ParseOptions(newlines_in_values=True),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.large_string())),
        )
    except pa.ArrowInvalid:  # its words quote the data
        raise _malformed(path, "its line ends are of several kinds, and its rows differ") from None


def header(path: Path) -> list[str]:
    """The columns of a CSV or Parquet file. Raises as `csv_header`."""
    if path.suffix != ".parquet":
        return csv_header(path)
    _check_file(path)
    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise _failure(error, path, None) from None


def csv_header(path: Path) -> list[str]:
    """The columns of a CSV file that is UTF-8 throughout.

    Raises TableNotFound, TableUnreadable, TableEmpty, NotUtf8, TableMalformed.
    """
    return _scan_csv(path)[0]


def _scan_csv(path: Path) -> tuple[list[str], int]:
    """The columns, and how many kinds of line ends there are; the rest as `csv_header`."""
    _check_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            start = file.read(1 << 20)
            while file.read(1 << 20):  # to the end, so that no column can hold another encoding
                pass
            line_ends = len(file.newlines) if isinstance(file.newlines, tuple) else 1
        header = next(csv.reader(io.StringIO(start, newline="")), [])
    except UnicodeDecodeError:
        raise NotUtf8(
            f"The file {path.name} is not UTF-8.",
            "Save it as UTF-8, for instance with `iconv -f GB18030 -t UTF-8 OLD.csv > NEW.csv`.",
        ) from None
    except csv.Error:
        raise _malformed(path, "its first line is no header") from None
    if not header:
        raise TableEmpty(f"The file {path.name} has no header.", _EXPORT)
    names = [name.strip() or f"column{i}" for i, name in enumerate(header)]
    if len({name.lower() for name in names}) < len(names):
        raise _malformed(path, "two columns have the same name (capitals do not count)")
    return names, line_ends


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _as_text(name: str, kind: str) -> str:
    column = '"' + name.replace('"', '""') + '"'
    value = f"CAST({column} AS TINYINT)" if kind == "BOOLEAN" else column
    return f"CAST({value} AS VARCHAR) AS {column}"


def _check_columns(
    path: Path, types: dict[str, str], identifier: str | None, columns: Iterable[str]
) -> None:
    if identifier is not None and identifier not in types:
        raise NoIdentifierColumn(
            f"The table {path.name} has no column '{identifier}', where identifiers should be.",
            f"Correct `identifier` in the node's configuration. {_present(types)}",
        )
    for name in columns:
        if name not in types:
            raise NoColumn(
                f"The table {path.name} has no column '{name}'.",
                f"Add the column, or make it with `sql`. {_present(types)}",
            )
    if identifier is not None and types[identifier] in {"FLOAT", "DOUBLE"}:
        raise IdentifierNotText(
            f"Column '{identifier}' of the table {path.name} holds floating-point numbers.",
            "Export identifiers as text: floating-point numbers lose digits and leading zeros.",
        )


def _present(names: Iterable[str]) -> str:
    """The columns there are, unless they look like values: then there was no header."""
    shown = [name[:64] for name in names][:50]
    if any("@" in name or re.fullmatch(r"[\d\s+().-]{5,}[Xx]?", name) for name in shown):
        return "The first line seems to be data: a table needs a header."
    return f"The table has: {', '.join(shown)}."


def _failure(error: Exception, path: Path, sql: str | None) -> ConcordatError:
    """What DuckDB says may quote the data, so only the line and the kind of error are told."""
    converting = isinstance(error, duckdb.ConversionException)  # a cast in the query
    if re.search("CSV (Error|Parser)", str(error)) and not converting:
        line = re.search(r"Line: (\d+)", str(error))
        return _malformed(
            path, f"see line {line[1]}" if line else "quotes or line ends are mixed up"
        )
    if sql:
        return QueryFailed(
            f"The query of the table {path.name} fails in DuckDB: {type(error).__name__}.",
            "Try it with DuckDB's own command: there it names what is wrong.",
        )
    return TableUnreadable(
        f"The file {path.name} cannot be read as {path.suffix[1:]}: {type(error).__name__}.",
        _EXPORT,
    )


def _malformed(path: Path, where: str) -> TableMalformed:
    return TableMalformed(
        f"The file {path.name} is not well-formed CSV: {where}.",
        "Every line should have as many fields as the header, separated by commas; "
        "a field with commas, quotes or line ends stands in double quotes.",
    )


# Numbers

# Words for a missing number. Infinity is no amount either.
_MISSING = pa.array(
    ["", "na", "n/a", "nan", "null", "none", "inf", "+inf", "-inf", "infinity", "-infinity"],
    pa.large_string(),
)
_NUMBER = r"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$"
_EXACT = Context(prec=400)  # digits of the largest double with room for decimals


def is_missing(text: pa.LargeStringArray) -> NDArray[np.bool_]:
    """Where nothing stands, or a word for it: bool (n,)."""
    missing = pc.or_(pc.is_null(text), pc.is_in(pc.utf8_lower(text), _MISSING))
    found: NDArray[np.bool_] = missing.to_numpy(zero_copy_only=False)
    return found


@dataclass(frozen=True)
class Numbers:
    """values: float64 (n,), the nearest to each text; NaN where it is missing or no number.

    strange: bool (n,), where there is text that is no number. missing, text: how many of each.
    """

    values: NDArray[np.float64]
    strange: NDArray[np.bool_]
    missing: int
    text: int


@dataclass(frozen=True)
class Scaled:
    """values: int64 (n,), 0 where not present. present: bool (n,). strange: as of Numbers.

    counts: rows `missing`, rows whose `text` is no number, rows `clipped` to a bound.
    """

    values: NDArray[np.int64]
    present: NDArray[np.bool_]
    strange: NDArray[np.bool_]
    counts: dict[str, int]


def numbers(column: Texts) -> Numbers:
    """Reads `12`, ` -3 `, `0.50`, `1e+05`. Text that is no number (`1,234`) counts as such."""
    text = pc.utf8_trim_whitespace(as_text(column))
    strange = np.zeros(len(text), np.bool_)
    try:
        parsed = text.cast(pa.float64())
    except pa.ArrowInvalid:
        number: Any = pc.match_substring_regex(text, _NUMBER).fill_null(True)
        missing = pc.is_in(pc.utf8_lower(text), _MISSING)
        strange = ~pc.or_(number, missing).to_numpy(zero_copy_only=False)
        parsed = pc.if_else(number, text, pa.scalar(None, text.type)).cast(pa.float64())
    values = parsed.to_numpy(zero_copy_only=False).copy()
    values[~np.isfinite(values)] = np.nan
    text_count = int(strange.sum())
    return Numbers(values, strange, int(np.isnan(values).sum()) - text_count, text_count)


def scaled(column: Texts, lower: Decimal, upper: Decimal, decimals: int) -> Scaled:
    """Numbers times 10^decimals, as exact integers, clipped to [lower, upper].

    More decimals than declared are rounded half to even. ValueError if a bound has more itself, or
    does not fit.
    """
    least, most = _whole(lower, decimals), _whole(upper, decimals)
    found = numbers(column)
    present = ~np.isnan(found.values)
    # The double nearest to the text and its product are each off by at most 2^-53 of themselves.
    # Where that could reach a point halfway between two integers, the text decides.
    with np.errstate(over="ignore", invalid="ignore"):
        products = np.where(present, found.values, 0) * 10.0**decimals
        nearest = np.rint(products)
        unsure = ~(np.abs(products - nearest) + np.abs(products) * 2.0**-51 < 0.5)
    values = np.clip(np.where(unsure, 0, nearest), least - 1, most + 1).astype(np.int64)
    if unsure.any():
        texts = pc.utf8_trim_whitespace(as_text(column)).filter(pa.array(unsure))
        exact = (_rounded(str(text), decimals) for text in texts)
        values[unsure] = [min(max(value, least - 1), most + 1) for value in exact]
    clipped = present & ((values < least) | (values > most))
    values = np.where(present, np.clip(values, least, most), 0)
    counts = {"missing": found.missing, "text": found.text, "clipped": int(clipped.sum())}
    return Scaled(values, present, found.strange, counts)


def _whole(bound: Decimal, decimals: int) -> int:
    value = bound.scaleb(decimals)
    if value != int(value) or abs(value) >= 2**62:
        raise ValueError(f"{bound} cannot be kept with {decimals} decimals")
    return int(value)


def _rounded(text: str, decimals: int) -> int:
    unit = Decimal(1).scaleb(-decimals)
    rounded = Decimal(text).quantize(unit, ROUND_HALF_EVEN, _EXACT)
    return int(rounded.scaleb(decimals, _EXACT))


# Segments


def segments(frame: pd.DataFrame, axes: Sequence[Axis]) -> NDArray[np.int64]:
    """Where each row stands in itertools.product of the axes' labels: int64 (n,).

    -1 where a value is missing, no number, or not listed. Bands are (lower, upper], compared as
    float64.
    """
    index = np.zeros(len(frame), np.int64)
    for axis in axes:
        column = frame[axis.column]
        place = _band(column, axis) if axis.bands else _listed(column, axis)
        outside = (index < 0) | (place < 0)
        index = np.where(outside, -1, index * len(axis.labels) + place)
    return index


def _band(column: Texts, axis: Axis) -> NDArray[np.int64]:
    values = numbers(column).values
    uppers = [float(band.upper) for band in axis.bands if band.upper is not None]
    return np.where(np.isnan(values), -1, np.searchsorted(uppers, values, side="left"))


def _listed(column: Texts, axis: Axis) -> NDArray[np.int64]:
    listed = pa.array(axis.values, pa.large_string())
    place = pc.index_in(pc.utf8_trim_whitespace(as_text(column)), listed)
    return place.fill_null(-1).to_numpy().astype(np.int64)
