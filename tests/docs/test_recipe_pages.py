"""The commands of docs/recipes, on three nodes, against what is true of the people made up."""

import math
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from console import commands
from typer.testing import CliRunner

from federated.paillier import keys
from parties import admin, pairing
from parties.cli import app
from parties.config import Home
from parties.node import Node
from parties.recipes import generate, library
from parties.recipes.figures import NAMES

DOCS = Path(__file__).parents[2] / "docs" / "recipes"
SECTORS = {"bank": "bank", "shop": "ecommerce", "telco": "telecom"}


@contextmanager
def served(home: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "parties", "serve", str(home)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        try:
            admin.status(Home(home), wait=60)
            yield
        finally:
            node.terminate()


def do(command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "concordat"
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, f"{command}: {done.output}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all pages have been played, each recipe's report in a file of its name."""
    folder = tmp_path_factory.mktemp("recipes")
    nodes = {
        name: Node.create(Home(folder / name), name, sector, None)
        for name, sector in SECTORS.items()
    }
    key = keys.dump(keys.generate(2048))
    for node in nodes.values():
        node.home.key("paillier-2048").write_bytes(key)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        pages = {name: commands((DOCS / f"{name}.md").read_text("utf-8")) for name in NAMES}
        datasets: dict[str, dict[str, object]] = {name: {} for name in SECTORS}
        for name, (write, *_) in pages.items():
            assert write == f"concordat recipe write {name} {name} --made-up"
            do(write)
            document = yaml.safe_load((folder / name / "agreement.yaml").read_text())
            for role, file in (("bank", library.BANK), ("partner", library.PARTNER)):
                told = yaml.safe_load((folder / name / file).read_text("utf-8"))
                datasets[document["parties"][role]] |= told
        for name, tables in datasets.items():
            with nodes[name].home.config_file.open("a", encoding="utf-8") as config:
                yaml.safe_dump({"datasets": tables}, config)
        play(folder, nodes, pages)
        yield folder


def play(folder: Path, nodes: dict[str, Node], pages: dict[str, list[str]]) -> None:
    watched = pages["early-warning"]
    (once,) = (at for at, line in enumerate(watched) if "first.yaml" in line)
    later = watched[once + 1 :]
    with served(folder / "bank"), served(folder / "shop"):
        with served(folder / "telco"):
            for name in ("shop", "telco"):
                pairing.invite(nodes["bank"], folder / f"for-{name}")
                fingerprint = nodes["bank"].identity.fingerprint
                pairing.accept(nodes[name], folder / f"for-{name}", fingerprint)
            for _, *lines in pages.values():
                for line in lines:
                    if line not in later:
                        do(line)
        # Half a year on, as the page says.
        file = folder / "early-warning" / "since.yaml"
        first = next(run for run in reversed(nodes["bank"].runs()) if run["job"] == "stability")
        file.write_text(file.read_text("utf-8").replace("0" * 32, first["id"]))
        config = nodes["telco"].home.config_file
        text = config.read_text("utf-8")
        assert text.count("2025-07-02") == 1
        config.write_text(text.replace("2025-07-02", "2026-01-01"))
        with served(folder / "telco"):
            for line in later:
                do(line)


def shared(name: str) -> pd.DataFrame:
    return generate.generate(name).shared()


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


@pytest.mark.parametrize("name", NAMES)
def test_the_pages_figures_are_what_the_commands_write(folder: Path, name: str) -> None:
    assert (folder / f"{name}.csv").read_text() == (DOCS / f"{name}.csv").read_text()


def test_when_and_how_much_people_buy_next(folder: Path) -> None:
    truth, found = shared("right-moment"), read(folder / "right-moment.csv")
    edges = [-math.inf, 0, 7, 30, 60, math.inf]
    truth["due"] = pd.cut(truth["next_days"], edges).astype(str).str.replace(".0", "")
    truth = truth[truth["buys"]]
    for segment, of in truth.groupby("assets"):
        told = found[found["assets"] == segment]
        counts = pd.cut(of["next_days"], edges).value_counts(sort=False)
        assert told["people"].tolist() == counts.tolist()
        assert told["share"].tolist() == pytest.approx((counts / len(of)).tolist())
        assert told["mean_basket"].unique() == pytest.approx(of["basket"].mean())
    assert found["assets"].nunique() == 3


def test_what_people_prefer(folder: Path) -> None:
    truth, found = shared("preferences"), read(folder / "preferences.csv")
    assert len(found) == 18
    for row in found.to_dict("records"):
        own = truth.loc[truth["age"] == row["age"], row["name"]]
        assert (row["people"], row["share"]) == (len(own), pytest.approx(own.mean()))
        assert row["index"] == pytest.approx(100 * own.mean() / truth[row["name"]].mean())
    assert set(found["of"]) == {"category", "channel"}


def test_what_tells_of_delinquency(folder: Path) -> None:
    """Where people commute to cannot be binned exactly from what was made up: it says nothing."""
    truth, found = shared("credit-assessment"), read(folder / "credit-assessment.csv")
    columns = {
        "telecom.contacts": ("contacts", [10, 20, 30]),
        "telecom.reciprocity": ("reciprocity", [0.2, 0.4, 0.6, 0.8]),
        "telecom.cities_visited": ("cities", [1]),
        "telecom.tenure_days": ("tenure_days", [180, 365, 1095]),
    }
    iv = found.set_index("feature")["iv"]
    for feature, (column, edges) in columns.items():
        bins = pd.cut(truth[column], [-math.inf, *edges, math.inf])
        counts = pd.crosstab(bins, truth["bad"], dropna=False).to_numpy().astype(float)
        good, bad = (counts / counts.sum(axis=0)).T
        assert counts.min() >= 10  # so all are shown
        assert iv[feature] == pytest.approx(((bad - good) * np.log(bad / good)).sum())
    riskiest = found.set_index("feature")["riskiest"]
    assert riskiest["telecom.tenure_days"] in {"(-inf, 180]", "(180, 365]"}
    assert riskiest["telecom.reciprocity"] == "(-inf, 0.2]"
    assert iv["telecom.commute_km"] < 0.02
    assert iv["telecom.reciprocity"] > 0.1


def psi(expected: pd.Series, actual: pd.Series, edges: list[int]) -> float:
    counts = [
        pd.cut(one, [-math.inf, *edges, math.inf]).value_counts(sort=False).to_numpy(float)
        for one in (expected, actual)
    ]
    p, q = (np.where(one == 0, 0.5, one) / one.sum() for one in counts)
    return float(((q - p) * np.log(q / p)).sum())


CYCLES, CONTACTS = [15, 30, 40], [10, 15, 20, 25]


def test_what_has_drifted(folder: Path) -> None:
    truth = shared("early-warning")
    with_, without = (truth[truth["warning"] == one] for one in "10")
    now, since = read(folder / "early-warning.csv"), read(folder / "since.csv")
    for found, before, after, contacts in (
        (now, without["after"], with_["after"], (without["contacts"], with_["contacts"])),
        (since, truth["before"], truth["after"], (truth["contacts"], truth["contacts"])),
    ):
        index = found.set_index("feature")["psi"]
        assert index["telecom.topup_cycle_days"] == pytest.approx(psi(before, after, CYCLES))
        assert index["telecom.contacts"] == pytest.approx(psi(*contacts, CONTACTS))


def test_how_content_people_are(folder: Path) -> None:
    truth, found = shared("experience"), read(folder / "experience.csv")
    for row in found.to_dict("records"):
        own = truth[truth["segment"] == row["segment"]]
        scores = own["nps"].dropna().tolist()
        promoters = sum(one >= 9 for one in scores) / len(scores)
        detractors = sum(one <= 6 for one in scores) / len(scores)
        assert row["answers"] == len(scores)
        assert row["nps"] == pytest.approx(promoters - detractors)
        assert row["passives"] == pytest.approx(1 - promoters - detractors)
        assert row["mean_hours"] == pytest.approx(own["hours"].mean())
        assert row["in_time"] == pytest.approx((own["hours"] <= 24).mean())
        assert row["acceptance"] == pytest.approx(own["accepted"].sum() / own["offers"].sum())
    assert len(found) == 3


def test_what_a_campaign_has_sold(folder: Path) -> None:
    truth, found = shared("campaign"), read(folder / "campaign.csv").set_index("group")
    rates = {}
    for group, own in truth.groupby("group"):
        row, bought = found.loc[group], (own["orders"] > 0).sum()
        assert (row["people"], row["conversions"]) == (len(own), bought)
        assert row["mean_spend"] == pytest.approx(own["spend"].mean())
        assert row["rate"] == pytest.approx(bought / len(own))
        assert row["lower"] < row["rate"] < row["upper"]
        rates[group] = row["rate"]
    told = found.loc["difference"]
    assert told["rate"] == pytest.approx(rates["audience"] - rates["hold-out"])
    assert 0 < told["lower"] < 1 / 7 - 1 / 12 < told["upper"]
