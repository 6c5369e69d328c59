"""Canonical JSON, and what people write: agreements, jobs, scorecards, a node's configuration."""

from pathlib import Path

from compliance import document, lifecycle
from compliance.agreement import Agreement, Job, permits
from compliance.canonical import canonical, parse
from compliance.disclosure import disclosure
from compliance.signing import Envelope, SigningKey
from federated.risk.scorecard import Scorecard, from_optbinning, from_scorecardpy, weigh
from fuzz.target import Setup, Target
from parties import jobs, scorecards, tables
from parties.config import Home

AGREEMENT = b"""
agreement: credit-offers
version: 1
parties: {bank: bank, partner: shop}
purpose: credit-offer
legal_basis: consent
valid: {from: 2026-01-01T00:00:00+08:00, until: 2035-01-01T00:00:00+08:00}
retention_days: 365
impact_assessment: PIA-2026-014
data:
  bank: {dataset: customers, identifier: phone, categories: [customer-profile]}
  partner:
    dataset: shoppers
    identifier: phone
    categories: [purchase-history]
    features:
      days: {lower: 0, upper: 365, decimals: 0, bins: [7, 30, 90], share: {up_to: 30}}
      spend:
        unit: CNY
        lower: -2e+05
        upper: 50000.5
        decimals: 2
        bins: [0, 9.99]
        share: {above: 0, up_to: 100}
segmentation:
  - {label: age, column: age, bands: [{label: "-29", upper: 29}, {label: "30-"}]}
  - {label: city, column: city, values: [north, south]}
jobs:
  overlap: {}
  intersect: {partner_learns: ids}
  insight:
    minimum_group: 10
    release: exact
    key_bits: 2048
    exponents: short
    statistics: [count, sum, mean, variance, share, histogram]
  lookup: {features: [spend], people_per_day: 50, epoch_hours: 24}
  score: {features: [days, spend], people_per_day: 50, epoch_hours: 1, key_bits: 2048}
limits: {runs_per_day: 20}
"""

INSIGHT = b"""
job: insight
agreement: credit-offers
purpose: credit-offer
features:
  spend: [sum, mean, variance]
  days: [share, histogram]
"""

SCORE = b"""
job: score
agreement: credit-offers
purpose: credit-offer
people: people.csv
scorecard: scorecard.yaml
watch: {fell_by: 20.5}
"""

OVERLAP = b"{job: overlap, agreement: credit-offers, purpose: credit-offer}"

_CONFIG = b"""
name: bank
sector: bank
listen: 127.0.0.1:23411
address: 127.0.0.1:23411
region: CN
threads: 0
limits: {frame_bytes: 4194304, rows: 20000000}
datasets:
  customers:
    path: customers.csv
    sql: SELECT * FROM source WHERE age IS NOT NULL
    identifier: {column: phone, kind: phone, region: HK}
    duplicates: first
"""

_SCORECARD = b"""
scorecard: card
version: 1
scaling: {pdo: 20, base_score: 600, base_odds: 50}
decimals: 1
base: 500.5
features:
  days:
    bins: [{below: 7.5, points: -3}, {upper: 90, points: 2.5}, {points: 1}]
    missing: 0
    unseen: 0
  spend: {bins: [{points: 1}], missing: 2, unseen: -2}
"""

_SCORECARDPY = b"""variable,bin,points
basepoints,,498.0
days,missing,-8
days,"[-inf,7.0)",69.0
days,"[7.0,inf)",-14.25
"""

_OPTBINNING = b"""Variable,Bin,Points
days,"(-inf, 7.50)",335.4
days,"[7.50, inf)",170
days,Special,249.0
days,Missing,249.0
"""

_YAML = b"""
text: 'it''s' # a comment
"quoted \\u4e2d": "two
  lines"
numbers: [1, -2.5, .5, 1e+05, 0x1f, 1_000, 1:30]
flags: {yes: true, no: False}
block: |
  kept
  as it is
folded: >-
  made
  one
empty: {}
date: 2026-01-01
"""

_JSON = [
    b'{"a":[1,-0.5,1e+30,"\xe4\xb8\xad\\n",null,true,{}],"b":"9007199254740993"}',
    b"[]",
    b"1e-7",
]


def _canonical_json(_: Path) -> Target:
    def check(data: bytes) -> None:
        assert canonical(parse(data)) == data

    return Target(check, _JSON)


def _yaml_document(_: Path) -> Target:
    refusals = (document.DocumentError, UnicodeDecodeError)
    return Target(lambda data: document.load(data.decode()), [_YAML, AGREEMENT], refusals)


def _agreement_yaml(_: Path) -> Target:
    def check(data: bytes) -> None:
        agreement = Agreement.from_yaml(data.decode())
        assert Agreement.from_document(agreement.document) == agreement

    return Target(check, [AGREEMENT], _TEXT)


def _agreement_json(_: Path) -> Target:
    """What a partner offers, and everything of it that a run would use."""

    def check(data: bytes) -> None:
        agreement = Agreement.from_document(data)
        assert agreement.document == data
        terms = agreement.jobs.insight
        if terms is None:
            return
        for name in agreement.data.partner.features:
            job = Job(
                job="insight",
                agreement=agreement.agreement,
                purpose=agreement.purpose,
                features={name: terms.statistics},
            )
            permits(agreement, job, now=agreement.valid.start, runs=lambda _: 0)
            disclosure(agreement, job)
            jobs._features(agreement, job)
        tables.grids(agreement)

    return Target(check, [Agreement.from_yaml(AGREEMENT.decode()).document])


def _job_yaml(_: Path) -> Target:
    def check(data: bytes) -> None:
        Job.from_yaml(data.decode())

    return Target(check, [INSIGHT, SCORE, OVERLAP], _TEXT)


def _job_json(_: Path) -> Target:
    agreement = Agreement.from_yaml(AGREEMENT.decode())

    def check(data: bytes) -> None:
        job = Job.from_document(data)
        assert Job.from_document(job.shared).shared == job.shared
        disclosure(agreement, job)

    seeds = [Job.from_yaml(text.decode()).shared for text in (INSIGHT, SCORE, OVERLAP)]
    return Target(check, seeds)


def _scorecard(_: Path) -> Target:
    """Read, laid on the agreement's bins, written and read again."""
    grids = tables.grids(Agreement.from_yaml(AGREEMENT.decode()))

    def check(data: bytes) -> None:
        card = Scorecard.read(document.load(data.decode()))
        again = document.load(scorecards.document(card).decode())
        assert Scorecard.read(again) == card
        assert (weigh(card, grids).values >= 0).all()

    refusals = (*_TEXT, document.DocumentError)
    return Target(check, [_SCORECARD], refusals)


def _scorecard_table(_: Path) -> Target:
    """As scorecardpy and as optbinning write it."""
    scaling = {"pdo": 20, "base_score": 600, "base_odds": 50}

    def check(data: bytes) -> None:
        text = data.decode()
        read = from_optbinning if "Points" in text else from_scorecardpy
        read(text, name="card", scaling=scaling, decimals=2)

    return Target(check, [_SCORECARDPY, _OPTBINNING], _TEXT)


def _config(folder: Path) -> Target:
    home = Home(folder)

    def check(data: bytes) -> None:
        home.config_file.write_bytes(data)
        home.config()

    return Target(check, [_CONFIG])


_TEXT = (*Target.refusals, UnicodeDecodeError)


def _agreement_notice(_: Path) -> Target:
    """What a partner declares about an agreement."""
    said = {"agreement": "credit-offers", "number": 1, "party": "shop", "reason": "a complaint"}
    said |= {"step": "suspended", "time": "2026-11-23T12:00:00Z"}
    seed = Envelope(lifecycle.PAYLOAD_TYPE, canonical(said)).sign(SigningKey.generate())

    def check(data: bytes) -> None:
        notice = lifecycle._read(Envelope.from_json(data))
        assert notice.envelope.to_json() == data
        assert str(notice).isprintable()

    return Target(check, [seed.to_json()])


TARGETS: dict[str, Setup] = {
    "agreement-notice": _agreement_notice,
    "canonical-json": _canonical_json,
    "yaml-document": _yaml_document,
    "agreement-yaml": _agreement_yaml,
    "agreement-json": _agreement_json,
    "job-yaml": _job_yaml,
    "job-json": _job_json,
    "scorecard-yaml": _scorecard,
    "scorecard-table": _scorecard_table,
    "config": _config,
}
