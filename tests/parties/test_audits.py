"""An officer's verdict on a whole node: the store, the partners pinned in it, and its witnesses."""

import json
import sqlite3
from pathlib import Path

import pytest
from conftest import make
from ready import job, run, until
from rich.console import Console
from typer.testing import CliRunner

from compliance import register
from compliance.agreement import Job
from compliance.disclosure import disclosure
from compliance.errors import AgreementRefusal, NotInLog, StoreDamaged, StoreMissing
from compliance.store import open_store
from parties import audits, session
from parties.cli import app
from parties.errors import Cancelled, UnknownRun
from parties.node import Node
from protos.errors import ConcordatError


def tamper(node: Node, statement: str, *values: object) -> None:
    """Change the store behind the program's back."""
    with sqlite3.connect(node.home.path / "concordat.db") as conn:
        assert conn.execute(statement, values).rowcount > 0
    conn.close()


def findings(node: Node) -> list[str]:
    return audits.verify(node, offline=True)[0].report.findings


def test_a_new_node_passes(bank: Node) -> None:
    verdict, silent = audits.verify(bank)
    assert verdict.ok, verdict.report.findings
    assert silent == []
    assert "1 entries is whole and cosigned by nobody yet" in str(verdict)


def test_a_store_that_was_deleted_does_not_pass(bank: Node) -> None:
    for path in bank.home.path.glob("concordat.db*"):
        path.unlink()
    with pytest.raises(StoreMissing):
        Node.open(bank.home)
    open_store(bank.home.store_url(bank.config), create=True)
    assert findings(Node.open(bank.home)) == [
        "entry 0: the log does not begin with the making of this node"
    ]


def test_partners_that_serve_are_asked(paired: tuple[Node, Node]) -> None:
    bank, _ = paired
    verdict, silent = audits.verify(bank)
    assert verdict.ok
    assert silent == []
    assert verdict.report.cosigned == {"shop.concordat/witness": 2}
    assert audits.verify(bank, offline=True)[1] == ["shop"]


@pytest.mark.parametrize("field", ["address", "authority_pem", "signing_key", "log_key", "sector"])
def test_whoever_is_pinned_is_whom_the_log_says_was_paired(
    paired: tuple[Node, Node], field: str
) -> None:
    bank, shop = paired
    changed = shop.identity.to_json()
    changed[field] = bank.identity.to_json()[field]
    tamper(bank, "UPDATE peers SET identity = ?", json.dumps(changed))
    assert any(found.startswith("partner shop: ") for found in findings(bank))


PINNED = "E707 What was pinned of the partner 'shop' was changed."


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE peers SET identity = '{'", PINNED),
        ("UPDATE peers SET identity = x'00'", PINNED),
        ("UPDATE peers SET identity = '[]'", PINNED),
        ("DELETE FROM peers", "it was paired and is missing"),
        ("UPDATE peers SET name = 'store'", "it was paired and is missing"),
    ],
)
def test_changed_rows_of_partners_are_named(
    paired: tuple[Node, Node], statement: str, finding: str
) -> None:
    bank, _ = paired
    tamper(bank, statement)
    assert f"partner shop: {finding}" in findings(bank)


def test_a_stranger_in_the_table_is_named(paired: tuple[Node, Node], tmp_path: Path) -> None:
    bank, _ = paired
    stranger = json.dumps(make(tmp_path, "stranger").identity.to_json())
    tamper(bank, "INSERT INTO peers VALUES ('stranger', ?, '2026')", stranger)
    assert findings(bank) == ["partner stranger: it is not whom the log says was paired"]


def test_a_changed_partner_is_an_error_with_a_number(paired: tuple[Node, Node]) -> None:
    bank, _ = paired
    tamper(bank, "UPDATE peers SET identity = '{'")
    for look in (bank.peers, lambda: bank.peer("shop")):
        with pytest.raises(StoreDamaged, match="'shop'"):
            look()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE log_entries SET leaf_hash = 'text'",
        "UPDATE log_entries SET leaf = 'text'",
        'DELETE FROM log_entries WHERE "index" = 0',
        "INSERT INTO log_nodes VALUES (8, 0, zeroblob(32))",
        "UPDATE checkpoints SET note = x'00'",
    ],
)
def test_a_damaged_log_gets_a_verdict_although_nobody_can_be_asked(
    paired: tuple[Node, Node], statement: str
) -> None:
    bank, _ = paired
    tamper(bank, statement)
    assert not audits.verify(bank)[0].ok
    audits.print_log(bank, Console(quiet=True), as_json=False)


def test_a_witness_that_refuses_is_no_finding(paired: tuple[Node, Node]) -> None:
    bank, shop = paired
    tamper(shop, "DELETE FROM peers")
    verdict, silent = audits.verify(bank)
    assert verdict.ok
    assert silent == ["shop"]


def test_an_old_copy_of_the_store_is_found(paired: tuple[Node, Node], tmp_path: Path) -> None:
    bank, _ = paired
    with sqlite3.connect(bank.home.path / "concordat.db") as store:
        old = sqlite3.connect(tmp_path / "old.db")
        store.backup(old)
    bank.renew_certificate()
    assert audits.verify(bank)[0].ok
    with sqlite3.connect(bank.home.path / "concordat.db") as store:
        old.backup(store)
    (finding,) = audits.verify(bank)[0].report.findings
    assert finding.startswith("witness shop: E522 A witness has seen 3 entries of this log")


# A receipt in words


def test_a_receipt_is_told_in_the_words_of_the_agreement(lasting: tuple[Node, Node]) -> None:
    bank, shop = lasting
    report = run(bank, "intersect")
    with bank.reading() as conn:
        agreement = register.find(conn, "offers").agreement
    learned = disclosure(agreement, Job.from_yaml(job("intersect")))
    for node in (bank, shop):
        until(lambda node=node: audits.show_receipt(node, report["run"])[0]["witnessed"])
        told, words = audits.show_receipt(node, report["run"][:8])
        assert told["learned"] == learned
        for item in (*learned["bank"], *learned["shop"]):
            assert f"  - {item}" in words
        text = "\n".join(words)
        assert "bank put in 115 people (profile)." in words
        assert "shop put in 115 people (purchases)." in words
        assert "Left out here by the gate: no consent: 5." in words
        assert "The intent is signed by bank and shop." in words
        assert "The completion is signed by bank and shop." in words
        assert "agreement offers, version 1, signed by bank and shop" in text
        assert f"the first {told['witnessed'][0]['size']:,}" in text
        entries = told["log"]["entries"]
        assert entries["intent"] < entries["release"] < entries["completion"]
        (at,) = [one["witness"] for one in told["witnessed"]]
        assert at == f"{'shop' if node is bank else 'bank'}.concordat/witness"


def test_of_a_run_without_receipts_a_numbered_error_is_said(lasting: tuple[Node, Node]) -> None:
    bank, _ = lasting
    with pytest.raises(UnknownRun):
        audits.show_receipt(bank, "0123abc")
    with pytest.raises(AgreementRefusal):
        run(bank, "overlap", purpose="advertising")
    control = session.Control()
    control.cancel()
    with pytest.raises(Cancelled):
        session.run_job(bank, job("overlap"), lambda *_: None, control)
    (cancelled, *_) = [one["id"] for one in bank.runs() if one["state"] == "cancelled"]
    with pytest.raises(NotInLog):
        audits.show_receipt(bank, cancelled)


def test_a_receipt_that_was_changed_is_not_told(ready: tuple[Node, Node]) -> None:
    bank, _ = ready
    report = run(bank, "overlap")
    tamper(bank, "UPDATE receipts SET envelope = CAST(replace(envelope, 'A', 'B') AS BLOB)")
    with pytest.raises(ConcordatError):
        audits.show_receipt(bank, report["run"])


def test_the_command_says_what_the_account_says(lasting: tuple[Node, Node]) -> None:
    bank, _ = lasting
    report = run(bank, "overlap")
    until(lambda: audits.show_receipt(bank, report["run"])[0]["witnessed"])
    told, words = audits.show_receipt(bank, report["run"])
    said = CliRunner().invoke(app, ["audit", "receipt", str(bank.home.path), report["run"]])
    assert said.output.splitlines() == words
    with_json = CliRunner().invoke(
        app, ["audit", "receipt", str(bank.home.path), report["run"], "--json"]
    )
    assert json.loads(with_json.output) == told
    unknown = CliRunner().invoke(app, ["audit", "receipt", str(bank.home.path), "ff00"])
    assert (unknown.exit_code, "E623" in unknown.output) == (1, True)
