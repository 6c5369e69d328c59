"""Raw tables as a node reads them: windows, time zones, what is missing, what is refused."""

import stat
import zoneinfo
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import ready
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from parties import agreements, errors, features, session
from parties.cli import app
from parties.node import Node
from parties.sources import Dataset, Table
from protos.errors import ConcordatError

NOW = datetime(2026, 1, 1, 17, tzinfo=UTC)  # the second of January in Shanghai
FREQUENCY, MONETARY = "ecommerce.frequency", "ecommerce.monetary"


def dataset(path: Path | str, sql: str | None = None, **more: Any) -> Dataset:
    return Dataset.model_validate(
        {
            "path": path,
            "sql": sql,
            "identifier": {"column": "phone", "kind": "phone"},
            "features": {"library": "ecommerce", "as_of": "2026-01-01"} | more,
        }
    )


def read(folder: Path, text: str, *names: str, sql: str | None = None, **more: Any) -> Table:
    (folder / "rows.csv").write_text(text)
    return features.load(dataset("rows.csv", sql, **more), folder, names or [FREQUENCY], NOW)


def values(table: Table) -> dict[str, list[str | None]]:
    rows = table.frame.astype(object).where(table.frame.notna(), None).to_numpy().tolist()
    return dict(zip(map(str, table.ids.to_strings()), rows, strict=True))


A, B = "+8613912345678", "+8613812345678"


# Whose, and when


def test_a_person_may_be_written_in_several_ways(tmp_path: Path) -> None:
    text = f"phone,time\n{A},2025-12-01\n139 1234 5678,2025-12-02\n0086{B[3:]},2025-12-02\n"
    assert values(read(tmp_path, text)) == {A: ["2"], B: ["1"]}


def test_rows_without_a_person_are_rejects(tmp_path: Path) -> None:
    text = f"phone,time\nx,2025-12-01\n,2025-12-01\n{A},2025-12-02\nx,2025-12-01\n"
    table = read(tmp_path, text)
    assert table.counts() == {
        "rows": 4,
        "accepted": 1,
        "duplicates": 0,
        "rejected": {"not a phone number": 2, "empty": 1},
        "events": {"used": 1, "untimed": 0, "outside_window": 0},
    }
    assert table.rejects["row"].tolist() == [1, 2, 4]
    assert table.rejects["value"].fillna("").tolist() == ["x", "", "x"]


def test_the_window_begins_and_ends_at_midnight(tmp_path: Path) -> None:
    times = ["2025-12-24 23:59:59.9", "2025-12-25", "2025-12-31 23:59:59.999999", "2026-01-01"]
    text = "phone,time\n" + "".join(f"{A},{time}\n" for time in times)
    table = read(tmp_path, text + f"{B},2026-01-01\n{B},\n", window_days=7)
    assert values(table) == {A: ["2"]}  # who has nothing in it is not there
    assert table.counts()["events"] == {"used": 2, "untimed": 1, "outside_window": 3}


@pytest.mark.parametrize(("zone", "day"), [("Asia/Shanghai", 2), ("Europe/Paris", 1)])
def test_today_is_the_zones(tmp_path: Path, zone: str, day: int) -> None:
    text = f"phone,time\n{A},2025-12-25\n"
    table = read(tmp_path, text, "ecommerce.recency_days", as_of="today", timezone=zone)
    assert values(table) == {A: [str(6 + day)]}


@pytest.mark.parametrize(
    ("written", "zone", "share"),
    [
        ("2025-12-01T21:59:59", "Asia/Shanghai", "0"),
        ("2025-12-01T22:00:00", "Asia/Shanghai", "1"),
        ("2025-12-01 05:59", "Asia/Shanghai", "1"),
        ("2025-12-01 06:00", "Asia/Shanghai", "0"),
        ("2025-12-01T14:00:00Z", "Asia/Shanghai", "1"),
        ("2025-12-01T22:00:00+08:00", "Europe/Paris", "0"),
        ("2025-12-01 22:00:00+08", "Asia/Shanghai", "1"),
        ("2025-07-01T20:30:00Z", "Europe/Paris", "1"),  # in summer
        ("2025-12-01T20:30:00Z", "Europe/Paris", "0"),
    ],
)
def test_hours_are_local(tmp_path: Path, written: str, zone: str, share: str) -> None:
    text = f"phone,time\n{A},{written}\n"
    assert values(read(tmp_path, text, "ecommerce.night_share", timezone=zone)) == {A: [share]}


def test_times_with_and_without_an_offset_stand_in_one_column(tmp_path: Path) -> None:
    rows = ["2025-12-01T23:00:00", "2025-12-01T15:00:00Z", "2025-12-02", ""]
    text = "phone,time\n" + "".join(f"{A},{row}\n" for row in rows)
    assert values(read(tmp_path, text)) == {A: ["2"]}  # the first two are one moment


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2030, 1, 1)),
    st.sampled_from(["", "Z", "+08:00", "-0330", "+01"]),
    st.sampled_from(["Asia/Shanghai", "America/New_York", "UTC"]),
)
def test_times_are_what_pythons_own_parser_makes_of_them(at, offset, zone) -> None:
    text = at.isoformat(sep=" ", timespec="microseconds") + offset
    found = features.local_times(pa.array([text, None], pa.large_string()), zone)
    wanted = datetime.fromisoformat(text)
    if wanted.tzinfo:
        wanted = wanted.astimezone(zoneinfo.ZoneInfo(zone)).replace(tzinfo=None)
    assert found.astype(object).tolist() == [wanted, None]


def test_columns_of_parquet_with_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "phone": pa.array([13_912_345_678] * 2, pa.int64()),
            "time": pa.array([datetime(2025, 12, 1, 23, 30), datetime(2025, 12, 2, 12)]),
            "amount": [2.5, None],
        }
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    zoned = table.set_column(1, "time", table["time"].cast(pa.timestamp("ms", "Asia/Shanghai")))
    pq.write_table(zoned, tmp_path / "zoned.parquet")
    names = [MONETARY, FREQUENCY, "ecommerce.night_share"]
    for name, night in (("rows.parquet", "0.5"), ("zoned.parquet", "0")):
        found = features.load(dataset(name), tmp_path, names, NOW)
        assert values(found) == {A: ["2.5", "2", night]}


def test_an_empty_number_is_missing(tmp_path: Path) -> None:
    text = f"phone,time,amount\n{A},2025-12-01,\n{A},2025-12-02,NaN\n{A},2025-12-03,1e1\n"
    names = [FREQUENCY, MONETARY, "ecommerce.basket_value"]
    assert values(read(tmp_path, text, *names)) == {A: ["3", "10", "10"]}


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    rows = [f"{who},2025-{month:02}-0{month}" for who in (A, B) for month in range(1, 10)]
    names = ["ecommerce.cycle_days", "ecommerce.recency_days"]
    sorted_ = values(read(tmp_path, "\n".join(["phone,time", *rows]), *names))
    assert values(read(tmp_path, "\n".join(["phone,time", *rows[::-1]]), *names)) == sorted_
    assert sorted_[A] == sorted_[B]


def test_a_table_larger_than_a_batch(tmp_path: Path) -> None:
    count, day = 1_200_000, np.datetime64("2025-01-01", "s")
    number = np.arange(count)
    columns = {
        "phone": (13_900_000_000 + number % 1000).astype(str),
        "time": day + number // 1000 * np.timedelta64(6, "h"),
        "category": np.array(["A", "B", "C"])[number // 1000 % 3],
        "amount": np.ones(count, np.int64),
    }
    path = tmp_path / "rows.csv"
    pyarrow.csv.write_csv(pa.table(columns), path)
    names = [FREQUENCY, "ecommerce.categories", "ecommerce.category_share:B"]
    table = features.load(dataset(path), tmp_path, names, NOW)
    assert len(table.ids) == 1000
    assert table.frame.drop_duplicates().to_numpy().tolist() == [["1200", "3", "0.3333"]]
    with path.open("a") as file:
        file.write("13900000000,x,y,z,1\n")
    with pytest.raises(errors.TableMalformed, match=f"line {count + 2}"):
        features.load(dataset(path), tmp_path, names, NOW)


# What is refused


@pytest.mark.parametrize(
    ("text", "names", "refusal", "said"),
    [
        ("phone,time\n", [], errors.TableEmpty, "no rows"),
        (f"phone,time\n{A},\n", [], errors.NothingInWindow, "2025-01-01 until before 2026-01-01"),
        ("phone,time\nx,2025-12-01\n", [], errors.NothingInWindow, "no row of a person"),
        (f"phone,time\n{A},2025-12-01\n{A},2025-13-01\n", [], errors.ValueUnreadable, "Row 2 "),
        (f"phone,time\n{A},12/01/2025\n", [], errors.ValueUnreadable, "time"),
        (f"phone,time\n{A},2025\n", [], errors.ValueUnreadable, "time"),
        (f"phone,time\n{A},1764547200\n", [], errors.ValueUnreadable, "time"),
        (f'phone,time,amount\n{A},2025-12-01,"1,5"\n', [], errors.ValueUnreadable, "number"),
        (f"phone,when\n{A},2025-12-01\n", [], errors.NoColumn, "no column 'time'"),
        (f"phone,time\n{A},2025-12-01\n", [MONETARY], errors.NoColumn, "no column 'amount'"),
        (f"tel,time\n{A},2025-12-01\n", [], errors.NoIdentifierColumn, "phone"),
        (f"phone,time\n{A},2025-12-01\n", ["spend"], errors.FeatureUnknown, "spend"),
        (f"phone,time\n{A},2025-12-01\n", ["age\x1b[2J"], errors.FeatureUnknown, "age"),
    ],
)
def test_a_refusal_says_what_and_where(
    tmp_path: Path, text: str, names: list[str], refusal: type[ConcordatError], said: str
) -> None:
    with pytest.raises(refusal, match=said) as caught:
        read(tmp_path, text, *names)
    shown = caught.value.message + caught.value.next_step
    for secret in (A, "1,5", "2025-13-01", "1764547200"):
        assert secret not in shown


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        ({"library": "ecommerce"}, "as_of"),
        ({"library": "shoe", "as_of": "today"}, "library"),
        ({"library": "ecommerce", "as_of": "tomorrow"}, "as_of"),
        ({"library": "ecommerce", "as_of": "2025-02-30"}, "as_of"),
        ({"library": "ecommerce", "as_of": "today", "window_days": 0}, "window_days"),
        ({"library": "ecommerce", "as_of": "today", "timezone": "Shanghai"}, "timezone"),
        ({"library": "ecommerce", "as_of": "today", "timezone": "/etc/passwd"}, "timezone"),
        ({"library": "ecommerce", "as_of": "today", "tables": {"cells": {"path": "c.csv"}}}, "no"),
    ],
)
def test_settings_that_are_none(settings: dict[str, Any], place: str) -> None:
    said = {"path": "t.csv", "identifier": {"column": "phone", "kind": "phone"}}
    with pytest.raises(ValidationError, match=place):
        Dataset.model_validate(said | {"features": settings})


# Jobs


def transactions() -> pd.DataFrame:
    """Of every shopper: one purchase of as much as they spend in the tests of jobs, and a gift."""
    shoppers = ready.shoppers().rename(columns={"spend": "amount"})
    both = pd.concat([shoppers, shoppers.assign(amount=0)])
    return both.assign(time=["2025-06-01"] * len(shoppers) + ["2025-06-02"] * len(shoppers))


def raw(node: Node) -> None:
    """The node's table of shoppers becomes one of transactions."""
    transactions().to_csv(node.home.path / "shoppers.csv", index=False)
    with node.home.config_file.open("a", encoding="utf-8") as file:
        file.write("    features: {library: ecommerce, as_of: 2026-01-01}\n")
    node.config = node.home.config()


@pytest.fixture
def agreed(ready: tuple[Node, Node]) -> tuple[Node, Node]:
    """Bank and shop with an agreement on a feature of the catalogue."""
    bank, shop = ready
    raw(shop)
    path = bank.home.path / "agreement.yaml"
    path.write_text(
        path.read_text()
        .replace("version: 1", "version: 2")
        .replace("spend", MONETARY)
        .replace(
            "limits:",
            f"  stability: {{features: [{MONETARY}], binning: edges, minimum_group: 10, "
            "minimum_cell: 0, release: exact, key_bits: 2048, exponents: short}\nlimits:",
        )
    )
    agreements.propose(bank, path)
    agreements.sign(shop, "offers", 2)
    return bank, shop


def run(bank: Node, kind: str) -> pd.DataFrame:
    text = ready.job(kind).replace("spend", MONETARY)
    report = session.run_job(bank, text, lambda *_: None, session.Control())
    return pd.read_csv(bank.home.run_folder(report["run"]) / f"{kind}.csv", dtype={"phone": str})


def test_jobs_read_features_like_any_table(agreed: tuple[Node, Node]) -> None:
    bank, shop = agreed
    wanted = ready.shoppers().set_index("phone")["spend"].loc[ready.SHARED]
    found = run(bank, "lookup").set_index("phone")[MONETARY]
    assert found.loc[ready.SHARED].tolist() == wanted.tolist()
    assert run(bank, "insight")["sum"].sum() == wanted.sum()
    assert run(bank, "stability")["actual"].sum() == len(ready.SHARED)
    (*_, last) = [one for one in shop.runs() if one["state"] == "completed"]
    rows = shop.find_run(last["id"])["report"]["rows"]
    people = len(ready.shoppers())
    assert (rows["accepted"], rows["events"]["used"]) == (people, 2 * people)


def test_a_feature_the_catalogue_does_not_have_is_not_signed(ready: tuple[Node, Node]) -> None:
    bank, _ = ready
    path = bank.home.path / "agreement.yaml"
    text = path.read_text().replace("version: 1", "version: 2")
    path.write_text(text.replace("spend", "ecommerce.spend"))
    with pytest.raises(errors.FeatureUnknown, match=r"ecommerce\.spend"):
        agreements.propose(bank, path)
    assert agreements.find(bank, "offers").agreement.version == 1


# Commands


def command(*words: Any) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["features", *map(str, words)])
    return done.exit_code, done.output


def test_features_are_built_for_a_look(ready: tuple[Node, Node], tmp_path: Path) -> None:
    _, shop = ready
    raw(shop)
    for name in ("out.parquet", "out.csv"):
        path = tmp_path / name
        status, said = command("build", shop.home.path, "shoppers", "-o", path)
        assert status == 0, said
        assert "120 people, from 240 rows" in said
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        read_ = pd.read_parquet if name.endswith("parquet") else pd.read_csv
        table = read_(path)
        assert list(table.columns[:3]) == ["phone", "ecommerce.recency_days", FREQUENCY]
        assert MONETARY in table  # but for what the table has no columns for
        assert not any("category" in column or "items" in column for column in table.columns)
    status, _ = command("build", shop.home.path, "shoppers", FREQUENCY, "-o", path, "--json")
    assert status == 0
    assert list(pd.read_csv(path).columns) == ["phone", FREQUENCY]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nobody", "-o", "x.csv"], "E600"),
        (["shoppers", "-o", "x.xls"], "E600"),
        (["shoppers", "-o", "/nowhere/x.csv"], "E631"),
        (["shoppers", "shoe", "-o", "x.csv"], "E123"),
    ],
)
def test_what_cannot_be_built(ready: tuple[Node, Node], words: list[str], code: str) -> None:
    _, shop = ready
    raw(shop)
    status, said = command("build", shop.home.path, *words, "--json")
    assert (status, code in said) == (1, True), said


def test_the_catalogue_is_shown() -> None:
    status, said = command("list", "ecommerce")
    assert (status, said.count("ecommerce.")) == (0, 17)
    status, said = command("show", "ecommerce.recency_days")
    assert "Fader" in said
    assert command("show", "ecommerce.shoe")[0] == 1
    assert command("propose", "ecommerce.shoe")[0] == 1
