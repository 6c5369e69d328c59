"""Two institutions with stores of their own, and the documents they run under."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_bytes, token_hex

import pandas as pd
from sqlalchemy import Engine

from compliance import gate, receipt
from compliance.agreement import Agreement, Job
from compliance.consent import Imported, import_consents
from compliance.log import Log
from compliance.register import Register
from compliance.signing import SigningKey
from compliance.store import open_store, write
from compliance.vault import VaultKeys

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)

YAML = """
agreement: credit-2026
version: 1
parties: {bank: bank, partner: partner}
purpose: credit-risk-assessment
legal_basis: consent
valid: {from: 2026-01-01T00:00:00+08:00, until: 2028-12-31T00:00:00+08:00}
retention_days: 730
impact_assessment: PIA-2026-014
data:
  bank:
    dataset: customers
    identifier: phone
    categories: [customer-profile, credit-performance]
  partner:
    dataset: payments
    identifier: phone
    categories: [payment-behaviour]
    features:
      bill_amt1: {unit: TWD, lower: -2e+05, upper: 1000000, decimals: 0}
      pay_0: {lower: -2, upper: 8, decimals: 0, bins: [-1, 0, 2], share: {above: 0}}
segmentation:
  - label: age_band
    column: age
    bands: [{label: "-29", upper: 29}, {label: "30-49", upper: 49}, {label: "50-"}]
  - {label: region, column: region, values: [north, south]}
jobs:
  overlap: {}
  insight:
    minimum_group: 50
    release: exact
    key_bits: 3072
    exponents: full
    statistics: [count, sum, mean, variance, share, histogram]
limits: {runs_per_day: 2}
"""
AGREEMENT = Agreement.from_yaml(YAML)
BANK = gate.Scope.of(AGREEMENT, "bank")

INSIGHT = Job.from_yaml(
    """
    job: insight
    agreement: credit-2026
    purpose: credit-risk-assessment
    features: {bill_amt1: [sum, mean], pay_0: [share, histogram]}
    """
)

CONSENT = {
    "subject": "phone:+8613900000001",
    "purpose": "credit-risk-assessment",
    "recipient": "partner",
    "categories": "customer-profile;credit-performance",
    "kind": "separate",
    "granted_at": "2025-06-15T09:00:00+08:00",
    "expires_at": "2028-12-31T00:00:00+08:00",
    "withdrawn_at": "",
}


def person(number: int) -> str:
    return f"phone:+86139{number:08d}"


def table(*changes: dict[str, str]) -> pd.DataFrame:
    """A table of consents, each the usual one with changes."""
    return pd.DataFrame([CONSENT | change for change in changes], columns=list(CONSENT), dtype=str)


@dataclass
class Institution:
    name: str
    engine: Engine
    log: Log
    key: SigningKey
    vault: VaultKeys

    @classmethod
    def create(cls, where: Path | Callable[[str], str], name: str) -> "Institution":
        """With a store in this folder, or wherever the fixture `new_store` makes one."""
        url = f"sqlite:///{where}/{name}.db" if isinstance(where, Path) else where(name)
        return cls(
            name,
            open_store(url, create=True),
            Log(f"{name}.example/log", SigningKey.generate()),
            SigningKey.generate(),
            VaultKeys(token_bytes(32), token_bytes(32)),
        )

    def register(self, *others: "Institution") -> Register:
        keys = {side.name: side.key.public for side in (self, *others)}
        return Register(self.name, self.log, keys)

    def take(self, *changes: dict[str, str]) -> Imported:
        with write(self.engine) as conn:
            return import_consents(conn, self.log, self.vault, table(*changes), time=NOW)

    def decide(self, *ids: str, scope: gate.Scope = BANK, now: datetime = NOW) -> gate.Decision:
        with write(self.engine) as conn:
            return gate.decide(conn, self.log, self.vault, ids, scope, now=now)


def sign_agreement(bank: Institution, partner: Institution) -> None:
    """The bank proposes and signs, the partner signs, and each has both signatures."""
    with write(bank.engine) as conn:
        register = bank.register(partner)
        held = register.propose(conn, AGREEMENT, by="wang", time=NOW)
        offer = register.sign(conn, held, bank.key, by="li", time=NOW)
    with write(partner.engine) as conn:
        register = partner.register(bank)
        held = register.receive(conn, offer.envelope, sender="bank", time=NOW)
        answer = register.sign(conn, held, partner.key, by="chen", time=NOW)
    with write(bank.engine) as conn:
        bank.register(partner).receive(conn, answer.envelope, sender="partner", time=NOW)


@dataclass
class Run:
    """One run between the two: what both have told each other, and the receipts they sign."""

    bank: Institution
    partner: Institution
    decision: gate.Decision  # the bank's; the partner puts in one person
    run: str = ""

    def __post_init__(self) -> None:
        self.run = self.run or token_hex(16)
        self.keys = self.bank.register(self.partner).keys
        partner = receipt.Section(
            "partner",
            self.partner.key.public,
            b"\x01" * 32,
            1,
            "partner.example/log",
            0,
            b"\0" * 32,
        )
        self.intent = receipt.intent(
            self.run,
            AGREEMENT,
            INSIGHT,
            suite="C25519-SHA512",
            bank=receipt.Section.of("bank", self.bank.key.public, self.decision),
            partner=partner,
            started=NOW,
        )
        self.completion = receipt.completion(
            self.intent,
            transcript=hashlib.sha256(b"frames").digest(),
            commitment=receipt.commit(b"result")[1],
            versions={"bank": "0.1.0", "partner": "0.1.0"},
            finished=NOW,
        )

    def signed(self, statement: bytes) -> receipt.Envelope:
        other = receipt.signed(statement, self.partner.key)
        return receipt.countersigned(
            receipt.signed(statement, self.bank.key),
            self.partner.key.public,
            other.signatures[self.partner.key.keyid],
        )

    def begin(self, time: datetime = NOW) -> int:
        with write(self.bank.engine) as conn:
            log, envelope = self.bank.log, self.signed(self.intent)
            return receipt.begin(conn, log, envelope, self.decision, self.keys, time=time)

    def release(self) -> int:
        with write(self.bank.engine) as conn:
            return gate.release(conn, self.bank.log, self.run, self.decision, now=NOW)

    def complete(self) -> int:
        with write(self.bank.engine) as conn:
            log, envelope = self.bank.log, self.signed(self.completion)
            return receipt.complete(conn, log, envelope, self.keys, time=NOW)
