from contextlib import suppress
from pathlib import Path
from secrets import token_bytes

import pytest
from institutions import AGREEMENT, CONSENT, NOW, Institution, Run, person, sign_agreement
from sqlalchemy import and_, create_engine, delete, insert, literal_column, text, update
from sqlalchemy.exc import IntegrityError

from compliance import audit, erasure, lifecycle, notice, people, witness
from compliance.canonical import canonical
from compliance.erasure import Files
from compliance.errors import StoreDamaged
from compliance.note import COSIGNATURE, VerifierKey, cosign
from compliance.notice import Notice
from compliance.person import Changes
from compliance.register import agreements
from compliance.signing import Envelope, SigningKey
from compliance.store import metadata, read, write
from compliance.vault import VaultKeys
from compliance.witness import Witness

PEOPLE = [person(number) for number in range(6)]
NOTICE = (Path(__file__).parents[2] / "docs/reference/notice.yaml").read_text("utf-8")
WITNESS = SigningKey.generate()
WITNESS_KEY = VerifierKey("partner.example/witness", WITNESS.public, COSIGNATURE)


def suspend_and_staff(conn, run):
    """The partner suspends the agreement; users come, and one proposal waits."""
    bank, partner = run.bank, run.partner
    said = {"agreement": "credit-2026", "number": 1, "party": "partner", "reason": "a complaint"}
    said |= {"step": "suspended", "time": "2026-11-23T12:00:00Z"}
    notice = Envelope(lifecycle.PAYLOAD_TYPE, canonical(said)).sign(partner.key)
    ours = bank.register(partner)
    lifecycle.receive(conn, ours, notice, bank.key, sender="partner", time=NOW)
    officers = [people.Actor(name, SigningKey.generate()) for name in ("li", "he")]
    for by, user in zip((people.Actor("root"), officers[0]), officers, strict=True):
        body = {"user": user.name, "role": "officer", "key": user.key.public.hex()}
        log = people.acting(conn, bank.log, by)
        people.change(conn, log, "user.added", body, by="root", time=NOW)
    log = people.acting(conn, bank.log, officers[0])
    people.propose(conn, log, "consent.erased", {"why": "asked"}, time=NOW, detail=b"person 7")
    made = people.propose(conn, log, "user.removed", {"user": "li"}, time=NOW)
    people.refuse(conn, log, made, reason="a mistake", time=NOW)


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
    run.release()
    run.complete()
    files = Files(tmp_path / "lookup", tmp_path / "wrapping", tmp_path / "erased")
    for path, key in ((files.lookup, bank.vault.lookup), (files.wrapping, bank.vault.wrapping)):
        path.write_bytes(key)
        path.chmod(0o600)
    with write(bank.engine) as conn:
        changes = Changes(conn, bank.log, bank.vault, NOW)
        changes.refuse(PEOPLE[4], {**CONSENT, "at": "2026-11-01T00:00:00Z", "reason": "by-letter"})
        changes.grant(PEOPLE[4], {**CONSENT, "granted_at": "2026-11-02T00:00:00Z"})
        notice.add(conn, bank.log, Notice.from_yaml(NOTICE), time=NOW)
        again = {**CONSENT, "granted_at": "2026-11-03T00:00:00Z", "notice": "privacy-2026-01"}
        changes.grant(PEOPLE[4], again)
        changes.restrict(PEOPLE[3], {"until": "2027-01-01T00:00:00Z", "reason": "tax-law"})
        changes.grant(person(9), CONSENT)
        erasure.erase(conn, bank.log, files, person(9), now=NOW)
        erasure.rotate_lookup(conn, bank.log, files, now=NOW)
        suspend_and_staff(conn, run)
    bank.vault = files.keys()
    with write(partner.engine) as conn:
        partner.log.checkpoint(conn)
        request = witness.request(conn, partner.log, 0)
    with write(bank.engine) as conn:
        ours = Witness("bank.example/witness", SigningKey.generate(), [partner.log.verifier])
        assert ours.add_checkpoint(conn, request.encode(), NOW).status == 200
    with write(bank.engine) as conn:
        head = bank.log.checkpoint(conn)
        line = cosign(head.text, WITNESS_KEY.name, WITNESS, NOW)
        bank.log.add_cosignature(conn, head.size, line)
    return run


def verify(run, **changes):
    with read(run.bank.engine) as conn:
        return verify_in(conn, run, **changes)


def verify_in(conn, run, **changes):
    arguments = {
        "keys": run.keys,
        "name": "bank",
        "vault": run.bank.vault,
        "witnesses": [WITNESS_KEY],
        "partners": [run.partner.log.verifier],
    }
    return audit.verify(conn, run.bank.log.verifier, **arguments | changes)


def tamper(run, *statements, **values):
    """Changes the store behind the program's back."""
    engine = create_engine(run.bank.engine.url)
    with engine.begin() as conn:
        for statement in statements:
            assert conn.execute(text(statement), values).rowcount > 0


def test_a_whole_store_is_found_to_be_whole(run):
    verdict = verify(run)
    assert verdict.ok, verdict.report.findings
    assert (verdict.agreements, verdict.receipts, verdict.consents) == (1, 2, 9)
    assert str(verdict) == (
        "The log of 23 entries is whole and cosigned up to 23 by partner.example/witness; "
        "1 agreement, 2 receipts and 9 consents agree with it."
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
          " state, withdrawn_at, notice FROM consents WHERE id = 3"],
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
         "table consents: column granted_at holds 1 value of another type"),
        (["UPDATE terms SET categories = x'07'"],
         "table terms: column categories holds 1 value of another type"),
        (["UPDATE refusals SET at = at + 1"],
         "refusal of entry 8: its record is not the one the log commits to"),
        (["UPDATE refusals SET at = granted_at - 1 FROM consents WHERE consents.id = 5"],
         "consent 5: its state is not the latest that the log commits to"),
        (["DELETE FROM refusals"],
         "entry 8, leaf 0: the vault lacks the consent it commits to"),
        (["DELETE FROM consent_leaves WHERE entry = 9"],
         "consent 8: no leaf in the log commits to it"),
        (["UPDATE consents SET notice = NULL"],
         "consent 9: its state is not the latest that the log commits to"),
        (["UPDATE consent_leaves SET notice = NULL", "UPDATE consents SET notice = NULL"],
         "consent 9 (entry 11, leaf 0): its record is not the one the log commits to"),
        (["UPDATE notices SET document = zeroblob(10)"],
         "notice privacy-2026-01: entry 10 speaks of another"),
        (["UPDATE subjects SET restricted = FALSE"],
         "person 4 of the vault: the log says otherwise of their restriction"),
        (["UPDATE restrictions SET until = 0"],
         "restriction of entry 12: its record is not the one the log commits to"),
        (["DELETE FROM restrictions", "UPDATE subjects SET restricted = FALSE"],
         "the log: 1 of what it commits to was erased; the vault lacks 2"),
        (["DELETE FROM tombstones"], "entry 14: the tombstone it speaks of is missing"),
        (["UPDATE tombstones SET erased_at = 0"],
         "tombstone of entry 14: it is not the one the log commits to"),
        (["DELETE FROM vault"], "the vault: its lookup keys are not those the log speaks of"),
        # the agreements
        (["UPDATE agreements SET envelope = zeroblob(10)"],
         "agreement credit-2026, version 1: E306 The stored agreement credit-2026 is damaged."),
        (["UPDATE agreements SET version = 2"],
         "agreement credit-2026, version 2: E306 The stored agreement credit-2026 is not what was"),
        (["UPDATE agreements SET proposed_by = 'somebody'"],
         "agreement credit-2026, version 1: column proposed_by differs from entry 0"),
        (["UPDATE agreements SET state = 'proposed'"],
         "agreement credit-2026, version 1: its state is proposed, its signatures say otherwise"),
        (["DELETE FROM agreements"],
         "entry 0: the agreement it speaks of is not in the register"),
        (["DELETE FROM agreements"],
         "intent of run {run}: it names no agreement that both have signed"),
        (["DELETE FROM agreements"],
         "entry 2: the signature it speaks of is not in the register"),
        # the receipts
        (["DELETE FROM receipts WHERE kind = 'completion'"],
         "entry 7: the receipt it speaks of is missing"),
        (["DELETE FROM receipts WHERE kind = 'intent'"],
         "completion of run {run}: E502 A signed envelope is malformed."),
        (["UPDATE receipts SET envelope = zeroblob(10) WHERE kind = 'completion'"],
         "completion of run {run}: E502 A signed envelope is malformed."),
        (["UPDATE receipts SET entry = 0 WHERE kind = 'intent'"],
         "intent of run {run}: entry 0 does not hold its digest"),
        (["UPDATE run_inputs SET leaves = zeroblob(192)"],
         "intent of run {run}: what is kept of its inputs is not what was signed"),
        (["UPDATE run_inputs SET leaves = zeroblob(7)"],
         "intent of run {run}: what is kept of its inputs is not what was signed"),
        (["DELETE FROM run_inputs"], "intent of run {run}: what went into it is not kept"),
        (["UPDATE run_inputs SET salt = zeroblob(32)"],
         "intent of run {run}: the salt of its inputs is not the one that was logged"),
        (["INSERT INTO run_inputs VALUES ('other', x'00', x'')"],
         "inputs of run other: no intent speaks of them"),
        (["UPDATE receipts SET time = '2026-11-21T12:00:00Z'"],
         "intent of run {run}: column time differs from entry 5"),
        (["UPDATE receipts SET agreement = 'another'"],
         "completion of run {run}: column agreement differs from entry 7"),
        # the log
        (["UPDATE subtree_leaves SET leaf = zeroblob(10) WHERE \"index\" = {leaf}"],
         "entry 3: the leaves of its sub-tree differ"),
        (["UPDATE log_entries SET leaf = zeroblob(10) WHERE \"index\" = 3"],
         "entry 3: leaf hash differs"),
        (["DELETE FROM log_entries WHERE \"index\" = 7"],
         "completion of run {run}: entry 7 does not hold its digest"),
        (["DELETE FROM checkpoints WHERE size = 23", "DELETE FROM cosignatures"],
         "entries 7 to 22: no checkpoint signs for them"),
        # what this node has cosigned
        (["UPDATE witnessed SET size = size - 1"],
         "record of what was cosigned for partner.example/log: its columns differ"),
        (["UPDATE witnessed SET note = zeroblob(10)"],
         "record of what was cosigned for partner.example/log: E510 A signed note or one"),
        (["UPDATE witnessed SET origin = 'other'"],
         "record of what was cosigned for other: it is no partner's log"),
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
    assert len(found) == 10, "nine consents, one of which has two leaves"


def test_signatures_count_by_pinned_keys_only(run):
    stranger = {**run.keys, "partner": SigningKey.generate().public}
    findings = verify(run, keys=stranger).report.findings
    assert findings == [
        "agreement credit-2026, version 1: its state is signed, its signatures say otherwise",
        "notice 1 of partner on agreement credit-2026: partner has not signed it",
        "notice 1 of partner on agreement credit-2026: a signature is of no party's key",
        "notice 1 of partner on agreement credit-2026: no entry speaks of its acknowledgement",
        f"intent of run {run.run}: E551 A receipt names a key that is not the party's pinned one.",
        f"completion of run {run.run}: E551 A receipt names a key that is not the party's "
        "pinned one.",
    ]


def test_a_cosignature_by_a_stranger_is_found(run):
    findings = verify(run, witnesses=[]).report.findings
    assert findings == [
        "cosignature of partner.example/witness on checkpoint 23: not a known witness's"
    ]


def test_the_wrong_wrapping_key_is_found(run):
    other = VaultKeys(run.bank.vault.lookup, token_bytes(32))
    findings = verify(run, vault=other).report.findings
    assert "person 1 of the vault: the secret does not open" in findings


# What is not found, and why that does no harm: everything else has to be.
UNNOTICED_CHANGES = {
    "schema_version.version": "says nothing about what is stored; a newer one is refused",
}
UNNOTICED_REMOVALS = {
    "checkpoints": "one that nobody cosigned; a later one covers it",
    "cosignatures": "the verdict says up to where the log is cosigned",
    "schema_version": "the store cannot be opened then",
    "witnessed": "the partner sees it when it next asks for a cosignature",
}
UNNOTICED_ADDITIONS = {
    "schema_version": "the store cannot be opened then",
    "subjects": "nobody who has no consent gets into a run",
    "terms": "nor does anybody by terms that no consent has",
}


def another(value):
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int():
            return value - 1
        case str():
            return value[:-1] + ("0" if value.endswith("1") else "1")
        case bytes():
            return value[:-1] + bytes([value[-1] ^ 1]) if value else b"1"
    return "something"


def fresh(key):
    """A key that no row has."""
    return key + 1000 if isinstance(key, int) else another(key)


class Undone(Exception):
    pass


def unnoticed(run, changes):
    """Of changes, each a statement by the name of what it changes, those an audit does not find."""
    names = set()
    for name, statement in changes:
        with suppress(IntegrityError, Undone), write(run.bank.engine) as conn:
            conn.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
            conn.execute(statement)
            if verify_in(conn, run).ok:
                names.add(name)
            raise Undone
    return names


@pytest.fixture
def rows(run):
    """Every row there is: its table, its values, and a condition that finds it."""
    with read(run.bank.engine) as conn:
        return [
            (table, row, and_(*(column == row[column.name] for column in table.primary_key)))
            for table in metadata.sorted_tables
            for row in conn.execute(table.select()).mappings()
        ]


def test_no_value_can_be_changed_unnoticed(run, rows):
    assert {table.name for table, *_ in rows} >= {
        *("agreements", "checkpoints", "consent_leaves", "consents", "cosignatures", "log_entries"),
        *("receipts", "refusals", "run_inputs", "subjects", "subtree_leaves", "terms"),
        *("schema_version", "witnessed", "agreement_notices", "users", "proposals"),
        *("notices", "restrictions", "tombstones", "vault"),
    }
    changes = (
        (f"{table.name}.{column.name}", update(table).where(where).values({column: value}))
        for table, row, where in {row[0]: row for row in rows}.values()
        for column in table.c
        for value in (another(row[column.name]),)
    )
    assert unnoticed(run, changes) == UNNOTICED_CHANGES.keys()


def test_no_value_can_take_another_type_unnoticed(run, rows):
    last = {table: where for table, _, where in rows}
    changes = (
        (
            f"{table.name}.{column.name}",
            update(table).where(where).values({column: literal_column(value)}),
        )
        for table, where in last.items()
        for column in table.c
        for value in ("x'07'", "'text'")
    )
    assert unnoticed(run, changes) == set()


def test_no_row_can_be_removed_unnoticed(run, rows):
    changes = ((table.name, delete(table).where(where)) for table, _, where in rows)
    assert unnoticed(run, changes) == UNNOTICED_REMOVALS.keys()


def test_no_row_can_be_added_unnoticed(run, rows):
    last = {table: row for table, row, _ in rows}
    changes = (
        (table.name, insert(table).values({**row, **of_its_own, column.name: value}))
        for table, row in last.items()
        for of_its_own in ({key.name: fresh(row[key.name]) for key in table.primary_key},)
        for column in table.c
        for value in (of_its_own.get(column.name, another(row[column.name])),)
    )
    assert unnoticed(run, changes) == UNNOTICED_ADDITIONS.keys()


SECOND = (
    "INSERT INTO consents SELECT 99, subject, terms, granted_at {more}, expires_at, 'ConsentGiven',"
    " 9223372036854775807, notice FROM consents WHERE id = 6"
)
FIRST_LEAF = "UPDATE consent_leaves SET consent = 99 WHERE consent = 6 AND entry = 3"


def test_a_withdrawn_consent_cannot_be_kept_beside_itself(run):
    """The leaf of the grant is given to a second row, and the withdrawal left to the first."""
    tamper(run, SECOND.format(more="+ 0.5"), FIRST_LEAF)
    (finding,) = verify(run).report.findings
    assert finding == "table consents: column granted_at holds 1 value of another type"


def test_nor_in_a_table_whose_constraints_were_removed(run):
    engine = create_engine(run.bank.engine.url)
    with engine.begin() as conn:
        conn.exec_driver_sql("CREATE TABLE other AS SELECT * FROM consents")
        conn.exec_driver_sql("DROP TABLE consents")
        conn.exec_driver_sql("ALTER TABLE other RENAME TO consents")
    tamper(run, SECOND.format(more=""), FIRST_LEAF)
    assert verify(run).report.findings == ["consent 99: the vault holds it twice"]


def test_a_bit_that_makes_a_text_unreadable_has_a_number(run):
    tamper(run, "UPDATE terms SET purpose = CAST(x'ff' AS TEXT)")
    with pytest.raises(StoreDamaged):
        verify(run)


def test_a_completion_needs_a_release(tmp_path):
    bank, partner = (Institution.create(tmp_path, name) for name in ("bank", "partner"))
    sign_agreement(bank, partner)
    bank.take({"subject": PEOPLE[0]})
    run = Run(bank, partner, bank.decide(PEOPLE[0]))
    run.begin()
    run.complete()
    with write(bank.engine) as conn:
        bank.log.checkpoint(conn)
    assert verify(run).report.findings == [
        f"completion of run {run.run}: no entry says that the gate released these inputs"
    ]


def test_an_agreement_that_nobody_signed_is_as_it_was_proposed(tmp_path):
    bank, partner = (Institution.create(tmp_path, name) for name in ("bank", "partner"))
    keys = bank.register(partner).keys
    with write(bank.engine) as conn:
        bank.register(partner).propose(conn, AGREEMENT, by="wang", time=NOW)
        bank.log.checkpoint(conn)
        assert audit.verify(conn, bank.log.verifier, keys=keys, vault=bank.vault).ok
        conn.execute(update(agreements).values(state="offered"))
        verdict = audit.verify(conn, bank.log.verifier, keys=keys, vault=bank.vault)
    assert verdict.report.findings == [
        "agreement credit-2026, version 1: its state is offered, its signatures say otherwise"
    ]
