"""What an insight asks, what each side puts in, and what comes out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Literal, Protocol, TypeVar

import numpy as np

from federated.arrays import I64, U8, U64, Bool
from federated.errors import AnswersDisagree, FeatureUnfit
from federated.identifiers import Ids
from federated.paillier.packing import MAX_VALUE, Columns, Layout

Statistic = Literal["count", "sum", "mean", "variance", "share", "histogram"]
_MOMENTS = frozenset({"sum", "mean", "variance"})


@dataclass(frozen=True)
class Share:
    """The condition above < value <= up_to; None is infinite."""

    above: Decimal | None = None
    up_to: Decimal | None = None


@dataclass(frozen=True)
class FeatureAggregate:
    """One feature in one segment. count: rows that have it; the rest None if not asked for."""

    count: int
    sum: Decimal | None = None
    mean: Fraction | None = None
    variance: Fraction | None = None  # of the population
    share: Fraction | None = None
    histogram: tuple[int, ...] | None = None


class Asked(Protocol):
    """What a feature's sums are, and what is made of them: all that the protocol needs of it."""

    @property
    def columns(self) -> Columns: ...

    def aggregate(self, count: int, sums: Sequence[int], /) -> FeatureAggregate: ...


@dataclass(frozen=True)
class Feature:
    """A column of the partner's table and what is asked of it. The count is always given.

    Values are clipped to [lower, upper] and kept to `decimals` places. bins are the inner edges of
    a histogram, e1 < e2 < ... < ek: (-inf, e1], (e1, e2], ... (ek, inf). A category is a number
    from 0 with an edge at each code but the last.

    Raises FeatureUnfit for a range that cannot be added up exactly.
    """

    name: str
    statistics: frozenset[Statistic]
    lower: Decimal
    upper: Decimal
    decimals: int = 0
    bins: tuple[Decimal, ...] = ()
    share: Share | None = None
    may_be_missing: bool = True

    def __post_init__(self) -> None:
        edges = [edge for interval in self._intervals for edge in interval]
        if not self.low < self.high or not all(self.low - 1 <= e <= self.high for e in edges):
            raise self._unfit("has edges outside its bounds, or bounds that enclose nothing")
        if any(low >= high for low, high in self._intervals):
            raise self._unfit("has bins or a share that hold nothing")
        if max(abs(self.low), abs(self.high)) > MAX_VALUE // 2:
            raise self._unfit("is too wide to be added up exactly")
        if max(self.columns.maxima) > MAX_VALUE:
            raise self._unfit("is too wide to be squared exactly, as its variance needs")
        if "histogram" in self.statistics and not self.bins:
            raise self._unfit("has no bins for a histogram")
        if "share" in self.statistics and self.share is None:
            raise self._unfit("has no condition for a share")

    @cached_property
    def low(self) -> int:
        """The lower bound, scaled to an integer."""
        return self._scaled(self.lower)

    @cached_property
    def high(self) -> int:
        return self._scaled(self.upper)

    @cached_property
    def columns(self) -> Columns:
        """What a row adds: the value above the lower bound, its square, a 0 or 1 per interval.

        A feature that is only counted adds a zero, which keeps a block for its count.
        """
        span = self.high - self.low
        maxima = [span] if _MOMENTS & self.statistics else []
        maxima += [span * span] if "variance" in self.statistics else []
        maxima += [1 for _ in self._intervals]
        return Columns(self.name, tuple(maxima) or (0,), self.may_be_missing)

    def contributions(self, values: I64, present: Bool) -> list[U64]:
        """The columns of these rows, each uint64 (n,)."""
        above = np.where(present, values - self.low, 0).astype(np.uint64)
        columns = [above] if _MOMENTS & self.statistics else []
        columns += [above * above] if "variance" in self.statistics else []
        columns += [
            (present & (low < values) & (values <= high)).astype(np.uint64)
            for low, high in self._intervals
        ]
        return columns or [np.zeros_like(above)]

    def aggregate(self, count: int, sums: Sequence[int]) -> FeatureAggregate:
        """The statistics of `count` >= 1 rows from the sums of their columns."""
        following = iter(sums)
        asked = self.statistics
        unit = 10**self.decimals
        above = next(following) if _MOMENTS & asked else 0
        squares = next(following) if "variance" in asked else 0
        total = above + count * self.low
        return FeatureAggregate(
            count,
            sum=Decimal(f"{total}E-{self.decimals}") if "sum" in asked else None,
            mean=Fraction(total, count * unit) if "mean" in asked else None,
            variance=Fraction(count * squares - above**2, (count * unit) ** 2)
            if "variance" in asked
            else None,
            share=Fraction(next(following), count) if "share" in asked else None,
            histogram=tuple(following) if "histogram" in asked else None,
        )

    @cached_property
    def _intervals(self) -> list[tuple[int, int]]:
        """(above, up to] of the share, then of each bin of the histogram, scaled."""
        least, most = self.low - 1, self.high
        intervals = []
        if "share" in self.statistics and self.share:
            above, up_to = self.share.above, self.share.up_to
            intervals.append(
                (
                    least if above is None else self._scaled(above),
                    most if up_to is None else self._scaled(up_to),
                )
            )
        if "histogram" in self.statistics:
            edges = [least, *map(self._scaled, self.bins), most]
            intervals += pairwise(edges)
        return intervals

    def _scaled(self, number: Decimal) -> int:
        scaled = Fraction(number) * 10**self.decimals
        if scaled.denominator != 1:
            raise self._unfit(f"has a bound, bin or share of more than {self.decimals} decimals")
        return int(scaled)

    def _unfit(self, why: str) -> FeatureUnfit:
        return FeatureUnfit(
            f"Feature {self.name} {why}.", "Use fewer decimals, tighter bounds or other edges."
        )


@dataclass(frozen=True)
class Bins:
    """A column of the partner's table of which only the distribution is asked.

    A row is in one of `most` bins, or in the bin of those whose value is missing. That one needs no
    slot: it is what the others leave of the count. inner: where the bins meet, if both sides know.
    """

    name: str
    most: int
    inner: tuple[float, ...] | None = None

    @property
    def columns(self) -> Columns:
        return Columns(self.name, (1,) * self.most, may_be_missing=False)

    def aggregate(self, count: int, sums: Sequence[int]) -> FeatureAggregate:
        """The histogram's last figure counts the missing values. AnswersDisagree if negative."""
        if sum(sums) > count:
            raise AnswersDisagree("The other side answered with more values than rows.")
        return FeatureAggregate(count, histogram=(*sums, count - sum(sums)))


@dataclass(frozen=True)
class Groups:
    """The bank's input: id i belongs to segment segment[i], 0 <= segment[i] < segments."""

    ids: Ids
    segment: I64
    segments: int

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.segment):
            raise ValueError("one segment an id")
        if len(self.segment) and not 0 <= self.segment.min() <= self.segment.max() < self.segments:
            raise ValueError("a segment out of range")


F_contra = TypeVar("F_contra", bound=Asked, contravariant=True)


class Table(Protocol[F_contra]):
    """The partner's input: rows that can be packed for these features."""

    @property
    def ids(self) -> Ids: ...

    def check(self, features: Sequence[F_contra], /) -> None:
        """Raises FeatureUnfit for values that the features rule out."""

    def pack(self, rows: U64, features: Sequence[F_contra], layout: Layout, /) -> U64:
        """The plaintexts of these rows: uint64 (n * plaintexts, limbs)."""


@dataclass(frozen=True)
class FeatureTable:
    """The partner's input: values int64 (rows, features), clipped and scaled; present likewise."""

    ids: Ids
    values: I64
    present: Bool

    def check(self, features: Sequence[Feature]) -> None:
        """Raises FeatureUnfit for a value that is out of bounds or missing where it must not be."""
        shape = (len(self.ids), len(features))
        if self.values.shape != shape or self.present.shape != shape:
            raise ValueError("one row an id, one column a feature")
        for i, feature in enumerate(features):
            values, present = self.values[:, i], self.present[:, i]
            if (present & ((values < feature.low) | (values > feature.high))).any():
                raise FeatureUnfit(
                    f"Feature {feature.name} has values outside its declared bounds.",
                    "Clip them to the bounds.",
                )
            if not feature.may_be_missing and not present.all():
                raise FeatureUnfit(
                    f"Feature {feature.name} has missing values, which its schema rules out.",
                    "Leave the rows without it out, or declare that it may be missing.",
                )

    def pack(self, rows: U64, features: Sequence[Feature], layout: Layout) -> U64:
        """The plaintexts of these rows: uint64 (n * plaintexts, limbs)."""
        values, present = self.values[rows], self.present[rows]
        columns = [
            column
            for i, feature in enumerate(features)
            for column in feature.contributions(values[:, i], present[:, i])
        ]
        return layout.pack(np.column_stack(columns), present)


@dataclass(frozen=True)
class BinTable:
    """The partner's input where each feature is Bins.

    bins: uint8 (rows, features), the bin from 0; the feature's `most` where the value is missing.
    """

    ids: Ids
    bins: U8

    def check(self, features: Sequence[Bins]) -> None:
        """Raises ValueError for a bin that is none."""
        if self.bins.shape != (len(self.ids), len(features)):
            raise ValueError("one row an id, one column a feature")
        if (
            len(self.bins)
            and (self.bins.max(axis=0) > [feature.most for feature in features]).any()
        ):
            raise ValueError("a bin out of range")

    def pack(self, rows: U64, features: Sequence[Bins], layout: Layout) -> U64:
        """The plaintexts of these rows: uint64 (n * plaintexts, limbs)."""
        most = np.array([feature.most for feature in features])
        bins = self.bins[rows].astype(np.int64)
        first = np.cumsum([0, *most[:-1]])
        return layout.pack_bits(np.where(bins < most, first + bins, -1))


@dataclass(frozen=True)
class SegmentAggregate:
    """One segment. Both None where it, or that feature in it, is suppressed."""

    count: int | None
    features: tuple[FeatureAggregate | None, ...]  # in the order asked

    @property
    def suppressed(self) -> bool:
        return self.count is None


@dataclass(frozen=True)
class Aggregates:
    """The bank's result: every segment, in the bank's numbering."""

    segments: tuple[SegmentAggregate, ...]

    def __iter__(self) -> Iterator[SegmentAggregate]:
        return iter(self.segments)
