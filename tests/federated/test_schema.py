from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from two_sides import phones

from federated.aggregation.schema import Feature, FeatureTable, Groups, Over, Share
from federated.errors import FeatureUnfit

D = Decimal
EVERYTHING = frozenset({"count", "sum", "mean", "variance", "share", "histogram"})


def feature(**changes: object) -> Feature:
    declared = {
        "name": "balance",
        "statistics": EVERYTHING,
        "lower": D("-10"),
        "upper": D("10.5"),
        "decimals": 1,
        "bins": (D("-10"), D(0), D("2.5")),
        "share": Share(above=D(0)),
    }
    return Feature(**declared | changes)


def aggregate(one: Feature, values: list[int]):
    columns = one.contributions(np.array(values), np.ones(len(values), bool))
    assert [int(c.max()) <= m for c, m in zip(columns, one.columns.maxima, strict=True)]
    return one.aggregate(len(values), [int(column.sum()) for column in columns])


def test_every_statistic_of_scaled_values() -> None:
    found = aggregate(feature(), [-100, -99, 0, 1, 25, 26, 105])
    assert found.count == 7
    assert found.sum == D("-4.2")
    assert str(found.sum) == "-4.2"
    assert found.mean == Fraction(-42, 70)
    values = [Fraction(v, 10) for v in (-100, -99, 0, 1, 25, 26, 105)]
    assert found.variance == sum((v - found.mean) ** 2 for v in values) / 7
    assert found.share == Fraction(4, 7)
    assert found.histogram == (1, 2, 2, 2)  # (-inf, -10], (-10, 0], (0, 2.5], (2.5, inf)


def test_only_what_was_asked_is_given() -> None:
    found = aggregate(feature(statistics=frozenset({"mean"})), [10, 20])
    assert found.mean == Fraction(3, 2)
    assert (found.sum, found.variance, found.share, found.histogram) == (None,) * 4
    counted = feature(statistics=frozenset({"count"}))
    assert counted.columns.maxima == (0,)
    assert aggregate(counted, [10, 20]).count == 2


def test_a_ratio_is_of_two_sums_whatever_their_bounds_and_decimals() -> None:
    over = Over("income", D("-1"), D("9.25"), decimals=2)
    one = feature(statistics=frozenset({"ratio"}), over=over)
    for values, divisors, expected in (
        ([-100, 1, 105], [-100, 925, 25], Fraction(6, 85)),
        ([7, 7], [100, -100], None),  # nothing to divide by
    ):
        there = np.ones(len(values), bool)
        columns = one.contributions(np.array(values), there, np.array(divisors))
        assert [c.max() <= m for c, m in zip(columns, one.columns.maxima, strict=True)]
        found = one.aggregate(len(values), [int(column.sum()) for column in columns])
        assert found.ratio == expected
        assert (found.sum, found.mean) == (None, None)


def test_a_ratio_needs_a_divisor_within_its_bounds() -> None:
    with pytest.raises(FeatureUnfit, match="nothing to divide by"):
        feature(statistics=frozenset({"ratio"}))
    with pytest.raises(FeatureUnfit, match="bounds that enclose nothing"):
        feature(statistics=frozenset({"ratio"}), over=Over("income", D(1), D(1)))
    one = feature(statistics=frozenset({"ratio"}), over=Over("income", D(0), D(5)))
    ids, there = phones([1, 2]), np.ones((2, 1), bool)
    FeatureTable(ids, np.zeros((2, 1), int), there, {"income": np.array([0, 5])}).check([one])
    with pytest.raises(FeatureUnfit, match="outside"):
        FeatureTable(ids, np.zeros((2, 1), int), there, {"income": np.array([0, 6])}).check([one])


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (Share(), 4),
        (Share(above=D(1)), 2),
        (Share(up_to=D(1)), 2),
        (Share(above=D(0), up_to=D(2)), 2),
    ],
)
def test_a_share_is_open_below_and_closed_above(share: Share, expected: int) -> None:
    one = feature(statistics=frozenset({"share"}), share=share)
    assert aggregate(one, [0, 10, 20, 30]).share == Fraction(expected, 4)


def test_a_missing_value_adds_nothing() -> None:
    values, present = np.array([5, 7]), np.array([True, False])
    for column in feature().contributions(values, present):
        assert column[1] == 0


def test_extreme_values_stay_exact() -> None:
    wide = feature(
        statistics=frozenset({"sum", "variance"}), lower=D(0), upper=D(2**31), decimals=0
    )
    found = aggregate(wide, [2**31, 0])
    assert found.sum == 2**31
    assert found.variance == 2**60


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"lower": D(3), "upper": D(3)}, "enclose nothing"),
        ({"lower": D("0.01")}, "more than 1 decimals"),
        ({"bins": (D("0.55"),)}, "more than 1 decimals"),
        ({"bins": (D(1), D(1))}, "hold nothing"),
        ({"bins": (D(2), D(1))}, "hold nothing"),
        ({"bins": (D(11),)}, "outside its bounds"),
        ({"share": Share(above=D(2), up_to=D(1))}, "hold nothing"),
        ({"upper": D(2**32)}, "squared exactly"),
        ({"upper": D(2**62), "statistics": frozenset({"sum"})}, "added up exactly"),
        ({"bins": ()}, "no bins"),
        ({"share": None}, "no condition"),
    ],
)
def test_an_unfit_feature_is_refused_by_name(changes, match: str) -> None:
    with pytest.raises(FeatureUnfit, match=match) as caught:
        feature(**changes)
    assert "balance" in caught.value.message
    assert "fewer decimals, tighter bounds" in caught.value.next_step


def table(values: list[int], present: list[bool]) -> FeatureTable:
    n = len(values)
    return FeatureTable(
        phones(range(n)), np.array(values).reshape(n, 1), np.array(present).reshape(n, 1)
    )


def test_a_table_within_its_schema_passes() -> None:
    table([-100, 105, 999], [True, True, False]).check([feature()])


@pytest.mark.parametrize("value", [-101, 106])
def test_a_value_out_of_bounds_is_refused(value: int) -> None:
    with pytest.raises(FeatureUnfit, match="balance has values outside"):
        table([0, value], [True, True]).check([feature()])


def test_a_missing_value_that_the_schema_rules_out_is_refused() -> None:
    with pytest.raises(FeatureUnfit, match="balance has missing values"):
        table([0, 0], [True, False]).check([feature(may_be_missing=False)])


def test_a_table_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="one row an id"):
        table([0], [True]).check([feature(), feature()])


@pytest.mark.parametrize("segment", [[0], [0, 2], [-1, 0]])
def test_groups_name_a_segment_for_every_id(segment: list[int]) -> None:
    with pytest.raises(ValueError, match="segment"):
        Groups(phones([1, 2]), np.array(segment), 2)
