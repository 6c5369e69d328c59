"""What an insight asks, what each side puts in, and what comes out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Literal, Protocol, TypeVar

import numpy as np

from federated.arrays import I64, U8, U64, Bool
from federated.disclosure.noise import TAIL, Laplace
from federated.errors import AnswersDisagree, FeatureUnfit
from federated.identifiers import Ids
from federated.paillier.packing import MAX_VALUE, Columns, Layout, Query

Statistic = Literal["count", "sum", "mean", "variance", "share", "histogram", "ratio"]
_MOMENTS = frozenset({"sum", "mean", "variance", "ratio"})


@dataclass(frozen=True)
class Share:
    """The condition above < value <= up_to; None is infinite."""

    above: Decimal | None = None
    up_to: Decimal | None = None


@dataclass(frozen=True)
class Over:
    """The column by whose sum a ratio divides, clipped and scaled as a feature is."""

    name: str
    lower: Decimal
    upper: Decimal
    decimals: int = 0


@dataclass(frozen=True)
class Margin:
    """What noise may have done to a figure x.

    scale: of its noise, None where it is made of several. Without noise it lies within
    [x - below, x + above] with a probability of at least 95 %.
    """

    scale: Fraction | None
    below: Fraction
    above: Fraction


@dataclass(frozen=True)
class FeatureAggregate:
    """One feature in one segment. count: rows that have it; the rest None if not asked for.

    ratio: also None where it would divide by zero.
    margins: of each figure that carries noise, by its name; those of a histogram hold for a bin.
    """

    count: int
    sum: Decimal | None = None
    mean: Fraction | None = None
    variance: Fraction | None = None  # of the population
    share: Fraction | None = None
    histogram: tuple[int, ...] | None = None
    ratio: Fraction | None = None
    margins: Mapping[str, Margin] = field(default_factory=dict)


class Asked(Protocol):
    """What a feature's sums are, and what is made of them: all that the protocol needs of it."""

    @property
    def columns(self) -> Columns: ...

    def aggregate(
        self, count: int, sums: Sequence[int], noise: Sequence[Laplace], /
    ) -> FeatureAggregate: ...


@dataclass(frozen=True)
class Feature:
    """A column of the partner's table and what is asked of it. The count is always given.

    Values are clipped to [lower, upper] and kept to `decimals` places. bins are the inner edges of
    a histogram, e1 < e2 < ... < ek: (-inf, e1], (e1, e2], ... (ek, inf). A category is a number
    from 0 with an edge at each code but the last. With a ratio, a row without the column that is
    divided by counts as one without the feature: the minimum holds for rows that have both.

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
    over: Over | None = None

    def __post_init__(self) -> None:
        edges = [edge for interval in self._intervals for edge in interval]
        if not self.low < self.high or not all(self.low - 1 <= e <= self.high for e in edges):
            raise self._unfit("has edges outside its bounds, or bounds that enclose nothing")
        if any(low >= high for low, high in self._intervals):
            raise self._unfit("has bins or a share that hold nothing")
        if max(map(abs, (self.low, self.high, *self.over_bounds))) > MAX_VALUE // 2:
            raise self._unfit("is too wide to be added up exactly")
        if max(self.columns.maxima) > MAX_VALUE:
            raise self._unfit("is too wide to be squared exactly, as its variance needs")
        if "histogram" in self.statistics and not self.bins:
            raise self._unfit("has no bins for a histogram")
        if "share" in self.statistics and self.share is None:
            raise self._unfit("has no condition for a share")
        if "ratio" in self.statistics and self.over is None:
            raise self._unfit("has nothing to divide by for a ratio")

    @cached_property
    def low(self) -> int:
        """The lower bound, scaled to an integer."""
        return self._scaled(self.lower)

    @cached_property
    def high(self) -> int:
        return self._scaled(self.upper)

    @cached_property
    def columns(self) -> Columns:
        """What a row adds: the value above the lower bound, its square, that of the column which
        a ratio divides by, a 0 or 1 per interval.

        A feature that is only counted adds a zero, which keeps a block for its count.
        """
        span = self.high - self.low
        maxima = [span] if _MOMENTS & self.statistics else []
        maxima += [span * span] if "variance" in self.statistics else []
        maxima += [high - low for low, high in [self.over_bounds] if "ratio" in self.statistics]
        queries = [Query(1, maximum) for maximum in maxima]
        maxima += [1 for _ in self._intervals]
        if "share" in self.statistics:
            queries.append(Query(1, 1))
        if "histogram" in self.statistics:  # another value leaves one bin and enters another
            queries.append(Query(len(self.bins) + 1, 2))
        return Columns(
            self.name,
            tuple(maxima) or (0,),
            self.may_be_missing,
            tuple(queries) or (Query(1, 0),),
        )

    def contributions(self, values: I64, present: Bool, over: I64 | None = None) -> list[U64]:
        """The columns of these rows, each uint64 (n,). over: what a ratio divides by."""
        above = np.where(present, values - self.low, 0).astype(np.uint64)
        columns = [above] if _MOMENTS & self.statistics else []
        columns += [above * above] if "variance" in self.statistics else []
        if "ratio" in self.statistics and over is not None:
            columns += [np.where(present, over - self.over_bounds[0], 0).astype(np.uint64)]
        columns += [
            (present & (low < values) & (values <= high)).astype(np.uint64)
            for low, high in self._intervals
        ]
        return columns or [np.zeros_like(above)]

    def aggregate(
        self, count: int, sums: Sequence[int], noise: Sequence[Laplace] = ()
    ) -> FeatureAggregate:
        """The statistics of `count` >= 1 rows from the sums of their columns.

        noise: of each column, if any was added. Figures are not cut to what is possible, so that
        they have no bias.
        """
        following = iter(sums)
        asked = self.statistics
        unit = 10**self.decimals
        above = next(following) if _MOMENTS & asked else 0
        squares = next(following) if "variance" in asked else 0
        over = next(following) if "ratio" in asked else 0
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
            ratio=self._ratio(total, over, count) if "ratio" in asked else None,
            margins=self._margins(count, sums, noise),
        )

    def _ratio(self, total: int, above: int, count: int) -> Fraction | None:
        divisor = above + count * self.over_bounds[0]
        if not divisor or self.over is None:
            return None
        return Fraction(total * 10**self.over.decimals, divisor * 10**self.decimals)

    @cached_property
    def over_bounds(self) -> tuple[int, int]:
        """The bounds of what a ratio divides by, scaled to integers."""
        if self.over is None:
            return 0, 0
        one = Feature(
            self.over.name,
            frozenset(),
            self.over.lower,
            self.over.upper,
            self.over.decimals,
        )
        return one.low, one.high

    def _margins(
        self, count: int, sums: Sequence[int], noise: Sequence[Laplace]
    ) -> dict[str, Margin]:
        if not any(one.bound for one in noise):
            return {}
        following, asked, unit = (
            iter(zip(sums, noise, strict=True)),
            self.statistics,
            10**self.decimals,
        )
        margins: dict[str, Margin | None] = {}
        if _MOMENTS & asked:
            above, first = next(following)
            margins["sum"] = _even(first, unit)
            margins["mean"] = _even(first, count * unit)
        if "variance" in asked:
            _, second = next(following)
            margins["variance"] = self._of_variance(count, above, first, second)
        if "ratio" in asked:
            over, second = next(following)
            margins["ratio"] = self._of_ratio(count, (above, over), (first, second))
        if "share" in asked:
            margins["share"] = _even(next(following)[1], count)
        if "histogram" in asked:
            margins["histogram"] = _even(next(following)[1], 1)
        return {name: one for name, one in margins.items() if name in asked and one is not None}

    def _of_variance(self, count: int, above: int, first: Laplace, second: Laplace) -> Margin:
        """Of the square of a mean at its farthest ends, and of the sum of squares at its own."""
        around, square = first.within(TAIL / 2), second.within(TAIL / 2)
        most = max((above + around) ** 2, (above - around) ** 2)
        least = max(abs(above) - around, 0) ** 2
        scale = (count * 10**self.decimals) ** 2
        return Margin(
            None,
            Fraction(count * square + most - above**2, scale),
            Fraction(count * square + above**2 - least, scale),
        )

    def _of_ratio(
        self, count: int, sums: tuple[int, int], noise: tuple[Laplace, Laplace]
    ) -> Margin | None:
        """Of both sums at their ends; None where the one divided by may as well be zero."""
        found = self._ratio(sums[0] + count * self.low, sums[1], count)
        ends = [
            [number + way * one.within(TAIL / 2) for way in (-1, 1)]
            for number, one in zip(sums, noise, strict=True)
        ]
        if found is None or min(ends[1]) <= -count * self.over_bounds[0] <= max(ends[1]):
            return None
        corners = [
            self._ratio(above + count * self.low, over, count) or Fraction(0)
            for above in ends[0]
            for over in ends[1]
        ]
        return Margin(None, found - min(corners), max(corners) - found)

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


def _even(noise: Laplace, divisor: int) -> Margin:
    """Of a sum divided by this."""
    within = Fraction(noise.within(), divisor)
    return Margin(Fraction(noise.scale) / divisor, within, within)


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
        # Another value leaves one bin and enters another.
        queries = (Query(self.most, 2),)
        return Columns(self.name, (1,) * self.most, may_be_missing=False, queries=queries)

    def aggregate(
        self, count: int, sums: Sequence[int], noise: Sequence[Laplace] = ()
    ) -> FeatureAggregate:
        """The histogram's last figure counts the missing values, and carries the noise of all.

        Raises AnswersDisagree if it is negative without noise.
        """
        histogram = (*sums, count - sum(sums))
        if not any(one.bound for one in noise):
            if histogram[-1] < 0:
                raise AnswersDisagree("The other side answered with more values than rows.")
            return FeatureAggregate(count, histogram=histogram)
        of_all = Fraction(sum(one.within(TAIL / len(noise)) for one in noise))
        margins = {"histogram": _even(noise[0], 1), "missing": Margin(None, of_all, of_all)}
        return FeatureAggregate(count, histogram=histogram, margins=margins)


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
    """The partner's input: values int64 (rows, features), clipped and scaled; present likewise.

    over: of each column that a ratio divides by, int64 (rows,), clipped and scaled.
    """

    ids: Ids
    values: I64
    present: Bool
    over: Mapping[str, I64] = field(default_factory=dict)

    def check(self, features: Sequence[Feature]) -> None:
        """Raises FeatureUnfit for a value that is out of bounds or missing where it must not be."""
        shape = (len(self.ids), len(features))
        if self.values.shape != shape or self.present.shape != shape:
            raise ValueError("one row an id, one column a feature")
        for i, feature in enumerate(features):
            values, present = self.values[:, i], self.present[:, i]
            outside = (values < feature.low) | (values > feature.high)
            if (over := self._over(feature)) is not None:
                lower, upper = feature.over_bounds
                outside |= (over < lower) | (over > upper)
            if (present & outside).any():
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
        columns = []
        for i, feature in enumerate(features):
            over = self._over(feature)
            divisor = None if over is None else over[rows]
            columns += feature.contributions(values[:, i], present[:, i], divisor)
        return layout.pack(np.column_stack(columns), present)

    def _over(self, feature: Feature) -> I64 | None:
        """What its ratio divides by, if it is asked for."""
        if "ratio" not in feature.statistics or feature.over is None:
            return None
        return self.over[feature.over.name]


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
