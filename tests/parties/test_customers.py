"""The bank's segments and labels, of people and of companies."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import ready
from stdnum.cn import uscc

from parties import agreements, errors, features, server, session
from parties.config import Home
from parties.node import Node
from parties.sources import Dataset

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TABLES = {
    "balances": "phone,time,account,product,balance\n",
    "income": "phone,time,amount\n",
    "repayments": "phone,time,paid\n",
}
A, B = "+8613912345678", "+8613812345678"


def found(
    folder: Path, names: list[str], tables: dict[str, str], **more: Any
) -> dict[str, list[str | None]]:
    """By customer. tables: the rows of each; A and B stand for two people."""
    rows = {"customers": f"{A},,\n", **tables}
    heads = {"customers": "phone,born,founded\n"} | TABLES
    for name, head in heads.items():
        text = head + rows.get(name, "").replace("A,", f"{A},").replace("B,", f"{B},")
        (folder / f"{name}.csv").write_text(text)
    dataset = Dataset.model_validate(
        {
            "path": "customers.csv",
            "identifier": {"column": "phone", "kind": "phone"},
            "features": {
                "library": "bank",
                "as_of": "2026-01-01",
                "tables": {name: {"path": f"{name}.csv"} for name in TABLES},
            },
        }
        | more
    )
    table = features.load(dataset, folder, [f"bank.{name}" for name in names], NOW)
    values = table.frame.astype(object).where(table.frame.notna(), None).to_numpy().tolist()
    return dict(zip(map(str, table.ids.to_strings()), values, strict=True))


@pytest.mark.parametrize(
    ("born", "age"),
    [
        ("1996-01-01", "30"),
        ("1996-01-02", "29"),
        ("1995-12-31T23:59", "30"),
        ("2000-02-29", "25"),
        ("2025-12-31", "0"),
        ("2026-01-02", None),
        ("1890-05-05", "135"),
        ("", None),
    ],
)
def test_years_are_whole(tmp_path: Path, born: str, age: str | None) -> None:
    names = ["age_years", "company_age_years"]
    assert found(tmp_path, names, {"customers": f"A,{born},{born}\n"}) == {A: [age, age]}


def test_the_last_balance_of_each_account_counts(tmp_path: Path) -> None:
    balances = """\
A,2025-11-30,1,deposit,100
A,2025-12-31,1,deposit,70
A,2025-12-31,2,fund,1000.50
A,2025-12-31,3,loan,-5000
A,2024-12-31,4,gold,9999
A,2026-01-01,1,deposit,1
B,2025-12-31,1,deposit,5
A,2025-12-31,,card,50
"""
    tables = {"customers": "A,,\nB,,\n", "balances": balances}
    assert found(tmp_path, ["assets", "products"], tables) == {A: ["1070.5", "3"], B: ["5", "1"]}
    assert found(tmp_path, ["assets", "products"], {}) == {A: [None, "0"]}


def test_income_is_that_of_the_month_in_the_middle(tmp_path: Path) -> None:
    income = "A,2025-01-10,4000\nA,2025-01-31,1000\nA,2025-03-01,7000\nA,2025-05-01,9000\n"
    assert found(tmp_path, ["income_month"], {"income": income}) == {A: ["7000"]}
    assert found(tmp_path, ["income_month"], {}) == {A: [None]}


@pytest.mark.parametrize(
    ("rows", "arrears", "delinquent", "warning"),
    [
        ("", None, None, None),
        ("A,2025-06-01,2025-05-20\n", "0", "0", "0"),
        ("A,2025-06-01,2025-06-30\n", "29", "0", "0"),
        ("A,2025-06-01,2025-07-15\n", "44", "0", "0"),  # of the past
        ("A,2025-11-01,2025-12-01\n", "30", "0", "1"),
        ("A,2025-11-01,\n", "61", "0", "1"),
        ("A,2025-11-01,2026-03-01\n", "61", "0", "1"),  # not yet paid, as of that day
        ("A,2025-12-20,\n", "12", "0", "0"),
        ("A,2025-10-03,\n", "90", "1", None),
        ("A,2025-03-01,2025-06-01\nA,2025-11-01,\n", "92", "1", None),
        ("A,2026-01-01,\n", None, None, None),  # not yet due
    ],
)
def test_labels(tmp_path: Path, rows: str, arrears: Any, delinquent: Any, warning: Any) -> None:
    names = ["arrears_days", "delinquent", "early_warning"]
    wanted = {A: [arrears, delinquent, warning]}
    assert found(tmp_path, names, {"repayments": rows}) == wanted


def test_a_customer_has_one_row(tmp_path: Path) -> None:
    customers = {"customers": "A,1990-01-01,\nB,1980-01-01,\n139 1234 5678,1970-01-01,\nx,,\n"}
    with pytest.raises(errors.DuplicateIdentifiers, match="1 persons more than once"):
        found(tmp_path, ["age_years"], customers)
    first = found(tmp_path, ["age_years"], customers, duplicates="first")
    assert first == {A: ["36"], B: ["46"]}


# Companies


def code(number: int) -> str:
    """A unified social credit code that is well-formed."""
    body = f"91110000{number:09d}"
    return body + uscc.calc_check_digit(body)


AGREEMENT = """\
agreement: merchants
version: 1
parties: {bank: bank, partner: shop}
purpose: credit-offer
legal_basis: consent
valid: {from: 2025-01-01T00:00:00+08:00, until: 2035-01-01T00:00:00+08:00}
retention_days: 365
impact_assessment: none made
data:
  bank:
    dataset: companies
    identifier: company_code
    categories: [profile]
    label: {column: bank.delinquent, bad: ["1"]}
  partner:
    dataset: merchants
    identifier: company_code
    categories: [purchases]
    features:
      ecommerce.frequency: {unit: orders, lower: 0, upper: 100, decimals: 0, bins: [1, 2]}
segmentation:
  - {label: age, column: bank.company_age_years, bands: [{label: "-9", upper: 9}, {label: "10-"}]}
jobs:
  insight:
    minimum_group: 10
    release: exact
    key_bits: 2048
    exponents: short
    statistics: [count, sum]
  evaluate:
    features: [ecommerce.frequency]
    binning: edges
    minimum_group: 10
    minimum_cell: 0
    release: exact
    key_bits: 2048
    exponents: short
limits: {runs_per_day: 10}
"""


def dataset(node: Node, name: str, library: str, tables: str = "{}") -> None:
    with node.home.config_file.open("a") as file:
        file.write(
            f"datasets:\n  {name}:\n    path: {name}.csv\n"
            "    identifier: {column: company_code, kind: company_code}\n"
            f"    features: {{library: {library}, as_of: 2026-01-01, tables: {tables}}}\n"
        )
    node.config = node.home.config()


def test_companies_meet_by_their_codes(tmp_path: Path, paillier_key: bytes) -> None:
    """Ninety merchants: what they order from a platform, by age and by what became of them."""
    codes = [code(number) for number in range(90)]
    bank = Node.create(Home(tmp_path / "bank"), "bank", "bank", None)
    shop = Node.create(Home(tmp_path / "shop"), "shop", "ecommerce", None)
    old = np.arange(90) % 3 == 0
    bad = np.arange(90) % 4 == 0
    companies = pd.DataFrame({"company_code": codes, "founded": np.where(old, "2000", "2020")})
    companies["founded"] += "-01-01"
    companies.to_csv(bank.home.path / "companies.csv", index=False)
    repayments = pd.DataFrame({"company_code": codes, "time": "2025-03-01"})
    repayments["paid"] = np.where(bad, "2025-09-01", "2025-03-01")
    repayments.to_csv(bank.home.path / "repayments.csv", index=False)
    orders = pd.DataFrame({"company_code": np.repeat(codes, np.where(bad, 1, 3))})
    orders["time"] = "2025-05-0" + (orders.groupby("company_code").cumcount() + 1).astype(str)
    orders.to_csv(shop.home.path / "merchants.csv", index=False)
    with server.serving(bank), server.serving(shop):
        ready.pair(bank, shop)
        dataset(bank, "companies", "bank", "{repayments: {path: repayments.csv}}")
        dataset(shop, "merchants", "ecommerce")
        for node, other, category in ((bank, "shop", "profile"), (shop, "bank", "purchases")):
            asked = ready.consent_table(pd.Series(codes), other, category)
            ready.import_consents(node, asked.rename(columns={"phone": "company_code"}))
            node.home.key("paillier-2048").write_bytes(paillier_key)
        path = bank.home.path / "agreement.yaml"
        path.write_text(AGREEMENT)
        agreements.propose(bank, path)
        agreements.sign(shop, "merchants")
        job = "agreement: merchants\npurpose: credit-offer\njob: "
        insight = run(bank, f"{job}insight\nfeatures: {{ecommerce.frequency: [sum]}}\n")
        evaluated = run(bank, f"{job}evaluate\n")
    ordered = np.where(bad, 1, 3)
    assert insight["count"].tolist() == [60, 30]
    assert insight["sum"].tolist() == [ordered[~old].sum(), ordered[old].sum()]
    assert evaluated["bad"].tolist() == [bad.sum(), 0, 0]
    assert evaluated["good"].tolist() == [0, 0, (~bad).sum()]


def run(bank: Node, text: str) -> pd.DataFrame:
    report = session.run_job(bank, text, lambda *_: None, session.Control())
    return pd.read_csv(bank.home.run_folder(report["run"]) / f"{report['job']}.csv")
