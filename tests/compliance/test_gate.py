import hmac
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_bytes

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from institutions import AGREEMENT, BANK, NOW, Institution, person
from sqlalchemy import delete, event, select, text, update

from compliance import merkle
from compliance.batch import as_bytes, fetch, sorted_rows
from compliance.canonical import canonical, parse
from compliance.consent import consent_leaves, consents
from compliance.errors import ConsentChanged, NobodyEligible, VaultKey
from compliance.gate import Scope, admit, confirm, decide, narrowed, release, run_inputs, still
from compliance.store import read, write
from compliance.vault import VaultKeys, subjects

LIVE = person(999)


@pytest.fixture
def bank(new_store):
    side = Institution.create(new_store, "bank")
    side.take({"subject": LIVE})
    return side


def test_each_side_asks_its_people_for_what_it_provides():
    assert Scope.of(AGREEMENT, "bank") == Scope(
        "credit-2026",
        1,
        "credit-risk-assessment",
        "partner",
        frozenset({"customer-profile", "credit-performance"}),
    )
    partner = Scope.of(AGREEMENT, "partner")
    assert (partner.recipient, partner.categories) == ("bank", {"payment-behaviour"})


FAR_TO_NEAR = [
    ("another purpose", {"purpose": "marketing"}),
    ("another recipient", {"recipient": "other"}),
    ("categories not covered", {"categories": "customer-profile"}),
    ("not yet valid", {"granted_at": "2027-01-01T00:00:00Z"}),
    ("expired", {"expires_at": "2026-06-30T00:00:00+08:00"}),
    ("withdrawn", {"withdrawn_at": "2026-10-15T12:00:00+08:00"}),
    ("live", {}),
]


@pytest.mark.parametrize(("reason", "change"), FAR_TO_NEAR[:-1])
def test_each_reason_is_counted(bank, reason, change):
    bank.take(*({"subject": person(number)} | change for number in range(3)))
    decision = bank.decide(person(0), LIVE, person(1), person(2), person(3))
    assert decision.excluded == {"no consent": 1, reason: 3}
    assert list(decision.eligible) == [False, True, False, False, False]


@pytest.mark.parametrize("nearest", range(1, len(FAR_TO_NEAR)))
def test_a_person_counts_under_the_nearest_reason(bank, nearest):
    bank.take(*(change for _, change in FAR_TO_NEAR[: nearest + 1][::-1]))
    decision = bank.decide(person(1), LIVE)
    reason = FAR_TO_NEAR[nearest][0]
    assert decision.excluded == ({} if reason == "live" else {reason: 1})


def test_credit_reporting_takes_a_written_consent(bank):
    scope = replace(BANK, kinds=frozenset({"written"}))
    kinds = ("general", "separate", "guardian", "written")
    bank.take(*({"subject": person(at), "kind": kind} for at, kind in enumerate(kinds)))
    people = [person(at) for at in range(len(kinds))]
    decision = bank.decide(*people, scope=scope)
    assert list(decision.eligible) == [False, False, False, True]
    assert decision.excluded == {"another kind": 3}
    assert bank.decide(*people).size == 4, "any kind does where the agreement does not say"


def test_a_restricted_person_stays_out(bank):
    bank.take({"subject": person(1)})
    subject = as_bytes(bank.vault.subjects_of([person(1)]))[0]
    with write(bank.engine) as conn:
        conn.execute(update(subjects).where(subjects.c.subject == subject).values(restricted=True))
    assert bank.decide(person(1), LIVE).excluded == {"restricted": 1}


@pytest.mark.parametrize("mark", ["2", "'no'", "x''", "0.5"])
def test_what_is_not_plainly_unrestricted_is_restricted(tmp_path, mark):
    bank = Institution.create(tmp_path, "bank")
    bank.take({"subject": person(1)}, {"subject": LIVE})
    (subject,) = as_bytes(bank.vault.subjects_of([person(1)]))
    with write(bank.engine) as conn:
        conn.execute(
            text(f"UPDATE subjects SET restricted = {mark} WHERE subject = :subject"),  # noqa: S608
            {"subject": subject},
        )
    assert bank.decide(person(1), LIVE).excluded == {"restricted": 1}


def test_a_state_that_is_not_known_lets_nobody_in(bank):
    bank.take({"subject": person(1)})
    with write(bank.engine) as conn:
        last = select(consents.c.id).order_by(consents.c.id.desc()).limit(1)
        conn.execute(
            update(consents).where(consents.c.id == last.scalar_subquery()).values(state="Unsure")
        )
    assert bank.decide(person(1), LIVE).excluded == {"no consent": 1}


def test_more_categories_than_needed_do_no_harm(bank):
    bank.take({"categories": "a;credit-performance;customer-profile;z"})
    assert bank.decide(person(1)).size == 1


INSTANTS = st.integers(-2, 2).map(lambda step: NOW + timedelta(microseconds=step))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(INSTANTS, INSTANTS, st.none() | INSTANTS).filter(lambda row: row[0] < row[1]),
        min_size=1,
        max_size=4,
    )
)
def test_live_means_granted_not_expired_and_not_withdrawn_by_now(rows):
    """Any live consent suffices; the boundaries are exact to the microsecond."""
    with tempfile.TemporaryDirectory() as folder:
        bank = Institution.create(Path(folder), "bank")
        bank.take(
            {"subject": LIVE},
            *(
                {
                    "granted_at": granted.isoformat(),
                    "expires_at": expires.isoformat(),
                    "withdrawn_at": withdrawn.isoformat() if withdrawn else "",
                }
                for granted, expires, withdrawn in rows
            ),
        )
        expected = any(
            granted <= NOW < expires and not (withdrawn and withdrawn <= NOW)
            for granted, expires, withdrawn in rows
        )
        assert list(bank.decide(person(1), LIVE).eligible) == [expected, True]


def test_nobody_eligible_is_an_error_with_the_counts(bank):
    bank.take({"withdrawn_at": "2026-10-15T12:00:00+08:00"})
    with pytest.raises(NobodyEligible, match="no consent: 1, withdrawn: 1") as refused:
        bank.decide(person(1), person(2))
    assert refused.value.excluded == {"no consent": 1, "withdrawn": 1}
    with pytest.raises(NobodyEligible, match="it is empty"):
        bank.decide()


def test_nobody_eligible_in_an_empty_vault(new_store):
    with pytest.raises(NobodyEligible, match="no consent: 1"):
        Institution.create(new_store, "new").decide(person(1))


def test_misuse_is_not_let_through(bank):
    with pytest.raises(ValueError, match="has the key of"):
        bank.decide(LIVE, LIVE)
    with pytest.raises(TypeError):
        bank.decide(LIVE, now=datetime(2026, 11, 23))
    bank.vault = VaultKeys(bank.vault.lookup, token_bytes(32))
    with pytest.raises(VaultKey):
        bank.decide(LIVE)
    bank.vault = VaultKeys(token_bytes(32), bank.vault.wrapping)
    with pytest.raises(NobodyEligible):
        bank.decide(LIVE)


# References and the root


def test_references_and_root_are_as_specified(bank):
    people = [person(number) for number in range(40)]
    bank.take(*({"subject": subject} for subject in people[::2]))
    decision = bank.decide(*people)
    assert list(decision.eligible) == [True, False] * 20
    text = canonical(
        ["concordat.run", "bank.example/log", "credit-2026", 1, "credit-risk-assessment"]
    )
    secret = secrets_of(bank)
    expected = [hmac.digest(secret[subject], text, "sha256") for subject in people[::2]]
    assert as_bytes(decision.references) == expected
    leaves = sorted(hmac.digest(decision.salt, reference, "sha256") for reference in expected)
    assert as_bytes(decision.leaves) == leaves
    assert decision.root == merkle.root(leaves)
    assert decision.size == 20


def secrets_of(side):
    """The secret of persons 0 to 999, as far as the vault knows them."""
    with read(side.engine) as conn:
        rows = fetch(conn, select(subjects))
    secrets = dict(zip(rows["subject"], as_bytes(side.vault.unwrap(rows)), strict=True))
    people = [person(number) for number in range(1000)]
    known = zip(people, as_bytes(side.vault.subjects_of(people)), strict=True)
    return {name: secrets[subject] for name, subject in known if subject in secrets}


def test_a_person_cannot_be_followed_from_one_agreement_or_run_to_another(bank):
    decisions = [
        bank.decide(LIVE, scope=scope)
        for scope in (BANK, BANK, replace(BANK, agreement="credit-2027"), replace(BANK, version=2))
    ]
    first, again, other, newer = (decision.references.tobytes() for decision in decisions)
    assert first == again
    assert len({first, other, newer}) == 3
    assert len({decision.root for decision in decisions}) == 4, "every run has a salt of its own"


def test_a_decision_names_the_checkpoint_it_was_made_at(bank):
    decision = bank.decide(LIVE)
    with read(bank.engine) as conn:
        assert decision.checkpoint == bank.log.head(conn)
    assert decision.checkpoint.size == 1
    decision.checkpoint.verify(bank.log.verifier)


def test_what_went_into_a_run_is_kept(bank):
    decision = bank.decide(LIVE)
    with write(bank.engine) as conn:
        admit(conn, "ab" * 16, decision)
        row = conn.execute(select(run_inputs)).one()
    assert (row.run, row.salt, row.leaves) == ("ab" * 16, decision.salt, decision.leaves.tobytes())


# Release


def released(bank, decision, now=NOW):
    with write(bank.engine) as conn:
        return release(conn, bank.log, "ab" * 16, decision, now=now)


def test_a_release_is_logged_with_the_inputs_it_rests_on(bank):
    decision = bank.decide(LIVE)
    index = released(bank, decision)
    with read(bank.engine) as conn:
        (entry,) = bank.log.entries(conn, index)
    body = parse(entry.leaf)
    assert (body["type"], body["run"]) == ("run.release", "ab" * 16)
    assert (body["root"], body["size"]) == (decision.root.hex(), 1)


def test_whoever_withdrew_meanwhile_stops_the_release(bank):
    people = [person(number) for number in range(5)]
    bank.take(*({"subject": subject} for subject in people))
    decision = bank.decide(LIVE, *people)
    bank.take(*({"subject": subject, "withdrawn_at": NOW.isoformat()} for subject in people[:2]))
    with pytest.raises(ConsentChanged, match="for 2 of the people") as changed:
        released(bank, decision)
    assert changed.value.people == 2
    with read(bank.engine) as conn:
        assert "run.release" not in [entry.type for entry in bank.log.entries(conn)]
    assert bank.decide(LIVE, *people).excluded == {"withdrawn": 2}


def test_time_passes_while_a_run_is_under_way(bank):
    decision = bank.decide(LIVE)
    end = datetime(2028, 12, 30, 16, tzinfo=UTC)
    released(bank, decision, end - timedelta(microseconds=1))
    with pytest.raises(ConsentChanged):
        released(bank, decision, end)


def test_another_live_consent_of_the_same_person_suffices(bank):
    bank.take({"granted_at": "2025-01-01T00:00Z"}, {"granted_at": "2025-02-01T00:00Z"})
    decision = bank.decide(person(1))
    bank.take({"granted_at": "2025-01-01T00:00Z", "withdrawn_at": "2026-11-01T00:00Z"})
    released(bank, decision)


def test_whoever_was_forgotten_and_came_back_stops_the_release(bank):
    bank.take({})
    decision = bank.decide(LIVE, person(1))
    with write(bank.engine) as conn:
        forgotten = int(decision.people.max())
        held = select(consents.c.id).where(consents.c.subject == forgotten)
        conn.execute(delete(consent_leaves).where(consent_leaves.c.consent.in_(held)))
        conn.execute(delete(consents).where(consents.c.subject == forgotten))
        conn.execute(delete(subjects).where(subjects.c.id == forgotten))
        bank.log.append(conn, "consent.erased", {}, time=NOW)
    with pytest.raises(ConsentChanged, match="for 1 of"):
        released(bank, decision)
    bank.take({"subject": person(2)}, {})
    with write(bank.engine) as conn, pytest.raises(ConsentChanged, match="for 1 of"):
        confirm(conn, decision, now=NOW)


# What stays of a decision


def narrowed_to_all(bank, *people):
    decision = bank.decide(*people)
    with write(bank.engine) as conn:
        return narrowed(conn, bank.log, decision, np.ones(len(people), bool), now=NOW)


def test_a_decision_is_narrowed_to_who_may_still(bank):
    people = [person(number) for number in range(5)]
    bank.take(*({"subject": subject} for subject in people))
    decision = narrowed_to_all(bank, *people)
    bank.take({"subject": people[2], "withdrawn_at": NOW.isoformat()})
    with write(bank.engine) as conn:
        stays = still(conn, decision, now=NOW)
        rest = narrowed(conn, bank.log, decision, stays, now=NOW)
        confirm(conn, rest, now=NOW)
    assert stays.tolist() == [True, True, False, True, True]
    with write(bank.engine) as conn:
        fresh = decide(conn, bank.log, bank.vault, [*people[:2], *people[3:]], BANK, now=NOW)
    assert as_bytes(rest.references) == as_bytes(fresh.references)
    leaves = sorted(hmac.digest(rest.salt, one, "sha256") for one in as_bytes(fresh.references))
    assert (as_bytes(rest.leaves), rest.root, rest.size) == (leaves, merkle.root(leaves), 4)
    assert rest.people.tolist() == fresh.people.tolist()
    assert rest.checkpoint.size == 3


def test_a_decision_that_nobody_is_left_of_is_none(bank):
    bank.take({})
    decision = narrowed_to_all(bank, person(1))
    with write(bank.engine) as conn, pytest.raises(NobodyEligible, match="no longer: 1"):
        narrowed(conn, bank.log, decision, np.zeros(1, bool), now=NOW)


def looked_at(bank, decision, now):
    """Whether anybody's consents are looked at to confirm a decision."""
    seen = []
    event.listen(bank.engine, "before_cursor_execute", lambda *call: seen.append(call[2]))
    with write(bank.engine) as conn:
        still(conn, decision, now=now)
    return any("FROM subjects" in statement for statement in seen)


@pytest.mark.parametrize("of", [Institution.decide, narrowed_to_all])
def test_a_decision_is_looked_at_only_when_something_may_have_changed(bank, of):
    ends = datetime(2026, 12, 1, tzinfo=UTC)
    bank.take({}, {"subject": person(2), "expires_at": ends.isoformat()})
    decision = of(bank, person(1), person(2))
    assert not looked_at(bank, decision, NOW)
    assert not looked_at(bank, decision, ends - timedelta(microseconds=1))
    assert looked_at(bank, decision, ends)  # a consent of somebody's ends then
    assert looked_at(bank, decision, NOW - timedelta(microseconds=1))  # a clock set back
    released(bank, decision)  # its own entry changes nothing
    assert not looked_at(bank, decision, NOW)
    with write(bank.engine) as conn:
        bank.log.append(conn, "something.new", {}, time=NOW)
    assert looked_at(bank, decision, NOW)


def test_a_table_larger_than_one_query(bank):
    people = [person(number) for number in range(1000, 23_000)]
    with write(bank.engine) as conn, pytest.raises(NobodyEligible, match="no consent: 22000"):
        decide(conn, bank.log, bank.vault, people, BANK, now=NOW)
    decision = bank.decide(*people[:15_000], LIVE, *people[15_000:])
    assert np.flatnonzero(decision.eligible).tolist() == [15_000]


def test_few_are_looked_up_and_many_read_with_the_same_outcome(bank):
    """Of two in a hundred the vault's rows are named; of half of them all rows are read."""
    people = [person(number) for number in range(100)]
    bank.take(
        *({"subject": one} for one in people[:70]), {"subject": people[80], "kind": "general"}
    )
    bank.take(*({"subject": one, "withdrawn_at": "2026-10-15T12:00:00Z"} for one in people[:5]))
    few, many = [people[3], people[60]], people[40:] + people[:5]
    assert bank.decide(*few).excluded == {"withdrawn": 1}
    with pytest.raises(NobodyEligible, match="no consent: 1"):
        bank.decide(people[99])
    decision = bank.decide(*many)
    assert decision.excluded == {"no consent": 29, "withdrawn": 5}
    (shared,) = np.flatnonzero(bank.decide(*few).eligible)
    assert few[shared] == people[60]
    with write(bank.engine) as conn:
        confirm(conn, decision, now=NOW)
    assert len(np.unique(decision.references, axis=0)) == decision.size == 31


def test_rows_that_begin_alike_are_sorted_by_the_rest():
    rows = np.zeros((50, 32), np.uint8)
    rows[:, 20] = np.arange(50)[::-1]
    assert (sorted_rows(rows)[:, 20] == np.arange(50)).all()
