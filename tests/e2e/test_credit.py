"""examples/credit/run.sh on people it has not seen, against a plain join."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml
from people import evaluated, expected, generate

ROOT = Path(__file__).parents[2]


class Ran(NamedTuple):
    """What a run left, and what it should have."""

    out: Path
    phones: list[str]
    insight: pd.DataFrame
    evaluate: pd.DataFrame


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("out") / "new"
    (bank, partner), now = generate(data, seed=7), pd.Timestamp.now(tz="UTC")
    partner.table.to_csv(out.parent / "payments.csv", index=False)
    bank.table.to_csv(out.parent / "customers.csv", index=False)
    done = subprocess.run(
        [ROOT / "examples/credit/run.sh", data, out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Ran(out, *expected(bank, partner, now), evaluated(bank, partner, now))


def test_overlap_and_intersect_are_the_join(ran: Ran) -> None:
    out, phones = ran.out, ran.phones
    assert json.loads((out / "overlap.json").read_text())["count"] == len(phones) > 1_000
    found = pd.read_csv(out / "intersect.csv", dtype=str)
    assert list(found) == ["phone"]
    assert found["phone"].tolist() == phones


def test_insight_is_the_join(ran: Ran) -> None:
    out, insight = ran.out, ran.insight
    found = pd.read_csv(out / "insight.csv", dtype={"age_band": str, "limit_band": str})
    assert list(found) == [
        "age_band",
        "limit_band",
        "feature",
        "count",
        "sum",
        "mean",
        "variance",
        "suppressed",
    ]
    keys = ["age_band", "limit_band", "feature"]
    both = insight.merge(found, on=keys, suffixes=("", "_found"), validate="1:1")
    assert len(both) == len(found) == 36
    assert 0 < both["suppressed"].sum() < 36
    assert (both["suppressed"] == both["suppressed_found"]).all()
    for name in ("count", "sum"):
        assert both[name].astype("Int64").equals(both[f"{name}_found"].astype("Int64"))
    for name in ("mean", "variance"):
        pd.testing.assert_series_equal(
            both[name], both[f"{name}_found"], check_names=False, rtol=1e-12
        )


def test_evaluate_is_the_join(ran: Ran) -> None:
    found = pd.read_csv(ran.out / "evaluate.csv", dtype={"bin": str})
    assert list(found) == list(ran.evaluate)
    assert found["feature"].nunique() == 18
    assert found.groupby("feature")["bin"].count().loc[["pay_5", "pay_6"]].tolist() == [1, 1]
    assert (found["bin"] == "missing").sum() == 1
    for name in ("feature", "bin", "good", "bad"):
        assert found[name].tolist() == ran.evaluate[name].tolist(), name
    for name in ("lower", "upper", "woe", "iv", "total_iv"):
        pd.testing.assert_series_equal(found[name], ran.evaluate[name], rtol=1e-12)


def partners(out: Path) -> pd.DataFrame:
    """The partner's rows of the customers in common, by phone."""
    table = pd.read_csv(out.parent / "payments.csv", dtype={"phone": str})
    phones = pd.read_csv(out / "intersect.csv", dtype=str)["phone"]
    return table[table["phone"].isin(phones)].sort_values("phone", ignore_index=True)


def test_lookup_is_the_join(ran: Ran) -> None:
    out, phones = ran.out, ran.phones
    columns = ["phone", "pay_0", "pay_2", "pay_3"]
    found = pd.read_csv(out / "lookup.csv", dtype={"phone": str})
    assert list(found) == columns
    assert found["phone"].tolist() == phones[:200]
    pd.testing.assert_frame_equal(found, partners(out)[columns].head(200))


def test_scores_are_the_plain_calculation(ran: Ran) -> None:
    out, phones = ran.out, ran.phones
    card = yaml.safe_load((ROOT / "examples/credit/scorecard.yaml").read_text())
    people = partners(out)
    score = pd.Series(card["base"], people.index)
    for name, feature in card["features"].items():
        edges = [-np.inf, *(one["upper"] for one in feature["bins"][:-1]), np.inf]
        points = [one["points"] for one in feature["bins"]]
        score += pd.Series(points)[pd.cut(people[name], edges, labels=False)].to_numpy()
    found = pd.read_csv(out / "score.csv", dtype={"phone": str})
    assert list(found) == ["phone", "score"]
    assert found["phone"].tolist() == phones
    assert found["score"].tolist() == score.tolist()
    assert found["score"].nunique() > 50


def test_stability_is_the_plain_calculation(ran: Ran) -> None:
    score = pd.read_csv(ran.out / "score.csv", dtype={"phone": str})
    limits = pd.read_csv(ran.out.parent / "customers.csv", dtype={"phone": str})
    joined = score.merge(limits, on="phone")
    expected = joined.loc[joined["limit_bal"] <= 100_000, "score"]
    actual = joined.loc[joined["limit_bal"] > 300_000, "score"]
    inner = np.unique(np.quantile(expected, np.linspace(0, 1, 11)))[1:-1]
    edges = [-np.inf, *inner, np.inf]
    counts = [pd.cut(s, edges).value_counts(sort=False).to_numpy() for s in (expected, actual)]
    found = pd.read_csv(ran.out / "stability.csv")
    assert found["expected"].tolist() == counts[0].tolist()
    assert found["actual"].tolist() == counts[1].tolist()
    assert found["upper"].tolist()[:-1] == inner.tolist() == found["lower"].tolist()[1:]
    p, q = (np.where(c == 0, 0.5, c) / c.sum() for c in counts)
    psi = (q - p) * np.log(q / p)
    assert found["psi"].to_numpy() == pytest.approx(psi)
    assert found["total_psi"].to_numpy() == pytest.approx(psi.sum())


def test_summary_says_what_was_left_out(ran: Ran) -> None:
    out = ran.out
    summary = json.loads((out / "summary.json").read_text())
    bank = summary["bank"]["runs"]["insight"]
    assert sum(bank["rows"]["rejected"].values()) == 5
    excluded = bank["gate"]["excluded"]
    assert {"no consent", "another purpose", "expired", "withdrawn"} <= set(excluded)
    left = bank["rows"]["rows"] - 5 - sum(excluded.values())
    assert bank["gate"]["eligible"] == left
    for side in ("bank", "partner"):
        assert summary[side]["verification"]["passed"] is True
        stages = summary[side]["runs"]["insight"]["stages"]
        assert sum(stage["bytes_sent"] for stage in stages.values()) > 0
        assert all(stage["cpu_seconds"] >= 0 for stage in stages.values())
