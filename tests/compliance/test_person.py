import hmac
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_hex

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from institutions import CONSENT, NOW, Institution, person

from compliance import audit, erasure
from compliance.canonical import canonical, parse
from compliance.consent import NEVER, consents, microseconds, refusals, terms
from compliance.erasure import Files
from compliance.errors import (
    ConsentInvalid,
    ConsentSuperseded,
    NobodyEligible,
    NothingToChange,
    PersonUnknown,
)
from compliance.person import Changes
from compliance.store import read, write
from compliance.vault import WRAPPING_KEYS, create_key, erased_at, subjects

ANNA, BEN = person(1), person(2)
TERMS = {name: CONSENT[name] for name in ("purpose", "recipient", "categories", "kind")}
GRANT = TERMS | {name: CONSENT[name] for name in ("granted_at", "expires_at")}
PAIR = {name: CONSENT[name] for name in ("purpose", "recipient")}


def times(month):
    return f"2026-{month:02}-01T00:00:00Z"


@pytest.fixture
def bank(tmp_path):
    return Institution.create(tmp_path, "bank")


def change(side, verb, *arguments, now=NOW):
    with write(side.engine) as conn:
        done = getattr(Changes(conn, side.log, side.vault, now), verb)(*arguments)
        side.log.checkpoint(conn)
    return done


def entries(side):
    with read(side.engine) as conn:
        return [parse(entry.leaf) for entry in side.log.entries(conn)]


def findings(side):
    with read(side.engine) as conn:
        return audit.verify(conn, side.log.verifier, keys={}, vault=side.vault).report.findings


def eligible(side, *people):
    try:
        return side.decide(*people).size
    except NobodyEligible:
        return 0


def test_a_grant_lets_a_person_in_and_is_one_entry(bank):
    done = change(bank, "grant", ANNA, GRANT)
    assert (done.state, done.consents, done.entry) == ("ConsentGiven", 1, 0)
    assert eligible(bank, ANNA) == 1
    assert [entry["type"] for entry in entries(bank)] == ["consent.given"]
    assert findings(bank) == []


def test_what_is_known_already_is_granted_once(bank):
    bank.take({})
    bank_before = len(entries(bank))
    assert change(bank, "grant", ANNA, GRANT).entry is None
    assert len(entries(bank)) == bank_before


def test_an_entry_holds_two_hmacs_under_the_persons_secret(bank):
    change(bank, "grant", ANNA, GRANT)
    change(bank, "withdraw", ANNA, {"at": times(3), "reason": "by-letter"})
    with read(bank.engine) as conn:
        rows = pd.DataFrame(conn.execute(subjects.select()).mappings())
    secret = bank.vault.unwrap(rows)[0].tobytes()
    given, withdrawn = entries(bank)
    asked = ["concordat.consent", bank.log.origin, "partner", "credit-risk-assessment"]
    said = {**PAIR, "at": times(3), "reason": "by-letter", "state": "ConsentWithdrawn"}
    consent = {
        **TERMS,
        "categories": ["credit-performance", "customer-profile"],
        "granted_at": "2025-06-15T01:00:00Z",
        "expires_at": "2028-12-30T16:00:00Z",
        "state": "ConsentGiven",
    }
    for entry, record in ((given, consent), (withdrawn, said)):
        assert entry.keys() == {"type", "time", "nonce", "record", "reference"}
        assert entry["record"] == hmac.digest(secret, canonical(record), "sha256").hex()
        assert entry["reference"] == hmac.digest(secret, canonical(asked), "sha256").hex()


def test_a_withdrawal_ends_what_was_granted_and_what_is_imported_later(bank):
    bank.take({}, {"recipient": "other"})
    (done,) = change(bank, "withdraw", ANNA, {**PAIR, "at": times(3)})
    assert (done.state, done.consents) == ("ConsentWithdrawn", 1)
    assert eligible(bank, ANNA) == 0
    assert bank.take({"granted_at": times(2)}).new == 1
    assert eligible(bank, ANNA) == 0
    assert bank.take({"granted_at": times(4)}).new == 1
    assert eligible(bank, ANNA) == 1
    assert findings(bank) == []


def test_a_withdrawal_without_a_purpose_ends_everything(bank):
    bank.take({}, {"recipient": "other"}, {"purpose": "marketing"})
    done = change(bank, "withdraw", ANNA, {"at": times(3)})
    assert sum(one.consents for one in done) == len(done) == 3
    assert len({entry["reference"] for entry in entries(bank)[1:]}) == 3
    assert findings(bank) == []


@pytest.mark.parametrize("state", ["ConsentRevoked", "ConsentInvalidated"])
def test_a_consent_can_be_ended_by_others(bank, state):
    bank.take({})
    (done,) = change(bank, "withdraw", ANNA, {"at": times(3)}, state)
    assert done.state == state
    with pytest.raises(NobodyEligible, match="withdrawn: 1"):
        bank.decide(ANNA)
    assert findings(bank) == []


def test_a_refusal_needs_no_consent_and_ends_an_older_one(bank):
    done = change(bank, "refuse", ANNA, {**PAIR, "at": times(3)})
    assert (done.state, done.consents) == ("ConsentRefused", 0)
    bank.take({}, {"subject": BEN})
    assert eligible(bank, ANNA, BEN) == 1
    assert change(bank, "refuse", BEN, {**PAIR, "at": times(3)}).consents == 1
    assert eligible(bank, ANNA, BEN) == 0
    assert findings(bank) == []


def test_a_grant_has_to_be_newer_than_what_was_said_against_it(bank):
    change(bank, "refuse", ANNA, {**PAIR, "at": times(3)})
    bank.take({"subject": BEN, "withdrawn_at": times(3)})
    for whom in (ANNA, BEN):
        for at in (GRANT["granted_at"], times(3)):
            with pytest.raises(ConsentSuperseded, match="2026-03-01T00:00:00Z"):
                change(bank, "grant", whom, GRANT | {"granted_at": at})
        assert change(bank, "grant", whom, GRANT | {"granted_at": times(4)}).consents == 1
    assert eligible(bank, ANNA, BEN) == 2


def test_a_renewal_outlives_what_it_renews(bank):
    bank.take({"expires_at": times(6)})
    assert eligible(bank, ANNA) == 0
    until = {"granted_at": times(7), "expires_at": "2028-01-01T00:00:00Z"}
    done = change(bank, "renew", ANNA, {**PAIR, **until})
    assert done.state == "RenewedConsentGiven"
    assert eligible(bank, ANNA) == 1
    assert change(bank, "withdraw", ANNA, {"at": times(8)})[0].consents == 2
    assert eligible(bank, ANNA) == 0
    with pytest.raises(NothingToChange):
        change(bank, "renew", ANNA, {**PAIR, **until, "recipient": "other"})
    assert findings(bank) == []


def test_what_has_been_withdrawn_cannot_be_renewed(bank):
    bank.take({"withdrawn_at": times(3)})
    with pytest.raises(NothingToChange):
        change(bank, "renew", ANNA, GRANT | {"granted_at": times(4)})


def test_a_withdrawal_that_changes_nothing_says_so(bank):
    with pytest.raises(PersonUnknown):
        change(bank, "withdraw", ANNA, {"at": times(3)})
    bank.take({})
    for said in ({"at": "2020-01-01T00:00:00Z"}, {"at": times(3), "recipient": "other"}):
        with pytest.raises(NothingToChange):
            change(bank, "withdraw", ANNA, said)
    change(bank, "withdraw", ANNA, {"at": times(3)})
    with pytest.raises(NothingToChange):
        change(bank, "withdraw", ANNA, {"at": times(4)})


@pytest.mark.parametrize(
    ("verb", "said", "problem"),
    [
        ("grant", {"kind": "verbal"}, "kind is none of"),
        ("grant", {"expires_at": ""}, "expires_at is missing"),
        ("grant", {"granted_at": "2026-01-01T00:00:00"}, "granted_at has no offset"),
        ("grant", {"categories": "a b"}, "categories is no list"),
        ("refuse", {"purpose": ""}, "purpose is missing"),
        ("refuse", {"at": "yesterday"}, "at is no ISO 8601 time"),
        ("refuse", {"at": "2027-01-01T00:00:00Z"}, "at lies in the future"),
        ("refuse", {"reason": "he said so"}, "reason is no short name"),
        ("withdraw", {"at": "2027-01-01T00:00:00Z"}, "at lies in the future"),
    ],
)
def test_what_is_said_is_checked_and_nothing_is_recorded(bank, verb, said, problem):
    bank.take({"subject": BEN})
    before = entries(bank)
    with pytest.raises(ConsentInvalid, match=problem):
        change(bank, verb, ANNA, GRANT | {"at": times(3)} | said)
    assert entries(bank) == before


# Any order against a model

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["import", "grant", "refuse", "withdraw", "erase"]),
        st.sampled_from([ANNA, BEN]),
        st.sampled_from(["partner", "other"]),
        st.integers(1, 6),
        st.sampled_from([None, 2, 5]),
    ),
    max_size=8,
)


class Model:
    """Consents by who, for whom and from when; and what was said against them."""

    def __init__(self):
        self.own, self.noes, self.erased = {}, [], {}

    def erase(self, who, _recipient, month, _):
        """In the middle of a month; nobody is erased who is not known, or in the past."""
        if who in self.known() and month >= self.erased.get(who, 0):
            self.erased[who] = month
            self.own = {key: at for key, at in self.own.items() if key[0] != who}
            self.noes = [no for no in self.noes if no[0] != who]

    def known(self):
        return {who for who, *_ in (*self.own, *self.noes)}

    def import_(self, who, recipient, month, until):
        if month <= self.erased.get(who, 0):
            return
        key = (who, recipient, month)
        self.own[key] = min(self.own.get(key, 99), until or 99)

    def state(self):
        return {key: self.ended(key) for key in self.own}

    def ended(self, key):
        who, recipient, month = key
        return min(
            [self.own[key]]
            + [at for *pair, at in self.noes if pair == [who, recipient] and at >= month]
        )

    def last_no(self, who, recipient):
        ended = [at for key, at in self.state().items() if key[:2] == (who, recipient) and at < 99]
        return max([at for *pair, at in self.noes if pair == [who, recipient]] + ended, default=0)

    def grant(self, who, recipient, month, _):
        if month > max(self.last_no(who, recipient), self.erased.get(who, 0)):
            self.own.setdefault((who, recipient, month), 99)

    def refuse(self, who, recipient, month, _):
        if month > self.erased.get(who, 0):
            self.noes.append((who, recipient, month))

    def withdraw(self, who, recipient, month, _):
        if any(
            key[:2] == (who, recipient) and key[2] <= month < at for key, at in self.state().items()
        ):
            self.noes.append((who, recipient, month))


def apply(side, files, verb, who, recipient, *months):
    month, until = months
    said = {"recipient": recipient, "granted_at": times(month), "at": times(month)}
    if verb == "import":
        side.take({"subject": who, **said, "withdrawn_at": times(until) if until else ""})
    elif verb == "erase":
        now = datetime(2026, month, 15, tzinfo=UTC)
        with suppress(PersonUnknown), write(side.engine) as conn:
            (before,) = erased_at(conn, side.vault, [who])
            if microseconds(now) >= before:
                erasure.erase(conn, side.log, files, who, now=now)
        with write(side.engine) as conn:
            erasure.settle(conn, files)
        side.vault = files.keys()
    else:
        with suppress(ConsentSuperseded, NothingToChange, PersonUnknown):
            change(side, verb, who, GRANT | said)


def held(side):
    names = {side.vault.subjects_of([who])[0].tobytes(): who for who in (ANNA, BEN)}
    query = consents.join(terms).join(subjects).select().set_label_style(2)
    months = {
        microseconds(pd.Timestamp(times(month)).to_pydatetime()): month for month in range(1, 7)
    }
    months[NEVER] = 99
    with read(side.engine) as conn:
        rows = conn.execute(query).mappings().all()
        for row in rows:
            ended = row["consents_withdrawn_at"] < NEVER
            assert (row["consents_state"] == "ConsentWithdrawn") == ended
        return {
            (
                names[row["subjects_subject"]],
                row["terms_recipient"],
                months[row["consents_granted_at"]],
            ): months[row["consents_withdrawn_at"]]
            for row in rows
        }


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS)
def test_any_order_of_changes_gives_what_the_model_gives(new_store, events):
    with tempfile.TemporaryDirectory() as folder:
        files = Files(*(Path(folder) / name for name in ("lookup", "wrapping", "erased")))
        create_key(files.lookup)
        create_key(files.wrapping, WRAPPING_KEYS)
        bank, model = Institution.create(new_store, f"bank-{token_hex(8)}"), Model()
        bank.vault = files.keys()
        for verb, *event in events:
            apply(bank, files, verb, *event)
            getattr(model, verb if verb != "import" else "import_")(*event)
        assert held(bank) == model.state()
        with write(bank.engine) as conn:
            bank.log.checkpoint(conn)
        assert findings(bank) == []
        with read(bank.engine) as conn:
            assert len(conn.execute(refusals.select()).all()) == len(model.noes)
        bank.engine.dispose()
