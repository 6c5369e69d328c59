"""Raw tables made into one row a person, by a sector's library, as a job reads any other table."""

import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from federated.identifiers import Ids, normalise
from parties import catalogue
from parties.bank.customers import Customers
from parties.catalogue import Column, Feature, RawTable
from parties.ecommerce.purchases import Purchases
from parties.errors import (
    ConfigError,
    FeatureUnknown,
    HomeUnusable,
    NothingInWindow,
    TableEmpty,
    TableNotGiven,
    ValueUnreadable,
)
from parties.files import write_private
from parties.measures import F64, I64, Bool, Events, Times
from parties.node import Node
from parties.sources import (
    Dataset,
    FeatureSettings,
    Identifier,
    Source,
    Table,
    numbers,
    present,
    read_table,
    reading,
    several_rows,
)
from parties.telecom.subscribers import Subscribers

LIBRARIES: dict[str, Any] = {"ecommerce": Purchases, "telecom": Subscribers, "bank": Customers}


def load(dataset: Dataset, home: Path, columns: Iterable[str], now: datetime) -> Table:
    """One row a person: the table's own columns, or the features that its library makes.

    Raises as `read_table` and `build`.
    """
    if dataset.features is None:
        return read_table(dataset, home, columns)
    return build(dataset, dataset.features, home, columns, now)


def build(
    dataset: Dataset, settings: FeatureSettings, home: Path, names: Iterable[str], now: datetime
) -> Table:
    """The features of these names, as text, rounded to the catalogue's decimals.

    Who has no row in the window is left out. Raises as `read_table`, and
    FeatureUnknown, TableNotGiven, ValueUnreadable, NothingInWindow.
    """
    asked = [_of(settings, name) for name in dict.fromkeys(names)]
    needed = {column for one in asked for column in one.entry.needs}
    reader = _Reader(dataset, settings, home, needed)
    window = Window.of(settings, now)
    # Whatever was asked for, the main table says who there is.
    raw = reader.read(reader.main)
    events, ids, counts = _within(raw, window, dataset)
    tables = {reader.main: events}
    for name in reader.others():
        tables[name] = _beside(reader.read(name), ids, window)
    library = LIBRARIES[settings.library](tables)
    found = {one.full: _text(_computed(library, one), one.entry.decimals) for one in asked}
    return Table(
        ids=Ids.from_strings(dataset.identifier.kind, ids),
        frame=pd.DataFrame(found, index=range(len(ids))),
        rows=len(raw.person),
        duplicates=0,
        rejects=raw.rejects,
        events=counts,
    )


def export(node: Node, name: str, names: Sequence[str], output: Path) -> dict[str, Any]:
    """Write the features of a dataset with the ids, mode 0600; what became of the rows.

    Without names: all that need no value and nothing that the tables lack. Raises as `build`, and
    ConfigError, HomeUnusable.
    """
    dataset = node.config.datasets.get(name)
    if dataset is None or dataset.features is None:
        raise ConfigError(
            f"This node has no dataset {name!r} of which a library makes features.",
            f"Name one under `datasets` in {node.home.config_file}, with `features`.",
        )
    if output.suffix not in {".csv", ".parquet"}:
        raise ConfigError(f"{output} is no table's name.", "Let it end in .csv or .parquet.")
    home = node.home.path
    names = names or _possible(dataset, dataset.features, home)
    table = build(dataset, dataset.features, home, names, node.now())
    kind = dataset.identifier.kind
    ids = pd.Series(table.ids.to_strings(), dtype=pd.ArrowDtype(pa.large_string()), name=kind)
    frame = pd.concat([ids, table.frame], axis=1)
    as_bytes = frame.to_csv(index=False).encode() if output.suffix == ".csv" else _parquet(frame)
    try:
        write_private(output, as_bytes, overwrite=True)
    except OSError as error:
        raise HomeUnusable(
            f"{output} cannot be written: {error.strerror}.", "Name a place that can be."
        ) from None
    return table.counts()


def _parquet(frame: pd.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.to_parquet(file, index=False)
    return file.getvalue()


def _possible(dataset: Dataset, settings: FeatureSettings, home: Path) -> list[str]:
    """The features without a parameter whose columns are all there."""
    sector = catalogue.sectors()[settings.library]
    sources: dict[str, Source] = {next(iter(sector.tables)): dataset, **settings.tables}
    there = {
        f"{table}.{column}"
        for table, source in sources.items()
        for column in present(home / source.path, source.sql, dataset.identifier)
    }
    return [
        f"{settings.library}.{name}"
        for name, entry in sector.features.items()
        if ":" not in name and there.issuperset(entry.needs)
    ]


def _of(settings: FeatureSettings, name: str) -> Feature:
    found = catalogue.find(name)
    if found.library != settings.library:
        raise FeatureUnknown(
            f"{name} is no feature of the library {settings.library}, which the dataset names.",
            f"`concordat features list {settings.library}` shows its features.",
        )
    return found


def _computed(library: Any, feature: Feature) -> F64:
    method = getattr(library, feature.method)
    values: F64 = method() if feature.parameter is None else method(feature.parameter)
    return values


def _text(values: F64, decimals: int) -> pd.Series:
    """The shortest text of each number; missing where NaN."""
    rounded = np.round(values, decimals) + 0.0  # no -0
    text = pa.array(rounded, from_pandas=True).cast(pa.large_string())
    return pd.Series(text, dtype=pd.ArrowDtype(pa.large_string()))


# The window


@dataclass(frozen=True)
class Window:
    """start <= time < end, local: datetime64[us]."""

    start: np.datetime64
    end: np.datetime64

    @classmethod
    def of(cls, settings: FeatureSettings, now: datetime) -> "Window":
        day = settings.as_of
        if day == "today":
            day = now.astimezone(ZoneInfo(settings.timezone)).date()
        end = np.datetime64(day, "us")
        return cls(end - np.timedelta64(settings.window_days, "D"), end)


def _within(
    raw: "_Raw", window: Window, dataset: Dataset
) -> tuple[Events, pa.LargeStringArray, dict[str, int]]:
    """The events of people in the window, their ids, and how many rows were used and not."""
    name = dataset.path.name
    if raw.ids is None or not len(raw.person):
        raise TableEmpty(
            f"The table {name} holds no rows.", "Check that its export ran to the end."
        )
    known = raw.person >= 0
    if "time" in raw.frame:
        time = raw.frame["time"].to_numpy("datetime64[us]")
        timed = known & ~np.isnat(time)
        inside = timed & (time >= window.start) & (time < window.end)
    else:  # a table of people, not of events
        timed, inside = known, known & ~_repeated(raw.person, dataset)
    if not inside.any():
        raise NothingInWindow(
            f"The table {name} has no row of a person from {window.start.astype('M8[D]')} until "
            f"before {window.end.astype('M8[D]')}.",
            "Correct `as_of` or `window_days` under the dataset's `features` in config.yaml.",
        )
    people, person = np.unique(raw.person[inside], return_inverse=True)
    events = _sorted(person.astype(np.int64), raw.frame[inside], len(people), window)
    counts = {
        "used": int(inside.sum()),
        "untimed": int((known & ~timed).sum()),
        "outside_window": int((timed & ~inside).sum()),
    }
    if "time" not in raw.frame:
        counts = {"used": counts["used"], "repeated": counts["outside_window"]}
    return events, raw.ids.take(pa.array(people)), counts


def _repeated(person: I64, dataset: Dataset) -> Bool:
    """Which rows are about a person of an earlier row. Raises DuplicateIdentifiers."""
    repeated = pd.Series(person).duplicated().to_numpy() & (person >= 0)
    if dataset.duplicates == "error" and repeated.any():
        raise several_rows(dataset, len(np.unique(person[repeated])), int(repeated.sum()))
    return repeated


def _beside(raw: "_Raw", ids: pa.LargeStringArray, window: Window) -> Events:
    """The rows of a further table that are about these people, in the window if they have times."""
    if raw.ids is None:
        return Events(np.zeros(len(raw.frame), np.int64), raw.frame, 0, window.start, window.end)
    place = pc.index_in(raw.ids, ids).fill_null(-1).to_numpy(zero_copy_only=False)
    person = np.append(place, -1).astype(np.int64)[raw.person]  # -1 is the last
    kept = person >= 0
    if "time" in raw.frame:
        time = raw.frame["time"].to_numpy("datetime64[us]")
        kept &= (time >= window.start) & (time < window.end)  # neither, where missing
    return _sorted(person[kept], raw.frame[kept], len(ids), window)


def _sorted(person: I64, frame: pd.DataFrame, people: int, window: Window) -> Events:
    """By person, then by time if there is one, then as the rows came."""
    if "time" in frame:
        order = _order(person, frame["time"].to_numpy("datetime64[us]"))
    else:
        order = np.argsort(person, kind="stable")
    if (order[1:] > order[:-1]).all():
        return Events(person, frame, people, window.start, window.end)
    return Events(person[order], frame.take(order), people, window.start, window.end)


def _order(person: I64, time: Times) -> I64:
    """One sort by both, where one number can hold both: that takes a third of the time."""
    if not len(time):
        return np.empty(0, np.int64)
    since = (time - time.min()).astype(np.int64)
    if not (since % 1_000_000).any():  # whole seconds
        since //= 1_000_000
    span = int(since.max()) + 1
    if span * (int(person.max()) + 1) < 2**63:
        return np.argsort(person * span + since, kind="stable")
    return np.lexsort((since, person))


# Reading


@dataclass(frozen=True)
class _Raw:
    """A raw table with its types. person: int64 (m,), which of the ids, -1 if none.

    ids: those there are; None of a table that is not about people.
    """

    person: I64
    ids: pa.LargeStringArray | None
    frame: pd.DataFrame
    rejects: pd.DataFrame


@dataclass(frozen=True)
class _Reader:
    """Reads a dataset's raw tables. needed: `table.column` of the features asked for."""

    dataset: Dataset
    settings: FeatureSettings
    home: Path
    needed: Collection[str]

    @property
    def _declared(self) -> Mapping[str, RawTable]:
        return catalogue.sectors()[self.settings.library].tables

    @property
    def main(self) -> str:
        """The dataset's own table."""
        return next(iter(self._declared))

    def others(self) -> list[str]:
        """The further tables that are needed."""
        named = {column.partition(".")[0] for column in self.needed}
        return [name for name in self._declared if name in named and name != self.main]

    def _source(self, name: str) -> Source:
        if name == self.main:
            return self.dataset
        if name in self.settings.tables:
            return self.settings.tables[name]
        raise TableNotGiven(
            f"A feature of the library {self.settings.library} needs the table `{name}`.",
            f"Name it under the dataset's `features.tables`. {self._declared[name].about}",
        )

    def read(self, name: str) -> _Raw:
        """The columns that are needed, and those used wherever they are there."""
        source, declared = self._source(name), self._declared[name]
        columns = declared.columns
        must = {column for column in columns if f"{name}.{column}" in self.needed}
        wanted = [column for column in columns if column in must or columns[column].use != "asked"]
        optional = {column for column in wanted if columns[column].use == "if there"} - must
        identifier = self.dataset.identifier if declared.identified else None
        parts: dict[str, list[Any]] = {}
        people: list[Any] = []
        rows = 0
        with reading(self.home / source.path, source.sql, identifier, wanted, optional) as batches:
            there = batches.schema.names[1 if identifier else 0 :]
            for batch in batches:
                given = list(batch.columns)
                if identifier:
                    people.append(given.pop(0).dictionary_encode())
                for column, values in zip(there, given, strict=True):
                    place = _Place(source.path.name, column, rows)
                    typed = _typed(values, columns[column], self.settings.timezone, place)
                    parts.setdefault(column, []).append(typed)
                rows += batch.num_rows
        joined = {
            column: _joined(
                parts.get(column, []),
                columns[column],
                self.dataset.identifier,
                _Place(source.path.name, column, 0),
            )
            for column in there
        }
        frame = pd.DataFrame(joined, index=range(rows))
        if identifier is None:
            return _Raw(np.full(rows, -1, np.int64), None, frame, _rejects([], [], []))
        return _identified(people, identifier, frame)


def _identified(people: list[Any], identifier: Identifier, frame: pd.DataFrame) -> _Raw:
    codes, written = _encoded(people)
    found = normalise(written, identifier.kind, region=identifier.region)
    person, ids = _merged(codes, found.ids)
    wrong = np.flatnonzero(person < 0)
    which: Any = pa.array(codes[wrong], pa.int64(), mask=codes[wrong] < 0)
    reasons = found.reasons.take(which).fill_null("empty").to_pylist()
    rejects = _rejects(wrong + 1, reasons, written.take(which).to_pylist())
    return _Raw(person, ids, frame, rejects)


def _rejects(rows: Any, reasons: Any, values: Any) -> pd.DataFrame:
    return pd.DataFrame({"row": rows, "reason": reasons, "value": values})


def _encoded(parts: list[Any]) -> tuple[I64, pa.LargeStringArray]:
    """Codes, -1 where null, and the distinct texts, of dictionary arrays."""
    if not parts:
        return np.empty(0, np.int64), pa.array([], pa.large_string())
    whole: Any = pa.chunked_array(parts).unify_dictionaries()
    codes = [chunk.indices.fill_null(-1).to_numpy() for chunk in whole.chunks]
    return np.concatenate(codes).astype(np.int64), whole.chunk(0).dictionary.cast(pa.large_string())


def _merged(codes: I64, words: pa.LargeStringArray) -> tuple[I64, pa.LargeStringArray]:
    """The same with what `words` says in place of each distinct text: equal ones become one."""
    again: Any = words.dictionary_encode()
    place = again.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return np.append(place, -1).astype(np.int64)[codes], again.dictionary


@dataclass(frozen=True)
class _Place:
    """Where a value stands. start: rows before it."""

    table: str
    column: str
    start: int

    def unreadable(self, wrong: Bool, what: str) -> ValueUnreadable:
        row = self.start + int(wrong.argmax()) + 1
        return ValueUnreadable(
            f"Row {row:,} of the table {self.table} has in the column '{self.column}' what is no "
            f"{what}.",
            "Correct the export, or make the column with `sql`, for instance with TRY_CAST.",
        )


def _typed(values: Any, column: Column, timezone: str, place: _Place) -> Any:
    match column.kind:
        case "text" | "id":
            return values.dictionary_encode()
        case "number":
            read = numbers(values)
            if read.text:
                raise place.unreadable(read.strange, "number")
            return read.values
        case "time":
            try:
                return local_times(values, timezone)
            except pa.ArrowInvalid:
                what = "time such as 2026-01-31T23:59:59+08:00"
                raise place.unreadable(_strange(_plain(values)), what) from None


def _joined(parts: list[Any], column: Column, identifier: Identifier, place: _Place) -> Any:
    if column.kind == "time":
        return np.concatenate([np.empty(0, "M8[us]"), *parts])
    if column.kind == "number":
        return np.concatenate([np.empty(0), *parts])
    codes, words = _encoded(parts)
    words = _plain(words)
    if column.kind == "id":  # a short number, say, is no id, and may be meant all the same
        ids = normalise(words, identifier.kind, region=identifier.region).ids
        words = pc.coalesce(ids, words)
    codes, words = _merged(codes, words)
    if column.values:
        meant = pc.is_in(words, pa.array(column.values, words.type)).to_numpy(zero_copy_only=False)
        wrong = ~np.append(meant, True)[codes]  # missing means nothing
        if wrong.any():
            raise place.unreadable(wrong, f"word of {', '.join(column.values)}")
    return pd.Categorical.from_codes(codes, pd.Index(words.to_pandas()))


def _plain(text: Any) -> Any:
    """Trimmed; null where nothing is left."""
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.equal(text, pa.scalar("", text.type)), pa.scalar(None, text.type), text)


_ZONED = r":[0-9]{2}(?:\.[0-9]+)?(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)$"
_LOCAL = pa.timestamp("us")
_UTC = pa.timestamp("us", "UTC")


def local_times(values: Any, timezone: str) -> Any:
    """Local times, datetime64[us] (n,), of ISO 8601 dates and times; NaT where empty.

    One without an offset is local already. Raises pyarrow.ArrowInvalid.
    """
    text = _plain(values)
    try:
        return text.cast(_LOCAL).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        zoned = pc.match_substring_regex(text, _ZONED).fill_null(False)
    none = pa.scalar(None, text.type)
    there = pc.if_else(zoned, text, none).cast(_UTC).to_pandas()
    here = pc.if_else(zoned, none, text).cast(_LOCAL).to_pandas()
    moved = there.dt.tz_convert(timezone).dt.tz_localize(None)
    return moved.fillna(here).to_numpy("datetime64[us]")


def _strange(text: Any) -> Bool:
    """Which text is no time: the first, one by one, since Arrow does not say."""
    found = np.zeros(len(text), np.bool_)
    for at, value in enumerate(text):
        if not any(_casts(value, kind) for kind in (_LOCAL, _UTC)):
            found[at] = True
            break
    return found


def _casts(value: Any, kind: pa.DataType) -> bool:
    try:
        value.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True
