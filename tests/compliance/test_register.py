from dataclasses import replace

import pytest
from institutions import AGREEMENT, NOW, YAML, Institution, sign_agreement
from sqlalchemy import update

from compliance.agreement import Agreement
from compliance.canonical import parse
from compliance.errors import (
    AgreementAmbiguous,
    AgreementBroken,
    AgreementConflict,
    AgreementInvalid,
    AgreementUnknown,
    AgreementUnsigned,
    InvalidSignature,
    OffersWaiting,
)
from compliance.register import (
    MAX_OFFERS,
    OFFERED,
    PROPOSED,
    SIGNED,
    Register,
    agreements,
    every,
    find,
    latest_signed,
    one,
    unsigned,
)
from compliance.signing import Envelope, SigningKey, keyid
from compliance.store import read, write


@pytest.fixture
def bank(new_store):
    return Institution.create(new_store, "bank")


@pytest.fixture
def partner(new_store):
    return Institution.create(new_store, "partner")


def steps(side):
    with read(side.engine) as conn:
        entries = [parse(entry.leaf) for entry in side.log.entries(conn)]
    return [(entry["type"], entry["by"]) for entry in entries]


def test_an_agreement_is_in_force_once_both_have_signed(bank, partner):
    sign_agreement(bank, partner)
    for side, other in ((bank, partner), (partner, bank)):
        with read(side.engine) as conn:
            agreement = latest_signed(conn, "credit-2026", side.register(other).keys)
            assert agreement == AGREEMENT
            assert agreement.document == AGREEMENT.document
            assert [held.state for held in every(conn)] == [SIGNED]
    assert steps(bank) == [
        ("agreement.proposed", "wang"),
        ("agreement.signed", "li"),
        ("agreement.signed", "partner"),
    ]
    assert steps(partner) == [
        ("agreement.offered", "bank"),
        ("agreement.signed", "bank"),
        ("agreement.signed", "chen"),
    ]


def test_doing_it_again_changes_nothing(bank, partner):
    sign_agreement(bank, partner)
    before = steps(bank), steps(partner)
    sign_agreement(bank, partner)
    assert (steps(bank), steps(partner)) == before


def test_nothing_is_in_force_without_both_signatures(bank, partner):
    register = bank.register(partner)
    with write(bank.engine) as conn:
        with pytest.raises(AgreementUnknown):
            latest_signed(conn, "credit-2026", register.keys)
        held = register.propose(conn, AGREEMENT, by="wang", time=NOW)
        assert (held.state, held.proposed_by) == (PROPOSED, "wang")
        with pytest.raises(AgreementUnsigned, match="of bank and partner is missing"):
            latest_signed(conn, "credit-2026", register.keys)
        held = register.sign(conn, held, bank.key, by="li", time=NOW)
        assert unsigned(held, register.keys) == ["partner"]
        with pytest.raises(AgreementUnsigned, match="of partner is missing"):
            latest_signed(conn, "credit-2026", register.keys)


def test_an_older_version_stays_in_force_until_the_newer_is_signed(bank, partner):
    sign_agreement(bank, partner)
    register = bank.register(partner)
    newer = Agreement.from_yaml(YAML.replace("version: 1", "version: 2"))
    with write(bank.engine) as conn:
        register.propose(conn, newer, by="wang", time=NOW)
        assert latest_signed(conn, "credit-2026", register.keys).version == 1
        assert find(conn, "credit-2026").agreement.version == 2
        assert find(conn, "credit-2026", 1).state == SIGNED
        with pytest.raises(AgreementUnknown, match="version 3"):
            find(conn, "credit-2026", 3)


def test_which_of_several_versions_is_meant_has_to_be_said(bank, partner):
    register = bank.register(partner)
    newer = Agreement.from_yaml(YAML.replace("version: 1", "version: 2"))
    with write(bank.engine) as conn:
        with pytest.raises(AgreementUnknown):
            one(conn, "credit-2026")
        register.receive(conn, offer(partner.key), sender="partner", time=NOW)
        assert one(conn, "credit-2026").agreement == AGREEMENT
        register.receive(conn, offer(partner.key, newer), sender="partner", time=NOW)
        with pytest.raises(AgreementAmbiguous, match="credit-2026: 1, 2"):
            one(conn, "credit-2026")
        assert one(conn, "credit-2026", 1).agreement == AGREEMENT


def test_a_version_means_one_document(bank, partner):
    register = bank.register(partner)
    other = Agreement.from_yaml(YAML.replace("730", "731"))
    with write(bank.engine) as conn:
        register.propose(conn, AGREEMENT, by="wang", time=NOW)
        with pytest.raises(AgreementConflict):
            register.propose(conn, other, by="wang", time=NOW)


def offer(key, agreement=AGREEMENT, payload_type="application/vnd.concordat.agreement+json"):
    return Envelope(payload_type, agreement.document).sign(key)


def test_an_offer_is_signed_by_the_partner_that_sends_it(bank, partner):
    stranger = SigningKey.generate()
    forged = replace(offer(stranger), signatures={partner.key.keyid: bytes(64)})
    register = bank.register(partner)
    for envelope in (offer(stranger), offer(bank.key), forged):
        with pytest.raises(InvalidSignature), write(bank.engine) as conn:
            register.receive(conn, envelope, sender="partner", time=NOW)
    assert steps(bank) == []


def test_an_offer_is_an_agreement_between_the_two(bank, partner):
    third = SigningKey.generate()
    register = bank.register(partner)
    register = replace(register, keys={**register.keys, "third": third.public})
    among_others = Agreement.from_yaml(YAML.replace("{bank: bank,", "{bank: third,"))
    for envelope, sender in (
        (offer(third), "third"),
        (offer(partner.key, among_others), "partner"),
        (offer(partner.key, payload_type="text/plain"), "partner"),
    ):
        with pytest.raises(AgreementInvalid), write(bank.engine) as conn:
            register.receive(conn, envelope, sender=sender, time=NOW)
    with pytest.raises(AgreementInvalid), write(bank.engine) as conn:
        register.propose(conn, among_others, by="wang", time=NOW)
    assert steps(bank) == []


def test_a_partner_cannot_fill_the_register(bank, partner):
    register = bank.register(partner)
    offers = (
        offer(partner.key, Agreement.from_yaml(YAML.replace("version: 1", f"version: {number}")))
        for number in range(1, MAX_OFFERS + 2)
    )
    *fitting, last = offers
    with write(bank.engine) as conn:
        for envelope in fitting:
            register.receive(conn, envelope, sender="partner", time=NOW)
    size = len(steps(bank))
    with pytest.raises(OffersWaiting), write(bank.engine) as conn:
        register.receive(conn, last, sender="partner", time=NOW)
    assert len(steps(bank)) == size
    with write(bank.engine) as conn:
        held = find(conn, "credit-2026", 1)
        register.sign(conn, held, bank.key, by="li", time=NOW)
        register.receive(conn, last, sender="partner", time=NOW)


def test_signatures_of_strangers_are_not_kept(bank, partner):
    envelope = offer(partner.key).sign(SigningKey.generate())
    with write(bank.engine) as conn:
        held = bank.register(partner).receive(conn, envelope, sender="partner", time=NOW)
    assert held.state == OFFERED
    assert list(held.envelope.signatures) == [partner.key.keyid]


def test_each_use_verifies_both_signatures(bank, partner):
    sign_agreement(bank, partner)
    register = bank.register(partner)
    with read(bank.engine) as conn:
        whole = find(conn, "credit-2026").envelope

    def stored(envelope):
        with write(bank.engine) as conn:
            conn.execute(update(agreements).values(envelope=envelope.to_json()))
        with read(bank.engine) as conn:
            latest_signed(conn, "credit-2026", register.keys)

    with pytest.raises(AgreementBroken, match="does not hold"):
        stored(replace(whole, signatures={**whole.signatures, partner.key.keyid: bytes(64)}))
    with pytest.raises(AgreementUnsigned, match="of partner is missing"):
        stored(replace(whole, signatures={bank.key.keyid: whole.signatures[bank.key.keyid]}))
    other = Agreement.from_yaml(YAML.replace("730", "731")).document
    with pytest.raises(AgreementBroken, match="not what was signed"):
        stored(replace(whole, payload=other))
    with pytest.raises(AgreementBroken, match="damaged"):
        stored(replace(whole, payload=b"{}"))


def test_a_key_that_is_no_longer_pinned_signs_nothing(bank, partner):
    sign_agreement(bank, partner)
    keys = {**bank.register(partner).keys, "partner": SigningKey.generate().public}
    with read(bank.engine) as conn, pytest.raises(AgreementUnsigned, match="of partner"):
        latest_signed(conn, "credit-2026", keys)
    del keys["partner"]
    with read(bank.engine) as conn, pytest.raises(AgreementUnsigned, match="of partner"):
        latest_signed(conn, "credit-2026", keys)


def test_the_log_names_the_document_and_the_key(bank, partner):
    sign_agreement(bank, partner)
    with read(bank.engine) as conn:
        *_, entry = bank.log.entries(conn)
    body = parse(entry.leaf)
    assert body["digest"] == AGREEMENT.digest.hex()
    assert (body["agreement"], body["version"]) == ("credit-2026", 1)
    assert body["key"] == keyid(partner.key.public)


def test_a_node_signs_with_its_pinned_key(bank, partner):
    register = Register("bank", bank.log, bank.register(partner).keys)
    with write(bank.engine) as conn:
        held = register.propose(conn, AGREEMENT, by="wang", time=NOW)
        with pytest.raises(ValueError, match="not the one"):
            register.sign(conn, held, SigningKey.generate(), by="li", time=NOW)
