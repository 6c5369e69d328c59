"""The catalogue of features: what each is called, means and needs, as data (catalogue.yaml).

A feature's full name, such as `ecommerce.recency_days`, is what agreements, jobs and tables call
it, and says which definition is meant: a definition that changes takes a new name. A name that ends
in a parameter stands for many: `ecommerce.category_share:CATEGORY` for `…:books`.
"""

import json
import math
import re
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict

from compliance import document
from compliance.agreement import Agreement
from parties.errors import FeatureUnknown

Library = Literal["ecommerce", "telecom", "bank"]
ColumnKind = Literal["time", "number", "text", "id"]
Number = Annotated[Decimal, BeforeValidator(lambda value: Decimal(str(value)))]

MONEY = "money"  # an agreement names the currency
_FULL = re.compile(r"([a-z]+)\.([a-z0-9_]+)(?::([A-Za-z0-9._-]{1,32}))?")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Column(_Model):
    """A column of a raw table.

    use: whether every feature needs it, every one uses it if there, or only those it is needed by.
    values: the texts it may hold, if not any. An id is of the same kind as the dataset's.
    """

    kind: ColumnKind
    about: str
    use: Literal["always", "if there", "asked"] = "asked"
    values: tuple[str, ...] = ()


class RawTable(_Model):
    """A raw table of a library: the dataset's own, or one named under `features.tables`.

    A table of people or events has an identifier, which is the dataset's, beside its columns.
    """

    about: str
    identified: bool = True
    columns: dict[str, Column]


class Entry(_Model):
    """What the catalogue says of one feature.

    lower, upper: where an agreement clips it. needs: the columns, as `table.column`, without which
    there is none. missing: who has none. Of a bank's own: bands, what to call the segments that the
    bins divide its customers into; or bad, the values of a label that are.
    """

    definition: str
    unit: str
    lower: Number
    upper: Number
    decimals: int
    bins: tuple[Number, ...] = ()
    bands: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    needs: tuple[str, ...]
    missing: str
    source: str


class Sector(_Model):
    """A library: its raw tables, the dataset's own first, and its features by name."""

    about: str
    tables: dict[str, RawTable]
    features: dict[str, Entry]


class Feature(_Model):
    """A feature as it is asked for. full: its name; method: what computes it; parameter: for it."""

    library: str
    method: str
    parameter: str | None
    entry: Entry

    @property
    def full(self) -> str:
        name = f"{self.library}.{self.method}"
        return name if self.parameter is None else f"{name}:{self.parameter}"


@cache
def sectors() -> dict[str, Sector]:
    """The whole catalogue."""
    text = resources.files("parties").joinpath("catalogue.yaml").read_text("utf-8")
    return {name: Sector.model_validate(one) for name, one in document.load(text).items()}


def find(full: str) -> Feature:
    """A feature by its full name. Raises FeatureUnknown."""
    found = _FULL.fullmatch(full)
    if found and found[1] in sectors():
        library, method, parameter = found.groups()
        for name, entry in sectors()[library].features.items():
            written, _, wants = name.partition(":")
            if written == method and _fits(wants, parameter):
                return Feature(library=library, method=method, parameter=parameter, entry=entry)
    raise FeatureUnknown(
        f"The catalogue has no feature {document.shown(full)!r}.",
        "`concordat features list` shows those there are; one that ends in :WORD needs a value.",
    )


def _fits(wanted: str, parameter: str | None) -> bool:
    if wanted == "DAY":
        return parameter is not None and re.fullmatch(r"[1-9]|[12]\d|3[01]", parameter) is not None
    return bool(wanted) == (parameter is not None)


def names(library: str) -> list[str]:
    """The full names of a library's features, as the catalogue writes them."""
    return [f"{library}.{name}" for name in sectors()[library].features]


def listed(library: str = "") -> list[dict[str, Any]]:
    """Every feature of a library, or of all, as data. Raises FeatureUnknown."""
    if library and library not in sectors():
        raise FeatureUnknown(
            f"There is no library {document.shown(library)!r}.",
            f"There are {', '.join(sectors())}.",
        )
    return [
        _described(f"{sector}.{name}", entry)
        for sector, one in sectors().items()
        if library in {"", sector}
        for name, entry in one.features.items()
    ]


def described(full: str) -> dict[str, Any]:
    """One feature as data; the name with or without a value. Raises FeatureUnknown."""
    for one in listed():
        if one["name"] == full:
            return one
    return _described(full, find(full).entry)


def _described(name: str, entry: Entry) -> dict[str, Any]:
    said = {"name": name} | entry.model_dump()
    for field, value in said.items():
        if isinstance(value, Decimal):
            said[field] = _plain(value)
        elif isinstance(value, tuple):
            said[field] = [_plain(one) if isinstance(one, Decimal) else one for one in value]
    return said


def proposed(names: Iterable[str]) -> str:
    """These features as YAML for an agreement. Raises FeatureUnknown.

    A partner's stand under `data.partner`; a bank's become its segmentation, and its label under
    `data.bank`.
    """
    parts: dict[str, list[str]] = {}
    for name in names:
        entry = find(name).entry
        if entry.bands:
            parts.setdefault("segmentation:", []).append(f"- {_flow(_axis(name, entry))}")
        elif entry.bad:
            parts[f"label: {_flow({'column': name, 'bad': [*entry.bad]})}"] = []
        else:
            key = json.dumps(name) if ":" in name else name
            parts.setdefault("features:", []).append(f"{key}: {_flow(_declaration(name, entry))}")
    return "".join(
        f"{head}\n" + "".join(f"  {line}\n" for line in lines) for head, lines in parts.items()
    )


def _declaration(name: str, entry: Entry) -> dict[str, Any]:
    said = _described(name, entry)
    kept = ("unit", "lower", "upper", "decimals", "bins")
    return {field: said[field] for field in kept if said[field] != []}


def _axis(name: str, entry: Entry) -> dict[str, Any]:
    uppers = [*map(_plain, entry.bins), None]
    bands = [
        {"label": label} | ({} if upper is None else {"upper": upper})
        for label, upper in zip(entry.bands, uppers, strict=True)
    ]
    return {"label": name.partition(".")[2], "column": name, "bands": bands}


def _flow(said: dict[str, Any]) -> str:
    text = yaml.safe_dump(said, default_flow_style=True, sort_keys=False, width=math.inf)
    return str(text).strip()


def check(agreement: Agreement) -> None:
    """What an agreement calls by the name of a feature is in the catalogue, and in its unit.

    Raises FeatureUnknown.
    """
    features = agreement.data.partner.features
    units = {name: one.unit for name, one in features.items()}
    columns = [axis.column for axis in agreement.segmentation]
    columns += [agreement.data.bank.label.column] if agreement.data.bank.label else []
    for name in (*units, *columns):
        if name.partition(".")[0] not in sectors() or "." not in name:
            continue
        unit = find(name).entry.unit
        if units.get(name) not in {None, unit} and unit != MONEY:
            raise FeatureUnknown(
                f"The catalogue has {name} in {unit}, the agreement in {units[name]}.",
                "`concordat features propose` shows what the agreement should say.",
            )


def _plain(number: Decimal) -> int | float:
    return int(number) if number == int(number) else float(number)
