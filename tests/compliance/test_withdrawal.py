"""Withdrawal notices between two stores, on either database."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from institutions import NOW, Institution, Run, person, sign_agreement

from compliance import gate, merkle, withdrawal
from compliance.canonical import canonical, parse
from compliance.errors import AcknowledgementRefused, InvalidSignature, WithdrawalRefused
from compliance.note import COSIGNATURE, VerifierKey
from compliance.person import Changes
from compliance.proof import Proof
from compliance.signing import Envelope, SigningKey
from compliance.store import read, write
from compliance.withdrawal import MAX_ROWS, PAYLOAD_TYPE, Acknowledgement, Notice, Presence
from compliance.witness import Answer, Witness, receive, request

PEOPLE = [person(number) for number in range(6)]


@pytest.fixture
def sides(new_store):
    bank, partner = (Institution.create(new_store, name) for name in ("bank", "partner"))
    sign_agreement(bank, partner)
    bank.take(*({"subject": subject} for subject in PEOPLE))
    return bank, partner


def released(bank: Institution, partner: Institution, *ids: str) -> tuple[Run, dict[str, str]]:
    """A run whose people have tokens: those by person."""
    run = Run(bank, partner, bank.decide(*ids))
    run.begin()
    places = np.arange(len(ids))[::-1]
    tokens = gate.as_tokens(places)
    with write(bank.engine) as conn:
        gate.release(conn, bank.log, run.run, run.decision, now=NOW, tokens=tokens)
    return run, {one: bytes(token).hex() for one, token in zip(ids, tokens, strict=True)}


def withdraw(bank: Institution, subject: str) -> tuple[list[Presence], list[Notice]]:
    with write(bank.engine) as conn:
        changes = Changes(conn, bank.log, bank.vault, NOW)
        changes.withdraw(subject, {"at": NOW.isoformat()})
        found = withdrawal.presences(
            *(conn, bank.log, bank.vault, [changes.find(subject).id]), institution="bank", now=NOW
        )
        sent = withdrawal.announce(conn, bank.log, bank.key, found, institution="bank", time=NOW)
        bank.log.checkpoint(conn)
    return found, sent


def test_each_is_named_by_what_the_run_called_them(sides):
    bank, partner = sides
    run, tokens = released(bank, partner, *PEOPLE)
    other, _ = released(bank, partner, *PEOPLE[3:])
    for subject in (PEOPLE[0], PEOPLE[4]):
        found, (notice,) = withdraw(bank, subject)
        runs = [run.run] if subject == PEOPLE[0] else [run.run, other.run]
        assert [one.run for one in found] == runs
        assert notice.rows[run.run] == [tokens[subject]]


def test_who_has_no_token_is_in_no_notice(sides):
    bank, partner = sides
    run = Run(bank, partner, bank.decide(*PEOPLE))
    run.begin()
    run.release()
    second = Run(bank, partner, bank.decide(*PEOPLE))
    second.begin()
    tokens = gate.as_tokens(np.array([-1, 0, 1, 2, 3, 4]))
    with write(bank.engine) as conn:
        gate.release(conn, bank.log, second.run, second.decision, now=NOW, tokens=tokens)
    found, sent = withdraw(bank, PEOPLE[0])
    assert [one.run for one in found] == [run.run, second.run]
    assert sent == []


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 6))
def test_a_token_stays_with_its_person_in_any_order(order, count):
    people = np.array(order[:count])
    references = np.frombuffer(bytes(range(32)) * 6, np.uint8).reshape(6, 32).copy()
    references[:, 0] = np.arange(6)
    salt = bytes(32)
    own = references[people]
    leaves = gate.sorted_rows(gate._native.hmac_sha256(salt, *gate.joined_rows(own)))
    decision = replace(_decision(), references=own, salt=salt, leaves=leaves)
    kept = gate._by_leaf(decision, gate.as_tokens(people))
    for one in range(6):
        (at,) = gate.places_in(leaves.tobytes(), salt, references[one : one + 1])
        if one in people:
            assert kept[at].tobytes() == gate.as_tokens(np.array([one])).tobytes()
        else:
            assert at == -1


def _decision() -> gate.Decision:
    nothing: Any = None
    return gate.Decision(*[nothing] * 11)


def test_a_notice_goes_there_and_back_once(sides):
    bank, partner = sides
    released(bank, partner, *PEOPLE)
    _, (notice,) = withdraw(bank, PEOPLE[2])
    answer = honoured(bank, partner, notice)
    for _ in range(2):
        with write(bank.engine) as conn:
            withdrawal.acknowledge(conn, bank.log, notice, answer, **keys(bank, partner), time=NOW)
    with read(bank.engine) as conn:
        assert withdrawal.undelivered(conn, "bank") == []
        (one,) = withdrawal.every(conn, now=NOW)
        types = [entry.type for entry in bank.log.entries(conn)]
    assert one["state"] == "acknowledged"
    assert types.count("withdrawal.acknowledged") == 1


def keys(bank: Institution, partner: Institution) -> dict[str, Any]:
    return {
        "key": partner.key.public,
        "their_log": partner.log.verifier,
        "witness": VerifierKey("bank.example/witness", WITNESS.public, COSIGNATURE),
    }


WITNESS = SigningKey.generate()


def honoured(bank: Institution, partner: Institution, notice: Notice) -> Acknowledgement:
    checked = withdrawal.check(notice.envelope, bank.key.public, sender="bank", recipient="partner")
    with write(partner.engine) as conn:
        entry, signed = withdrawal.honour(conn, partner.log, checked, partner.key, time=NOW)
        assert withdrawal.honour(conn, partner.log, checked, partner.key, time=NOW) == (
            entry,
            signed,
        )
        partner.log.checkpoint(conn)
        sent = request(conn, partner.log, 0)
    ours = Witness("bank.example/witness", WITNESS, [partner.log.verifier])
    with write(bank.engine) as conn:
        cosigned: Answer = ours.add_checkpoint(conn, sent.encode(), NOW)
    with write(partner.engine) as conn:
        assert receive(conn, partner.log, ours.verifier, sent, cosigned) is None
        head = partner.log.head(conn)
        (stored,) = partner.log.entries(conn, entry, entry + 1)
        hashes = partner.log.inclusion_proof(conn, entry, head.size)
    return Acknowledgement(signed, stored.leaf, Proof(entry, tuple(hashes), head).encode())


def test_no_changed_bit_acknowledges(sides):
    bank, partner = sides
    released(bank, partner, *PEOPLE)
    _, (notice,) = withdraw(bank, PEOPLE[2])
    answer = honoured(bank, partner, notice)
    withdrawal.verify(notice, answer, **keys(bank, partner))
    for name, data in vars(answer).items():
        for at in range(0, len(data), 7):
            spoilt = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            with pytest.raises(AcknowledgementRefused):
                withdrawal.verify(notice, replace(answer, **{name: spoilt}), **keys(bank, partner))
    assert merkle.leaf_hash(answer.entry)


def test_more_rows_than_a_notice_takes_are_several(sides):
    bank, _ = sides
    tokens = tuple(f"{number:016x}" for number in range(MAX_ROWS + 1))
    found = [Presence("ab" * 16, "credit-2026", "p", "partner", tokens)]
    with write(bank.engine) as conn:
        sent = withdrawal.announce(conn, bank.log, bank.key, found, institution="bank", time=NOW)
    assert [sum(map(len, one.rows.values())) for one in sent] == [MAX_ROWS, 1]
    assert all(len(one.envelope.to_json()) < 128 << 10 for one in sent)


KEY = SigningKey.generate()
VALID = {
    "notice": "0" * 32,
    "agreement": "credit-2026",
    "party": "bank",
    "recipient": "partner",
    "time": "2026-11-23T12:00:00Z",
    "rows": {"1" * 32: ["2" * 16]},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=8),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(VALID)), JSON)
def test_a_notice_with_another_part_is_a_notice_or_refused(name, value):
    envelope = Envelope(PAYLOAD_TYPE, canonical({**VALID, name: value})).sign(KEY)
    try:
        notice = withdrawal.check(envelope, KEY.public, sender="bank", recipient="partner")
    except WithdrawalRefused:
        return
    assert parse(notice.envelope.payload)[name] == value


@given(st.binary(max_size=200))
def test_garbage_is_no_notice_and_acknowledges_nothing(data):
    with pytest.raises((WithdrawalRefused, InvalidSignature)):
        withdrawal.check(
            Envelope(PAYLOAD_TYPE, data).sign(KEY), KEY.public, sender="bank", recipient="partner"
        )
    with pytest.raises(AcknowledgementRefused):
        Acknowledgement.parse(data)
