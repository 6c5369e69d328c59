"""DSSE envelopes, and the receipts and successions of keys in them, as a partner shows them."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from compliance import receipt, succession
from compliance.agreement import Agreement, Job
from compliance.canonical import canonical, parse
from compliance.receipt import Section
from compliance.signing import Envelope, SigningKey, keyid
from compliance.succession import Succession
from fuzz.documents import AGREEMENT, INSIGHT
from fuzz.target import Setup, Target

_NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
_BANK, _SHOP = SigningKey.generate(), SigningKey.generate()
_KEYS = {"bank": _BANK.public, "shop": _SHOP.public}


def _section(party: str) -> Section:
    root = hashlib.sha256(party.encode()).digest()
    return Section(party, _KEYS[party], root, 3, f"{party}.concordat/log", 7, root)


def _signed(statement: bytes) -> Envelope:
    return receipt.signed(statement, _BANK).sign(_SHOP)


_STATEMENT = receipt.intent(
    "0123456789abcdef" * 2,
    Agreement.from_yaml(AGREEMENT.decode()),
    Job.from_yaml(INSIGHT.decode()),
    suite="C25519-SHA512",
    bank=_section("bank"),
    partner=_section("shop"),
    started=_NOW,
)
_INTENT = _signed(_STATEMENT)
_COMPLETION = _signed(
    receipt.completion(
        _STATEMENT,
        transcript=bytes(32),
        commitment=bytes(32),
        versions={"bank": "0.1.0", "shop": "0.1.0"},
        finished=_NOW,
    )
)


def _envelope(_: Path) -> Target:
    def check(data: bytes) -> None:
        envelope = Envelope.from_json(data)
        assert envelope.to_json() == data
        envelope.verify({keyid(key): key for key in _KEYS.values()})

    return Target(check, [_INTENT.to_json(), Envelope("a", b"b").sign(_BANK).sign(_SHOP).to_json()])


def _receipt(_: Path) -> Target:
    def check(data: bytes) -> None:
        shown = Envelope.from_json(data)
        _, kind = receipt.run_of(shown)
        ours = _INTENT if kind == "intent" else _COMPLETION
        receipt.differences(ours, shown, _KEYS)
        receipt.check(shown, _INTENT, _KEYS)

    return Target(check, [_INTENT.to_json(), _COMPLETION.to_json()])


def _statement(_: Path) -> Target:
    """Any payload under valid signatures: a partner may sign what it likes."""

    def check(data: bytes) -> None:
        shown = _signed(data)
        for ours in (_INTENT, _COMPLETION):
            receipt.run_of(shown)
            receipt.differences(ours, shown, _KEYS)
        receipt.check(shown, shown, _KEYS)
        receipt.check(_COMPLETION, shown, _KEYS)

    return Target(check, [_STATEMENT])


_SUCCESSION = Succession.make("shop", "log", _BANK, _SHOP, _NOW)


def _succession(_: Path) -> Target:
    def check(data: bytes) -> None:
        found = Succession.parse(data)
        assert found.data == data

    return Target(check, [_SUCCESSION.data])


def _succession_payload(_: Path) -> Target:
    """Any payload that both keys have signed."""

    def check(data: bytes) -> None:
        envelope = Envelope(succession.PAYLOAD_TYPE, data).sign(_BANK).sign(_SHOP)
        found = Succession.parse(envelope.to_json())
        assert {found.old, found.new} == {_BANK.public, _SHOP.public}
        said = found.entry()
        assert canonical({name: said[name] for name in said if name != "succession"})
        assert parse(data)["old"] == said["old"]

    return Target(check, [_SUCCESSION.envelope.payload])


TARGETS: dict[str, Setup] = {
    "envelope": _envelope,
    "receipt": _receipt,
    "statement": _statement,
    "succession": _succession,
    "succession-payload": _succession_payload,
}
