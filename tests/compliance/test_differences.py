"""Two institutions' receipts of one run, compared."""

import json
from dataclasses import replace

import pytest

from compliance.canonical import canonical
from compliance.errors import ReceiptBroken
from compliance.receipt import PAYLOAD_TYPE, PREDICATES, STATEMENT, differences, run_of
from compliance.signing import Envelope, SigningKey

BANK, SHOP = SigningKey.generate(), SigningKey.generate()
KEYS = {"bank": BANK.public, "shop": SHOP.public}


def receipt(**changes: object) -> Envelope:
    predicate = {"run": "ab" * 16, "bank": {"size": 7}, "disclosure": ["a", "b"], **changes}
    statement = {
        "_type": STATEMENT,
        "subject": [],
        "predicateType": PREDICATES["intent"],
        "predicate": predicate,
    }
    return Envelope(PAYLOAD_TYPE, canonical(statement)).sign(BANK).sign(SHOP)


def test_the_same_receipt_differs_in_nothing() -> None:
    assert differences(receipt(), receipt(), KEYS) == []
    assert run_of(receipt()) == ("ab" * 16, "intent")


def test_every_difference_is_named_with_both_values() -> None:
    theirs = receipt(bank={"size": 8}, disclosure=["a", "c"], more=True)
    assert differences(receipt(), theirs, KEYS) == [
        "predicate.bank.size: here 7, there 8",
        'predicate.disclosure[1]: here "b", there "c"',
        "predicate.more: here null, there true",
    ]


@pytest.mark.parametrize("predicate", [None, [], "text", 5])
def test_what_another_shows_may_be_no_receipt(predicate: object) -> None:
    statement = {"_type": STATEMENT, "predicateType": PREDICATES["intent"], "predicate": predicate}
    with pytest.raises(ReceiptBroken):
        run_of(Envelope(PAYLOAD_TYPE, canonical(statement)))


def test_a_list_of_another_length_is_one_difference() -> None:
    (found,) = differences(receipt(), receipt(disclosure=["a"]), KEYS)
    assert found == 'predicate.disclosure: here ["a", "b"], there ["a"]'


def test_a_missing_or_false_signature_is_named() -> None:
    ours = receipt()
    unsigned = replace(ours, signatures={BANK.keyid: ours.signatures[BANK.keyid]})
    assert differences(ours, unsigned, KEYS) == ["signature of shop: holds here, not there"]
    fields = json.loads(ours.to_json())
    for signature in fields["signatures"]:
        signature["sig"] = "A" * 86 + "=="
    forged = Envelope.from_json(canonical(fields))
    assert len(differences(ours, forged, KEYS)) == 2
