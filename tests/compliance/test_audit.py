from secrets import token_bytes

import pytest
from institutions import NOW, Institution, Run, person, sign_agreement
from sqlalchemy import create_engine, text

from compliance import audit
from compliance.note import COSIGNATURE, VerifierKey, cosign
from compliance.signing import SigningKey
from compliance.store import read, write
from compliance.vault import VaultKeys

PEOPLE = [person(number) for number in range(6)]
WITNESS = SigningKey.generate()
WITNESS_KEY = VerifierKey("partner.example/witness", WITNESS.public, COSIGNATURE)


@pytest.fixture
def run(tmp_path):
    """A bank's store after two imports, an agreement and a run."""
    bank, partner = (Institution.create(tmp_path, name) for name in ("bank", "partner"))
    sign_agreement(bank, partner)
    again = {"subject": PEOPLE[0], "granted_at": "2025-07-01T09:00:00+08:00"}
    bank.take(*({"subject": subject} for subject in PEOPLE), again)
    bank.take({"subject": PEOPLE[5], "withdrawn_at": "2026-10-15T12:00:00+08:00"})
    run = Run(bank, partner, bank.decide(*PEOPLE))
    run.begin()
    run.complete()
    with write(bank.engine) as conn:
        head = bank.log.checkpoint(conn)
        line = cosign(head.text, WITNESS_KEY.name, WITNESS, NOW)
        bank.log.add_cosignature(conn, head.size, line)
    return run


def verify(run, **changes):
    bank = run.bank
    arguments = {"keys": run.keys, "vault": bank.vault, "witnesses": [WITNESS_KEY]} | changes
    with read(bank.engine) as conn:
        return audit.verify(conn, bank.log.verifier, **arguments)


def tamper(run, *statements, **values):
    """Changes the store behind the program's back."""
    engine = create_engine(run.bank.engine.url)
    with engine.begin() as conn:
        for statement in statements:
            assert conn.execute(text(statement), values).rowcount > 0


def test_a_whole_store_is_found_to_be_whole(run):
    verdict = verify(run)
    assert verdict.ok, verdict.report.findings
    assert (verdict.agreements, verdict.receipts, verdict.consents) == (1, 2, 7)
    assert str(verdict) == (
        "The log of 7 entries is whole and cosigned up to 7 by partner.example/witness; "
        "1 agreement, 2 receipts and 7 consents agree with it."
    )


def test_an_empty_store_is_whole(tmp_path):
    new = Institution.create(tmp_path, "new")
    with read(new.engine) as conn:
        verdict = audit.verify(conn, new.log.verifier, keys={}, vault=new.vault)
    assert str(verdict) == (
        "The log of 0 entries is whole and cosigned by nobody yet; "
        "0 agreements, 0 receipts and 0 consents agree with it."
    )


@pytest.mark.parametrize(
    ("statements", "finding"),
    [
        # the vault
        (["UPDATE consents SET withdrawn_at = 9223372036854775807 WHERE state != 'ConsentGiven'"],
         "consent 6: its state is not the latest that the log commits to"),
        (["UPDATE consents SET state = 'ConsentGiven' WHERE id = 6"],
         "consent 6: its state is not the latest"),
        (["UPDATE consents SET expires_at = expires_at + 1 WHERE id = 3"],
         "consent 3 (entry 3, leaf {leaf}): its record is not the one the log commits to"),
        (["UPDATE consents SET granted_at = 0 WHERE id = 3"], "consent 3 (entry 3, leaf {leaf})"),
        (["UPDATE consents SET subject = 1, granted_at = 0 WHERE id = 3"],
         "consent 3 (entry 3, leaf {leaf})"),
        (["UPDATE terms SET recipient = 'other'"], "consent 3 (entry 3, leaf {leaf})"),
        (["UPDATE terms SET categories = 'all'"], "consent 3 (entry 3, leaf {leaf})"),
        (["INSERT INTO consents SELECT 99, subject, terms, granted_at + 1, expires_at,"
          " state, withdrawn_at FROM consents WHERE id = 3"],
         "consent 99: no leaf in the log commits to it"),
        (["DELETE FROM consents WHERE id = 3"],
         "entry 3, leaf {leaf}: the vault lacks the consent it commits to"),
        (["DELETE FROM consent_leaves WHERE consent = 3"],
         "consent 3: no leaf in the log commits to it"),
        (["DELETE FROM consent_leaves WHERE entry = 4",
          "UPDATE consents SET state = 'ConsentGiven', withdrawn_at = 9223372036854775807"
          " WHERE id = 6"],
         "entry 4, leaf 0: the vault lacks the consent it commits to"),
        (["UPDATE consent_leaves SET position = 70 WHERE consent = 3"],
         "consent 3 (entry 3, leaf 70): its record"),
        (["UPDATE subjects SET secret = zeroblob(60) WHERE id = 2"],
         "person 2 of the vault: the secret does not open"),
        (["UPDATE subjects SET subject = zeroblob(32) WHERE id = 2"],
         "person 2 of the vault: the secret does not open"),
        (["UPDATE consents SET granted_at = 'long ago' WHERE id = 3"],
         "vault: it holds values of another type"),
        (["UPDATE terms SET categories = x'07'"], "vault: it holds values of another type"),
        # the agreements
        (["UPDATE agreements SET envelope = zeroblob(10)"],
         "agreement credit-2026, version 1: The stored agreement credit-2026 is damaged."),
        (["UPDATE agreements SET version = 2"],
         "agreement credit-2026, version 2: The stored agreement credit-2026 is not what was"),
        (["UPDATE agreements SET state = 'proposed'"],
         "agreement credit-2026, version 1: its state is proposed, its signatures say otherwise"),
        (["DELETE FROM agreements"],
         "entry 0: the agreement it speaks of is not in the register"),
        (["DELETE FROM agreements"],
         "entry 2: the signature it speaks of is not in the register"),
        # the receipts
        (["DELETE FROM receipts WHERE kind = 'completion'"],
         "entry 6: the receipt it speaks of is missing"),
        (["DELETE FROM receipts WHERE kind = 'intent'"],
         "completion of run {run}: A signed envelope is malformed."),
        (["UPDATE receipts SET envelope = zeroblob(10) WHERE kind = 'completion'"],
         "completion of run {run}: A signed envelope is malformed."),
        (["UPDATE receipts SET entry = 0 WHERE kind = 'intent'"],
         "intent of run {run}: entry 0 does not hold its digest"),
        (["UPDATE run_inputs SET leaves = zeroblob(192)"],
         "intent of run {run}: what is kept of its inputs is not what was signed"),
        (["UPDATE run_inputs SET leaves = zeroblob(7)"],
         "intent of run {run}: what is kept of its inputs is not what was signed"),
        (["DELETE FROM run_inputs"],
         "intent of run {run}: what is kept of its inputs is not what was signed"),
        # the log
        (["UPDATE subtree_leaves SET leaf = zeroblob(10) WHERE \"index\" = {leaf}"],
         "entry 3: the leaves of its sub-tree differ"),
        (["UPDATE log_entries SET leaf = zeroblob(10) WHERE \"index\" = 3"],
         "entry 3: leaf hash differs"),
        (["DELETE FROM log_entries WHERE \"index\" = 6"],
         "completion of run {run}: entry 6 does not hold its digest"),
    ],
)  # fmt: skip
def test_tampering_is_found_and_named(run, statements, finding):
    with read(run.bank.engine) as conn:
        leaf = conn.execute(
            text("SELECT position FROM consent_leaves WHERE consent = 3")
        ).scalar_one()
    tamper(run, *(statement.format(leaf=leaf) for statement in statements))
    verdict = verify(run)
    expected = finding.format(leaf=leaf, run=run.run)
    assert any(found.startswith(expected) for found in verdict.report.findings), verdict.report
    assert str(verdict).startswith("This store is not what its log says: ")


def test_every_damaged_record_is_named(run):
    tamper(run, "UPDATE consents SET expires_at = expires_at + 1")
    found = [text for text in verify(run).report.findings if text.startswith("consent ")]
    assert len(found) == 8, "seven consents, one of which has two leaves"


def test_signatures_count_by_pinned_keys_only(run):
    stranger = {**run.keys, "partner": SigningKey.generate().public}
    findings = verify(run, keys=stranger).report.findings
    assert findings == [
        "agreement credit-2026, version 1: its state is signed, its signatures say otherwise",
        f"intent of run {run.run}: A receipt names a key that is not the party's pinned one.",
        f"completion of run {run.run}: A receipt names a key that is not the party's pinned one.",
    ]


def test_a_cosignature_by_a_stranger_is_found(run):
    findings = verify(run, witnesses=[]).report.findings
    assert findings == [
        "cosignature of partner.example/witness on checkpoint 7: not a known witness's"
    ]


def test_the_wrong_wrapping_key_is_found(run):
    other = VaultKeys(run.bank.vault.lookup, token_bytes(32))
    findings = verify(run, vault=other).report.findings
    assert "person 1 of the vault: the secret does not open" in findings
