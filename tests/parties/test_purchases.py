"""The features of a shop's customers, beside what plain loops make of the same rows."""

import csv
import math
import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median, pstdev
from typing import Any

import pytest

from parties import catalogue, features
from parties.sources import Dataset, Table

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# Real purchases, where somebody has put them beside the project: see the issue's own data.
CDNOW = Path(__file__).parents[3] / "shared" / "data" / "shop_transactions.csv"
COLUMNS = ("time", "amount", "quantity", "order", "category", "channel")
Row = dict[str, str]


def dataset(path: Path, as_of: str = "2026-01-01", **more: Any) -> Dataset:
    return Dataset.model_validate(
        {
            "path": path,
            "sql": more.pop("sql", None),
            "identifier": {"column": "phone", "kind": "phone"},
            "features": {"library": "ecommerce", "as_of": as_of, **more},
        }
    )


def phone(person: int) -> str:
    return f"+86{13_900_000_000 + person}"


def write(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def made(path: Path, names: list[str], rows: list[Row], **more: Any) -> dict[str, dict[str, float]]:
    """By phone, what the library makes of the rows; without those missing."""
    asked = [f"ecommerce.{name}" for name in names]
    return by_phone(features.load(dataset(write(path, rows), **more), Path("/"), asked, NOW))


def by_phone(table: Table) -> dict[str, dict[str, float]]:
    rows = table.frame.to_dict("records")
    return {
        str(whom): {
            name.partition(".")[2]: float(value)
            for name, value in row.items()
            if isinstance(value, str)
        }
        for whom, row in zip(table.ids.to_strings(), rows, strict=True)
    }


def one(tmp_path: Path, names: list[str], *rows: tuple[str, ...], **more: Any) -> dict[str, float]:
    """The same of a single person's rows: time, amount, quantity, order, category, channel."""
    written = [{"phone": phone(1)} | dict(zip(COLUMNS, row, strict=False)) for row in rows]
    (found,) = made(tmp_path / "rows.csv", names, written, **more).values()
    return found


# In other words: a person's rows, one after the other


def expected(rows: list[Row], as_of: date) -> dict[str, float]:
    """Every feature of one person, by the definitions of the catalogue."""
    rows = sorted(rows, key=lambda row: row["time"])
    amounts = [float(row["amount"] or 0) for row in rows]
    bought = [row for row in rows if not row["amount"] or float(row["amount"]) >= 0]
    found: dict[str, float] = {"monetary": sum(amounts)}
    paid = sum(amount for amount in amounts if amount > 0)
    if paid:
        found["refund_rate"] = -sum(amount for amount in amounts if amount < 0) / paid

    orders: dict[str, list[Row]] = defaultdict(list)
    for row in bought:
        orders[row.get("order") or row["time"]].append(row)
    found["frequency"] = len(orders)
    for name, column in (("basket_value", "amount"), ("basket_items", "quantity")):
        sums = [
            sum(float(row[column]) for row in order if row[column])
            for order in orders.values()
            if any(row[column] for row in order)
        ]
        if sums:
            found[name] = fmean(sums)

    days = sorted({date.fromisoformat(row["time"][:10]) for row in bought})
    gaps = [(later - earlier).days for earlier, later in pairwise(days)]
    if days:
        found["recency_days"] = (as_of - days[-1]).days
    if gaps:
        found["cycle_days"] = median(gaps)
        due = days[-1] + timedelta(days=median(gaps))
        found["next_purchase_days"] = (due - as_of).days + (median(gaps) % 1)
    if len(gaps) > 1:
        found["cycle_regularity"] = (fmean(gaps) - pstdev(gaps)) / (fmean(gaps) + pstdev(gaps))

    starts = [order[0]["time"] for order in orders.values()]
    if starts:
        found["weekend_share"] = fmean(
            date.fromisoformat(start[:10]).isoweekday() > 5 for start in starts
        )
        found["payday_share:15"] = fmean(15 <= int(start[8:10]) < 20 for start in starts)
        if len(starts[0]) > 10:
            found["night_share"] = fmean(
                int(start[11:13]) in {22, 23, 0, 1, 2, 3, 4, 5} for start in starts
            )
    if "category" in rows[0]:
        found |= expected_preferences(bought, orders)
    return found


def expected_preferences(bought: list[Row], orders: dict[str, list[Row]]) -> dict[str, float]:
    spent: dict[str, float] = defaultdict(float)
    for row in bought:
        if row["category"]:
            spent[row["category"]] += float(row["amount"] or 0)
    found: dict[str, float] = {"categories": len(spent)}
    whole = sum(spent.values())
    if whole:
        shares = [part / whole for part in spent.values() if part]
        found["top_category_share"] = max(shares)
        found["category_entropy"] = -sum(share * math.log(share) for share in shares)
        found["category_share:books"] = spent["books"] / whole
    channels = [order[0]["channel"] for order in orders.values() if order[0].get("channel")]
    if channels:
        found["channel_share:app"] = channels.count("app") / len(channels)
    return found


def same(found: dict[str, float], wanted: dict[str, float]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        decimals = catalogue.find(f"ecommerce.{name}").entry.decimals
        assert found[name] == pytest.approx(value, abs=0.51 * 10**-decimals), name


def shop(people: int) -> dict[str, list[Row]]:
    """Orders of one to three items, some sent back, some without an amount, a category, ..."""
    chance = random.Random(11)
    rows = defaultdict(list)
    for person in range(people):
        for number in range(chance.choice([1, 1, 2, 3, 8, 20])):
            at = datetime(2025, 1, 1) + timedelta(minutes=chance.randrange(365 * 24 * 60))
            for _ in range(chance.choice([1, 2, 3])):
                amount = chance.choice([-1, 1, 1, 1, 1]) * chance.randrange(0, 9000) / 100
                rows[phone(person)].append(
                    {
                        "phone": phone(person),
                        "time": at.isoformat(),
                        "amount": chance.choice([f"{amount:.2f}"] * 9 + [""]),
                        "quantity": chance.choice(["1", "2", ""]),
                        "order": chance.choice([f"{person}-{number}"] * 4 + [""]),
                        "category": chance.choice(["books", "toys", "food", ""]),
                        "channel": "app" if at.minute % 2 else "web",
                    }
                )
    return rows


def every_name() -> list[str]:
    """The catalogue's, with values for what takes some."""
    values = {"DAY": "15", "CATEGORY": "books", "CHANNEL": "app"}
    names = (name.partition(".")[2].partition(":") for name in catalogue.names("ecommerce"))
    return [f"{name}{colon}{values.get(word, '')}" for name, colon, word in names]


def test_every_feature_is_what_loops_over_the_rows_find(tmp_path: Path) -> None:
    rows = shop(150)
    mixed = [row for of in rows.values() for row in of]
    random.Random(3).shuffle(mixed)
    found = made(tmp_path / "shop.csv", every_name(), mixed)
    assert len(found) == 150
    seen = set()
    for whom, of in rows.items():
        same(found[whom], expected(of, date(2026, 1, 1)))
        seen |= found[whom].keys()
    assert seen == set(every_name())


@pytest.mark.skipif(not CDNOW.exists(), reason="needs the CDNOW purchases")
def test_real_purchases() -> None:
    names = [name for name in every_name() if "categor" not in name and "channel" not in name]
    settings = dataset(
        CDNOW,
        "1998-07-01",
        window_days=600,
        sql="SELECT phone, date AS time, amount, quantity FROM source",
    )
    table = features.load(settings, Path("/"), [f"ecommerce.{name}" for name in names], NOW)
    assert table.counts()["events"] == {"used": 69_659, "untimed": 0, "outside_window": 0}
    found = by_phone(table)
    assert len(found) == 23_570
    rows: dict[str, list[Row]] = defaultdict(list)
    with CDNOW.open() as file:
        for row in csv.DictReader(file):
            whom = "+86" + "".join(filter(str.isdigit, row["phone"]))[-11:]
            rows[whom].append(row | {"time": row["date"]})
    for whom in sorted(rows)[::40]:
        same(found[whom], expected(rows[whom], date(1998, 7, 1)))


# Odd input


def test_a_single_purchase_has_no_cycle(tmp_path: Path) -> None:
    found = one(tmp_path, every_name()[:12], ("2025-12-31", "5", "1"))
    assert found == {
        "recency_days": 1,
        "frequency": 1,
        "monetary": 5,
        "basket_value": 5,
        "basket_items": 1,
        "refund_rate": 0,
        "weekend_share": 0,
        "payday_share:15": 0,
    }


def test_who_only_sent_things_back_has_bought_nothing(tmp_path: Path) -> None:
    names = ["recency_days", "frequency", "monetary", "basket_value", "refund_rate"]
    assert one(tmp_path, names, ("2025-12-31", "-5")) == {"frequency": 0, "monetary": -5}


def test_rows_at_one_time_are_one_order(tmp_path: Path) -> None:
    rows = [("2025-05-01T10:00", "5"), ("2025-05-01T10:00", "7"), ("2025-05-01T11:00", "1")]
    names = ["frequency", "basket_value", "cycle_days"]
    assert one(tmp_path, names, *rows) == {"frequency": 2, "basket_value": 6.5}


@pytest.mark.parametrize(
    ("gaps", "regularity"), [([7] * 9, 1), ([1, 1, 1, 97], 0.0), ([30, 30, 31], 0.9694)]
)
def test_a_purchase_like_clockwork_is_expected(tmp_path, gaps, regularity) -> None:
    days = [date(2025, 12, 20) - timedelta(days=sum(gaps[:at])) for at in range(len(gaps) + 1)]
    names = ["cycle_regularity", "next_purchase_days"]
    found = one(tmp_path, names, *((day.isoformat(), "1") for day in days))
    assert found["next_purchase_days"] == median(gaps) - 12
    if regularity:
        assert found["cycle_regularity"] == regularity
    else:
        assert found["cycle_regularity"] < 0.0  # in bursts


@pytest.mark.parametrize(
    ("pay_day", "day", "share"),
    [
        (15, "2025-06-14", 0),
        (15, "2025-06-15", 1),
        (15, "2025-06-19", 1),
        (15, "2025-06-20", 0),
        (31, "2025-02-28", 1),
        (31, "2025-03-04", 1),
        (31, "2025-03-05", 0),
        (30, "2025-12-31", 1),
        (28, "2025-03-01", 1),
    ],
)
def test_pay_is_spent_within_five_days(tmp_path, pay_day, day, share) -> None:
    name = f"payday_share:{pay_day}"
    assert one(tmp_path, [name], (day, "1")) == {name: share}


def test_a_category_nobody_buys_has_no_share(tmp_path: Path) -> None:
    row = ("2025-06-01", "10", "1", "", "books", "app")
    names = ["category_share:toys", "channel_share:web"]
    assert one(tmp_path, names, row) == dict.fromkeys(names, 0)
