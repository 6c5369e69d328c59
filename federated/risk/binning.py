"""Bins of a number, and how two distributions over them differ.

For counts of two groups, and p and q their shares in a bin, that bin tells

    ln(q / p)              and, summed over the bins,              (q - p) · ln(q / p)

Of the good (p) and the bad (q) these are the weight of evidence and the information value; WOE is
above 0 where the bad are more frequent than elsewhere (Siddiqi, Credit Risk Scorecards, 2006, has
the sign the other way round). Of an expected and an actual distribution the sum is the population
stability index. A count of zero, or below it by noise, is taken as 0.5 in that bin alone; totals
stay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from federated.arrays import F64, I64, U8, Bool

Method = Literal["quantile", "equal_width", "edges"]

ZERO = 0.5  # what a count of zero, or below, is taken for


@dataclass(frozen=True)
class Edges:
    """The inner edges e1 < ... < ek of the bins (-inf, e1], (e1, e2], ... (ek, inf).

    missing: whether there is a bin for missing values as well, after the others.
    """

    inner: tuple[float, ...]
    missing: bool

    def limits(self) -> list[tuple[str, float | None, float | None]]:
        """Name, lower and upper end of each bin, in order; None is infinite."""
        lower, upper = [None, *self.inner], [*self.inner, None]
        named = [(str(i + 1), *ends) for i, ends in enumerate(zip(lower, upper, strict=True))]
        return [*named, ("missing", None, None)] if self.missing else named


def find_edges(values: F64, method: Method, bins: int, given: Sequence[float] = ()) -> Edges:
    """Edges for a column by its own values: float64 (n,), NaN where missing.

    quantile: numpy's, at 0, 1/bins, ... 1 with linear interpolation, equal ones taken once; the
    first and the last give way to infinity. equal_width: bins from the smallest to the largest
    value. edges: those given. A column without two different values has one bin.
    """
    present = values[~np.isnan(values)]
    missing = len(present) < len(values)
    if method == "edges":
        return Edges(tuple(given), missing)
    if not len(present):
        return Edges((), missing)
    if method == "quantile":
        found = np.quantile(present, np.linspace(0, 1, bins + 1))
    else:
        found = np.linspace(present.min(), present.max(), bins + 1)
    return Edges(tuple(np.unique(found[np.isfinite(found)])[1:-1].tolist()), missing)


def place(values: F64, inner: Sequence[float], missing: int) -> U8:
    """The bin of each value, from 0; `missing` for NaN. uint8 (n,)."""
    bins = np.searchsorted(np.asarray(inner, np.float64), values, side="left")
    return np.where(np.isnan(values), missing, bins).astype(np.uint8)


def count(values: F64, edges: Edges) -> I64:
    """How many values each bin of `edges` holds: int64 (bins,)."""
    bins = place(values, edges.inner, len(edges.inner) + 1)
    return np.bincount(bins, minlength=len(edges.inner) + 1 + edges.missing)


@dataclass(frozen=True)
class Comparison:
    """Two distributions over the same bins: base and other int64, log and parts float64 (bins,).

    shown: bool (bins,). The figures of the other bins are for nobody's eyes. total is the sum of
    the parts, with those bins taken together as one; None where no bin is shown.
    """

    base: I64
    other: I64
    log: F64
    parts: F64
    shown: Bool
    total: float | None


def compare(base: I64, other: I64, minimum_cell: int = 0, hidden: Bool | None = None) -> Comparison:
    """int64 (bins,) each, with a total of at least 1.

    Bins with a count below minimum_cell are not shown, nor those in `hidden`. As totals are known,
    what is not shown could be had by subtraction if it were one bin, or several that are small
    together: then the smallest of the others is not shown either.
    """
    shown = np.minimum(base, other).clip(min=0) >= minimum_cell  # noise goes below zero
    if hidden is not None:
        shown &= ~hidden
    while shown.any() and not shown.all() and _follows(base, other, shown, minimum_cell):
        shown[np.argmin(np.where(shown, base + other, np.iinfo(np.int64).max))] = False
    log, parts = _divergence(base, other)
    total = None
    if shown.all():
        total = float(parts.sum())
    elif shown.any():
        merged = [np.append(c[shown], c[~shown].sum()) for c in (base, other)]
        total = float(_divergence(*merged)[1].sum())
    return Comparison(base, other, log, parts, shown, total)


def _divergence(base: I64, other: I64) -> tuple[F64, F64]:
    """ln(q/p) and (q - p)·ln(q/p) of each bin."""
    p, q = (np.where(counts <= 0, ZERO, counts) / counts.sum() for counts in (base, other))
    log = np.log(q / p)
    return log, (q - p) * log


def _follows(base: I64, other: I64, shown: Bool, minimum_cell: int) -> bool:
    """Whether subtraction would tell of fewer than the minimum."""
    rest = min(int(base[~shown].sum()), int(other[~shown].sum()))
    return int(np.count_nonzero(~shown)) < 2 or rest < minimum_cell
