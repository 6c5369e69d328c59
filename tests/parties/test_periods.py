"""Attacks by subtraction, played between two real nodes: run twice, change a little, subtract."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from io import StringIO
from pathlib import Path
from secrets import token_bytes
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ready import (
    AGREEMENT,
    SHARED,
    Watch,
    consent_table,
    customers,
    import_consents,
    job,
    log_of,
    paused,
    phones,
    run,
    withdraw,
)
from rich.console import Console

from compliance import differencing, receipt
from compliance.errors import CellsReleased, SegmentationChanged, TooFewDiffer
from federated._native import Scalar
from federated.aggregation import insight
from federated.arrays import U8
from federated.channel import Channel
from federated.points import product
from parties import admin, agreements, audits, periods, session
from parties.config import Home
from parties.errors import HomeUnusable
from parties.node import Node
from protos.errors import ConcordatError

Nodes = tuple[Node, Node]

PERIOD = "period: {per: month, cells: 100}\n"
EVALUATE = """\
  evaluate:
    features: [spend]
    binning: edges
    minimum_group: 10
    minimum_cell: 0
    release: exact
    key_bits: 2048
    exponents: full
"""
YOUNG, OLD = [phone for i, phone in enumerate(SHARED, 65) if i % 2], SHARED[1::2]
assert (len(YOUNG), len(OLD)) == (28, 27)


@pytest.fixture
def nodes(ready: Nodes) -> Nodes:
    """Under an agreement with a period, with the age of 25 as the label of an evaluate."""
    propose(ready, 2)
    return ready


def propose(nodes: Nodes, version: int, *changes: tuple[str, str]) -> None:
    bank, shop = nodes
    text = AGREEMENT.format(version=version, partner_learns="size")
    text = text.replace("[profile]}", '[profile], label: {column: age, bad: ["25"]}}')
    text = text.replace("limits:", f"{EVALUATE}{PERIOD}limits:")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = bank.home.path / "period.yaml"
    path.write_text(text)
    agreements.propose(bank, path)
    agreements.sign(shop, "offers", version)


def counts(report: dict[str, Any]) -> dict[str, float]:
    """Of a result: how many people each segment has, NaN where suppressed."""
    found = pd.read_csv(report["result_file"], dtype={"age": str})
    return dict(zip(found["age"], found["count"], strict=True))


def total(report: dict[str, Any], age: str) -> float:
    found = pd.read_csv(report["result_file"], dtype={"age": str}).set_index("age")
    return float(found["sum"][age])


def spends(phone: str) -> int:
    return 7 * (int(phone[-3:]) - 60)


def leave_bank(nodes: Nodes, people: list[str]) -> None:
    withdraw(nodes[0], pd.Series(people), "shop", "profile")


def leave_shop(nodes: Nodes, people: list[str]) -> None:
    withdraw(nodes[1], pd.Series(people), "bank", "purchases")


@contextmanager
def deviating(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A bank whose node sends what it should keep home."""
    with monkeypatch.context() as changed:
        changed.setattr(periods.BankSide, "_stay_home", lambda self, known, segment: None)
        yield changed


def refused(nodes: Nodes, kind: str = "insight") -> ConcordatError:
    """By the partner: the bank is told why, and nothing is released."""
    watch = Watch(nodes[1])
    with pytest.raises(ConcordatError) as error:
        run(nodes[0], kind)
    (row,) = watch.ended()
    assert row["state"] == "refused"
    assert not [one for one in log_of(nodes[1], row["id"]) if one["type"] == "run.release"]
    return error.value


# What an attack would come to


def test_without_a_period_two_runs_tell_one_persons_spending(ready: Nodes) -> None:
    first = run(ready[0], "insight")
    leave_bank(ready, [YOUNG[3]])
    second = run(ready[0], "insight")
    assert total(first, "-39") - total(second, "-39") == spends(YOUNG[3])


# The attacks


def test_one_person_less(nodes: Nodes) -> None:
    bank, _ = nodes
    first = run(bank, "insight")
    assert counts(first) == {"-39": 28, "40-": 27}
    leave_bank(nodes, [YOUNG[3]])
    second = run(bank, "insight")
    assert np.isnan(counts(second)["-39"])
    assert counts(second)["40-"] == 27
    assert second["result"]["held_back"] == ["-39"]
    (warning,) = second["warnings"]
    assert warning["code"] == TooFewDiffer.code
    assert "fewer than 10 people" in warning["message"]


def test_one_person_less_from_a_bank_that_deviates(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(nodes[0], "insight")
    leave_bank(nodes, [YOUNG[3]])
    with deviating(monkeypatch):
        error = refused(nodes)
    assert TooFewDiffer.code in error.message
    assert "subtracted, the two would speak of those few" in error.message


def test_one_person_less_among_others_who_are_not_shared(nodes: Nodes) -> None:
    """Twelve customers leave with her whom the bank knows to be none of the shop's."""
    bank, _ = nodes
    run(bank, "insight")
    leave_bank(nodes, [YOUNG[3], *phones(5, 29)[::2]])
    second = run(bank, "insight")
    assert np.isnan(counts(second)["-39"])
    assert second["result"]["held_back"] == ["-39"]
    assert counts(second)["40-"] == 27


def test_one_person_more(nodes: Nodes) -> None:
    """Whoever consents during the period is in no run of it."""
    bank, _ = nodes
    leave_bank(nodes, [YOUNG[3]])
    first = run(bank, "insight")
    later = (bank.now() + timedelta(seconds=1)).isoformat(timespec="seconds")
    bank.now = lambda: pd.Timestamp.now("UTC").to_pydatetime() + timedelta(seconds=2)
    table = consent_table(pd.Series([YOUNG[3]]), "shop", "profile", granted_at=later)
    import_consents(bank, table)
    second = run(bank, "insight")
    assert second["gate"]["waiting"] == 1
    assert counts(second) == counts(first) == {"-39": 27, "40-": 27}
    assert total(first, "-39") == total(second, "-39")


def test_one_person_elsewhere(nodes: Nodes) -> None:
    """The bank changes somebody's age between two runs: the period's segmentation stays."""
    bank, _ = nodes
    first = run(bank, "insight")
    table = customers()
    table.loc[table["phone"] == YOUNG[3], "age"] = 52
    table.to_csv(bank.home.path / "customers.csv", index=False)
    second = run(bank, "insight")
    assert Path(first["result_file"]).read_bytes() == Path(second["result_file"]).read_bytes()


def test_union_minus_part(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the segments, then all in one: less the one segment, that leaves the other and one."""
    run(nodes[0], "insight")
    with deviating(monkeypatch) as changed:
        place = periods.BankSide.place

        def united(self: Any, *args: Any) -> Any:
            stays, segment = place(self, *args)
            return stays, np.zeros_like(segment)

        changed.setattr(periods.BankSide, "place", united)
        error = refused(nodes)
    assert SegmentationChanged.code in error.message
    assert "people who were in one segment are in two, or the other way round" in error.message


def test_part_of_a_union(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way round: somebody of one segment is put into the other."""
    run(nodes[0], "insight")
    with deviating(monkeypatch) as changed:
        place = periods.BankSide.place

        def moved(self: Any, *args: Any) -> Any:
            stays, segment = place(self, *args)
            segment = segment.copy()
            segment[np.flatnonzero(segment == 0)[:12]] = 1
            return stays, segment

        changed.setattr(periods.BankSide, "place", moved)
        error = refused(nodes)
    assert SegmentationChanged.code in error.message


def test_another_segmentation(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed with another root than that of the period's first release."""
    run(nodes[0], "insight")
    with deviating(monkeypatch) as changed:
        place = periods.BankSide.place

        def rooted(self: Any, *args: Any) -> Any:
            placed = place(self, *args)
            self.root = bytes(32)
            return placed

        changed.setattr(periods.BankSide, "place", rooted)
        error = refused(nodes)
    assert "its root is another one" in error.message


def test_new_pseudonyms(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the partner would not know anybody again."""
    run(nodes[0], "insight")
    leave_bank(nodes, [YOUNG[3]])
    with deviating(monkeypatch) as changed:
        changed.setattr(periods.BankSide, "scalar", property(lambda self: Scalar.random()))
        error = refused(nodes)
    assert "who were not in the period's first run" in error.message


def changing(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[U8], None]
) -> AbstractContextManager[pytest.MonkeyPatch]:
    """A bank that changes its first segment's points before it sends them."""
    send = insight.send_points

    def sends(channel: Channel, points: U8, *scalar: Scalar, stage: str, **more: Any) -> None:
        if stage == "blind ids":
            points, scalar = product(points, *scalar).copy(), ()
            change(points)
        send(channel, points, *scalar, stage=stage, **more)

    monkeypatch.setattr(insight, "send_points", sends)
    return deviating(monkeypatch)


def test_twins_in_the_place_of_those_who_are_to_leave(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points that begin alike: of other people or of nobody, under the pseudonyms of the first."""
    run(nodes[0], "insight")

    def twins(points: U8) -> None:
        points[:12, 16:31] = np.frombuffer(token_bytes(180), np.uint8).reshape(12, 15)

    with changing(monkeypatch, twins):
        error = refused(nodes)
    assert "12 people are in it who were not in the period's first run" in error.message


def test_somebody_twice(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of one whom the count is to lose."""
    run(nodes[0], "insight")

    def twice(points: U8) -> None:
        points[1, :16] = points[0, :16]

    with changing(monkeypatch, twice):
        error = refused(nodes)
    assert "1 people are in it who were not" in error.message


def test_before_and_after_a_withdrawal_from_the_shop(nodes: Nodes) -> None:
    bank, _ = nodes
    first = run(bank, "insight")
    leave_shop(nodes, [YOUNG[3]])
    second = run(bank, "insight")
    assert np.isnan(counts(second)["-39"])
    assert second["result"]["held_back"] == ["-39"]
    assert total(second, "40-") == total(first, "40-")
    assert second["warnings"][0]["code"] == TooFewDiffer.code


def test_before_and_after_a_withdrawal_among_many_from_the_shop(nodes: Nodes) -> None:
    """So many leave the shop that its own rows differ enough; of the segment it is one."""
    bank, _ = nodes
    run(bank, "insight")
    leave_shop(nodes, [YOUNG[3], *phones(130, 150)])
    assert np.isnan(counts(run(bank, "insight"))["-39"])


def test_one_person_more_at_the_shop(nodes: Nodes) -> None:
    bank, shop = nodes
    leave_shop(nodes, [YOUNG[3]])
    first = run(bank, "insight")
    later = (shop.now() + timedelta(seconds=1)).isoformat(timespec="seconds")
    shop.now = lambda: pd.Timestamp.now("UTC").to_pydatetime() + timedelta(seconds=2)
    table = consent_table(pd.Series([YOUNG[3]]), "bank", "purchases", granted_at=later)
    import_consents(shop, table)
    watch = Watch(shop)
    second = run(bank, "insight")
    assert watch.ended()[0]["report"]["gate"]["waiting"] == 1
    assert counts(second) == counts(first) == {"-39": 27, "40-": 27}


def test_one_after_the_other(nodes: Nodes) -> None:
    """Few at a time, so often that each time many have left since the first run."""
    bank, _ = nodes
    run(bank, "insight")
    for at in range(0, 12, 4):
        leave_bank(nodes, YOUNG[at : at + 4])
        found = counts(run(bank, "insight"))
        assert found["40-"] == 27
        if at < 8:
            assert np.isnan(found["-39"])
    assert found["-39"] == 16, "twelve who left together say nothing of one"
    leave_bank(nodes, [YOUNG[15]])
    assert np.isnan(counts(run(bank, "insight"))["-39"]), "of the last release, too"


def test_an_evaluate_before_and_after_a_withdrawal(nodes: Nodes) -> None:
    """Both groups, as the one that differs would follow from the total."""
    bank, _ = nodes
    first = run(bank, "evaluate")
    assert (first["result"]["good"], first["result"]["bad"]) == (27, 28)
    leave_shop(nodes, [YOUNG[3]])
    second = run(bank, "evaluate")
    assert second["result"]["suppressed"]
    assert second["warnings"][0]["code"] == TooFewDiffer.code
    leave_bank(nodes, [YOUNG[4]])
    third = run(bank, "evaluate")
    assert third["result"]["suppressed"]
    assert third["warnings"][0]["code"] == TooFewDiffer.code


def test_one_label_that_changes(nodes: Nodes) -> None:
    bank, _ = nodes
    first = run(bank, "evaluate")
    table = customers()
    table.loc[table["phone"] == YOUNG[3], "age"] = 52
    table.to_csv(bank.home.path / "customers.csv", index=False)
    second = run(bank, "evaluate")
    assert Path(first["result_file"]).read_bytes() == Path(second["result_file"]).read_bytes()


# What a period does besides


def test_the_same_again_is_the_same(nodes: Nodes) -> None:
    bank, shop = nodes
    first, second = run(bank, "insight"), run(bank, "insight")
    assert Path(first["result_file"]).read_bytes() == Path(second["result_file"]).read_bytes()
    assert "warnings" not in second or not second["warnings"]
    assert audits.verify(bank, offline=True)[0].report.findings == []
    assert audits.verify(shop, offline=True)[0].report.findings == []


def test_the_segmentation_is_logged_before_the_first_run_and_signed_in_each(nodes: Nodes) -> None:
    bank, _ = nodes
    first, second = run(bank, "insight")["run"], run(bank, "insight")["run"]
    kinds = [one["type"] for one in log_of(bank, first)]
    assert kinds.index("segments.fixed") < kinds.index("run.intent")
    assert "segments.fixed" not in [one["type"] for one in log_of(bank, second)]
    fixed = next(one for one in log_of(bank, first) if one["type"] == "segments.fixed")
    assert (fixed["job"], fixed["people"]) == ("insight", 115)
    for node in nodes:
        for one in (first, second):
            with node.reading() as conn:
                intent = receipt.find(conn, one, "intent")
            assert intent is not None
            said = receipt.started(intent)
            assert said["segmentation"] == {
                "period": fixed["period"],
                "job": "insight",
                "root": fixed["root"],
            }
            assert (
                "which of these nameless customers are the same in all runs of a month"
                in said["disclosure"]["shop"]
            )


def test_until_something_is_released_the_segmentation_can_be_fixed_anew(nodes: Nodes) -> None:
    bank, _ = nodes
    with paused(bank, "insight", "add encrypted rows") as (running, pause):
        running.control.cancel()
        pause.go.set()
        running.join()
    assert running.error is not None
    leave_bank(nodes, [YOUNG[3]])
    leave_shop(nodes, [OLD[3]])
    assert counts(run(bank, "insight")) == {"-39": 27, "40-": 26}


def test_a_withdrawal_during_a_run_ends_in_a_run_without_the_person(nodes: Nodes) -> None:
    bank, _ = nodes
    with paused(bank, "insight", "add encrypted rows") as (running, pause):
        leave_shop(nodes, [YOUNG[3]])
        pause.go.set()
        running.join(60)
    assert running.error is None
    assert running.report is not None
    assert counts(running.report) == {"-39": 27, "40-": 27}


def test_a_run_that_fails_after_the_release_counts_as_released(nodes: Nodes) -> None:
    """A bank whose node falls over the moment it has read the answer."""

    def fall(run: str, stage: str, done: int, total: int) -> None:
        if (stage, done) == ("release", 1):
            raise OSError

    bank, shop = nodes
    watch = Watch(shop)
    with pytest.raises(HomeUnusable):
        run(bank, "insight", fall)
    watch.ended()
    leave_shop(nodes, [YOUNG[3]])
    assert run(bank, "insight")["result"]["held_back"] == ["-39"]


def test_a_segment_that_the_shop_has_not_kept_yet_comes_later(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bank had released, the shop had not; so the bank held back what the shop did not know."""
    bank, _ = nodes
    with monkeypatch.context() as changed:
        record = periods.PartnerSide.record

        def fail(self: Any, *args: Any) -> None:
            if isinstance(self, periods.PartnerSide):
                raise HomeUnusable("The disk is full.", "")
            record(self, *args)

        changed.setattr(periods._Side, "record", fail)
        with pytest.raises(ConcordatError):
            run(bank, "insight")
    leave_bank(nodes, YOUNG[:1])
    assert run(bank, "insight")["result"]["held_back"] == ["-39"]
    leave_bank(nodes, YOUNG[1:13])
    assert counts(run(bank, "insight")) == {"-39": 15, "40-": 27}


def test_pseudonyms_outlive_a_restart(nodes: Nodes) -> None:
    bank, _ = nodes
    first = run(bank, "insight")
    reopened = Node.open(Home(bank.home.path))
    assert counts(run(reopened, "insight")) == counts(first)


def test_a_secret_that_is_lost_ends_the_runs_of_its_period(nodes: Nodes) -> None:
    bank, _ = nodes
    run(bank, "insight")
    (secret,) = (bank.home.path / "keys").glob("period.*")
    assert secret.stat().st_mode & 0o777 == 0o600
    secret.unlink()
    with pytest.raises(HomeUnusable):
        run(bank, "insight")


def test_the_next_period_begins_anew_and_the_last_is_forgotten(nodes: Nodes) -> None:
    bank, _ = nodes
    run(bank, "insight")
    leave_bank(nodes, [YOUNG[3]])
    before = {
        node: {path.name for path in (node.home.path / "keys").glob("period.*")} for node in nodes
    }
    for node in nodes:
        node.now = lambda: pd.Timestamp.now("UTC").to_pydatetime() + timedelta(days=32)
    assert counts(run(bank, "insight")) == {"-39": 27, "40-": 27}
    for node in nodes:
        left = {path.name for path in (node.home.path / "keys").glob("period.*")}
        assert len(left) == 1
        assert not left & before[node]
        with node.reading() as conn:
            rows = conn.execute(differencing.periods.select()).all()
            parts = conn.execute(differencing.period_segments.select()).all()
        assert len(rows) == 1
        assert {part.period for part in parts} == {rows[0].id}


def test_a_period_that_is_over_is_forgotten_without_a_run(nodes: Nodes) -> None:
    _, shop = nodes
    run(nodes[0], "insight")
    # As a run leaves it that ends before the store has a row.
    (secret,) = (shop.home.path / "keys").glob("period.*")
    shutil.copy(secret, secret.with_name("period.another.insight.2026-10"))
    shop.now = lambda: pd.Timestamp.now("UTC").to_pydatetime() + timedelta(days=33)
    periods.expire(shop)
    with shop.reading() as conn:
        assert not conn.execute(differencing.period_segments.select()).all()
    assert not list((shop.home.path / "keys").glob("period.*"))


def test_another_division_waits_for_the_next_period(nodes: Nodes) -> None:
    run(nodes[0], "insight")
    propose(nodes, 3, ('"-39", upper: 39', '"-29", upper: 29'))
    with pytest.raises(SegmentationChanged, match="divides customers in another way"):
        run(nodes[0], "insight")


# Figures


def cells(node: Node, report: dict[str, Any]) -> list[tuple[int, int]]:
    found = [one for one in log_of(node, report["run"]) if one["type"] == "cells.released"]
    return [(one["segments"], one["cells"]) for one in found]


def left(node: Node) -> int | None:
    with node.reading() as conn:
        agreement = agreements.in_force(node, "offers")
        return differencing.cells_left(conn, agreement, now=node.now())


def test_both_count_what_is_released_before_it_is(nodes: Nodes) -> None:
    """Sum and mean of two segments; five bins and that of missing values, of two groups."""
    bank, shop = nodes
    first = run(bank, "insight")
    for node in nodes:
        assert cells(node, first) == [(2, 4)]
        kinds = [one["type"] for one in log_of(node, first["run"])]
        assert kinds.index("cells.released") < kinds.index("run.release")
    second = run(bank, "evaluate")
    assert cells(bank, second) == cells(shop, second) == [(2, 10)]
    assert (left(bank), left(shop)) == (86, 86)
    leave_shop(nodes, [YOUNG[3]])
    assert cells(shop, run(bank, "insight")) == [(1, 2)], "what is held back is not released"


def test_beyond_the_cap_nothing_without_noise_is_released(nodes: Nodes) -> None:
    bank, shop = nodes
    propose(nodes, 3, ("cells: 100", "cells: 7"))
    run(bank, "insight")
    with pytest.raises(CellsReleased) as error:
        run(bank, "insight")
    assert "3 are left, and this run would take 4" in error.value.message
    run(bank, "overlap")
    propose(
        nodes,
        4,
        ("cells: 100", "cells: 4"),
        ("release: exact", "release: noised"),
        (
            "limits:",
            "noise: {epsilon: 1, delta: 1.0e-9, budget: {epsilon: 9, per: month}}\nlimits:",
        ),
    )
    run(bank, "insight")
    assert left(shop) == 0


def test_the_shop_keeps_an_account_of_its_own(nodes: Nodes) -> None:
    bank, shop = nodes
    propose(nodes, 3, ("cells: 100", "cells: 7"))
    with shop.writing() as conn:
        agreement = agreements.in_force(shop, "offers")
        asked = session.Job.from_yaml(job("insight"))
        differencing.count_cells(
            conn, shop.log, agreement, asked, run="a" * 32, segments=2, now=shop.now()
        )
    error = refused(nodes)
    assert CellsReleased.code in error.message
    assert left(bank) == 3, "the bank's node had released before it heard"


def test_the_preview_says_how_many_are_left(nodes: Nodes, tmp_path: Path) -> None:
    path, out = tmp_path / "job.yaml", StringIO()
    path.write_text(job("insight"))
    admin.run_job(nodes[0].home, path, None, Console(file=out, width=200))
    assert "figures: 100 of 100 without noise are left this month" in out.getvalue()
