"""The population stability index: how far a distribution has moved from the one expected.

    PSI = Σ (actual share - expected share) · ln(actual share / expected share)

The bands are those in common use (Siddiqi, Credit Risk Scorecards, 2006): below 0.1 stable, from
0.25 on a shift that wants an answer, between them one that wants watching.
"""

from typing import Literal

import numpy as np

from federated.arrays import F64
from federated.risk.binning import Comparison, Edges, Method, compare, count, find_edges

Shift = Literal["stable", "moderate", "large"]

MODERATE, LARGE = 0.1, 0.25


def shift(psi: float) -> Shift:
    """The band of a total."""
    if psi < MODERATE:
        return "stable"
    return "moderate" if psi < LARGE else "large"


def between(
    expected: F64, actual: F64, *, method: Method = "quantile", bins: int = 10
) -> tuple[Edges, Comparison]:
    """Two columns, float64 with NaN where missing, over bins by the values of the expected.

    Missing values have a bin of their own if either column has any. ValueError for an empty column.
    """
    if not len(expected) or not len(actual):
        raise ValueError("a distribution needs at least one value")
    edges = find_edges(expected, method, bins)
    missing = edges.missing or bool(np.isnan(actual).any())
    edges = Edges(edges.inner, missing)
    return edges, compare(count(expected, edges), count(actual, edges))
