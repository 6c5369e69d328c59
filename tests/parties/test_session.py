"""Whole runs between two real nodes: results, receipts, and what keeps a run from starting."""

import hashlib
import json
import sqlite3
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
from ready import (
    AGREEMENT,
    ASKED_CUSTOMERS,
    ASKED_SHOPPERS,
    SHARED,
    Watch,
    agree,
    consent_table,
    customers,
    import_consents,
    job,
    log_of,
    paused,
    phones,
    run,
    run_threads,
    shoppers,
    until,
    withdraw,
)
from rich.console import Console
from rogue import Rogue, as_bank, as_partner, edit, vanish

from compliance import receipt
from compliance.log import tree_size
from parties import admin, agreements, audits, session
from parties.node import Node
from protos.errors import ConcordatError

Nodes = tuple[Node, Node]


def expected_insight() -> dict[str, tuple[int, int]]:
    """Per age band: how many are shared, and the sum of what they spent."""
    both = customers().merge(shoppers(), on="phone")
    both = both[both["phone"].isin(SHARED)]
    band = both["age"].map(lambda age: "-39" if age <= 39 else "40-")
    grouped = both["spend"].groupby(band)
    return {str(name): (len(values), int(values.sum())) for name, values in grouped}


# What comes out


def test_overlap_counts_who_is_shared(lasting: Nodes) -> None:
    bank, _ = lasting
    report = run(bank, "overlap")
    assert report["result"] == {
        "count": len(SHARED),
        "partner_size": ASKED_SHOPPERS[1] - ASKED_SHOPPERS[0],
    }
    assert report["state"] == "completed"
    assert report["gate"] == {
        "eligible": ASKED_CUSTOMERS[1] - ASKED_CUSTOMERS[0],
        "excluded": {"no consent": 5},
    }


def test_insight_is_exact(lasting: Nodes) -> None:
    bank, _ = lasting
    found = pd.read_csv(run(bank, "insight")["result_file"]).set_index("age")
    for band, (count, total) in expected_insight().items():
        assert found.loc[band, "count"] == count
        assert found.loc[band, "sum"] == total
        assert found.loc[band, "mean"] == total / count
    assert len(found) == 2


def test_intersect_names_the_banks_own(lasting: Nodes) -> None:
    bank, shop = lasting
    watch = Watch(shop)
    report = run(bank, "intersect")
    assert Path(report["result_file"]).read_text().split() == ["phone", *SHARED]
    (theirs,) = watch.ended()
    assert not {"result", "result_file"} & theirs["report"].keys()
    assert not (shop.home.run_folder(report["run"]) / "intersect.csv").exists()


def test_the_partner_learns_ids_where_the_agreement_says_so(ready: Nodes) -> None:
    bank, shop = ready
    agree(bank, shop, version=2, partner_learns="ids")
    watch = Watch(shop)
    report = run(bank, "intersect")
    (theirs,) = watch.ended()
    for known in (report, theirs["report"]):
        assert known["result"] == {"count": len(SHARED)}
        assert Path(known["result_file"]).read_text().split() == ["phone", *SHARED]
    folder = shop.home.run_folder(report["run"])
    assert {path.name for path in folder.iterdir()} == {
        "intersect.csv",
        "tokens.csv",
        "intent.json",
        "receipt.json",
    }


# Receipts


@pytest.mark.parametrize("kind", ["overlap", "intersect", "insight"])
def test_both_sides_keep_the_same_receipt(lasting: Nodes, kind: str) -> None:
    bank, shop = lasting
    watch = Watch(shop)
    report = run(bank, kind)
    (theirs,) = watch.ended()
    envelope = Path(report["receipt_file"]).read_bytes()
    assert Path(theirs["report"]["receipt_file"]).read_bytes() == envelope
    assert audits.compare(bank, Path(theirs["report"]["receipt_file"])) == (report["run"], [])
    assert theirs["report"]["transcript"] == report["transcript"]
    for node in lasting:
        entries = log_of(node, report["run"])
        assert [entry["type"] for entry in entries] == [
            "run.intent",
            "run.release",
            "run.completion",
        ]
        assert entries[2]["receipt"] == hashlib.sha256(envelope).hexdigest()
    assert log_of(bank, report["run"])[0]["receipt"] == log_of(shop, report["run"])[0]["receipt"]


def test_the_receipt_commits_to_the_result(lasting: Nodes) -> None:
    bank, _ = lasting
    report = run(bank, "overlap")
    folder = bank.home.run_folder(report["run"])
    salt = bytes.fromhex((folder / "salt").read_text())
    digest = hashlib.sha256(salt + (folder / "overlap.json").read_bytes()).hexdigest()
    payload = json.loads(
        agreements.Envelope.from_json((folder / "receipt.json").read_bytes()).payload
    )
    assert payload["predicate"]["commitment"] == digest
    assert payload["predicate"]["transcript"] == report["transcript"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())


def test_the_intent_is_in_both_logs_before_any_data(lasting: Nodes) -> None:
    bank, shop = lasting
    with paused(bank, "overlap", "hash ids") as (running, _):
        (name,) = bank.controls
        for node in lasting:
            assert [entry["type"] for entry in log_of(node, name)] == ["run.intent"]
        assert shop.find_run(name)["state"] == "running"
    assert running.report is not None


def test_both_logs_verify_and_each_has_cosigned_the_others(lasting: Nodes) -> None:
    bank, _ = lasting
    run(bank, "overlap")
    for node in lasting:
        verdict, not_asked = audits.verify(node)
        assert verdict.ok, verdict.report.findings
        assert not not_asked


def test_values_that_are_no_numbers_or_out_of_bounds_are_counted(ready: Nodes) -> None:
    """And leave the feature only: the rows count all the same."""
    bank, shop = ready
    table = shoppers().astype(str)
    expected = customers().merge(shoppers(), on="phone")
    expected = expected[expected["phone"].isin(SHARED)].set_index("phone")["spend"].astype(float)
    wrong = {"": None, "NaN": None, "many": None, "inf": None, "-5": 0.0, "1e9": 1000.0}
    for phone, (text, counts) in zip(SHARED, wrong.items(), strict=False):
        table.loc[table["phone"] == phone, "spend"] = text
        expected[phone] = counts
    table.to_csv(shop.home.path / "shoppers.csv", index=False)
    watch = Watch(shop)
    rows = run(bank, "insight")["result"]["table"]
    assert sum(row["count"] for row in rows) == len(SHARED) - 4
    total = sum(row["count"] * row["mean"] for row in rows)
    assert total == pytest.approx(expected.clip(0, 1000).sum())
    (theirs,) = watch.ended()
    assert theirs["report"]["values"] == {"spend": {"missing": 3, "text": 1, "clipped": 2}}


# Consent that ends while the run is under way


def test_a_withdrawal_during_the_run_is_honoured_at_release(ready: Nodes) -> None:
    """At either side: nothing is released, and the run is run again without the person."""
    bank, shop = ready
    gone = iter([(bank, "shop", "profile", 70), (shop, "bank", "purchases", 71)])

    def listen(run: str, stage: str, done: int, total: int) -> None:
        if stage == "blind ids" and done == 0 and (next_one := next(gone, None)):
            node, recipient, category, number = next_one
            withdraw(node, phones(number, number + 1), recipient, category)

    ours, theirs = Watch(bank), Watch(shop)
    report = run(bank, "overlap", listen)
    assert report["result"]["count"] == len(SHARED) - 2
    assert sorted(row["state"] for row in ours.ended(3)) == ["completed", "refused", "refused"]
    assert sorted(row["state"] for row in theirs.ended(3)) == ["completed", "refused", "refused"]
    refused = [row for row in ours.ended(3) if row["state"] == "refused"]
    assert {row["report"]["error"]["code"] for row in refused} == {"E402", "E209"}
    for row in refused:
        assert "result" not in row["report"]
        for node in ready:
            assert "run.completion" not in {entry["type"] for entry in log_of(node, row["id"])}


def test_a_run_is_not_run_for_ever(ready: Nodes) -> None:
    bank, _ = ready
    numbers = iter(range(70, 90))

    def listen(run: str, stage: str, done: int, total: int) -> None:
        if stage == "blind ids" and done == 0:
            number = next(numbers)
            withdraw(bank, phones(number, number + 1), "shop", "profile")

    watch = Watch(bank)
    with pytest.raises(ConcordatError, match="Consent ended for 1") as refused:
        run(bank, "overlap", listen)
    assert refused.value.code == "E402"
    assert len(watch.ended(3)) == 3


def test_consent_that_expires_during_the_run_counts_as_ended(ready: Nodes) -> None:
    bank, _ = ready
    soon = (bank.now() + pd.Timedelta(seconds=60)).isoformat(timespec="seconds")
    others = consent_table(phones(0, 5), "shop", "profile", expires_at=soon)
    import_consents(bank, others)
    clock = bank.now

    def listen(run: str, stage: str, done: int, total: int) -> None:
        if stage == "blind ids":
            bank.now = lambda: clock() + pd.Timedelta(seconds=90)

    watch = Watch(bank)
    report = run(bank, "overlap", listen)
    assert report["gate"]["excluded"] == {"expired": 5}
    assert len(watch.ended(2)) == 2


@pytest.mark.parametrize("side", ["bank", "shop"])
def test_nobody_eligible_is_told_as_a_number_only(ready: Nodes, side: str) -> None:
    bank, shop = ready
    if side == "bank":
        withdraw(bank, phones(*ASKED_CUSTOMERS), "shop", "profile")
    else:
        withdraw(shop, phones(*ASKED_SHOPPERS), "bank", "purchases")
    ours, theirs = Watch(bank), Watch(shop)
    with pytest.raises(ConcordatError):
        run(bank, "overlap")
    (own,), (other,) = ours.ended(), theirs.ended()
    if side == "shop":
        own, other = other, own
    assert own["report"]["error"]["code"] == "E401"
    assert "withdrawn: 115" in own["report"]["error"]["message"]
    assert own["state"] == other["state"] == "refused"
    assert other["report"]["error"] == {
        "code": "E209",
        "message": "The other side ended the run (E401): "
        "It cannot go on, for a reason of its own (E401).",
    }


# What no agreement allows


def refusal(bank: Node, kind: str = "overlap", **more: str) -> ConcordatError:
    """What keeps the job from starting; there is no run then, but the log knows."""
    watch = Watch(bank)
    with pytest.raises(ConcordatError) as refused:
        run(bank, kind, **more)
    assert not watch.new()
    with bank.reading() as conn:
        last = [json.loads(entry.leaf) for entry in bank.log.entries(conn)][-1]
    assert (last["type"], last["error"]) == ("job.refused", refused.value.code)
    return refused.value


def test_another_purpose_is_refused_by_its_clause(lasting: Nodes) -> None:
    error = refusal(lasting[0], purpose="advertising")
    assert error.code == "E310"
    assert "by purpose" in error.message


def test_an_unknown_agreement_is_refused(lasting: Nodes) -> None:
    assert refusal(lasting[0], agreement="nothing").code == "E304"


def test_an_expired_agreement_is_refused(ready: Nodes) -> None:
    bank, _ = ready
    clock = bank.now
    bank.now = lambda: clock() + pd.Timedelta(days=4000)
    error = refusal(bank)
    assert error.code == "E310"
    assert "valid.until" in error.message


def test_an_unsigned_agreement_is_refused(paired: Nodes) -> None:
    bank, _ = paired
    path = bank.home.path / "agreement.yaml"
    path.write_text(AGREEMENT.format(version=1, partner_learns="size"))
    agreements.propose(bank, path)
    assert refusal(bank).code == "E305"


@pytest.mark.parametrize("damage", ["signature", "document"])
def test_a_broken_agreement_is_refused_at_either_side(ready: Nodes, damage: str) -> None:
    bank, shop = ready

    def spoil(node: Node) -> None:
        with node.writing() as conn:
            (data,) = conn.exec_driver_sql("SELECT envelope FROM agreements").one()
            if damage == "signature":
                envelope = agreements.Envelope.from_json(data)
                names = sorted(envelope.signatures)
                swapped = dict(
                    zip(names, [envelope.signatures[n] for n in names[::-1]], strict=True)
                )
                data = agreements.Envelope(
                    envelope.payload_type, envelope.payload, swapped
                ).to_json()
            else:
                data = data.replace(b"A", b"B", 1)
            conn.exec_driver_sql("UPDATE agreements SET envelope = ?", (data,))

    spoil(shop)
    ours, theirs = Watch(bank), Watch(shop)
    with pytest.raises(ConcordatError, match="E306"):
        run(bank, "overlap")
    assert ours.ended()[0]["state"] == "refused"
    assert theirs.ended()[0]["report"]["error"]["code"] == "E306"
    spoil(bank)
    assert refusal(bank).code == "E306"


def test_the_partner_does_not_start_jobs(lasting: Nodes) -> None:
    error = refusal(lasting[1])
    assert error.code == "E624"
    assert "bank" in error.next_step


# One run at a time, and its cancelling


def test_a_second_job_has_to_wait(lasting: Nodes) -> None:
    bank, _ = lasting
    with paused(bank, "overlap", "hash ids") as (running, _):
        with pytest.raises(ConcordatError, match="bank's node is in another run") as busy:
            run(bank, "overlap")
        assert busy.value.code == "E621"
    assert running.report is not None
    assert run(bank, "overlap")["state"] == "completed"


def test_a_busy_partner_says_so(lasting: Nodes) -> None:
    bank, shop = lasting
    watch = Watch(bank)
    with (
        shop.one_run(),
        pytest.raises(ConcordatError, match=r"E621.*shop's node is in another run"),
    ):
        run(bank, "overlap")
    assert watch.ended()[0]["state"] == "failed"
    assert run(bank, "overlap")["state"] == "completed"


@pytest.mark.parametrize("stage", ["read table", "sign intent", "blind ids", "receive own ids"])
def test_cancelling_ends_both_sides(lasting: Nodes, stage: str) -> None:
    bank, shop = lasting
    ours, theirs = Watch(bank), Watch(shop)
    with paused(bank, "overlap", stage) as (running, _):
        running.control.cancel()
    assert running.error is not None
    assert running.error.code == "E622"
    (own,), (other,) = ours.ended(), theirs.ended()
    assert own["report"]["error"]["code"] == "E622"
    assert other["report"]["error"]["message"].startswith("The other side ended the run (E622)")
    assert own["state"] == other["state"] == "cancelled"
    assert other["report"]["error"]["code"] == "E209"
    for node in lasting:
        assert log_of(node, own["id"])[-1]["type"] == "run.ended"
    until(lambda: not run_threads())
    assert run(bank, "overlap")["state"] == "completed"


def test_the_partner_can_cancel_too(lasting: Nodes) -> None:
    bank, shop = lasting
    ours, theirs = Watch(bank), Watch(shop)
    with paused(bank, "insight", "blind ids") as (running, _):
        (name,) = bank.controls
        assert shop.cancel(name[:6]) == name
        (other,) = theirs.ended()
    assert running.error is not None
    assert "E622" in running.error.message
    assert other["state"] == ours.ended()[0]["state"] == "cancelled"
    assert run(bank, "overlap")["state"] == "completed"


def test_a_job_cancelled_before_it_starts_does_not_run(lasting: Nodes) -> None:
    bank, _ = lasting
    control = session.Control()
    control.cancel()
    with pytest.raises(ConcordatError) as cancelled:
        session.run_job(bank, job("overlap"), lambda *_: None, control)
    assert cancelled.value.code == "E622"


# What the other side is told


def test_what_goes_wrong_here_is_no_business_of_the_others(ready: Nodes) -> None:
    bank, shop = ready
    table = shop.home.path / "shoppers.csv"
    rows = table.read_text()
    failures = {
        "E110": table.unlink,
        "E113": lambda: table.write_bytes(b"phone,spend\n\xff\xfe,1\n"),
        "E117": lambda: table.write_text(rows + rows.split("\n")[1] + "\n"),
        "E114": lambda: table.write_text(rows.replace("phone", "mobile")),
    }
    for code, break_it in failures.items():
        break_it()
        watch = Watch(shop)
        with pytest.raises(ConcordatError) as told:
            run(bank, "overlap")
        assert told.value.message == (
            f"The other side ended the run ({code}): "
            f"It cannot go on, for a reason of its own ({code})."
        )
        (own,) = watch.ended()
        assert own["report"]["error"]["code"] == code
        assert own["state"] == "failed"
    table.write_text(rows)
    assert run(bank, "overlap")["state"] == "completed"


# No result without its receipt


def test_ids_are_not_kept_from_a_run_that_the_bank_leaves(ready: Nodes) -> None:
    bank, shop = ready
    agree(bank, shop, version=2, partner_learns="ids")
    watch = Watch(shop)
    with as_bank(bank, Rogue("commitment", vanish)), pytest.raises(ConcordatError):
        run(bank, "intersect")
    (theirs,) = watch.ended()
    assert theirs["state"] == "failed"
    assert "result" not in theirs["report"]
    assert not list(shop.home.run_folder(theirs["id"]).iterdir())


def test_a_home_that_cannot_be_written_to_is_said_to_be(lasting: Nodes) -> None:
    bank, shop = lasting

    def listen(run: str, stage: str, done: int, total: int) -> None:
        if stage == "sign completion":
            (bank.home.path / "runs" / run).touch()  # where the folder should be

    ours, theirs = Watch(bank), Watch(shop)
    with pytest.raises(ConcordatError) as failed:
        run(bank, "overlap", listen)
    assert failed.value.code == "E631"
    assert ours.ended()[0]["state"] == "failed"
    assert "E631" in theirs.ended()[0]["report"]["error"]["message"]
    assert run(bank, "overlap")["state"] == "completed"


def as_if_killed(node: Node, run: str) -> None:
    """The run's record and files as they are just before it ends."""
    folder = node.home.run_folder(run)
    for name in ("intent.json", "receipt.json"):
        (folder / name).unlink(missing_ok=True)
    for path in folder.iterdir():
        path.rename(path.with_name(f"{path.name}.unreleased"))
    with node.writing() as conn:
        conn.exec_driver_sql(
            "UPDATE runs SET state = 'running', ended_at = NULL, report = NULL WHERE id = ?", (run,)
        )


def test_a_result_whose_completion_is_logged_is_released_after_a_restart(ready: Nodes) -> None:
    bank, _ = ready
    report = run(bank, "overlap")
    files = {path.name: path.read_bytes() for path in bank.home.run_folder(report["run"]).iterdir()}
    as_if_killed(bank, report["run"])
    bank.after_restart()
    found = bank.find_run(report["run"])
    assert found["state"] == "completed"
    assert found["report"] == {
        name: report[name] for name in ("intent_file", "receipt_file", "result_file")
    }
    after = bank.home.run_folder(report["run"]).iterdir()
    assert {path.name: path.read_bytes() for path in after} == files
    assert files.keys() == {"overlap.json", "salt", "intent.json", "receipt.json"}


def test_a_release_that_was_cut_short_is_finished_after_a_restart(ready: Nodes) -> None:
    bank, _ = ready
    report = run(bank, "overlap")
    as_if_killed(bank, report["run"])
    folder = bank.home.run_folder(report["run"])
    (folder / "overlap.json.unreleased").rename(folder / "overlap.json")
    (folder / "receipt.json.partial").write_text("{")
    bank.after_restart()
    found = bank.find_run(report["run"])["report"]
    assert found["result_file"] == report["result_file"]
    assert {path.name for path in folder.iterdir()} == {
        "overlap.json",
        "salt",
        "intent.json",
        "receipt.json",
    }


def test_a_completion_can_be_checked_from_files(lasting: Nodes) -> None:
    bank, _ = lasting
    folder = bank.home.run_folder(run(bank, "overlap")["run"])
    intent, completion = (
        agreements.Envelope.from_json((folder / name).read_bytes())
        for name in ("intent.json", "receipt.json")
    )
    receipt.check(completion, intent, bank.signing_keys())


def test_a_witness_that_disputes_the_log_is_a_warning_beside_the_result(ready: Nodes) -> None:
    """The run is over and the result stands; that the log was rolled back is said all the same."""
    bank, _ = ready
    with sqlite3.connect(bank.home.path / "concordat.db") as store:
        old = sqlite3.connect(":memory:")
        store.backup(old)
        run(bank, "overlap")
        old.backup(store)
    report = run(bank, "overlap")
    assert report["state"] == "completed"
    assert report["result"]["count"] == len(SHARED)
    assert [warning["code"] for warning in report["warnings"]] == ["E523"]
    said = StringIO()
    admin.print_report(report, Console(file=said, width=200))
    assert "E523" in said.getvalue() and "its result stands" in said.getvalue()
    assert report["result_file"] in said.getvalue()


def test_attempts_are_not_put_on_record_without_end(
    ready: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, shop = ready
    monkeypatch.setattr(shop.config.limits, "attempts_per_day", 3)
    refused = Rogue("hello", edit(job=b"{}"), number=1)
    for _ in range(2):
        with as_bank(bank, Rogue("hello", edit(job=b"{}"))), pytest.raises(ConcordatError):
            run(bank, "overlap")
    assert run(bank, "overlap")["state"] == "completed"
    until(lambda: all(row["ended_at"] for row in shop.runs()))
    with shop.reading() as conn:
        before = tree_size(conn)
    for attack in (refused, Rogue("ready", edit(statement=""))):
        with (
            as_bank(bank, attack),
            pytest.raises(ConcordatError, match="bank has opened 3 runs within a day"),
        ):
            run(bank, "overlap")
    with shop.reading() as conn:
        assert tree_size(conn) == before
    assert len(shop.runs()) == 3
    clock = shop.now
    shop.now = bank.now = lambda: clock() + pd.Timedelta(days=1, minutes=1)
    assert run(bank, "overlap")["state"] == "completed"


def test_a_result_whose_completion_is_not_logged_is_discarded(ready: Nodes) -> None:
    bank, _ = ready
    watch = Watch(bank)
    with as_partner(Rogue("signature", vanish, number=2)), pytest.raises(ConcordatError):
        run(bank, "overlap")
    (lost,) = watch.ended()
    (bank.home.run_folder(lost["id"]) / "overlap.json").write_text("{}")
    as_if_killed(bank, lost["id"])
    bank.after_restart()
    found = bank.find_run(lost["id"])
    assert found["state"] == "interrupted"
    assert found["report"]["error"]["code"] == "E625"
    assert not list(bank.home.run_folder(lost["id"]).iterdir())
    assert log_of(bank, lost["id"])[-1]["state"] == "interrupted"
