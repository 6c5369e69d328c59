"""Evaluate and stability between two real nodes, against pandas; and what they read and show."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from ready import Watch, add_dataset, consent_table, import_consents, pair, phones

from compliance.agreement import Agreement, Job, Label, permits
from compliance.disclosure import disclosure
from compliance.errors import AgreementInvalid, AgreementRefusal, JobInvalid
from federated.aggregation.evaluate import Distribution
from federated.aggregation.schema import Bins
from federated.risk.binning import Edges
from federated.risk.stability import shift
from parties import agreements, bins, session
from parties.node import Node
from protos.errors import ConcordatError

Nodes = tuple[Node, Node]

AGREEMENT = """\
agreement: risk
version: {version}
parties: {{bank: bank, partner: shop}}
purpose: credit-offer
legal_basis: consent
valid: {{from: 2025-01-01T00:00:00+08:00, until: 2035-01-01T00:00:00+08:00}}
retention_days: 365
impact_assessment: none made
data:
  bank:
    dataset: customers
    identifier: phone
    categories: [profile]
    label: {{column: outcome, bad: [bad, "1"]}}
  partner:
    dataset: shoppers
    identifier: phone
    categories: [purchases]
    features:
      spend: {{lower: 0, upper: 100, decimals: 0, bins: [20, 40.0]}}
      orders: {{lower: 0, upper: 10, decimals: 0, bins: [0, 3]}}
segmentation:
  - {{label: channel, column: channel, values: [branch, app, agent]}}
jobs:
  evaluate: &terms
    features: [spend, orders]
    {binning}
    minimum_group: {minimum}
    minimum_cell: {cell}
    release: exact
    key_bits: 2048
    exponents: full
  stability:
    features: [spend, orders]
    {binning}
    minimum_group: {minimum}
    minimum_cell: {cell}
    release: exact
    key_bits: 2048
    exponents: full
    populations: {{axis: channel, expected: branch, actual: app}}
limits: {{runs_per_day: 1000}}
""".replace(" &terms", "")

CUSTOMERS, SHOPPERS = (0, 300), (100, 400)
CONSENTED = (10, 300), (100, 380)
PAIR = "branch", "app"  # the populations


def document(**changes: Any) -> str:
    usual = {"version": 1, "binning": "binning: quantile\n    bins: 4", "minimum": 10, "cell": 0}
    return AGREEMENT.format(**usual | changes)


def customers() -> pd.DataFrame:
    ids = phones(*CUSTOMERS)
    outcome = np.resize(["0", "bad", "good", " 1", "", "0", "NA", "0"], len(ids))
    channel = np.resize(["branch", "app", "", "branch", " app", "agent", "branch"], len(ids))
    return pd.DataFrame({"phone": ids, "outcome": outcome, "channel": channel})


def shoppers(shift: float = 0) -> pd.DataFrame:
    random = np.random.default_rng(5)
    ids = phones(*SHOPPERS)
    # Beyond the schema's bounds and decimals as well: bins need neither.
    spend = random.normal(30, 60, len(ids)).round(2) + shift
    orders = random.choice([0.0, 0.0, 0.0, 1.0, 2.0, 7.0, np.nan], len(ids))
    return pd.DataFrame({"phone": ids, "spend": spend, "orders": orders})


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, paillier_key: bytes) -> Any:
    from conftest import make

    from parties import server

    folder = tmp_path_factory.mktemp("risk")
    bank, shop = make(folder, "bank"), make(folder, "shop", "ecommerce")
    with server.serving(bank), server.serving(shop):
        pair(bank, shop)
        add_dataset(bank, "customers", customers())
        add_dataset(shop, "shoppers", shoppers())
        import_consents(bank, consent_table(phones(*CONSENTED[0]), "shop", "profile"))
        import_consents(shop, consent_table(phones(*CONSENTED[1]), "bank", "purchases"))
        shop.home.key("paillier-2048").write_bytes(paillier_key)
        yield bank, shop


def run(
    nodes: Nodes, kind: str, since: str = "", between: str = "", **changes: Any
) -> dict[str, Any]:
    """Under an agreement of its own."""
    bank, shop = nodes
    version = len(agreements.every(bank)) + 1
    path = bank.home.path / "risk.yaml"
    path.write_text(document(version=version, **changes))
    agreements.propose(bank, path)
    agreements.sign(shop, "risk", version)
    text = f"job: {kind}\nagreement: risk\npurpose: credit-offer\n"
    if since:
        text += f'since: "{since}"\n'
    if between:
        text += f"between: {between}\n"
    return session.run_job(bank, text, lambda *_: None, session.Control())


def eligible() -> pd.DataFrame:
    """The partner's."""
    table = shoppers()
    return table[table["phone"].isin(phones(*CONSENTED[1]))]


def shared() -> pd.DataFrame:
    ours = customers()[CONSENTED[0][0] :]
    joined = ours.merge(eligible(), on="phone")
    outcome = joined["outcome"].str.strip()
    joined["bad"] = np.select([outcome.isin(["1", "bad"]), outcome.isin(["", "NA"])], [1.0, np.nan])
    return joined


def by_bin(name: str, inner: Any) -> pd.DataFrame:
    """Good and bad of each bin, missing last if the partner has any."""
    known = shared().dropna(subset="bad")
    cut = pd.cut(known[name], [-np.inf, *inner, np.inf], labels=False)
    codes = cut.fillna(len(inner) + 1).astype(int)
    table = pd.crosstab(codes, known["bad"])
    bins_ = len(inner) + 1 + int(eligible()[name].isna().any())
    return table.reindex(index=range(bins_), columns=[0.0, 1.0], fill_value=0)


def quantiles(name: str) -> np.ndarray:
    values = eligible()[name].dropna()
    return np.unique(np.quantile(values, np.linspace(0, 1, 5)))[1:-1]


def check(found: pd.DataFrame, name: str, inner: Any) -> None:
    rows = found[found["feature"] == name].reset_index()
    table = by_bin(name, inner)
    assert rows["good"].tolist() == table[0.0].tolist()
    assert rows["bad"].tolist() == table[1.0].tolist()
    k = len(inner) + 1
    assert rows["bin"].tolist()[:k] == [str(i + 1) for i in range(k)]
    assert rows["bin"].tolist()[k:] == ["missing"] * (len(table) - k)
    assert rows["lower"].tolist()[1:k] == rows["upper"].tolist()[: k - 1] == list(inner)
    assert rows["lower"].isna()[[0]].all()
    assert rows["upper"].isna()[[k - 1]].all()
    good, bad = (table[c].replace(0, 0.5) / table[c].sum() for c in (0.0, 1.0))
    woe = np.log(bad / good)
    assert rows["woe"].to_numpy() == pytest.approx(woe.to_numpy())
    iv = (bad - good) * woe
    assert rows["iv"].to_numpy() == pytest.approx(iv.to_numpy())
    assert rows["total_iv"].to_numpy() == pytest.approx(iv.sum())


# Between nodes


def test_evaluate_is_the_join(nodes: Nodes) -> None:
    watch = Watch(nodes[1])
    report = run(nodes, "evaluate")
    found = pd.read_csv(report["result_file"])
    for name in ("spend", "orders"):
        check(found, name, quantiles(name))
    known = shared()["bad"].dropna()
    result = report["result"]
    assert (result["good"], result["bad"]) == ((known == 0).sum(), (known == 1).sum())
    assert result["suppressed"] is False
    assert "share of bad" in result["sign"]
    assert [row["feature"] for row in result["table"]] == sorted(
        ("spend", "orders"), key=lambda n: -found[found.feature == n]["iv"].sum()
    )
    without = customers()[CONSENTED[0][0] :]["outcome"].isin(["", "NA"]).sum()
    assert report["without_label"] == without
    (theirs,) = watch.ended()
    assert theirs["report"]["values"]["orders"]["missing"] == eligible()["orders"].isna().sum()
    assert "result" not in theirs["report"]


@pytest.mark.parametrize(
    "binning", ["binning: equal_width\n    bins: 7", "binning: edges"], ids=["width", "edges"]
)
def test_other_binnings(nodes: Nodes, binning: str) -> None:
    found = pd.read_csv(run(nodes, "evaluate", binning=binning)["result_file"])
    for name, given in (("spend", [20, 40]), ("orders", [0, 3])):
        values = eligible()[name]
        width = np.linspace(values.min(), values.max(), 8)[1:-1]
        check(found, name, given if "edges" in binning else width)


def test_small_cells_are_not_shown(nodes: Nodes) -> None:
    report = run(nodes, "evaluate", cell=8)
    text = Path(report["result_file"]).read_text()
    found = pd.read_csv(report["result_file"])
    hidden = found["good"].isna()
    assert 0 < hidden.sum() < len(found)
    assert (found.loc[~hidden, ["good", "bad"]].min() >= 8).all()
    assert found.loc[hidden, ["bad", "woe", "iv"]].isna().all(axis=None)
    assert all(line.count(",") == 8 for line in text.splitlines())


def test_too_few_of_either_and_nothing_is_told(nodes: Nodes) -> None:
    watch = Watch(nodes[1])
    report = run(nodes, "evaluate", minimum=60)
    assert report["result"] == {"minimum_group": 60, "suppressed": True}
    assert Path(report["result_file"]).read_text() == ",".join(bins.EVALUATED) + "\n"
    assert watch.ended()[0]["state"] == "completed"


def test_stability_compares_with_an_earlier_run(nodes: Nodes) -> None:
    shop = nodes[1]
    before = run(nodes, "stability")
    first = pd.read_csv(before["result_file"])
    assert list(first) == list(bins.COMPARED)
    assert first["expected"].isna().all()
    everyone = shared()
    assert before["result"]["shared"] == len(everyone)
    edges = quantiles("spend")
    counts = pd.cut(everyone["spend"], [-np.inf, *edges, np.inf]).value_counts(sort=False)
    assert first[first.feature == "spend"]["actual"].tolist() == counts.tolist()

    table = shoppers(shift=25)
    table.to_csv(shop.home.path / "shoppers.csv", index=False)
    try:
        after = run(nodes, "stability", since=before["run"])
    finally:
        shoppers().to_csv(shop.home.path / "shoppers.csv", index=False)
    second = pd.read_csv(after["result_file"]).set_index("feature")
    moved = pd.cut(everyone["spend"] + 25, [-np.inf, *edges, np.inf]).value_counts(sort=False)
    spend = second.loc["spend"]
    assert spend["expected"].tolist() == counts.tolist()
    assert spend["actual"].tolist() == moved.tolist()
    assert spend["upper"].tolist()[:-1] == list(edges), "the bins are those of the first run"
    p, q = (c.replace(0, 0.5).to_numpy() / c.sum() for c in (counts, moved))
    assert spend["psi"].to_numpy() == pytest.approx((q - p) * np.log(q / p))
    total = ((q - p) * np.log(q / p)).sum()
    assert spend["total_psi"].iloc[0] == pytest.approx(total)
    assert spend["shift"].iloc[0] == ("large" if total >= 0.25 else "moderate")
    assert (second.loc["orders", "total_psi"] == 0).all()
    assert (second.loc["orders", "shift"] == "stable").all()
    # And so on, from run to run.
    third = run(nodes, "stability", since=after["run"])
    assert {row["feature"] for row in third["result"]["table"]} == {"spend", "orders"}


def test_stability_compares_two_populations(nodes: Nodes) -> None:
    report = run(nodes, "stability", between="populations")
    found = pd.read_csv(report["result_file"])
    assert list(found) == list(bins.COMPARED)
    everyone = shared()
    channel = everyone["channel"].str.strip()
    result = report["result"]
    assert result["expected"] == (channel == "branch").sum()
    assert result["actual"] == (channel == "app").sum()
    ours = customers()[CONSENTED[0][0] :]["channel"].str.strip()
    assert report["without_population"] == (~ours.isin(["branch", "app"])).sum()
    for name in ("spend", "orders"):
        rows, values = found[found["feature"] == name], everyone[name]
        codes = np.searchsorted(quantiles(name), values)
        codes[values.isna()] = len(rows) - 1
        of_each = [np.bincount(codes[channel == one], minlength=len(rows)) for one in PAIR]
        assert [rows["expected"].tolist(), rows["actual"].tolist()] == [c.tolist() for c in of_each]
        p, q = (np.where(counts == 0, 0.5, counts) / counts.sum() for counts in of_each)
        psi = (q - p) * np.log(q / p)
        assert rows["psi"].to_numpy() == pytest.approx(psi)
        assert rows["total_psi"].to_numpy() == pytest.approx(psi.sum())
        assert set(rows["shift"]) == {shift(psi.sum())}
    shown = {row["feature"]: row["total_psi"] for row in result["table"]}
    assert shown == found.groupby("feature")["total_psi"].first().to_dict()


def test_two_populations_have_a_minimum_each_and_small_bins_are_not_shown(nodes: Nodes) -> None:
    report = run(nodes, "stability", between="populations", cell=8)
    found = pd.read_csv(report["result_file"])
    hidden = found["expected"].isna()
    assert 0 < hidden.sum() < len(found)
    assert (found.loc[~hidden, ["expected", "actual"]].min() >= 8).all()
    report = run(nodes, "stability", between="populations", minimum=70)
    assert report["result"] == {"minimum_group": 70, "suppressed": True}


def test_an_earlier_run_must_be_one(nodes: Nodes) -> None:
    evaluated = run(nodes, "evaluate")["run"]
    apart = run(nodes, "stability", between="populations")["run"]
    few = run(nodes, "stability", minimum=10_000)
    assert few["result"]["suppressed"] is True
    for since in (evaluated, apart, few["run"]):
        with pytest.raises(ConcordatError) as refused:
            run(nodes, "stability", since=since)
        assert refused.value.code == "E633"
    with pytest.raises(ConcordatError) as unknown:
        run(nodes, "stability", since="0" * 32)
    assert unknown.value.code == "E623"


# What goes in and comes out


def test_labels() -> None:
    frame = pd.DataFrame({"y": pd.array(["1", " 1 ", "0", "01", "", None, "N/A"])}).convert_dtypes()
    bad, known = bins.labelled(frame, Label(column="y", bad=("1",)))
    assert known.tolist() == [True, True, True, True, False, False, False]
    assert bad[known].tolist() == [1, 1, 0, 0]


def test_values_are_taken_as_they_stand() -> None:
    agreement = Agreement.from_yaml(document())
    terms = agreement.jobs.evaluate
    frame = pd.DataFrame(
        {
            "spend": pd.Series(
                ["-5", "1e3", "0.125", "x", ""], dtype=pd.ArrowDtype(pa.large_string())
            ),
            "orders": pd.Series(["1"] * 5, dtype=pd.ArrowDtype(pa.large_string())),
        }
    )
    found = bins.placed(frame, bins.features(agreement, terms), terms)
    assert found.edges[0] == Edges(tuple(np.quantile([-5, 0.125, 1000], [0.25, 0.5, 0.75])), True)
    assert found.bins[:, 0].tolist() == [0, 3, 1, 4, 4]
    assert found.edges[1] == Edges((), missing=False)
    assert found.counts["spend"] == {"missing": 1, "text": 1}


def test_a_bin_hidden_then_stays_hidden() -> None:
    report = {
        "bins": {"f": {"inner": [1.0, 2.0, 3.0], "missing": False, "counts": [None, None, 40, 50]}},
        "result": {"shared": 100},
    }
    now = Distribution(Edges((1.0, 2.0, 3.0), missing=True), np.array([[30, 30, 30, 30, 7]]))
    rows = bins.compared(["f"], [now], bins.Earlier.of(report), 0)
    assert [row["expected"] for row in rows] == [None, None, 40, 50, 0]
    assert [row["actual"] for row in rows] == [None, None, 30, 30, 7]
    p = np.array([40, 50, 0.5, 10]) / 100
    q = np.array([30, 30, 7, 60]) / 127
    assert rows[0]["total_psi"] == pytest.approx(((q - p) * np.log(q / p)).sum())


# The agreement


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("bins: 4", "bins: 1", "bins: should be greater"),
        ("\n    bins: 4", "", "should say how many"),
        ("binning: quantile", "binning: edges", "should say how many"),
        ("features: [spend, orders]", "features: [age]", "age is no feature of the data"),
        ("features: [spend, orders]", "features: [spend, spend]", "features should all differ"),
        ("    label: {column: outcome", "    # {column: outcome", "needs data.bank.label"),
        ("release: exact", "release: noised", "binning: noised needs edges"),
        ("release: exact", "release: noised", "stability.release: a stability has no noise"),
        ("minimum_group: 10", "minimum_group: 9", "minimum_group"),
        ("actual: app", "actual: branch", "should be two segments"),
        ("actual: app", "actual: web", "two segments of an axis"),
        ("axis: channel", "axis: age", "two segments of an axis"),
    ],
)
def test_terms_that_make_no_sense(old: str, new: str, problem: str) -> None:
    assert old in document()
    with pytest.raises(AgreementInvalid, match=problem):
        Agreement.from_yaml(document().replace(old, new))


def test_given_edges_need_bins() -> None:
    text = document(binning="binning: edges").replace(", bins: [0, 3]", "")
    with pytest.raises(AgreementInvalid, match="orders has no bins"):
        Agreement.from_yaml(text)


def job(text: str) -> Job:
    return Job.from_yaml(f"agreement: risk\npurpose: credit-offer\n{text}")


def test_only_a_stability_has_an_earlier_run() -> None:
    assert job(f'job: stability\nsince: "{"ab" * 16}"').since == "ab" * 16
    for text in (f'job: evaluate\nsince: "{"ab" * 16}"', "job: stability\nsince: yesterday"):
        with pytest.raises(JobInvalid):
            job(text)


def test_only_a_stability_has_populations_and_no_earlier_run_with_them() -> None:
    assert job("job: stability\nbetween: populations").between == "populations"
    for text in (
        "job: evaluate\nbetween: populations",
        "job: stability\nbetween: cities",
        f'job: stability\nbetween: populations\nsince: "{"ab" * 16}"',
    ):
        with pytest.raises(JobInvalid):
            job(text)


def test_populations_must_be_agreed() -> None:
    line = "    populations: {axis: channel, expected: branch, actual: app}\n"
    agreement = Agreement.from_yaml(document().replace(line, ""))
    asked = job("job: stability\nbetween: populations")
    with pytest.raises(AgreementRefusal) as refused:
        permits(agreement, asked, now=agreement.valid.start, runs=lambda _: 0)
    assert refused.value.clause == "jobs.stability.populations"


def test_features_count_against_the_limit() -> None:
    text = document().replace("{runs_per_day: 1000}", "{runs_per_day: 9, features_per_job: 1}")
    agreement = Agreement.from_yaml(text)
    with pytest.raises(AgreementRefusal) as refused:
        permits(agreement, job("job: evaluate"), now=agreement.valid.start, runs=lambda _: 0)
    assert refused.value.clause == "limits.features_per_job"


def test_each_job_says_who_learns_what() -> None:
    told = disclosure(Agreement.from_yaml(document(cell=5)), job("job: evaluate"))
    assert told["bank"][-1] == (
        "if at least 10 of both are: how many good and bad are in each bin of spend, orders, and "
        "where these bins meet; bins that hold fewer than 5 are not shown"
    )
    assert "the smaller is visibly the bad one" in told["shop"][1]
    told = disclosure(Agreement.from_yaml(document()), job("job: stability"))
    assert told["shop"] == ["the size of bank's set", "how many customers are shared"]
    told = disclosure(Agreement.from_yaml(document()), job("job: stability\nbetween: populations"))
    assert told == {
        "bank": [
            "the size of shop's set",
            "how many of its customers with channel branch and of those with channel app are "
            "shared, also if fewer than the minimum",
            "if at least 10 of both are: how many of both are in each bin of spend, orders, and "
            "where these bins meet",
        ],
        "shop": [
            "the size of bank's set",
            "the sizes and shared counts of two nameless groups, and never who is in them",
        ],
    }


def test_bins_are_planned_for_what_both_sides_know() -> None:
    agreement = Agreement.from_yaml(document())
    assert bins.features(agreement, agreement.jobs.evaluate)[0] == Bins("spend", 4)
    agreement = Agreement.from_yaml(document(binning="binning: edges"))
    spend, _ = bins.features(agreement, agreement.jobs.evaluate)
    assert spend == Bins("spend", 3, (20.0, 40.0))
    assert agreement.data.partner.features["spend"].bins[1] == Decimal("40.0")
