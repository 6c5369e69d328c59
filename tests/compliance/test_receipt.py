import hashlib
from datetime import timedelta

import pytest
from institutions import AGREEMENT, NOW, Institution, Run, person, sign_agreement

from compliance import receipt
from compliance.canonical import canonical, parse
from compliance.errors import InvalidSignature, ReceiptBroken, ReceiptConflict
from compliance.receipt import check, commit, find, runs_started_since, unfinished
from compliance.signing import Envelope, SigningKey
from compliance.store import read, write


@pytest.fixture
def run(new_store):
    return started(new_store)


def started(folder):
    bank, partner = (Institution.create(folder, name) for name in ("bank", "partner"))
    sign_agreement(bank, partner)
    bank.take(*({"subject": person(number)} for number in range(3)))
    return Run(bank, partner, bank.decide(*map(person, range(3))))


def test_an_intent_is_an_in_toto_statement(run):
    statement = parse(run.intent)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "urn:concordat:run-intent:v1"
    assert statement["subject"][0] == {
        "name": "agreement/credit-2026/1",
        "digest": {"sha256": hashlib.sha256(AGREEMENT.document).hexdigest()},
    }
    predicate = statement["predicate"]
    assert predicate["run"] == run.run
    assert predicate["started"] == "2026-11-23T12:00:00Z"
    assert predicate["job"]["features"]["pay_0"] == ["share", "histogram"]
    assert predicate["disclosure"].keys() == {"bank", "partner"}
    checkpoint = run.decision.checkpoint
    assert predicate["bank"] == {
        "party": "bank",
        "key": run.bank.key.public.hex(),
        "inputs": {"root": run.decision.root.hex(), "size": 3},
        "log": {
            "origin": "bank.example/log",
            "size": checkpoint.size,
            "root": checkpoint.root.hex(),
        },
    }


def test_a_completion_names_its_intent(run):
    statement = parse(run.completion)
    assert statement["predicateType"] == "urn:concordat:run-completion:v1"
    predicate = statement["predicate"]
    assert predicate["intent"] == hashlib.sha256(run.intent).hexdigest()
    assert predicate["transcript"] == hashlib.sha256(b"frames").hexdigest()
    assert predicate["versions"] == {"bank": "0.1.0", "partner": "0.1.0"}


def test_both_sides_hold_the_same_bytes(run):
    ours, theirs = run.bank.key, run.partner.key
    first = receipt.signed(run.intent, ours)
    second = receipt.signed(run.intent, theirs)
    at_bank = receipt.countersigned(first, theirs.public, second.signatures[theirs.keyid])
    at_partner = receipt.countersigned(second, ours.public, first.signatures[ours.keyid])
    assert at_bank.to_json() == at_partner.to_json()


def test_a_signature_that_does_not_hold_is_not_added(run):
    envelope = receipt.signed(run.intent, run.bank.key)
    other = receipt.signed(run.completion, run.partner.key).signatures[run.partner.key.keyid]
    for signature in (other, bytes(64), b""):
        with pytest.raises(InvalidSignature):
            receipt.countersigned(envelope, run.partner.key.public, signature)


def test_a_commitment_hides_the_result_behind_a_salt():
    salt, commitment = commit(b'{"count":17}')
    assert commitment == hashlib.sha256(salt + b'{"count":17}').digest()
    assert len(salt) == 32
    assert commit(b'{"count":17}')[1] != commitment


def test_a_run_is_on_record_from_its_intent_on(run):
    begun = run.begin()
    with read(run.bank.engine) as conn:
        assert unfinished(conn) == [run.run]
        assert find(conn, run.run, "completion") is None
    done = run.complete()
    with read(run.bank.engine) as conn:
        assert unfinished(conn) == []
        entries = {entry.index: parse(entry.leaf) for entry in run.bank.log.entries(conn)}
        for kind, index in (("intent", begun), ("completion", done)):
            envelope = find(conn, run.run, kind)
            check(envelope, find(conn, run.run, "intent"), run.keys)
            body = entries[index]
            assert (body["type"], body["run"]) == (f"run.{kind}", run.run)
            assert (body["agreement"], body["version"]) == ("credit-2026", 1)
            assert body["receipt"] == hashlib.sha256(envelope.to_json()).hexdigest()


def test_runs_count_whether_finished_or_not(run):
    runs = [run, *(Run(run.bank, run.partner, run.decision) for _ in range(2))]
    for hours, each in enumerate(runs):
        each.begin(NOW + timedelta(hours=hours))
    runs[1].complete()
    with read(run.bank.engine) as conn:
        for hours in range(4):
            since = NOW + timedelta(hours=hours)
            assert runs_started_since(conn, "credit-2026", since) == 3 - hours
        assert runs_started_since(conn, "other", NOW) == 0
        assert unfinished(conn) == [runs[0].run, runs[2].run]


def test_a_run_is_recorded_once(run):
    run.begin()
    with pytest.raises(ReceiptConflict):
        run.begin()
    run.complete()
    with pytest.raises(ReceiptConflict):
        run.complete()


def test_a_completion_needs_its_own_intent(run, tmp_path):
    with pytest.raises(ReceiptBroken, match="no intent"):
        run.complete()
    run.begin()
    again = Run(run.bank, run.partner, run.decision, run.run)
    changed = parse(again.intent)
    changed["predicate"]["started"] = "2026-11-23T12:00:01Z"
    again.completion = receipt.completion(
        canonical(changed), transcript=b"", commitment=b"", versions={}, finished=NOW
    )
    with pytest.raises(ReceiptBroken, match="another intent"):
        again.complete()


def test_a_receipt_is_signed_by_both_with_their_pinned_keys(run):
    def begin(envelope, keys):
        with write(run.bank.engine) as conn:
            receipt.begin(conn, run.bank.log, envelope, run.decision, keys, time=NOW)

    for key in (run.bank.key, run.partner.key, SigningKey.generate()):
        with pytest.raises(InvalidSignature):
            begin(receipt.signed(run.intent, key), run.keys)
    pinned_since = {**run.keys, "partner": SigningKey.generate().public}
    with pytest.raises(ReceiptBroken, match="pinned"):
        begin(run.signed(run.intent), pinned_since)
    with read(run.bank.engine) as conn:
        assert unfinished(conn) == []


def test_one_institution_is_not_two(run):
    statement = parse(run.intent)
    statement["predicate"]["partner"] |= {"party": "bank", "key": run.bank.key.public.hex()}
    alone = receipt.signed(canonical(statement), run.bank.key)
    with pytest.raises(ReceiptBroken, match="two institutions"):
        check(alone, alone, run.keys)
    statement["predicate"]["partner"]["party"] = "partner"
    alone = receipt.signed(canonical(statement), run.bank.key)
    with pytest.raises(ReceiptBroken, match="two institutions"):
        check(alone, alone, {**run.keys, "partner": run.bank.key.public})


def test_what_is_signed_is_what_the_gate_let_through(run):
    other = Run(run.bank, run.partner, run.bank.decide(person(1)))
    with write(run.bank.engine) as conn, pytest.raises(ReceiptBroken, match="other inputs"):
        envelope = run.signed(run.intent)
        receipt.begin(conn, run.bank.log, envelope, other.decision, run.keys, time=NOW)


@pytest.mark.parametrize(
    "payload",
    [
        b"{}",
        b"[]",
        b"not JSON",
        canonical({"_type": "https://in-toto.io/Statement/v1", "predicateType": "x"}),
        canonical(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "predicateType": "urn:concordat:run-intent:v1",
                "predicate": {"run": 1},
            }
        ),
        canonical(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "predicateType": "urn:concordat:run-intent:v1",
                "predicate": None,
            }
        ),
    ],
)
def test_what_is_no_statement_about_a_run_is_refused(run, payload):
    envelope = Envelope(receipt.PAYLOAD_TYPE, payload).sign(run.bank.key)
    with pytest.raises(ReceiptBroken):
        check(envelope, envelope, run.keys)
    with pytest.raises(ReceiptBroken):
        check(Envelope("text/plain", run.intent), Envelope("text/plain", run.intent), run.keys)
