"""Runs with noise between two real nodes, and the privacy budget they spend."""

from datetime import timedelta
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from ready import AGREEMENT, Watch, job, log_of, paused, run
from rich.console import Console
from typer.testing import CliRunner

from compliance import budget
from compliance.errors import BudgetSpent
from parties import admin, agreements, audits
from parties.cli import app
from parties.errors import HomeUnusable
from parties.node import Node
from protos.errors import ConcordatError

Nodes = tuple[Node, Node]

NOISE = "noise: {epsilon: 2, delta: 1.0e-9, budget: {epsilon: 4, per: month}}\n"
EVALUATE = """\
  evaluate:
    features: [spend]
    binning: edges
    minimum_group: 10
    minimum_cell: 0
    release: noised
    key_bits: 2048
    exponents: full
"""


@pytest.fixture
def noised(ready: Nodes) -> Nodes:
    """Under an agreement by which insight and evaluate have noise, for two runs a month."""
    propose(ready, 2)
    return ready


def propose(nodes: Nodes, version: int) -> None:
    bank, shop = nodes
    text = AGREEMENT.format(version=version, partner_learns="size")
    text = text.replace("release: exact", "release: noised")
    text = text.replace("[profile]}", '[profile], label: {column: age, bad: ["25"]}}')
    text = text.replace("limits:", f"{EVALUATE}{NOISE}limits:")
    path = bank.home.path / "noised.yaml"
    path.write_text(text)
    agreements.propose(bank, path)
    agreements.sign(shop, "offers", version)


def left(node: Node) -> str:
    with node.reading() as conn:
        agreement = agreements.in_force(node, "offers")
        return str(budget.remaining(conn, agreement, now=node.now()))


def test_an_insight_with_noise_says_how_much_and_spends(noised: Nodes) -> None:
    report = run(noised[0], "insight")
    assert report["result"]["noise"] == {"epsilon": 2.0, "delta": 1e-9}
    assert any(
        "all with noise (epsilon 2 of 4 a month)" in one for one in report["disclosure"]["bank"]
    )
    found = pd.read_csv(report["result_file"])
    # One query: sum and mean are made of one sum of values up to 1000.
    assert found["sum_scale"].tolist() == pytest.approx([500, 500])
    assert found["mean_scale"].tolist() == pytest.approx((500 / found["count"]).tolist())
    assert (found["sum_low"] < found["sum"]).all()
    assert (found["sum"] < found["sum_high"]).all()
    assert found["count"].tolist() == [28, 27]
    for node in noised:
        (spent,) = [one for one in log_of(node, report["run"]) if one["type"] == "noise.spent"]
        assert (spent["agreement"], spent["epsilon"]) == ("offers", "2")
        kinds = [one["type"] for one in log_of(node, report["run"])]
        assert kinds.index("noise.spent") < kinds.index("run.release")
        assert left(node) == "2"
        assert audits.verify(node, offline=True)[0].report.findings == []


def test_an_evaluate_with_noise_says_where_its_counts_lie(noised: Nodes) -> None:
    report = run(noised[0], "evaluate")
    found = pd.read_csv(report["result_file"])
    assert report["result"]["good"] + report["result"]["bad"] == 55
    assert found["noise_scale"].iloc[:-1].tolist() == pytest.approx([1] * (len(found) - 1))
    assert (found["good_low"] <= found["good"].clip(lower=0)).all()
    assert (found["bad"] <= found["bad_high"]).all()
    assert (found["woe_low"] <= found["woe"]).all()
    assert (found["woe"] <= found["woe_high"]).all()


def test_what_is_spent_is_spent_together_and_then_a_run_is_refused(noised: Nodes) -> None:
    bank, shop = noised
    run(bank, "insight")
    run(bank, "evaluate")
    with pytest.raises(BudgetSpent) as refused:
        run(bank, "insight")
    assert "epsilon 4 a month there is 0 left, and a run spends 2" in refused.value.message
    run(bank, "overlap")  # needs none
    assert left(shop) == "0"


def spend(node: Node, run: str) -> None:
    with node.writing() as conn:
        agreement = agreements.in_force(node, "offers")
        budget.spend(conn, node.log, agreement, "insight", run * 32, now=node.now())


def test_the_partner_keeps_an_account_of_its_own(noised: Nodes) -> None:
    bank, shop = noised
    spend(shop, "a")
    spend(shop, "b")
    assert (left(bank), left(shop)) == ("4", "0")
    watch = Watch(shop)
    with pytest.raises(ConcordatError) as refused:
        run(bank, "insight")
    assert BudgetSpent.code in refused.value.message
    assert watch.ended()[0]["state"] == "refused"


def test_what_was_spent_while_the_run_went_on_counts(noised: Nodes) -> None:
    bank, shop = noised
    with paused(bank, "insight", "add encrypted rows") as (running, pause):
        spend(shop, "a")
        spend(shop, "b")
        pause.go.set()
        running.join()
    assert running.error is not None
    assert BudgetSpent.code in running.error.message
    assert left(shop) == "0"


def test_versions_share_a_budget_and_periods_do_not(noised: Nodes) -> None:
    bank, _ = noised
    run(bank, "insight")
    propose(noised, 3)
    assert left(bank) == "2"
    with bank.reading() as conn:
        agreement = agreements.in_force(bank, "offers")
        later = bank.now() + timedelta(days=32)
        assert budget.remaining(conn, agreement, now=later) == 4


def test_a_run_that_fails_after_the_release_has_spent(noised: Nodes) -> None:
    """A bank whose node falls over the moment it has read the answer."""

    def fall(run: str, stage: str, done: int, total: int) -> None:
        if (stage, done) == ("release", 1):
            raise OSError

    bank, shop = noised
    watch = Watch(shop)
    with pytest.raises(HomeUnusable):
        run(bank, "insight", fall)
    assert watch.ended()[0]["state"] == "failed"
    assert (left(bank), left(shop)) == ("2", "2")


def test_the_preview_and_the_agreement_say_what_is_left(noised: Nodes, tmp_path: Path) -> None:
    bank, _ = noised
    path = tmp_path / "job.yaml"
    path.write_text(job("insight"))
    out = StringIO()
    admin.run_job(bank.home, path, None, Console(file=out, width=200))
    assert "privacy budget: epsilon 4 of 4 is left this month" in out.getvalue()
    shown = CliRunner().invoke(app, ["agreement", "show", str(bank.home.path), "offers"])
    assert "# privacy budget: epsilon 2 of 4 is left this month" in shown.output
