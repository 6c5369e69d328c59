"""The sectors' libraries on tables of our own making: raw rows in a file, to features of people."""

import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from benchmarks.worker import Job
from parties import catalogue, features
from parties.sources import Dataset
from parties.telecom import generate

NOW = datetime(2026, 1, 1, tzinfo=UTC)
_DAY = np.timedelta64(1, "D")
_PART = 1_000_000  # rows made at a time
_VALUES = {"DAY": "15", "CATEGORY": "c1", "CHANNEL": "app"}


def shop(events: int, people: int) -> Job:
    """Every feature of `ecommerce`."""
    return _prepared("ecommerce", events, people, _purchases)


def operator(events: int, people: int) -> Job:
    """Every feature of `telecom`."""
    return _prepared("telecom", events, people, _calls)


def _prepared(library: str, events: int, people: int, make: Any) -> Job:
    folder = Path(tempfile.mkdtemp(prefix="concordat-features-"))
    random = np.random.default_rng(5)
    tables = make(folder, events, people, random)
    dataset = Dataset.model_validate(
        {
            "path": folder / "events.parquet",
            "identifier": {"column": "phone", "kind": "phone"},
            "features": {
                "library": library,
                "as_of": "2026-01-01",
                "tables": {name: {"path": folder / f"{name}.parquet"} for name in tables},
            },
        }
    )
    written = (name.partition(":") for name in catalogue.names(library))
    names = [f"{name}{colon}{_VALUES.get(word, '')}" for name, colon, word in written]

    def run() -> int:
        table = features.load(dataset, folder, names, NOW)
        if len(table.ids) > people or table.rows != events:
            raise ValueError("the features are of other people")
        return events

    return run


def _purchases(folder: Path, events: int, people: int, random: np.random.Generator) -> list[str]:
    def part(rows: int) -> dict[str, Any]:
        return {
            "phone": _phones(random.integers(0, people, rows)),
            "time": _times(rows, random),
            "amount": pa.array(random.integers(-500, 20_000, rows) / 100),
            "quantity": pa.array(random.integers(1, 5, rows)),
            "order": pa.array(random.integers(0, events // 2, rows)).cast(pa.string()),
            "category": _words("c", 40, rows, random),
            "channel": pa.array(np.array(["app", "web"])[random.integers(0, 2, rows)]),
        }

    _write(folder / "events.parquet", events, part)
    return []


def _calls(folder: Path, events: int, people: int, random: np.random.Generator) -> list[str]:
    """Everybody has 50 contacts, of twice as many numbers as people, and 10 cells of 5000."""

    def part(rows: int) -> dict[str, Any]:
        person = random.integers(0, people, rows)
        contact = (person * 37 + random.integers(0, 50, rows) * 7919) % (2 * people)
        cell = (person * 13 + random.integers(0, 10, rows)) % 5000
        return {
            "phone": _phones(person),
            "time": _times(rows, random),
            "contact": _phones(contact),
            "direction": pa.array(np.array(["in", "out"])[random.integers(0, 2, rows)]),
            "duration": pa.array(random.integers(0, 900, rows)),
            "kind": pa.array(np.array(["call", "text"])[random.integers(0, 2, rows)]),
            "cell": pa.array(cell).cast(pa.string()),
        }

    _write(folder / "events.parquet", events, part)
    number = np.arange(5000)
    cells = {
        "cell": pa.array(number).cast(pa.string()),
        "lat": pa.array(22 + number % 70 / 10),
        "lon": pa.array(110 + number // 70 / 10),
        "city": pa.array(number // 100).cast(pa.string()),
    }
    everybody = np.arange(people)
    monthly = np.repeat(everybody, 12)
    tables: dict[str, dict[str, Any]] = {
        "cells": cells,
        "subscribers": {"phone": _phones(everybody), "since": _times(people, random)},
        "topups": {
            "phone": _phones(monthly),
            "time": _times(len(monthly), random),
            "amount": pa.array(random.integers(10, 100, len(monthly))),
        },
    }
    for name, columns in tables.items():
        pyarrow.parquet.write_table(pa.table(columns), folder / f"{name}.parquet")
    return list(tables)


def _write(path: Path, events: int, part: Any) -> None:
    writer = None
    for start in range(0, events, _PART):
        table = pa.table(part(min(_PART, events - start)))
        writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer:
        writer.close()


def _phones(numbers: Any) -> Any:
    return pa.array(generate.phone(numbers).to_numpy(), pa.string())


def _times(rows: int, random: np.random.Generator) -> Any:
    seconds = random.integers(0, 365 * 86_400, rows).astype("m8[s]")
    return pa.array((generate.START + seconds).astype("M8[us]"))


def _words(start: str, count: int, rows: int, random: np.random.Generator) -> Any:
    words = np.array([f"{start}{number}" for number in range(count)])
    return pa.array(words[random.integers(0, count, rows)])
