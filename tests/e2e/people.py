"""Made-up people for examples/credit, with the quirks of real files, and the join to expect."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

PURPOSE = "credit-risk-assessment"
BANDS = {
    "age": ("age_band", [-np.inf, 29, 39, 49, np.inf], ["-29", "30-39", "40-49", "50-"]),
    "limit_bal": (
        "limit_band",
        [-np.inf, 100_000, 300_000, np.inf],
        ["-100000", "100001-300000", "300001-"],
    ),
}
BOUNDS = {"bill_amt1": (-200_000, 1_000_000), "pay_amt1": (0, 1_000_000), "pay_0": (-2, 8)}
MINIMUM = 50


@dataclass(frozen=True)
class Side:
    table: pd.DataFrame  # canonical phones in `phone`
    consents: pd.DataFrame


def generate(folder: Path, seed: int, people: int = 4_000) -> tuple[Side, Side]:
    """Writes the four files; returns what they mean."""
    random = np.random.default_rng(seed)
    phones = pd.Series(13_000_000_000 + random.choice(999_999_999, people, replace=False))
    phones = "+86" + phones.astype(str)
    table = pd.DataFrame(
        {
            "phone": phones,
            "limit_bal": random.choice(
                [20_000, 100_000, 100_001, 200_000, 300_000, 500_000], people
            ),
            "sex": random.integers(1, 3, people),
            "education": random.integers(0, 7, people),
            "marriage": random.integers(0, 4, people),
            # The oldest are few: some segments fall below the minimum.
            "age": np.minimum(
                random.choice(
                    [25, 29, 30, 39, 40, 49, 50, 71],
                    people,
                    p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.07, 0.02, 0.01],
                ),
                79,
            ),
            "default_next_month": random.integers(0, 2, people),
        }
    )
    pay = pd.DataFrame({"phone": phones})
    for month in (0, 2, 3, 4, 5, 6):
        pay[f"pay_{month}"] = random.integers(-2, 9, people)
    for month in range(1, 7):
        pay[f"bill_amt{month}"] = random.integers(-300_000, 1_400_000, people)
    for month in range(1, 7):
        pay[f"pay_amt{month}"] = random.integers(0, 1_200_000, people)
    # Some gaps, a column of few values, one of a single value, and one that is mostly zero.
    pay.loc[random.random(people) < 0.1, "pay_amt5"] = np.nan
    pay["pay_6"] = random.choice([-1, 0], people, p=[0.1, 0.9])
    pay["pay_5"] = 2
    pay["bill_amt6"] = np.where(random.random(people) < 0.6, 0, pay["bill_amt6"])
    bank, partner = table[: people * 9 // 10], pay[people // 5 :].sample(frac=1, random_state=seed)

    sides = []
    for name, side, recipient, categories in (
        ("bank", bank, "partner", "customer-profile;credit-performance"),
        ("partner", partner, "bank", "payment-behaviour"),
    ):
        consents = _consents(side["phone"], recipient, categories, random)
        _write(consents, folder / f"{name}_consents.csv", random)
        sides.append(Side(side, consents))
    rejects = bank.head(5).assign(phone=["N/A", "+1 415", "12345", "1391234567x", ""])
    _write(pd.concat([bank, rejects]), folder / "bank_customers.csv", random)
    _write(partner, folder / "partner_payments.csv", random)
    return sides[0], sides[1]


def _consents(
    phones: pd.Series, recipient: str, categories: str, random: np.random.Generator
) -> pd.DataFrame:
    """Several rows may speak of one person; any live consent suffices."""
    asked = phones[random.random(len(phones)) < 0.95]
    again = asked[random.random(len(asked)) < 0.2]
    people = pd.concat([asked, again])

    def draw(values: list[str], weights: list[float]) -> np.ndarray:
        return random.choice(values, len(people), p=weights)

    return pd.DataFrame(
        {
            "phone": people,
            "purpose": draw([PURPOSE, "service-personalisation"], [0.92, 0.08]),
            "recipient": draw([recipient, "someone-else"], [0.97, 0.03]),
            "categories": draw(
                [categories, "mobility", f"mobility;{categories}"], [0.9, 0.03, 0.07]
            ),
            "kind": draw(["separate", "general", "written", "guardian"], [0.7, 0.1, 0.1, 0.1]),
            "granted_at": draw(
                ["2025-06-01T09:00:00+08:00", "2024-01-01T00:00:00Z", "2031-01-01T00:00:00+08:00"],
                [0.7, 0.27, 0.03],
            ),
            "expires_at": draw(
                ["2034-12-31T00:00:00+08:00", "2026-01-01T00:00:00+08:00"], [0.93, 0.07]
            ),
            "withdrawn_at": draw(
                ["", "2026-01-15T12:00:00+08:00", "2033-01-01T00:00:00+08:00"], [0.9, 0.07, 0.03]
            ),
        }
    )


def _write(frame: pd.DataFrame, path: Path, random: np.random.Generator) -> None:
    """The way people write: phones in five spellings, some round numbers as 1e+05, CRLF."""
    number = frame["phone"].str.removeprefix("+86")
    spelling = random.integers(0, 5, len(frame))
    mobile = frame["phone"].str.startswith("+86")
    spelled = np.select(
        [~mobile, spelling == 0, spelling == 1, spelling == 2, spelling == 3],
        [
            frame["phone"],
            number,
            "+86" + number,
            "0086" + number,
            number.str[:3] + "-" + number.str[3:7] + "-" + number.str[7:],
        ],
        "+86 " + number.str[:3] + " " + number.str[3:7] + " " + number.str[7:],
    )
    text = frame.astype(str).assign(phone=spelled)
    if "limit_bal" in text:
        text["limit_bal"] = text["limit_bal"].replace({"200000": "2e+05", "100000": "1e+05"})
    text.to_csv(path, index=False, lineterminator="\r\n")


def expected(bank: Side, partner: Side, now: pd.Timestamp) -> tuple[list[str], pd.DataFrame]:
    """The phones in common, sorted, and the table of the insight."""
    ours = _eligible(bank, "partner", {"customer-profile", "credit-performance"}, now)
    theirs = _eligible(partner, "bank", {"payment-behaviour"}, now)
    shared = ours.merge(theirs, on="phone")
    bands = {}
    for column, (label, edges, names) in BANDS.items():
        ours[label] = pd.cut(ours[column], edges, labels=names).astype(str)
        shared[label] = pd.cut(shared[column], edges, labels=names).astype(str)
        bands[label] = names
    rows = []
    for age in bands["age_band"]:
        for limit in bands["limit_band"]:
            inside = shared[(shared["age_band"] == age) & (shared["limit_band"] == limit)]
            for feature, (lower, upper) in BOUNDS.items():
                values = inside[feature].clip(lower, upper)
                row = {"age_band": age, "limit_band": limit, "feature": feature}
                if len(inside) < MINIMUM:
                    rows.append({**row, "suppressed": True})
                    continue
                rows.append(
                    {
                        **row,
                        "count": len(values),
                        "sum": int(values.sum()),
                        "mean": values.mean(),
                        "variance": values.var(ddof=0),
                        "suppressed": False,
                    }
                )
    return sorted(shared["phone"]), pd.DataFrame(rows)


def evaluated(bank: Side, partner: Side, now: pd.Timestamp) -> pd.DataFrame:
    """The table of the evaluation: WOE and IV over deciles of the partner's eligible rows."""
    ours = _eligible(bank, "partner", {"customer-profile", "credit-performance"}, now)
    theirs = _eligible(partner, "bank", {"payment-behaviour"}, now)
    shared = ours.merge(theirs, on="phone")
    bad = shared["default_next_month"] == 1
    rows = []
    for feature in theirs.columns.drop("phone"):
        cuts = theirs[feature].quantile(np.linspace(0, 1, 11)).drop_duplicates().tolist()
        edges = [-np.inf, *cuts[1:-1], np.inf]
        inside = [(f"{i + 1}", *ends) for i, ends in enumerate(pairwise(edges))]
        masks = [(shared[feature] > low) & (shared[feature] <= up) for _, low, up in inside]
        if theirs[feature].isna().any():
            inside.append(("missing", -np.inf, np.inf))
            masks.append(shared[feature].isna())
        parts = []
        for (name, low, up), mask in zip(inside, masks, strict=True):
            b, g = int((mask & bad).sum()), int((mask & ~bad).sum())
            share_bad, share_good = (b or 0.5) / bad.sum(), (g or 0.5) / (~bad).sum()
            woe = np.log(share_bad / share_good)
            row = {"feature": feature, "bin": name, "lower": low, "upper": up, "good": g, "bad": b}
            parts.append({**row, "woe": woe, "iv": (share_bad - share_good) * woe})
        rows += [{**part, "total_iv": sum(p["iv"] for p in parts)} for part in parts]
    return pd.DataFrame(rows).replace([-np.inf, np.inf], np.nan)


def _eligible(side: Side, recipient: str, categories: set[str], now: pd.Timestamp) -> pd.DataFrame:
    consents = side.consents
    granted, expires, withdrawn = (
        pd.to_datetime(consents[name], utc=True, format="ISO8601")
        for name in ("granted_at", "expires_at", "withdrawn_at")
    )
    live = (
        (consents["purpose"] == PURPOSE)
        & (consents["recipient"] == recipient)
        & consents["categories"].map(lambda names: categories <= set(names.split(";")))
        & (granted <= now)
        & (now < expires)
        & ~(withdrawn <= now)
    )
    return side.table[side.table["phone"].isin(consents.loc[live, "phone"])].copy()
