"""A report of every kind of job, of runs between two nodes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from ready import add_dataset, consent_table, import_consents, pair, phones

from parties import agreements, server, session
from parties.config import Home
from parties.console import words
from parties.node import Node
from parties.reports import page as reports

AGREEMENT = """\
agreement: offers
version: 1
parties: {bank: bank, partner: shop}
purpose: credit-offer
legal_basis: consent
valid: {from: 2025-01-01T00:00:00+08:00, until: 2035-01-01T00:00:00+08:00}
retention_days: 365
impact_assessment: none made
data:
  bank:
    dataset: customers
    identifier: phone
    categories: [profile]
    label: {column: repaid, bad: ["no"]}
  partner:
    dataset: shoppers
    identifier: phone
    categories: [purchases]
    features:
      spend:
        {unit: CNY, lower: 0, upper: 5000, decimals: 2, bins: [500, 1500, 3000],
         share: {above: 1500}, over: orders, may_be_missing: false}
      orders: {lower: 0, upper: 60, decimals: 0, bins: [2, 6, 12], may_be_missing: false}
      next_purchase:
        {unit: days, lower: -730, upper: 730, decimals: 0, bins: [0, 7, 14, 28, 56]}
segmentation:
  - label: age
    column: age
    bands: [{label: "-29", upper: 29}, {label: "30-44", upper: 44}, {label: "45-"}]
  - {label: city, column: city, values: [north, south, west]}
jobs:
  overlap: {}
  intersect: {partner_learns: size}
  insight:
    minimum_group: 10
    release: exact
    key_bits: 2048
    exponents: short
    statistics: [count, sum, mean, variance, share, histogram, ratio]
  lookup: {features: [spend, orders], people_per_day: 1000000, epoch_hours: 24}
  score: {features: [spend], people_per_day: 1000000, epoch_hours: 24, key_bits: 2048}
  evaluate: &terms
    features: [spend, orders]
    binning: quantile
    bins: 5
    minimum_group: 10
    minimum_cell: 8
    release: exact
    key_bits: 2048
    exponents: short
  stability:
    features: [spend, orders]
    binning: quantile
    bins: 5
    minimum_group: 10
    minimum_cell: 8
    release: exact
    key_bits: 2048
    exponents: short
    populations: {axis: city, expected: north, actual: south}
limits: {runs_per_day: 1000}
""".replace(" &terms", "")

CARD = {
    "scorecard": "spending",
    "version": 1,
    "scaling": {"pdo": 20, "base_score": 600, "base_odds": 50},
    "decimals": 1,
    "base": 500,
    "features": {
        "spend": {
            "bins": [
                {"upper": 500, "points": -20},
                {"upper": 1500, "points": 5},
                {"upper": 3000, "points": 18},
                {"points": 30.5},
            ],
            "missing": -1,
            "unseen": -2,
        }
    },
}

JOBS: dict[str, dict[str, Any]] = {
    "overlap": {},
    "intersect": {},
    "insight": {
        "features": {
            "spend": ["sum", "mean", "share", "ratio"],
            "next_purchase": ["mean", "histogram"],
        }
    },
    "ratio": {"features": {"spend": ["ratio"]}},
    "lookup": {},
    "score": {"scorecard": "card.yaml"},
    "evaluate": {},
    "stability": {"between": "populations"},
}

_PEOPLE = 360


def customers() -> pd.DataFrame:
    random = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "phone": phones(0, _PEOPLE),
            "age": random.integers(18, 75, _PEOPLE),
            "city": random.choice(["north", "south", "west"], _PEOPLE, p=[0.5, 0.45, 0.05]),
            "repaid": random.choice(["yes", "no"], _PEOPLE, p=[0.7, 0.3]),
        }
    )


def shoppers() -> pd.DataFrame:
    random = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "phone": phones(40, 40 + _PEOPLE),
            "spend": random.gamma(2, 800, _PEOPLE).round(2).clip(0, 5000),
            "orders": random.poisson(6, _PEOPLE).clip(1, 60),
            "next_purchase": random.normal(15, 20, _PEOPLE).round().clip(-730, 730),
        }
    )


def written(folder: Path) -> dict[str, Path]:
    """The report of each job in each language: `insight-zh` and so on."""
    bank = Node.create(Home(folder / "bank"), "bank", "bank", None)
    shop = Node.create(Home(folder / "shop"), "shop", "ecommerce", None)
    with server.serving(bank), server.serving(shop):
        pair(bank, shop)
        add_dataset(bank, "customers", customers())
        add_dataset(shop, "shoppers", shoppers())
        import_consents(bank, consent_table(phones(0, _PEOPLE), "shop", "profile"))
        import_consents(shop, consent_table(phones(40, 40 + _PEOPLE), "bank", "purchases"))
        (bank.home.path / "agreement.yaml").write_text(AGREEMENT)
        agreements.propose(bank, bank.home.path / "agreement.yaml")
        agreements.sign(shop, "offers", 1)
        (bank.home.path / "card.yaml").write_text(yaml.safe_dump(CARD))
        runs = {name: run(bank, name) for name in JOBS}
        return {
            f"{name}-{language}": _reported(bank, runs[name], name, language)
            for name in JOBS
            for language in words.LANGUAGES
        }


def run(bank: Node, name: str) -> str:
    kind = name if name != "ratio" else "insight"
    asked = {"job": kind, "agreement": "offers", "purpose": "credit-offer", **JOBS[name]}
    done = session.run_job(bank, json.dumps(asked), lambda *_: None, session.Control())
    return str(done["run"])


def _reported(bank: Node, run_id: str, name: str, language: str) -> Path:
    path = bank.home.path / f"{name}-{language}.html"
    reports.write(bank, run_id, path, language)
    return path


if __name__ == "__main__":
    import shutil
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as made:
        for path in written(Path(made)).values():
            shutil.copy(path, sys.argv[1])
