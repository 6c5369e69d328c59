"""Bins and what they tell, against pandas by hand, scorecardpy and optbinning."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from federated.risk.binning import Comparison, Edges, compare, count, find_edges, place

PEERS = json.loads((Path(__file__).parent / "peers.json").read_text("utf-8"))
NAN = np.nan


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


# Edges


@pytest.mark.parametrize(
    ("values", "inner"),
    [
        (column(1, 2, 3, 4, 5), (2, 3, 4)),
        (column(1, 2, 3, 4), (1.75, 2.5, 3.25)),
        (column(-3, -3, -3, 0, 4, 9, 9), (0, 6.5)),  # -3 -3 0 6.5 9
        (column(7, 7, 7), ()),
        (column(0, 1, 1, 1, 1), ()),  # 0 1 1 1 1: two edges, both outermost
        (column(0, 0, 0, 0, 0, 0, 5, 5, 9), (5,)),
        (column(), ()),
    ],
)
def test_quantiles_are_taken_once_and_the_outermost_give_way(values, inner) -> None:
    assert find_edges(values, "quantile", 4).inner == inner


@given(
    arrays.arrays(
        np.float64,
        st.integers(1, 60),
        elements=st.one_of(
            st.integers(-5, 5).map(float),
            st.integers(-(10**9), 10**9).map(lambda n: n / 1000),
            st.just(NAN),
        ),
    ),
    st.integers(2, 12),
)
def test_quantile_bins_are_those_of_pandas(values: np.ndarray, bins: int) -> None:
    found = find_edges(values, "quantile", bins)
    assert found.missing == np.isnan(values).any()
    present = pd.Series(values).dropna()
    cuts = np.unique(present.quantile(np.linspace(0, 1, bins + 1))) if len(present) else []
    assert found.inner == pytest.approx(tuple(cuts[1:-1]))
    cut = pd.cut(pd.Series(values), [-np.inf, *found.inner, np.inf])
    expected = cut.value_counts(sort=False).tolist()
    assert count(values, found).tolist() == expected + [cut.isna().sum()] * found.missing


def test_equal_width_goes_from_the_smallest_to_the_largest() -> None:
    found = find_edges(column(-10, 0, 90, NAN), "equal_width", 5)
    assert found == Edges((10.0, 30.0, 50.0, 70.0), missing=True)
    assert find_edges(column(3, 3), "equal_width", 5) == Edges((), missing=False)


def test_given_edges_are_taken_as_they_are() -> None:
    assert find_edges(column(1, 2), "edges", 0, (0.5, 9)) == Edges((0.5, 9), missing=False)


def test_a_value_at_an_edge_is_in_the_bin_below() -> None:
    values = column(-1e9, 0, np.nextafter(0, 1), 0.3, 1e9, NAN)
    assert place(values, (0.0, 0.3), 9).tolist() == [0, 0, 1, 1, 2, 9]


def test_limits_name_the_bins() -> None:
    assert Edges((1.5,), missing=True).limits() == [
        ("1", None, 1.5),
        ("2", 1.5, None),
        ("missing", None, None),
    ]


# What bins tell


def weigh(good: list[int], bad: list[int], minimum_cell: int = 0) -> Comparison:
    return compare(np.array(good), np.array(bad), minimum_cell)


def test_woe_and_iv_by_hand() -> None:
    found = weigh([60, 30, 10], [5, 5, 10])
    assert found.log == pytest.approx(np.log([0.25 / 0.6, 0.25 / 0.3, 0.5 / 0.1]))
    assert found.parts == pytest.approx(found.log * [-0.35, -0.05, 0.4])
    assert found.total == pytest.approx(found.parts.sum())
    assert found.shown.all()


def test_a_zero_counts_a_half_in_its_own_bin_and_totals_stay() -> None:
    found = weigh([50, 50], [0, 20])
    assert found.log == pytest.approx([np.log((0.5 / 20) / 0.5), np.log(1 / 0.5)])
    assert found.parts[0] == pytest.approx((0.5 / 20 - 0.5) * found.log[0])
    assert np.isfinite(weigh([50, 0, 0], [0, 20, 0]).total)


def test_one_bin_tells_nothing() -> None:
    assert weigh([80], [20]).total == 0


@pytest.mark.parametrize(("library", "sign"), [("scorecardpy", 1), ("optbinning", -1)])
def test_it_is_what_others_find(library: str, sign: int) -> None:
    """Their bins, counts, WOE and IV of one column; optbinning's WOE is above 0 for the good."""
    theirs = PEERS[library]
    x = np.array([NAN if value is None else value for value in PEERS["x"]])
    bad = np.array(PEERS["bad"]) == 1
    edges = find_edges(x, "edges", 0, PEERS["edges"])
    found = compare(count(x[~bad], edges), count(x[bad], edges))
    assert found.base.tolist() == theirs["good"]
    assert found.other.tolist() == theirs["bad"]
    assert found.log == pytest.approx(sign * np.array(theirs["woe"]), rel=1e-12)
    assert found.parts == pytest.approx(np.array(theirs["iv"]), rel=1e-12)
    assert found.total == pytest.approx(theirs["total_iv"], rel=1e-12)


# What is not shown


def shown(good: list[int], bad: list[int], minimum_cell: int) -> list[bool]:
    return weigh(good, bad, minimum_cell).shown.tolist()


def test_the_minimum_itself_is_shown() -> None:
    assert shown([20, 20, 30], [5, 5, 9], 5) == [True] * 3
    assert shown([0, 20], [3, 0], 0) == [True] * 2


def test_a_bin_that_would_follow_from_the_others_takes_another_with_it() -> None:
    assert shown([20, 21, 30, 3], [9, 9, 9, 5], 5) == [False, True, True, False]


def test_bins_that_are_small_together_take_another_with_them() -> None:
    assert shown([20, 21, 30, 1, 1], [9, 9, 9, 9, 9], 5) == [False, True, True, False, False]


def test_where_no_bin_can_be_shown_there_is_no_total() -> None:
    found = weigh([20, 1], [9, 9], 5)
    assert found.shown.tolist() == [False, False]
    assert found.total is None


def test_the_total_takes_hidden_bins_as_one() -> None:
    found = weigh([20, 21, 30, 3], [9, 8, 7, 5], 5)
    assert found.total == pytest.approx(weigh([21, 30, 23], [8, 7, 14]).total)


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=2, max_size=12),
    st.integers(1, 12),
)
def test_what_is_hidden_does_not_follow_from_totals(cells, minimum: int) -> None:
    good, bad = map(list, zip(*cells, strict=True))
    good[0], bad[0] = good[0] + 1, bad[0] + 1
    found = weigh(good, bad, minimum)
    hidden = ~found.shown
    assert (np.minimum(found.base, found.other)[found.shown] >= minimum).all()
    if hidden.any() and found.shown.any():
        assert hidden.sum() >= 2
        assert min(found.base[hidden].sum(), found.other[hidden].sum()) >= minimum
