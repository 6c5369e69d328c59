"""Differential privacy: discrete Laplace noise that the data's owner adds to the sums it releases.

What is protected is one person's values, in sums whose counts are exact: two tables are neighbours
if they differ in the values of one row, not in who is in them, nor in which features a row has. A
query is a group of columns, and its sensitivity how much one row can change them in all (L1).
Every query of a run gets the same part of its epsilon; a row is in one segment, and so the noise
of the other segments costs it nothing.

Noise is cut to ±T, because a sum has a slot of a fixed width: T is a power of two so large that
any of a segment's noise is cut with a probability of at most delta / (1 + e^epsilon). The release
is then (epsilon, delta)-differentially private. Values are drawn by OpenDP (Ghosh, Roughgarden and
Sundararajan, STOC 2009; exact sampling by Canonne, Kamath and Steinke, NeurIPS 2020).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from federated.arrays import I64
from federated.errors import FeatureUnfit
from federated.paillier.packing import Columns, Query

TAIL = 0.05  # how often a figure lies outside its interval, at most
MAX_BOUND = 2**62  # what is drawn is a 64-bit integer
_ROUNDED = 1 + 2.0**-40  # a scale as a double must not be below the one asked for


@dataclass(frozen=True)
class Privacy:
    """What one run may tell of one person's values."""

    epsilon: Fraction
    delta: Fraction


@dataclass(frozen=True)
class Laplace:
    """P(z) proportional to exp(-|z| / scale), z an integer, cut to ±bound. Zero where bound is."""

    scale: float
    bound: int

    def draw(self, shape: tuple[int, int]) -> I64:
        """int64, by the operating system's generator."""
        if not self.bound:
            return np.zeros(shape, np.int64)
        import opendp.prelude as dp  # noqa: PLC0415 (a quarter of a second, for noise only)

        dp.enable_features("contrib")
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l1_distance(T="i64")
        drawn = dp.m.make_laplace(*space, scale=self.scale)([0] * math.prod(shape))
        return np.clip(np.array(drawn, np.int64).reshape(shape), -self.bound, self.bound)

    def within(self, tail: float = TAIL) -> int:
        """The least w such that the noise lies outside ±w with a probability of at most `tail`."""
        if not self.bound:
            return 0
        ratio = math.exp(-1 / self.scale)
        least = math.ceil(self.scale * math.log(2 / ((1 + ratio) * tail))) - 1
        return min(max(least, 0), self.bound)


@dataclass(frozen=True)
class Noise:
    """The noise of each query of each feature, in order; `queries` says of how many columns."""

    queries: tuple[Query, ...]
    laplaces: tuple[Laplace, ...]

    @staticmethod
    def of(features: Sequence[Columns], privacy: Privacy | None) -> "Noise":
        """Both sides come to the same. None is no noise.

        Raises FeatureUnfit where a sum is so large that its noise needs more than 64 bits.
        """
        queries = tuple(query for feature in features for query in feature.queries)
        columns = sum(query.columns for query in queries if query.sensitivity)
        parts = sum(1 for query in queries if query.sensitivity)
        laplaces = []
        for query in queries:
            if privacy is None or not query.sensitivity:
                laplaces.append(Laplace(0.0, 0))
                continue
            scale = float(query.sensitivity * parts / privacy.epsilon) * _ROUNDED
            least = scale * math.log(2 * columns * _factor(privacy.epsilon) / privacy.delta)
            bound = 2 ** max(math.ceil(math.log2(least)), 0)
            if bound > MAX_BOUND:
                raise FeatureUnfit(
                    "The noise of a sum needs more than 64 bits.",
                    "Use fewer decimals or tighter bounds, ask for less in one job, or do not ask "
                    "for a variance.",
                )
            laplaces.append(Laplace(scale, bound))
        return Noise(queries, tuple(laplaces))

    @property
    def columns(self) -> list[Laplace]:
        """The noise of each column."""
        pairs = zip(self.queries, self.laplaces, strict=True)
        return [laplace for query, laplace in pairs for _ in range(query.columns)]

    def draw(self, groups: int) -> I64:
        """int64 (groups, columns)."""
        drawn = [
            laplace.draw((groups, query.columns))
            for query, laplace in zip(self.queries, self.laplaces, strict=True)
        ]
        return np.hstack(drawn) if drawn else np.zeros((groups, 0), np.int64)

    def delta(self, epsilon: Fraction) -> float:
        """What cutting the noise costs: (1 + e^epsilon) · P(any of a segment's noise is cut)."""
        tails = [_tail(one) for one in self.columns if one.bound]
        return float(_factor(epsilon)) * sum(tails)


def _tail(one: Laplace) -> float:
    """P(|z| > bound)."""
    ratio = math.exp(-1 / one.scale)
    return 2 / (1 + ratio) * math.exp(-(one.bound + 1) / one.scale)


def _factor(epsilon: Fraction) -> Fraction:
    return Fraction(1 + math.exp(epsilon))
