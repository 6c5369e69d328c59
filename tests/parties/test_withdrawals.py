"""Who withdraws is taken out of what the partner holds in clear, and the partner proves it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from secrets import token_hex

import pytest
from conftest import make
from ready import (
    SHARED,
    agree,
    job,
    make_ready,
    pair,
    paused,
    phones,
    run,
    until,
    withdraw,
)
from sqlalchemy import select
from test_tables import card
from typer.testing import CliRunner

from compliance import offline, timeline, withdrawal
from compliance.canonical import canonical, parse
from compliance.errors import AcknowledgementRefused
from compliance.proof import Proof
from compliance.signing import Envelope, SigningKey
from compliance.withdrawal import ACKNOWLEDGED, HONOURED, MAX_ROWS, NOTICED, PAYLOAD_TYPE
from parties import agreements, audits, consents, courier, evidence, server, session, withdrawals
from parties.cli import app
from parties.console import words
from parties.errors import PeerRefused
from parties.node import Node
from parties.reports import page
from parties.wire import PeerClient

Nodes = tuple[Node, Node]

GONE = SHARED[7]
SUBJECT = f"phone:{GONE}"


@pytest.fixture(autouse=True)
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(courier, "FIRST_SECONDS", 0.1)
    monkeypatch.setattr(courier, "MOST_SECONDS", 0.4)


def told(node: Node) -> list[dict]:
    with node.reading() as conn:
        return withdrawal.every(conn, now=node.now())


def acknowledged(node: Node) -> bool:
    known = told(node)
    return bool(known) and all(one["state"] == "acknowledged" for one in known)


def entries(node: Node, type_: str) -> list[dict]:
    with node.reading() as conn:
        found = [parse(entry.leaf) for entry in node.log.entries(conn)]
    return [one for one in found if one["type"] == type_]


def verified(*nodes: Node) -> None:
    for node in nodes:
        verdict, _ = audits.verify(node)
        assert verdict.ok, verdict.report.findings


def lines(path: Path | str) -> list[str]:
    return Path(path).read_text().splitlines()


def waiting(node: Node) -> list[withdrawal.Notice]:
    with node.reading() as conn:
        return withdrawal.undelivered(conn, node.config.name)


# Who is told what


def test_a_withdrawal_at_the_shop_takes_the_row_out_of_the_banks_results(ready: Nodes) -> None:
    bank, shop = ready
    named, asked = run(bank, "intersect"), run(bank, "lookup")
    counted = [run(bank, kind)["run"] for kind in ("overlap", "insight")]
    for one in (named["run"], asked["run"], *counted):
        page.keep(bank, one)
    assert GONE in lines(named["result_file"])
    (done,) = consents.withdraw(shop, SUBJECT, {})
    assert done["runs"] == [named["run"], asked["run"], *counted], "whatever they were in"
    assert [one["to"] for one in done["notices"]] == ["bank"]
    until(lambda: acknowledged(shop))
    assert lines(named["result_file"]) == ["phone", *(one for one in SHARED if one != GONE)]
    for report in (named, asked):
        folder = Path(report["result_file"]).parent
        assert not [path for path in folder.iterdir() if GONE.encode() in path.read_bytes()]
        assert len(lines(folder / "tokens.csv")) == len(SHARED)
        assert not bank.home.report_file(report["run"]).exists(), "it counts them still"
        assert words.say("en", "report.withdrawn", n=1) in page.make(bank, report["run"])
    assert all(bank.home.report_file(one).exists() for one in counted)
    (sent,), (received,) = told(shop), told(bank)
    assert sent["runs"] == received["runs"] == sorted([named["run"], asked["run"]])
    assert {sent["state"], received["state"]} == {"acknowledged"}
    assert len(entries(shop, NOTICED)) == len(entries(shop, ACKNOWLEDGED)) == 1
    assert len(entries(bank, HONOURED)) == 1
    verified(bank, shop)


def test_neither_notice_nor_log_tells_who_it_is_and_the_answer_not_whether(ready: Nodes) -> None:
    """The shop must not learn from an acknowledgement who is the bank's customer."""
    bank, shop = ready
    report = run(bank, "intersect")
    before = Path(report["result_file"]).read_bytes()
    stranger = str(phones(150, 151)[0])  # a shopper, but no customer
    for person in (GONE, stranger):
        consents.withdraw(shop, f"phone:{person}", {})
    until(lambda: acknowledged(shop))
    assert stranger.encode() not in before
    with shop.reading() as conn:
        rows = conn.execute(select(withdrawal.notices)).all()
    answers = []
    for row in rows:
        for data in (row.envelope, row.acknowledgement):
            for person in (GONE, stranger):
                assert person.removeprefix("+86").encode() not in data
        answer = json.loads(row.acknowledgement)
        answers.append(parse(Envelope.from_json(answer["envelope"].encode()).payload))
        (tokens,) = parse(Envelope.from_json(row.envelope).payload)["rows"].values()
        assert [len(token) for token in tokens] == [16]
    assert answers[0].keys() == answers[1].keys() == {"notice", "digest", "party", "time"}
    for node in ready:
        with node.reading() as conn:
            for entry in node.log.entries(conn):
                assert GONE.removeprefix("+86").encode() not in entry.leaf
                if entry.type.startswith("withdrawal."):
                    assert report["run"].encode() not in entry.leaf


def test_the_partner_is_told_of_withdrawals_at_the_bank_only_where_it_learnt_ids(
    ready: Nodes,
) -> None:
    bank, shop = ready
    run(bank, "intersect")
    (done,) = consents.withdraw(bank, f"phone:{SHARED[0]}", {})
    assert len(done["runs"]) == 1
    assert done["notices"] == [], "it learnt a size"
    agree(bank, shop, version=2, partner_learns="ids")
    report = run(bank, "intersect")
    theirs = until(lambda: shop.find_run(report["run"])["report"].get("result_file"))
    assert GONE in lines(theirs)
    stranger = str(phones(30, 31)[0])  # a customer, but no shopper
    (done,) = consents.withdraw(bank, f"phone:{stranger}", {})
    assert len(done["runs"]) == 2
    assert done["notices"] == [], "the shop does not hold them"
    (done,) = consents.withdraw(bank, SUBJECT, {})
    assert [one["to"] for one in done["notices"]] == ["shop"]
    until(lambda: acknowledged(bank))
    assert GONE not in lines(theirs)
    assert GONE in lines(report["result_file"]), "the bank's own stays with the bank"
    verified(bank, shop)


def test_restricting_erasing_and_importing_tell_too(ready: Nodes) -> None:
    bank, shop = ready
    report = run(bank, "intersect")
    later = (shop.now() + timedelta(days=1)).isoformat()
    one, two, three, four = SHARED[:4]
    assert consents.restrict(shop, f"phone:{one}", {"until": later})["notices"]
    done = consents.erase(shop, f"phone:{two}", {})
    assert (len(done["runs"]), len(done["notices"])) == (1, 1)
    withdraw(shop, phones(67, 68), "bank", "purchases")
    assert three == phones(67, 68)[0]
    withdraw(shop, phones(67, 68), "bank", "purchases")
    consents.refuse(
        shop, f"phone:{four}", {"purpose": "credit-offer", "recipient": "bank", "reason": "no"}
    )
    until(lambda: acknowledged(shop))
    assert len(told(shop)) == 4, "and nothing twice"
    assert lines(report["result_file"]) == ["phone", *SHARED[4:]]
    verified(bank, shop)


def test_whoever_still_consents_is_not_named(ready: Nodes) -> None:
    bank, shop = ready
    run(bank, "intersect")
    until_ = "2034-12-31T00:00:00+08:00"
    said = {"purpose": "credit-offer", "recipient": "bank", "categories": "purchases"}
    consents.grant(shop, SUBJECT, {**said, "kind": "written", "expires_at": until_})
    withdraw(shop, phones(72, 73), "bank", "purchases")  # the earlier one only
    assert phones(72, 73)[0] == GONE
    assert told(shop) == []


def test_last_scores_are_forgotten_too(ready: Nodes) -> None:
    bank, shop = ready
    text = f"{job('score')}scorecard: {card(bank)}\nwatch: {{fell_by: 1}}\n"
    report = session.run_job(bank, text, lambda *_: None, session.Control())
    (watched,) = (bank.home.path / "watch").iterdir()
    assert GONE in watched.read_text()
    consents.withdraw(shop, SUBJECT, {})
    until(lambda: acknowledged(shop))
    assert GONE not in watched.read_text()
    assert SHARED[8] in watched.read_text()
    assert GONE not in (Path(report["result_file"]).parent / "tokens.csv").read_text()
    assert session.run_job(bank, text, lambda *_: None, session.Control())["result"]["compared"]


# A run under way


def test_a_run_that_a_notice_names_ends_before_it_is_honoured(
    ready: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Released at the shop, not yet written at the bank: the notice waits for the result."""
    bank, shop = ready
    with paused(bank, "intersect", "sign completion") as (running, _):
        until(lambda: _tokens_kept(shop))
        consents.withdraw(shop, SUBJECT, {})
        until(lambda: told(shop)[0]["problem"])
        assert told(bank) == []
    assert running.error is None
    until(lambda: acknowledged(shop))
    assert running.report is not None
    assert GONE not in lines(running.report["result_file"])
    assert SHARED[8] in lines(running.report["result_file"])


def _tokens_kept(node: Node) -> bool:
    with node.reading() as conn:
        return bool(conn.exec_driver_sql("SELECT count(*) FROM run_rows").scalar())


# When the partner does not answer


def test_what_could_not_be_delivered_is_late_and_delivered_after_a_restart(
    tmp_path: Path, paillier_key: bytes
) -> None:
    bank, shop = make(tmp_path, "bank"), make(tmp_path, "shop", "ecommerce")
    with server.serving(bank), server.serving(shop):
        make_ready(bank, shop, paillier_key)
        report = run(bank, "intersect")
        until(lambda: shop.find_run(report["run"])["ended_at"])
    with server.serving(shop):
        consents.withdraw(shop, SUBJECT, {})
        until(lambda: told(shop)[0]["problem"] == "E612")
        assert told(shop)[0]["state"] == "waiting"
        shop.now = lambda: bank.now() + timedelta(hours=73)
        assert told(shop)[0]["state"] == "late"
        shop.now = bank.now
    assert GONE in lines(report["result_file"])
    shown = CliRunner().invoke(app, ["consent", "withdrawals", str(shop.home.path)])
    assert "waiting" in shown.output
    assert "E612" in shown.output
    with server.serving(bank), server.serving(Node.open(shop.home)):
        until(lambda: acknowledged(shop))
    assert GONE not in lines(report["result_file"])
    shown = CliRunner().invoke(app, ["consent", "withdrawals", str(bank.home.path)])
    assert "acknowledged" in shown.output
    assert "--output" in shown.output


def test_the_time_to_acknowledge_is_the_agreements(ready: Nodes) -> None:
    bank, shop = ready
    path = bank.home.path / "agreement.yaml"
    text = path.read_text().replace("version: 1", "version: 2")
    path.write_text(text + "acknowledge_within_hours: 2\n")
    agreements.propose(bank, path)
    agreements.sign(shop, "offers", 2)
    run(bank, "intersect")
    consents.withdraw(shop, SUBJECT, {})
    (sent,) = told(shop)
    assert sent["due"] > sent["time"]
    until(lambda: acknowledged(shop))


def test_a_suspension_that_was_not_heard_is_told_by_the_serving_node(
    bank: Node, tmp_path: Path
) -> None:
    shop = make(tmp_path, "shop", "ecommerce")
    with server.serving(shop):
        pair(bank, shop)
        agree(bank, shop)
    with pytest.raises(Exception, match="has not been told"):
        agreements.declare(bank, "offers", "suspended", "a complaint")
    with server.serving(shop):
        (heard,) = until(lambda: agreements.notices(shop, "offers"))
        assert heard.step == "suspended"
        until(lambda: len(agreements.notices(bank, "offers")[0].envelope.signatures) == 2)
    verified(bank)


# Hostile notices


@contextmanager
def silent(node: Node) -> Iterator[None]:
    """Nothing is delivered by itself meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(courier.Courier, "look", lambda *_: None)
        yield


@pytest.fixture
def noticed(ready: Nodes) -> Iterator[tuple[Node, Node, withdrawal.Notice]]:
    """A notice that the shop has signed and not sent."""
    bank, shop = ready
    run(bank, "intersect")
    with silent(shop):
        consents.withdraw(shop, SUBJECT, {})
        (notice,) = waiting(shop)
        yield bank, shop, notice


def changed(shop: Node, of: withdrawal.Notice, key: SigningKey | None = None, **more) -> bytes:
    payload = {**parse(of.envelope.payload), **more}
    envelope = Envelope(PAYLOAD_TYPE, canonical(payload))
    return envelope.sign(key or shop.signing_key).to_json()


HOSTILE = {
    "nothing": lambda shop, notice: b"",
    "no envelope": lambda shop, notice: b"{}",
    "an agreement": lambda shop, notice: agreements.find(shop, "offers").envelope.to_json(),
    "another's signature": lambda shop, notice: changed(shop, notice, SigningKey.generate()),
    "another's words": lambda shop, notice: replace(
        notice.envelope, payload=notice.envelope.payload.replace(b'"bank"', b'"bang"')
    ).to_json(),
    "to somebody else": lambda shop, notice: changed(shop, notice, recipient="telecom"),
    "of somebody else": lambda shop, notice: changed(shop, notice, party="telecom"),
    "an unknown run": lambda shop, notice: changed(
        shop, notice, notice=token_hex(16), rows={token_hex(16): ["0" * 16]}
    ),
    "another agreement": lambda shop, notice: changed(shop, notice, agreement="other"),
    "a run that is a path": lambda shop, notice: changed(
        shop, notice, rows={"../../keys": ["0" * 16]}
    ),
    "a token that is none": lambda shop, notice: changed(
        shop, notice, rows={run: ["+8613900000072"] for run in notice.rows}
    ),
    "a token that is text": lambda shop, notice: changed(
        shop, notice, rows=dict.fromkeys(notice.rows, "0" * 16)
    ),
    "no rows": lambda shop, notice: changed(shop, notice, rows={}),
    "too many rows": lambda shop, notice: changed(
        shop, notice, rows={run: ["0" * 16] * (MAX_ROWS + 1) for run in notice.rows}
    ),
    "huge": lambda shop, notice: changed(shop, notice, agreement="a" * (2 << 20)),
    "no time": lambda shop, notice: changed(shop, notice, time="2026-13-01T00:00:00Z"),
    "more": lambda shop, notice: changed(shop, notice, why="because"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_notice_that_is_none_deletes_nothing(noticed, case: str) -> None:
    bank, shop, notice = noticed
    before = {path: path.read_bytes() for path in bank.home.path.glob("runs/*/*")}
    with shop.dial(bank.identity) as client, pytest.raises(PeerRefused) as refused:
        client.withdraw_rows(HOSTILE[case](shop, notice))
    code = refused.value.message.partition("(")[2][:4]
    assert code in {"E414", "E502", "E503", "E500"}, refused.value.message
    assert told(bank) == []
    assert {path: path.read_bytes() for path in bank.home.path.glob("runs/*/*")} == before
    assert not entries(bank, HONOURED)


def test_the_same_notice_twice_is_honoured_once(noticed) -> None:
    bank, shop, notice = noticed
    peer = shop.peer("bank")
    with shop.dial(peer) as client:
        for _ in range(3):
            withdrawals.deliver(shop, client, peer, notice)
    assert len(entries(bank, HONOURED)) == 1
    assert len(entries(shop, ACKNOWLEDGED)) == 1
    with shop.dial(peer) as client, pytest.raises(PeerRefused, match="E414"):
        client.withdraw_rows(changed(shop, notice, time="2026-01-01T00:00:00Z"))
    verified(bank, shop)


# Acknowledgements that prove nothing


def honest(shop: Node, client: PeerClient, notice: withdrawal.Notice) -> withdrawal.Acknowledgement:
    return client.withdraw_rows(notice.envelope.to_json())


def other_entry(bank: Node, answer: withdrawal.Acknowledgement) -> withdrawal.Acknowledgement:
    """Rightly proved, but of something else."""
    proof = Proof.parse(answer.proof)
    with bank.reading() as conn:
        (first,) = bank.log.entries(conn, 0, 1)
        hashes = bank.log.inclusion_proof(conn, 0, proof.checkpoint.size)
    return replace(
        answer, entry=first.leaf, proof=Proof(0, tuple(hashes), proof.checkpoint).encode()
    )


def not_cosigned(bank: Node, answer: withdrawal.Acknowledgement) -> withdrawal.Acknowledgement:
    proof = Proof.parse(answer.proof)
    own = [line for line in proof.checkpoint.signatures if line.by(bank.log.verifier)]
    bare = replace(proof, checkpoint=replace(proof.checkpoint, signatures=tuple(own)))
    return replace(answer, proof=bare.encode())


def another_place(bank: Node, answer: withdrawal.Acknowledgement) -> withdrawal.Acknowledgement:
    proof = Proof.parse(answer.proof)
    return replace(answer, proof=replace(proof, index=proof.index - 1).encode())


def made_up(bank: Node, answer: withdrawal.Acknowledgement) -> withdrawal.Acknowledgement:
    """Signed rightly, and said to be logged in an entry that is in no log."""
    entry = {**parse(answer.entry), "time": "2026-01-01T00:00:00Z"}
    return replace(answer, entry=canonical(entry))


def signed_by(key: SigningKey, answer: withdrawal.Acknowledgement):
    envelope = Envelope.from_json(answer.envelope)
    signed = Envelope(envelope.payload_type, envelope.payload).sign(key)
    return replace(answer, envelope=signed.to_json())


UNPROVED = {
    "another entry of the log": other_entry,
    "a checkpoint without our cosignature": not_cosigned,
    "another place in the log": another_place,
    "an entry that is in no log": made_up,
    "a proof that is none": lambda bank, answer: replace(answer, proof=b"c2sp"),
    "an entry that is none": lambda bank, answer: replace(answer, entry=b"[]"),
    "nothing": lambda bank, answer: withdrawal.Acknowledgement(b"", b"", b""),
    "another's signature": lambda bank, answer: signed_by(SigningKey.generate(), answer),
    "too much": lambda bank, answer: replace(answer, entry=b" " * (1 << 20)),
}


@pytest.mark.parametrize("case", UNPROVED)
def test_an_acknowledgement_without_proof_is_refused(
    noticed, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank, shop, notice = noticed
    peer = shop.peer("bank")
    send = PeerClient.withdraw_rows
    with shop.dial(peer) as client:
        monkeypatch.setattr(
            client, "withdraw_rows", lambda data: UNPROVED[case](bank, send(client, data))
        )
        with pytest.raises(AcknowledgementRefused):
            withdrawals.deliver(shop, client, peer, notice)
    assert not entries(shop, ACKNOWLEDGED)
    assert told(shop)[0]["state"] == "waiting"


def test_an_acknowledgement_of_another_notice_is_refused(noticed) -> None:
    bank, shop, notice = noticed
    consents.withdraw(shop, f"phone:{SHARED[8]}", {})
    other = waiting(shop)[1]
    peer = shop.peer("bank")
    with shop.dial(peer) as client:
        answer = honest(shop, client, other)
        with pytest.raises(AcknowledgementRefused, match="something else"):
            withdrawal.verify(
                notice,
                answer,
                key=peer.signing_key,
                their_log=bank.log.verifier,
                witness=shop.witness_key,
            )


# What an audit finds


TAMPERED = {
    "UPDATE withdrawal_notices SET acknowledgement = NULL": "its acknowledgement is in the log",
    "DELETE FROM withdrawal_notices": "notice it speaks of is missing",
    "UPDATE withdrawal_notices SET recipient = 'telecom'": "its columns differ",
    "UPDATE withdrawal_notices SET acknowledgement = x'7b7d'": "no entry speaks of its",
    "UPDATE run_rows SET tokens = zeroblob(length(tokens))": "not those that were logged",
    "DELETE FROM run_rows": "logged and are missing",
}


@pytest.mark.parametrize("statement", TAMPERED)
def test_what_was_changed_of_notices_is_found(ready: Nodes, statement: str) -> None:
    bank, shop = ready
    run(bank, "intersect")
    consents.withdraw(shop, SUBJECT, {})
    until(lambda: acknowledged(shop))
    verified(shop)
    with shop.writing() as conn:
        conn.exec_driver_sql(statement)
    verdict, _ = audits.verify(shop, offline=True)
    assert any(TAMPERED[statement] in finding for finding in verdict.report.findings)


def test_the_persons_timeline_says_who_was_told_and_proves_it(ready: Nodes, tmp_path: Path) -> None:
    bank, shop = ready
    named = run(bank, "intersect")["run"]
    consents.withdraw(shop, SUBJECT, {})
    until(lambda: acknowledged(shop))
    shown = evidence.person(shop, SUBJECT, None, tmp_path / "person")
    (item,) = shown["runs"]
    assert (item["run"], item["present"]) == (named, True)
    (told_,) = item["told"]
    assert (told_["recipient"], told_["acknowledged"]) == ("bank", True)
    words = "\n".join(timeline.in_words(shown))
    assert "bank was told on" in words
    assert "it has proved that it did" in words
    (found,) = offline.verify([tmp_path / "person"], None)
    assert found.fails == []
    assert f"run {named}: bank was told to delete." in "\n".join(found.holds)
    assert evidence.person(shop, f"phone:{SHARED[8]}", None, None)["runs"][0]["told"] == []
