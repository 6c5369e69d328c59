"""Suspending, resuming and terminating an agreement, on both sides."""

import json
from dataclasses import replace
from itertools import chain

import pytest
from institutions import AGREEMENT, NOW, YAML, Institution, sign_agreement
from sqlalchemy import delete, select, update

from compliance import lifecycle
from compliance.agreement import Agreement
from compliance.canonical import canonical, parse
from compliance.errors import AgreementRefusal, AgreementUnknown, InvalidSignature, NoticeRefused
from compliance.lifecycle import MAX_NOTICES, RESUMED, SUSPENDED, TERMINATED, notices
from compliance.register import latest_signed
from compliance.signing import Envelope, SigningKey, keyid
from compliance.store import read, write

NAME = "credit-2026"


@pytest.fixture
def sides(new_store):
    bank, partner = (Institution.create(new_store, name) for name in ("bank", "partner"))
    sign_agreement(bank, partner)
    return bank, partner


def declare(side, other, step, reason="a complaint"):
    with write(side.engine) as conn:
        ours = side.register(other)
        notice = lifecycle.declare(
            conn, ours, NAME, step, side.key, reason=reason, by="li", time=NOW
        )
        side.log.checkpoint(conn)
        return notice


def receive(side, sender, envelope):
    with write(side.engine) as conn:
        ours = side.register(sender)
        notice = lifecycle.receive(conn, ours, envelope, side.key, sender=sender.name, time=NOW)
        side.log.checkpoint(conn)
        return notice


def tell(side, other, step):
    """Declares on one side, has the other receive it, and keeps the acknowledgement."""
    notice = declare(side, other, step)
    answer = receive(other, side, notice.envelope)
    signature = answer.envelope.signatures[other.key.keyid]
    with write(side.engine) as conn:
        ours, key = side.register(other), other.key.public
        lifecycle.acknowledge(conn, ours, notice, key, signature, by=other.name, time=NOW)
        side.log.checkpoint(conn)
    return notice


def in_force(side, other):
    with read(side.engine) as conn:
        return lifecycle.in_force(conn, NAME, side.register(other).keys)


def refused(side, other):
    with pytest.raises(AgreementRefusal) as error:
        in_force(side, other)
    return error.value.clause


def problems(side, other):
    with read(side.engine) as conn:
        entries = {entry.index: parse(entry.leaf) for entry in side.log.entries(conn)}
        return list(lifecycle.problems(conn, side.register(other).keys, entries))


def test_either_party_suspends_at_once_and_lifts_only_its_own(sides):
    bank, partner = sides
    assert in_force(bank, partner) == AGREEMENT
    tell(bank, partner, SUSPENDED)
    tell(partner, bank, SUSPENDED)
    tell(bank, partner, RESUMED)
    for side, other in (sides, sides[::-1]):
        assert refused(side, other) == "suspended"
    with pytest.raises(AgreementRefusal, match=r"partner suspended it on 2026-11-23 \(a compl"):
        in_force(bank, partner)
    tell(partner, bank, RESUMED)
    for side, other in (sides, sides[::-1]):
        assert in_force(side, other) == AGREEMENT
        assert problems(side, other) == []


def test_it_holds_before_the_partner_has_heard(sides):
    bank, partner = sides
    notice = declare(bank, partner, SUSPENDED)
    assert refused(bank, partner) == "suspended"
    assert in_force(partner, bank) == AGREEMENT
    with read(bank.engine) as conn:
        assert lifecycle.unacknowledged(conn, NAME) == [notice]
    assert declare(bank, partner, SUSPENDED) == notice, "to tell the partner again"


def test_what_is_terminated_stays_so(sides):
    bank, partner = sides
    tell(partner, bank, TERMINATED)
    for side, other in (sides, sides[::-1]):
        assert refused(side, other) == "terminated"
        with read(side.engine) as conn, pytest.raises(NoticeRefused, match="is terminated"):
            lifecycle.check_open(conn, NAME)
    for step in (SUSPENDED, RESUMED):
        with pytest.raises(NoticeRefused):
            declare(partner, bank, step)


def test_nothing_is_resumed_that_was_not_suspended(sides):
    bank, partner = sides
    with pytest.raises(NoticeRefused, match="bank has not suspended it"):
        declare(bank, partner, RESUMED)
    with pytest.raises(AgreementUnknown), write(bank.engine) as conn:
        lifecycle.declare(
            conn,
            bank.register(partner),
            "other",
            SUSPENDED,
            bank.key,
            reason="",
            by="li",
            time=NOW,
        )


def test_a_run_under_an_older_version_stops_when_a_newer_is_in_force(sides):
    bank, partner = sides
    keys = bank.register(partner).keys
    newer = Agreement.from_yaml(YAML.replace("version: 1", "version: 2"))
    with write(bank.engine) as conn:
        lifecycle.check_still(conn, AGREEMENT, keys)
        ours = bank.register(partner)
        ours.sign(conn, ours.propose(conn, newer, by="li", time=NOW), bank.key, by="li", time=NOW)
        lifecycle.check_still(conn, AGREEMENT, keys)
        signed = Envelope("application/vnd.concordat.agreement+json", newer.document)
        ours.receive(conn, signed.sign(partner.key), sender="partner", time=NOW)
        assert latest_signed(conn, NAME, keys).version == 2
        with pytest.raises(AgreementRefusal, match="by superseded: version 2"):
            lifecycle.check_still(conn, AGREEMENT, keys)
        lifecycle.check_still(conn, newer, keys)


# What a partner may send


def notice(side, **changes):
    said = {
        "agreement": NAME,
        "number": 1,
        "party": side.name,
        "reason": "",
        "step": SUSPENDED,
        "time": "2026-11-23T12:00:00Z",
    } | changes
    said = {name: value for name, value in said.items() if value is not None}
    return Envelope(lifecycle.PAYLOAD_TYPE, canonical(said)).sign(side.key)


@pytest.mark.parametrize(
    "changes",
    [
        {"party": "bank"},
        {"number": 0},
        {"number": 2},
        {"number": True},
        {"number": "1"},
        {"step": "resumed"},
        {"step": "forgotten"},
        {"reason": "x" * 300},
        {"reason": "a\nb"},
        {"reason": None},
        {"time": 7},
        {"more": "x"},
    ],
)
def test_a_notice_that_is_none_or_does_not_follow_is_refused(sides, changes):
    bank, partner = sides
    with pytest.raises(NoticeRefused):
        receive(bank, partner, notice(partner, **changes))
    assert in_force(bank, partner) == AGREEMENT
    assert problems(bank, partner) == []


def test_a_notice_is_signed_by_its_party(sides):
    bank, partner = sides
    stranger = replace(notice(partner), signatures={partner.key.keyid: bytes(64)})
    for envelope in (
        stranger,
        replace(notice(partner), signatures={}),
        replace(notice(partner).sign(SigningKey.generate()), signatures={keyid(b"x"): b"y"}),
    ):
        with pytest.raises(InvalidSignature):
            receive(bank, partner, envelope)
    with pytest.raises(NoticeRefused):
        receive(bank, partner, replace(notice(partner), payload=b"[]"))
    with pytest.raises(AgreementUnknown):
        receive(bank, partner, notice(partner, agreement="other"))


def test_the_same_notice_twice_changes_nothing_and_another_of_its_number_is_refused(sides):
    bank, partner = sides
    first = receive(bank, partner, notice(partner))
    assert receive(bank, partner, notice(partner)) == first
    with pytest.raises(NoticeRefused, match="another notice has its number"):
        receive(bank, partner, notice(partner, reason="another"))


def test_a_partner_cannot_fill_the_register(sides, monkeypatch):
    bank, partner = sides
    assert MAX_NOTICES == 1000
    monkeypatch.setattr(lifecycle, "MAX_NOTICES", 4)
    steps = chain.from_iterable([(SUSPENDED, RESUMED)] * 3)
    with pytest.raises(NoticeRefused, match="has given 4 of them"):
        for number, step in enumerate(steps, 1):
            receive(bank, partner, notice(partner, number=number, step=step))


# Auditing


def set_envelope(change):
    def tamper(conn):
        for row in conn.execute(select(notices)).all():
            held = Envelope.from_json(row.envelope)
            values = {"envelope": change(held).to_json()}
            conn.execute(update(notices).filter_by(number=row.number).values(values))

    return tamper


@pytest.mark.parametrize(
    ("tamper", "finding"),
    [
        (lambda conn: conn.execute(delete(notices)), "the notice it speaks of is missing"),
        (lambda conn: conn.execute(delete(notices)), "its acknowledgement is in the log only"),
        (
            lambda conn: conn.execute(delete(notices).filter_by(number=1)),
            "the one before it is missing",
        ),
        (
            lambda conn: conn.execute(update(notices).values(step=RESUMED)),
            "its columns differ from what is signed",
        ),
        (
            lambda conn: conn.execute(update(notices).values(entry=0)),
            "entry 0 does not speak of it",
        ),
        (
            lambda conn: conn.execute(update(notices).values(envelope=b"{}")),
            "A signed envelope is malformed.",
        ),
        (
            set_envelope(lambda held: replace(held, signatures={})),
            "bank has not signed it",
        ),
        (
            set_envelope(
                lambda held: replace(held, signatures=dict.fromkeys(held.signatures, bytes(64)))
            ),
            "A signature does not verify.",
        ),
        (
            set_envelope(lambda held: held.sign(SigningKey.generate())),
            "no entry speaks of its acknowledgement",
        ),
        (
            set_envelope(
                lambda held: replace(
                    held,
                    payload=canonical(json.loads(held.payload) | {"reason": "none"}),
                )
            ),
            "does not speak of it",
        ),
    ],
)
def test_what_was_changed_is_found(sides, tamper, finding):
    bank, partner = sides
    tell(bank, partner, SUSPENDED)
    tell(bank, partner, RESUMED)
    assert problems(bank, partner) == []
    with write(bank.engine) as conn:
        tamper(conn)
    assert any(finding in problem for _, problem in problems(bank, partner))
