"""The features of an operator's subscribers: what is known of made-up people, and small cases."""

from collections.abc import Iterator
from datetime import UTC, datetime
from math import asin, cos, log, radians, sin, sqrt
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from parties import catalogue, errors, features
from parties.sources import Dataset
from parties.telecom import generate

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = catalogue.names("telecom")


def load(folder: Path, names: list[str], sql: str | None = None, **more: Any) -> pd.DataFrame:
    """A row a person: floats, NaN where missing."""
    dataset = Dataset.model_validate(
        {
            "path": folder / "calls.csv",
            "sql": sql,
            "identifier": {"column": "phone", "kind": "phone"},
            "features": {
                "library": "telecom",
                "as_of": "2026-01-01",
                "tables": {
                    name: {"path": f"{name}.csv"}
                    for name in ("cells", "subscribers", "topups")
                    if (folder / f"{name}.csv").exists()
                },
            }
            | more,
        }
    )
    table = features.load(dataset, folder, names, NOW)
    frame = table.frame.astype("float64").astype(float)
    frame.columns = [name.partition(".")[2] for name in frame.columns]
    return frame.set_index(pd.Index(table.ids.to_strings().to_pylist()))


# Structure that is known


@pytest.fixture(scope="module")
def network() -> generate.Network:
    return generate.generate(300)


@pytest.fixture(scope="module")
def found(network: generate.Network, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("network")
    for name in ("calls", "cells", "subscribers", "topups"):
        getattr(network, name).to_csv(folder / f"{name}.csv", index=False)
    return load(folder, NAMES, generate.SQL)


def truths(network: generate.Network) -> Iterator[tuple[str, dict[str, float]]]:
    """What should be found of each person, from their habits alone."""
    for _, one in network.people.iterrows():
        lasting = range(one["new"], one["contacts"] - one["new"])
        talk = [
            (1 + (nth < one["mutual"])) * (1 + (nth in lasting)) for nth in range(one["contacts"])
        ]
        shares = [part / sum(talk) for part in talk]
        calls = 4 * sum(talk)
        work = int(one["at_work"] * calls + 0.5) / calls
        away = one["commute_km"]
        yield (
            one["phone"],
            {
                "contacts": one["contacts"],
                "reciprocity": one["mutual"] / one["contacts"],
                "contact_entropy": -sum(share * log(share) for share in shares),
                "top_contact_share": max(shares),
                "contact_churn": 2 * one["new"] / one["contacts"],
                "night_share": 1 - work,
                "radius_of_gyration_km": away * sqrt(work * (1 - work)),
                "location_entropy": -work * log(work) - (1 - work) * log(1 - work),
                "cities_visited": 2 if one["away"] else 1,
                "home_share": 1 - work,
                "commute_km": away,
                "tenure_days": one["tenure_days"],
                "topup_amount": 2 * one["topup_days"],
                "topup_cycle_days": one["topup_days"],
                "topup_regularity": 1,
            },
        )


def test_the_features_recover_the_structure(network, found) -> None:
    assert len(found) == 300
    for phone, truth in truths(network):
        for name, value in truth.items():
            decimals = catalogue.find(f"telecom.{name}").entry.decimals
            near = pytest.approx(value, abs=10**-decimals, rel=1e-5)
            assert found.loc[phone, name] == near, (phone, name)


def test_what_takes_counting_is_what_a_loop_counts(network, found) -> None:
    ours = set(network.people["phone"][:40])
    seconds: dict[str, int] = dict.fromkeys(ours, 0)
    days: dict[str, dict[str, set[str]]] = {one: {} for one in ours}
    for row in network.calls.itertuples():
        one = row.caller if row.direction == "out" else row.callee
        if one in ours:
            seconds[one] += row.duration
            days[one].setdefault(str(row.start)[:10], set()).add(row.cell[0])
    for one in ours:
        share = sum(places == {"h", "w"} for places in days[one].values()) / len(days[one])
        assert found.loc[one, "commute_share"] == pytest.approx(share, abs=1e-4)
        strength = seconds[one] / found.loc[one, "contacts"]
        assert found.loc[one, "tie_strength_seconds"] == pytest.approx(strength, abs=0.1)


def test_the_same_seed_makes_the_same_network() -> None:
    one, same, other = (generate.generate(20, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one.calls, same.calls)
    assert not one.calls.equals(other.calls)


# Small cases

A = "+8613912345678"
CALLS = "phone,time,contact,direction,duration,kind,cell\n"
CELLS = "cell,lat,lon,city\nx,30,100,Up\ny,30,100.5,Down\nfar,95,0,\nz,0,0,\n"


def one(folder: Path, rows: str, *names: str, cells: str = CELLS, **more: Any) -> dict[str, float]:
    """What is found of a single person; without what is missing."""
    (folder / "calls.csv").write_text(CALLS + rows.replace("A,", f"{A},"))
    (folder / "cells.csv").write_text(cells)
    asked = [f"telecom.{name}" for name in names]
    return load(folder, asked, **more).loc[A].dropna().to_dict()


def test_a_contact_may_be_written_in_several_ways(tmp_path: Path) -> None:
    rows = "A,2025-03-01,+8613812345678,out,1,call,\nA,2025-03-01,138 1234 5678,in,1,call,\n"
    rows += "A,2025-03-01,10086,out,1,call,\nA,2025-03-01,,,,data,x\n"
    found = one(tmp_path, rows, "contacts", "reciprocity", "top_contact_share")
    assert found == {"contacts": 2, "reciprocity": 0.5, "top_contact_share": 0.6667}


def test_who_talks_to_nobody_has_no_ties(tmp_path: Path) -> None:
    ties = ("contacts", "reciprocity", "contact_entropy", "top_contact_share", "night_share")
    rows = "A,2025-03-01,,,,data,x\n"
    assert one(tmp_path, rows, *ties, "contact_churn", "tie_strength_seconds") == {"contacts": 0}


def test_texts_are_no_calls(tmp_path: Path) -> None:
    rows = "A,2025-03-01T23:00,b,out,,text,\nA,2025-03-01T12:00,b,out,30,call,\n"
    names = ("night_share", "tie_strength_seconds")
    assert one(tmp_path, rows, *names) == {"night_share": 0, "tie_strength_seconds": 30}


@pytest.mark.parametrize(
    ("hour", "night"), [("06:59:59", 1), ("07:00", 0), ("18:59", 0), ("19:00", 1), ("00:00", 1)]
)
def test_night_is_bandicoots(tmp_path: Path, hour: str, night: float) -> None:
    rows = f"A,2025-03-01T{hour},b,out,1,call,\n"
    assert one(tmp_path, rows, "night_share") == {"night_share": night}


def test_contacts_of_one_half_say_nothing_of_churn(tmp_path: Path) -> None:
    early, late = ("A,2025-02-01,b,out,1,call,\n", "A,2025-11-01,c,out,1,call,\n")
    assert one(tmp_path, early, "contact_churn") == {}
    assert one(tmp_path, early + late, "contact_churn") == {"contact_churn": 1}
    again = late.replace(",c,", ",b,")
    assert one(tmp_path, early + again, "contact_churn") == {"contact_churn": 0}


PLACES = ("radius_of_gyration_km", "location_entropy", "cities_visited", "home_share", "commute_km")


def test_home_is_where_the_nights_are_and_work_where_the_days(tmp_path: Path) -> None:
    rows = "A,2025-03-03T22:00,,,,data,x\nA,2025-03-03T10:00,,,,data,y\n"
    away = 6371.0088 * 2 * asin(cos(radians(30)) * sin(radians(0.25)))
    found = one(tmp_path, rows, *PLACES, "commute_share")
    assert found == {
        "radius_of_gyration_km": pytest.approx(away / 2, abs=0.001),
        "location_entropy": pytest.approx(log(2), abs=1e-4),
        "cities_visited": 2,
        "home_share": 0.5,
        "commute_km": pytest.approx(away, abs=0.001),
        "commute_share": 1,
    }


@pytest.mark.parametrize(
    ("time", "work"),
    [
        ("2025-03-03T09:00", True),  # a Monday
        ("2025-03-07T16:59", True),
        ("2025-03-07T17:00", False),
        ("2025-03-03T08:59", False),
        ("2025-03-08T10:00", False),  # a Saturday
    ],
)
def test_office_hours(tmp_path: Path, time: str, work: bool) -> None:
    rows = f"A,2025-03-03T22:00,,,,data,x\nA,{time},,,,data,y\n"
    assert ("commute_km" in one(tmp_path, rows, "commute_km")) == work


def test_of_cells_alike_the_first_by_name_is_home(tmp_path: Path) -> None:
    rows = ["A,2025-03-03T22:00,,,,data,y\n", "A,2025-03-03T23:00,,,,data,x\n"]
    rows += ["A,2025-03-04T10:00,,,,data,x\n"]
    for order in (rows, rows[::-1]):
        assert one(tmp_path, "".join(order), "home_share") == {"home_share": 0.6667}


def test_a_cell_that_is_unknown_or_nowhere_has_no_position(tmp_path: Path) -> None:
    rows = "A,2025-03-03T22:00,,,,data,far\nA,2025-03-03T10:00,,,,data,gone\n"
    found = one(tmp_path, rows, *PLACES)
    assert found == {"location_entropy": pytest.approx(log(2), abs=1e-4), "home_share": 0.5}
    rows += "A,2025-03-03T22:00,,,,data,z\n"
    assert one(tmp_path, rows, "radius_of_gyration_km") == {"radius_of_gyration_km": 0}


def test_who_never_moves_has_no_radius(tmp_path: Path) -> None:
    rows = "A,2025-03-03T22:00,,,,data,x\n" * 3
    found = one(tmp_path, rows, *PLACES)
    assert found == {
        "radius_of_gyration_km": 0,
        "location_entropy": 0,
        "cities_visited": 1,
        "home_share": 1,
    }


def test_of_two_rows_about_a_cell_the_first_counts(tmp_path: Path) -> None:
    cells = CELLS + "x,31,100,Elsewhere\n"
    rows = "A,2025-03-03T22:00,,,,data,x\nA,2025-03-03T10:00,,,,data,y\n"
    found = one(tmp_path, rows, "commute_km", cells=cells)
    assert found["commute_km"] == pytest.approx(48.149, abs=0.01)


def test_the_radius_holds_across_the_date_line(tmp_path: Path) -> None:
    cells = "cell,lat,lon,city\nx,0,179.9,a\ny,0,-179.9,b\n"
    rows = "A,2025-03-03T22:00,,,,data,x\nA,2025-03-03T10:00,,,,data,y\n"
    found = one(tmp_path, rows, "radius_of_gyration_km", "commute_km", cells=cells)
    assert found["commute_km"] == pytest.approx(22.239, abs=0.001)
    assert found["radius_of_gyration_km"] == pytest.approx(22.239 / 2, abs=0.001)


def test_who_is_in_no_further_table_lacks_its_features(tmp_path: Path) -> None:
    other = "phone,since\n+8613712345678,2020-01-01\nnonsense,2020-01-01\n"
    (tmp_path / "subscribers.csv").write_text(other)
    (tmp_path / "topups.csv").write_text("phone,time,amount\n")
    names = ("tenure_days", "topup_amount", "topup_cycle_days", "topup_regularity")
    assert one(tmp_path, "A,2025-03-03,b,out,1,call,x\n", *names) == {}
    (tmp_path / "subscribers.csv").write_text(f"phone,since\n{A},2025-12-31T10:00\n")
    assert one(tmp_path, "A,2025-03-03,b,out,1,call,x\n", *names) == {"tenure_days": 1}
    (tmp_path / "subscribers.csv").write_text(f"phone,since\n{A},2026-02-01\n")
    assert one(tmp_path, "A,2025-03-03,b,out,1,call,x\n", *names) == {}


def test_topups_outside_the_window_do_not_count(tmp_path: Path) -> None:
    times = ["2024-12-31", "2025-01-01", "2025-01-31", "2026-01-01", ""]
    rows = "".join(f"{A},{time},{10 * (at + 1)}\n" for at, time in enumerate(times))
    (tmp_path / "topups.csv").write_text("phone,time,amount\n" + rows)
    found = one(tmp_path, "A,2025-03-03,b,out,1,call,x\n", "topup_amount", "topup_cycle_days")
    assert found == {"topup_amount": 25, "topup_cycle_days": 30}


# What is refused


def test_a_table_that_is_needed_has_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "calls.csv").write_text(f"{CALLS}{A},2025-03-03,b,out,1,call,x\n")
    with pytest.raises(errors.TableNotGiven, match="`cells`") as caught:
        load(tmp_path, ["telecom.commute_km"])
    assert "features.tables" in caught.value.next_step


@pytest.mark.parametrize("rows", ["A,2025-03-03,b,MO,1,call,x\n", "A,2025-03-03,b,,1,voice,x\n"])
def test_words_that_mean_nothing_here_are_refused(tmp_path: Path, rows: str) -> None:
    with pytest.raises(errors.ValueUnreadable, match=r"Row 1 .* (in, out|call, text)"):
        one(tmp_path, rows, "reciprocity")


def test_a_settings_table_the_library_does_not_have() -> None:
    with pytest.raises(ValueError, match="cells, subscribers, topups"):
        Dataset.model_validate(
            {
                "path": "t.csv",
                "identifier": {"column": "phone", "kind": "phone"},
                "features": {
                    "library": "telecom",
                    "as_of": "today",
                    "tables": {"towers": {"path": "t.csv"}},
                },
            }
        )
