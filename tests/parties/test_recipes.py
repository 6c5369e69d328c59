"""Figures of recipes against published ones, and what is no recipe's result."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from compliance.agreement import Agreement, Job, permits
from parties import catalogue
from parties.cli import app
from parties.errors import HomeExists, RecipeUnknown, ResultUnfit
from parties.recipes import figures, generate, library
from parties.sources import Dataset


# Newcombe 1998, Statistics in Medicine 17:873, table II, method 10.
@pytest.mark.parametrize(
    ("one", "other", "lower", "upper"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((6, 7), (2, 7), 0.0582, 0.8062),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((0, 10), (0, 20), -0.1611, 0.2775),
        ((0, 10), (0, 10), -0.2775, 0.2775),
        ((10, 10), (0, 20), 0.6791, 1.0),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_newcombes_own_examples(one, other, lower, upper) -> None:
    assert figures.newcombe(one, other) == pytest.approx((lower, upper), abs=5e-5)
    assert figures.newcombe(other, one) == pytest.approx((-upper, -lower), abs=5e-5)


# Newcombe 1998, Statistics in Medicine 17:857, table I, method 3.
@pytest.mark.parametrize(
    ("hits", "of", "lower", "upper"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilsons_interval(hits, of, lower, upper) -> None:
    assert figures.wilson(hits, of) == pytest.approx((lower, upper), abs=5e-5)
    flipped = figures.wilson(of - hits, of)
    assert flipped == pytest.approx((1 - upper, 1 - lower), abs=5e-5)


@pytest.mark.parametrize("name", figures.NAMES)
def test_a_recipe_is_whole(name: str, tmp_path: Path) -> None:
    """Its agreement allows its jobs, its features are the catalogue's, its datasets configure."""
    written = library.write(name, tmp_path / "to" / name)
    agreement = Agreement.from_yaml(written[0].read_text("utf-8"))
    catalogue.check(agreement)
    assert agreement.agreement == name
    others = {library.AGREEMENT, library.BANK, library.PARTNER}
    jobs = [path for path in written if path.name not in others]
    assert "job.yaml" in {path.name for path in jobs}
    for path in jobs:
        job = Job.from_yaml(path.read_text("utf-8"))
        permits(agreement, job, now=agreement.valid.start, runs=lambda _: 0)
    for side, file in (
        (agreement.data.bank, "bank.yaml"),
        (agreement.data.partner, "partner.yaml"),
    ):
        told = yaml.safe_load((tmp_path / "to" / name / file).read_text("utf-8"))
        for dataset in told.values():
            assert Dataset.model_validate(dataset).path.parent == tmp_path / "to" / name
        assert list(told) == [side.dataset]


@pytest.mark.parametrize("name", figures.NAMES)
def test_the_same_people_are_made_up_every_time(name: str) -> None:
    one, again, other = (generate.generate(name, 500, seed) for seed in (3, 3, 4))
    assert one.truth.equals(again.truth) and not one.truth.equals(other.truth)
    assert all(table.equals(again.partner[key]) for key, table in one.partner.items())
    consented = [set(one.consents(side, "p", "r", "c")["phone"]) for side in (0, 1)]
    assert set(one.shared()["phone"]) == consented[0] & consented[1]
    assert 100 < len(one.shared()) < len(one.truth)


AGREEMENT = Agreement.from_yaml(library.files("experience")[library.AGREEMENT])
HEADER = "segment,feature,count,mean,share,ratio,histogram,suppressed\n"


def test_a_suppressed_segment_has_no_figures() -> None:
    said = HEADER + "".join(
        f"mass,{name},,,,,,true\nwealthy,{name},60,2.5,0.5,0.25,10;20;30,false\n"
        for name in ("nps", "hours", "accepted")
    )
    mass, wealthy = figures.report("experience", AGREEMENT, said.encode())
    assert set(mass.values()) == {"mass", None}
    assert wealthy["nps"] == pytest.approx((30 - 10) / 60)
    assert (wealthy["answers"], wealthy["acceptance"]) == (60, 0.25)


def test_a_campaign_without_a_hold_out_has_no_difference() -> None:
    agreement = Agreement.from_yaml(library.files("campaign")[library.AGREEMENT])
    said = "group,feature,count,mean,share,suppressed\n" + "".join(
        f"audience,{name},100,1,0.07,false\nhold-out,{name},,,,true\n"
        for name in ("orders", "spend")
    )
    rows = figures.report("campaign", agreement, said.encode())
    assert [(row["group"], row["conversions"]) for row in rows] == [
        ("audience", 7),
        ("hold-out", None),
    ]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\xff",
        b"segment,feature,count\nmass,nps,60\n",
        HEADER.encode(),
        (HEADER + "mass,nps,x,,,,1;2;3,false\n").encode(),
        (HEADER + "mass,nps,6,,,,1;2,false\n").encode(),
        b"feature,bin,lower,upper,good,bad,woe,iv,total_iv\nnps,1,,,10,10,0,0,0\n",
    ],
)
def test_what_is_no_result_is_refused(said: bytes) -> None:
    with pytest.raises(ResultUnfit, match="no result of the recipe experience"):
        figures.report("experience", AGREEMENT, said)


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    for name in ("../bank", "Campaign", ""):
        with pytest.raises(RecipeUnknown, match="no recipe"):
            library.write(name, tmp_path / "new")
        with pytest.raises(RecipeUnknown):
            figures.report(name, AGREEMENT, b"")
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(HomeExists):
        library.write("campaign", tmp_path)


def test_a_report_is_shown_written_and_printed_as_json(tmp_path: Path) -> None:
    (agreement := tmp_path / "agreement.yaml").write_text(
        library.files("experience")[library.AGREEMENT]
    )
    (result := tmp_path / "result.csv").write_text(
        HEADER
        + "".join(
            f"mass,{n},60,2.5,0.5,0.25,10;20;30,false\n" for n in ("nps", "hours", "accepted")
        )
    )
    words = ["recipe", "report", "experience", str(agreement), str(result)]
    done = CliRunner().invoke(app, [*words, "--output", str(tmp_path / "out.csv"), "--json"])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    header, told = (tmp_path / "out.csv").read_text().splitlines()
    assert dict(zip(header.split(","), told.split(","), strict=True)) == {
        name: str(value) for name, value in row.items()
    }
    assert "60" in CliRunner().invoke(app, words).output
    missing = CliRunner().invoke(app, [*words[:4], str(tmp_path / "none.csv")])
    assert (missing.exit_code, "No such file" in missing.output) == (1, True)
