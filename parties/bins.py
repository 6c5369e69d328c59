"""What evaluate and stability read from a side's table, and how they show what was found."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from compliance.agreement import Agreement, Axis, Binned, Label
from federated.aggregation.evaluate import Distribution
from federated.aggregation.schema import Bins
from federated.arrays import I64, U8, Bool
from federated.identifiers import as_text
from federated.risk.binning import ZERO, Comparison, Edges, compare, find_edges, place
from federated.risk.stability import shift
from parties.sources import is_missing, numbers

SIGN = "woe = ln(share of bad / share of good): above 0 where the bad are more frequent"
_PLACE = ("feature", "bin", "lower", "upper")
EVALUATED = (*_PLACE, "good", "bad", "woe", "iv", "total_iv")
_MARGINS = ("noise_scale", "good_low", "good_high", "bad_low", "bad_high", "woe_low", "woe_high")
NOISED = (*EVALUATED, *_MARGINS)
COMPARED = (*_PLACE, "expected", "actual", "psi", "total_psi", "shift")


# What goes in


@dataclass(frozen=True)
class Earlier:
    """The run that a stability is measured against: its bins, and what was shown of each.

    Only the bank has shared, how many customers were shared, and the counts.
    """

    edges: dict[str, Edges]
    counts: dict[str, list[int | None]]
    shared: int

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> "Earlier":
        """From this side's own report of that run."""
        bins = report["bins"]
        return cls(
            {name: Edges(tuple(one["inner"]), one["missing"]) for name, one in bins.items()},
            {name: one.get("counts", []) for name, one in bins.items()},
            report.get("result", {}).get("shared", 0),
        )

    def beside(self, name: str, now: Distribution) -> tuple[Edges, I64, I64, Bool]:
        """Edges, expected and actual counts of a feature, and which were hidden then.

        Of those only the sum is known, and stands in the first of them.
        """
        counts = [*self.counts[name]]
        actual = now.counts[0].tolist()
        edges = Edges(now.edges.inner, self.edges[name].missing or now.edges.missing)
        if edges.missing and not self.edges[name].missing:
            counts.append(0)
        if edges.missing and not now.edges.missing:
            actual.append(0)
        hidden = np.array([count is None for count in counts])
        expected = np.array([count or 0 for count in counts], np.int64)
        expected[hidden.argmax()] += self.shared - expected.sum()
        return edges, expected, np.array(actual, np.int64), hidden


def labelled(frame: pd.DataFrame, label: Label) -> tuple[I64, Bool]:
    """1 where bad, 0 where good: int64 (n,); and who has a label at all: bool (n,)."""
    text = pc.utf8_trim_whitespace(as_text(frame[label.column]))
    bad = pc.is_in(text, pa.array(label.bad, pa.large_string()))
    return (
        bad.to_numpy(zero_copy_only=False).astype(np.int64),
        ~is_missing(text),
    )


def populations(agreement: Agreement) -> tuple[Axis, tuple[int, int]]:
    """The axis on which the two populations lie, and their places on it: expected, actual."""
    named = agreement.jobs.stability and agreement.jobs.stability.populations
    if not named:
        raise ValueError("the agreement names no populations")
    axis = next(axis for axis in agreement.segmentation if axis.label == named.axis)
    return axis, (axis.labels.index(named.expected), axis.labels.index(named.actual))


def groups(segment: I64, pair: tuple[int, int]) -> I64:
    """0 where expected, 1 where actual, -1 where neither: int64 (n,)."""
    return np.select([segment == place for place in pair], [0, 1], -1).astype(np.int64)


def features(agreement: Agreement, terms: Binned, earlier: Earlier | None = None) -> list[Bins]:
    """What is asked of each feature. Bins are planned for as many as there may be.

    earlier: where they met in the run that this one is measured against.
    """
    asked = []
    for name in terms.features:
        given: tuple[float, ...] | None = None
        if earlier is not None:
            given = earlier.edges[name].inner
        elif terms.binning == "edges":
            given = tuple(map(float, agreement.data.partner.features[name].bins))
        most = len(given) + 1 if given is not None else terms.bins or 1
        asked.append(Bins(name, most, given))
    return asked


@dataclass(frozen=True)
class Placed:
    """The partner's rows: bins uint8 (rows, features), and where the bins of each feature meet.

    counts: by feature, rows `missing` and rows whose `text` is no number.
    """

    bins: U8
    edges: list[Edges]
    counts: dict[str, dict[str, int]]


def placed(frame: pd.DataFrame, asked: Sequence[Bins], terms: Binned) -> Placed:
    """Values count as they stand in the table: bins need neither bounds nor decimals."""
    bins = np.empty((len(frame), len(asked)), np.uint8)
    edges, counts = [], {}
    for i, feature in enumerate(asked):
        column = numbers(frame[feature.name])
        method = terms.binning if feature.inner is None else "edges"
        edges.append(find_edges(column.values, method, feature.most, feature.inner or ()))
        bins[:, i] = place(column.values, edges[-1].inner, feature.most)
        counts[feature.name] = {"missing": column.missing, "text": column.text}
    return Placed(bins, edges, counts)


# What comes out


def evaluated(
    names: Sequence[str], found: Sequence[Distribution], minimum_cell: int
) -> list[dict[str, Any]]:
    """A row a bin of the good and the bad; of bins not shown nothing but where they are."""
    rows = []
    for name, one in zip(names if found else (), found, strict=True):
        told = compare(one.counts[0], one.counts[1], minimum_cell)
        columns = {"good": told.base, "bad": told.other, "woe": told.log, "iv": told.parts}
        columns |= _margins(one)
        rows += _rows(name, one.edges, told, columns, {"total_iv": told.total})
    return rows


def _margins(one: Distribution) -> dict[str, Any]:
    """What NOISED has more: where the counts lie without their noise, each at 95 %, and the WOE.

    That takes a count at either end, as if they were the counts, and so lies there at 90 %.
    """
    if one.margin is None:
        return {}
    each, missing = one.margin
    bins = one.counts.shape[1] - 1
    within = np.array([each.above] * bins + [missing.above]).astype(np.int64)
    low, high = np.maximum(one.counts - within, 0), np.maximum(one.counts + within, 0)
    share = {
        end: np.where(counts <= 0, ZERO, counts) / one.counts.sum(axis=1, keepdims=True)
        for end, counts in (("low", low), ("high", high))
    }
    scale = float(each.scale or 0)
    return {
        "noise_scale": np.array([scale] * bins + [np.nan]),
        **{"good_low": low[0], "good_high": high[0], "bad_low": low[1], "bad_high": high[1]},
        "woe_low": np.log(share["low"][1] / share["high"][0]),
        "woe_high": np.log(share["high"][1] / share["low"][0]),
    }


def kept(
    names: Sequence[str], edges: Sequence[Edges], rows: Sequence[Mapping[str, Any]] = ()
) -> dict[str, dict[str, Any]]:
    """For this side's report, so that a later run can be measured against this one."""
    counts: dict[str, list[int | None]] = {}
    for row in rows:
        counts.setdefault(row["feature"], []).append(row["actual"])
    return {
        name: asdict(one) | ({"counts": counts[name]} if name in counts else {})
        for name, one in zip(names, edges, strict=True)
    }


def compared(
    names: Sequence[str],
    found: Sequence[Distribution],
    earlier: Earlier | None,
    minimum_cell: int,
) -> list[dict[str, Any]]:
    """A row a bin. Without an earlier run there is nothing to measure against."""
    rows = []
    for name, one in zip(names if found else (), found, strict=True):
        columns: dict[str, Any] = {"expected": None, "actual": one.counts[0], "psi": None}
        totals: dict[str, Any] = {"total_psi": None, "shift": None}
        if earlier is None:
            edges, told = one.edges, compare(one.counts[0], one.counts[0], minimum_cell)
        else:
            edges, expected, actual, hidden = earlier.beside(name, one)
            told = compare(expected, actual, minimum_cell, hidden)
            columns = {"expected": told.base, "actual": told.other, "psi": told.parts}
            totals = _shift_of(told)
        rows += _rows(name, edges, told, columns, totals)
    return rows


def set_apart(
    names: Sequence[str], found: Sequence[Distribution], minimum_cell: int
) -> list[dict[str, Any]]:
    """A row a bin of the expected and the actual population."""
    rows = []
    for name, one in zip(names if found else (), found, strict=True):
        told = compare(one.counts[0], one.counts[1], minimum_cell)
        columns = {"expected": told.base, "actual": told.other, "psi": told.parts}
        rows += _rows(name, one.edges, told, columns, _shift_of(told))
    return rows


def _shift_of(told: Comparison) -> dict[str, Any]:
    band = None if told.total is None else shift(told.total)
    return {"total_psi": told.total, "shift": band}


def _rows(
    name: str,
    edges: Edges,
    told: Comparison,
    columns: Mapping[str, Any],
    totals: Mapping[str, Any],
) -> list[dict[str, Any]]:
    rows = []
    for i, ((bin_, lower, upper), shown) in enumerate(zip(edges.limits(), told.shown, strict=True)):
        figures = {
            column: values[i].item() if shown and values is not None else None
            for column, values in columns.items()
        }
        where = dict(zip(_PLACE, (name, bin_, lower, upper), strict=True))
        rows.append(where | figures | dict(totals))
    return rows


def by_feature(rows: Sequence[Mapping[str, Any]], *totals: str) -> list[dict[str, Any]]:
    """What is shown on a screen: a row a feature, the largest total first."""
    features = {row["feature"]: {name: row[name] for name in ("feature", *totals)} for row in rows}
    return sorted(features.values(), key=lambda row: -(row[totals[0]] or 0))


def to_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Empty cells where nothing is shown or an end is infinite."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
