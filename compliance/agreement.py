"""The agreement two institutions sign, and the job that runs under it.

An agreement says everything a run depends on; what it does not name is not allowed. What is signed
is the canonical JSON of the document as written, so nothing here fills in a value that matters.
"""

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
    model_validator,
)

from compliance.canonical import canonical, parse
from compliance.document import MAX_CHARACTERS, load, shown
from compliance.errors import AgreementInvalid, AgreementRefusal, JobInvalid
from protos.errors import ConcordatError

MINIMUM_GROUP_FLOOR = 10  # docs/adr/0031: a smaller group shields nobody
MAX_SEGMENTS = 10_000
MAX_FEATURES = 1024
CREDIT_REPORTING = "credit-reporting"  # a purpose that starts with it needs the clause
WRITTEN = "written"
_RELEASING = ("insight", "evaluate", "stability")

Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,128}$")]
IdentifierKind = Literal["phone", "resident_id", "email", "company_code"]
Statistic = Literal["count", "sum", "mean", "variance", "share", "histogram", "ratio"]
ConsentKind = Literal["general", "separate", "written", "guardian"]
JobKind = Literal["overlap", "intersect", "insight", "lookup", "score", "evaluate", "stability"]
RunId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Release = Literal["exact", "noised"]
Path = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]{1,1024}$")]


def _time(value: object) -> datetime:
    try:
        if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", value):
            return datetime.fromisoformat(value)
    except ValueError:
        pass
    raise ValueError("should be a time such as 2026-01-01T00:00:00+08:00")


def _number(value: object) -> Decimal:
    # Text would be read as well, "1E+999999999" and other digits than ASCII's included.
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return Decimal(str(value))
    raise ValueError("should be a number")


def _exact(value: object) -> object:
    if value == "noised":
        raise ValueError("a stability has no noise; only exact is there")
    return value


def _referenced(value: object) -> object:
    return {"reference": value} if isinstance(value, str) else value


Time = Annotated[AwareDatetime, BeforeValidator(_time)]
Number = Annotated[Decimal, BeforeValidator(_number)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Document(_Model):
    """A model that is a whole document. Subclasses say what it is called and how it is refused."""

    noun: ClassVar[str]
    invalid: ClassVar[type[ConcordatError]]

    @classmethod
    def from_yaml(cls, text: str) -> Self:
        """The document as people write it."""
        try:
            return cls.from_document(canonical(load(text)))
        except ValueError as error:
            raise cls._refusal(str(error)) from None

    @classmethod
    def from_document(cls, document: bytes) -> Self:
        """The document as it is signed or sent: canonical JSON. NotCanonical (E500) otherwise."""
        if len(document) > MAX_CHARACTERS:
            raise cls._refusal(f"it is longer than {MAX_CHARACTERS} bytes")
        parse(document)
        try:
            return cls.model_validate_json(document)
        except ValidationError as error:
            raise cls._refusal("; ".join(_problems(error))) from None

    @classmethod
    def _refusal(cls, problem: str) -> ConcordatError:
        return cls.invalid(
            f"This is no valid {cls.noun}: {problem}.",
            f"Correct the document and try again; docs/reference has a complete {cls.noun}.",
        )


# The agreement


class Parties(_Model):
    """The institutions by role; the bank is the one that receives results."""

    bank: Token
    partner: Token


class Validity(_Model):
    """from <= now < until."""

    start: Annotated[Time, Field(alias="from")]
    until: Time


class Share(_Model):
    """The condition whose share is asked for: above < value <= up_to."""

    above: Number | None = None
    up_to: Number | None = None


class Feature(_Model):
    """A number per person, clipped to [lower, upper] and kept to `decimals` places.

    bins are the inner edges of a histogram: (-inf, e1], (e1, e2], ... (ek, inf).
    over: the feature by whose sum a ratio divides the sum of this one, of people who have both.
    A feature that nobody lacks (may_be_missing: false) takes less room in a ciphertext.
    """

    kind: Literal["numeric"] = "numeric"
    unit: Text | None = None
    lower: Number
    upper: Number
    decimals: Annotated[int, Field(ge=0, le=9)]
    bins: Annotated[tuple[Number, ...], Field(max_length=100)] = ()
    share: Share | None = None
    over: Token | None = None
    may_be_missing: bool = True

    @property
    def span(self) -> Decimal:
        """The width of its range in units of the last decimal."""
        return (self.upper - self.lower).scaleb(self.decimals)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.lower < self.upper:
            raise ValueError("lower should be below upper")
        if list(self.bins) != sorted(set(self.bins)):
            raise ValueError("bins should be edges in ascending order")
        edges = [self.share.above, self.share.up_to] if self.share else []
        inner = [edge for edge in edges if edge is not None]
        if self.share and (not inner or inner != sorted(set(inner))):
            raise ValueError("share should say above, up_to or both, above being the smaller")
        for number in (*self.bins, *inner):
            if not self.lower <= number < self.upper:
                raise ValueError("bins and share should lie between lower and upper")
        for number in (self.lower, self.upper, *self.bins, *inner):
            scaled = number.scaleb(self.decimals)
            if scaled != scaled.to_integral_value():
                raise ValueError(f"a number has more than {self.decimals} decimals")
            if abs(scaled) > 2**52:
                raise ValueError("a bound is too large to be kept exactly")
        return self


class Provided(_Model):
    """What a side puts in: a dataset its node's configuration names, and what is in it."""

    dataset: Token
    identifier: IdentifierKind
    categories: Annotated[tuple[Token, ...], Field(min_length=1, max_length=64)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_distinct(self.categories, "categories")
        return self


class Label(_Model):
    """What a customer turned out to be: bad where the column says one of these, else good.

    Who has no value there is neither.
    """

    column: Text
    bad: Annotated[tuple[Text, ...], Field(min_length=1, max_length=100)]


class ProvidedLabel(Provided):
    label: Label | None = None


class ProvidedFeatures(Provided):
    features: Annotated[dict[Token, Feature], Field(max_length=MAX_FEATURES)] = {}

    @model_validator(mode="after")
    def _check_over(self) -> Self:
        for name, feature in self.features.items():
            if feature.over is not None and feature.over not in self.features.keys() - {name}:
                raise ValueError(f"features.{name}.over: should name another of the features")
        return self


class Data(_Model):
    bank: ProvidedLabel
    partner: ProvidedFeatures


class Band(_Model):
    """Values up to and including `upper`, above the band before; the last band is open."""

    label: Text
    upper: Number | None = None


class Axis(_Model):
    """One way of dividing the bank's customers: bands of a number, or the values of a text."""

    label: Token
    column: Text
    bands: Annotated[tuple[Band, ...], Field(max_length=100)] = ()
    values: Annotated[tuple[Text, ...], Field(max_length=100)] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        return self.values or tuple(band.label for band in self.bands)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if bool(self.bands) == bool(self.values):
            raise ValueError("should have either bands or values")
        uppers = [band.upper for band in self.bands[:-1]]
        if None in uppers or (self.bands and self.bands[-1].upper is not None):
            raise ValueError(
                "every band but the last should have an upper bound, and the last none"
            )
        bounds = [upper for upper in uppers if upper is not None]
        if bounds != sorted(set(bounds)):
            raise ValueError("bands should be in ascending order")
        _check_distinct(self.labels, "labels")
        return self


class Overlap(_Model):
    """How many customers both sides share."""


class Intersect(_Model):
    """Which of the bank's customers are also the partner's."""

    partner_learns: Literal["size", "ids"]


class Insight(_Model):
    """Aggregates of the partner's features for each segment of the bank's customers."""

    minimum_group: Annotated[int, Field(ge=MINIMUM_GROUP_FLOOR, le=1_000_000)]
    release: Release
    key_bits: Literal[2048, 3072]
    exponents: Literal["full", "short"]
    statistics: Annotated[tuple[Statistic, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_distinct(self.statistics, "statistics")
        return self


class _Tabled(_Model):
    """A job that asks a table of the partner's for people by name.

    people_per_day: how many may be asked for in 24 hours, repeats included. epoch_hours: how long
    the partner's table, and the scalar it was made with, may last.
    """

    features: Annotated[tuple[Token, ...], Field(min_length=1, max_length=256)]
    people_per_day: Annotated[int, Field(ge=1, le=100_000_000)]
    epoch_hours: Annotated[int, Field(ge=1, le=24)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_distinct(self.features, "features")
        return self


class Lookup(_Tabled):
    """The values of these features for the people the bank names."""


class Score(_Tabled):
    """A scorecard of the bank's over these features; their bins are those of a histogram."""

    key_bits: Literal[2048, 3072]


class Binned(_Model):
    """A job that counts how the shared customers are spread over bins of the partner's features.

    quantile, equal_width: so many bins, by the values of the partner's own eligible rows. edges:
    each feature's own `bins`. minimum_cell: counts below are not shown.
    """

    features: Annotated[tuple[Token, ...], Field(min_length=1, max_length=MAX_FEATURES)]
    binning: Literal["quantile", "equal_width", "edges"]
    bins: Annotated[int, Field(ge=2, le=100)] | None = None
    minimum_group: Annotated[int, Field(ge=MINIMUM_GROUP_FLOOR, le=1_000_000)]
    minimum_cell: Annotated[int, Field(ge=0, le=1_000_000)]
    release: Release
    key_bits: Literal[2048, 3072]
    exponents: Literal["full", "short"]

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_distinct(self.features, "features")
        if self.release == "noised" and self.binning != "edges":
            raise ValueError("binning: noised needs edges; others would tell of the table exactly")
        if (self.binning == "edges") != (self.bins is None):
            raise ValueError("bins: should say how many, but not where edges are given")
        return self


class Evaluate(Binned):
    """How much the partner's features say about the bank's label: WOE and IV by bin."""


class Populations(_Model):
    """Two segments of one axis of the segmentation: the one expected, and the one set beside it."""

    axis: Token
    expected: Text
    actual: Text

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.expected == self.actual:
            raise ValueError("expected and actual should be two segments")
        return self


class Stability(Binned):
    """How far the features' distributions have moved since an earlier run.

    populations: or how far they lie apart in two segments of the bank's customers, now.
    """

    release: Annotated[Literal["exact"], BeforeValidator(_exact)]
    populations: Populations | None = None


class Jobs(_Model):
    """The jobs the agreement allows, with their parameters; one left out is not allowed."""

    overlap: Overlap | None = None
    intersect: Intersect | None = None
    insight: Insight | None = None
    lookup: Lookup | None = None
    score: Score | None = None
    evaluate: Evaluate | None = None
    stability: Stability | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("should allow at least one job")
        return self


# What limits of the number of runs count over.
_WINDOWS = {
    "runs_per_day": (timedelta(hours=24), "24 hours"),
    "runs_per_week": (timedelta(days=7), "7 days"),
    "runs_per_month": (timedelta(days=30), "30 days"),
}
Runs = Annotated[int, Field(ge=1, le=10_000)]


class Limits(_Model):
    """How often and how much; a run that was not finished counts as well.

    At least one limit of the number of runs; day, week and month are the last 24 hours, 7 and 30
    days.
    """

    runs_per_day: Runs | None = None
    runs_per_week: Runs | None = None
    runs_per_month: Runs | None = None
    hours_between_runs: Annotated[int, Field(ge=1, le=8760)] | None = None
    features_per_job: Annotated[int, Field(ge=1, le=MAX_FEATURES)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.model_fields_set & _WINDOWS.keys():
            raise ValueError("should say runs_per_day, runs_per_week or runs_per_month")
        return self


class Budget(_Model):
    """How much all runs of a calendar day, month or year, in UTC, may tell together."""

    epsilon: Annotated[Number, Field(gt=0, le=1000)]
    per: Literal["day", "month", "year"]


class NoiseTerms(_Model):
    """What `release: noised` means: each run is (epsilon, delta)-differentially private.

    Of one person's values in the sums, not of the counts. Every run spends epsilon of the budget.
    """

    epsilon: Annotated[Number, Field(ge=Decimal("0.001"), le=10)]
    delta: Annotated[Number, Field(ge=Decimal("1E-18"), le=Decimal("1E-6"))]
    budget: Budget

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.budget.epsilon < self.epsilon:
            raise ValueError("budget.epsilon: is too small for a single run")
        return self


class Period(_Model):
    """A calendar day, month or year, in UTC, whose releases may not be told apart person by person.

    Who is in which segment stays as it was in the first run, and people only leave. What differs
    from an earlier release by fewer than the minimum is not released. cells: how many figures
    without noise may be.
    """

    per: Literal["day", "month", "year"]
    cells: Annotated[int, Field(ge=1, le=1_000_000_000)]


class ImpactAssessment(_Model):
    """Where the assessment is filed, and until when it holds: now < valid_until."""

    reference: Text
    valid_until: Time | None = None


class CreditReporting(_Model):
    """The licence under which a credit reporting purpose is pursued: now < valid_until.

    Consents have to be written (docs/compliance.md).
    """

    licence: Text
    valid_until: Time | None = None


class Agreement(_Document):
    """An agreement between two institutions. Raises AgreementInvalid (E301) when read."""

    invalid = AgreementInvalid
    noun = "agreement"

    agreement: Token
    version: Annotated[int, Field(ge=1, le=1_000_000)]
    parties: Parties
    purpose: Token
    legal_basis: Literal["consent"]
    valid: Validity
    retention_days: Annotated[int, Field(ge=1, le=36_525)]
    impact_assessment: Annotated[ImpactAssessment, BeforeValidator(_referenced)]
    credit_reporting: CreditReporting | None = None
    consent_kinds: Annotated[tuple[ConsentKind, ...], Field(max_length=4)] = ()
    data: Data
    segmentation: Annotated[tuple[Axis, ...], Field(max_length=4)] = ()
    jobs: Jobs
    noise: NoiseTerms | None = None
    period: Period | None = None
    limits: Limits
    witnesses: Annotated[tuple[Token, ...], Field(max_length=8)] = ()
    acknowledge_within_hours: Annotated[int, Field(ge=1, le=8760)] | None = None
    _document: bytes = PrivateAttr(b"")

    @property
    def document(self) -> bytes:
        """The canonical JSON of the agreement as written: what both institutions sign."""
        return self._document

    @property
    def digest(self) -> bytes:
        """SHA-256 of the document (32 bytes)."""
        return hashlib.sha256(self._document).digest()

    @property
    def named(self) -> tuple[str, int]:
        """Its name and version."""
        return self.agreement, self.version

    @property
    def accepted_kinds(self) -> frozenset[str] | None:
        """The kinds of consent that count under it; None: any."""
        if self.credit_reporting:
            return frozenset({WRITTEN})
        return frozenset(self.consent_kinds) or None

    @classmethod
    def from_document(cls, document: bytes) -> Self:
        agreement = super().from_document(document)
        agreement._document = document
        return agreement

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.parties.bank == self.parties.partner:
            raise ValueError("parties: bank and partner should be two institutions")
        if not self.valid.start < self.valid.until:
            raise ValueError("valid: from should be before until")
        if self.purpose.startswith(CREDIT_REPORTING) and self.credit_reporting is None:
            raise ValueError("credit_reporting: this purpose needs a licence")
        if self.credit_reporting and self.consent_kinds not in {(), (WRITTEN,)}:
            raise ValueError("consent_kinds: credit reporting takes written consents only")
        _check_distinct(self.consent_kinds, "consent_kinds")
        if self.data.bank.identifier != self.data.partner.identifier:
            raise ValueError("data: both sides should use the same identifier")
        if self.jobs.insight and not (self.segmentation and self.data.partner.features):
            raise ValueError("jobs.insight: needs segmentation and data.partner.features")
        for name in ("lookup", "score", "evaluate", "stability"):
            self._check_features(name, getattr(self.jobs, name))
        if bool(self.noise) != any(self.noised(job) for job in ("insight", "evaluate")):
            raise ValueError("noise: should be there where a job says release: noised, and only so")
        if self.period and not any(self.releases(job) for job in _RELEASING):
            raise ValueError("period: is for insight, evaluate and stability, none of them allowed")
        if self.jobs.evaluate and self.data.bank.label is None:
            raise ValueError("jobs.evaluate: needs data.bank.label")
        if self.jobs.stability and self.jobs.stability.populations:
            self._check_populations(self.jobs.stability.populations)
        if math.prod(len(axis.labels) for axis in self.segmentation) > MAX_SEGMENTS:
            raise ValueError(f"segmentation: makes more than {MAX_SEGMENTS} segments")
        _check_distinct([axis.label for axis in self.segmentation], "segmentation: labels")
        _check_distinct(self.witnesses, "witnesses")
        return self

    def releases(self, job: str) -> bool:
        """Whether this kind of job is allowed, and releases figures about segments or groups."""
        return job in _RELEASING and getattr(self.jobs, job) is not None

    def noised(self, job: str) -> bool:
        """Whether what this kind of job releases carries noise."""
        return getattr(getattr(self.jobs, job), "release", None) == "noised"

    def _check_populations(self, named: Populations) -> None:
        labels = {axis.label: axis.labels for axis in self.segmentation}.get(named.axis, ())
        if not {named.expected, named.actual} <= set(labels):
            raise ValueError(
                "jobs.stability.populations: should name two segments of an axis of segmentation"
            )

    def _check_features(self, job: str, terms: _Tabled | Binned | None) -> None:
        """The features a job names are the partner's, and have bins where it needs them."""
        binned = isinstance(terms, Score) or (
            isinstance(terms, Binned) and terms.binning == "edges"
        )
        for feature in terms.features if terms else ():
            known = self.data.partner.features.get(feature)
            if known is None:
                raise ValueError(f"jobs.{job}.features: {feature} is no feature of the data")
            if binned and not known.bins:
                raise ValueError(f"jobs.{job}.features: {feature} has no bins")


# The job


class Watch(_Model):
    """An early warning: who has lost more points than this since the last run."""

    fell_by: Number


class Job(_Document):
    """What one run is asked to do. Raises JobInvalid (E302) when read.

    What lies at the bank is not part of what is shared: the file of the people to ask for, the
    scorecard, and what is made of the scores.

    since: the earlier run that a stability is measured against; without it there is none yet.
    between: or that it compares the agreement's two populations.
    """

    invalid = JobInvalid
    noun = "job"

    job: JobKind
    agreement: Token
    purpose: Token
    features: Annotated[dict[Token, tuple[Statistic, ...]], Field(max_length=MAX_FEATURES)] = {}
    since: RunId | None = None
    between: Literal["populations"] | None = None
    people: Path | None = None
    scorecard: Path | None = None
    watch: Watch | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.people is not None and self.job not in {"lookup", "score"}:
            raise ValueError("people: only a lookup or a score names people")
        if self.job != "score" and (self.scorecard is not None or self.watch is not None):
            raise ValueError("scorecard, watch: only a score has them")
        if self.since is not None and self.job != "stability":
            raise ValueError("since: only a stability has an earlier run")
        if self.between is not None and (self.job != "stability" or self.since is not None):
            raise ValueError("between: only a stability has it, and then no earlier run")
        if (self.job == "insight") != bool(self.features):
            raise ValueError("features: an insight names at least one, another job names none")
        for name, statistics in self.features.items():
            if not statistics:
                raise ValueError(f"features.{name}: should name at least one statistic")
            _check_distinct(statistics, f"features.{name}")
        return self

    @property
    def shared(self) -> bytes:
        """Canonical JSON of the job as both sides know it."""
        own = {"people", "scorecard", "watch"}
        return canonical(self.model_dump(mode="json", exclude=own, exclude_defaults=True))


Clauses = Iterator[tuple[str, str]]  # what refuses a job: the clause's path, and why


def permits(
    agreement: Agreement, job: Job, *, now: datetime, runs: Callable[[timedelta], int]
) -> None:
    """Raises AgreementRefusal (E310), naming the clause, unless the agreement allows this job now.

    runs: how many runs were started under the agreement within the last so long.
    """
    if job.agreement != agreement.agreement:
        raise AgreementRefusal(*agreement.named, "agreement", "the job names another agreement")
    for found in (
        _outside_validity(agreement, now),
        _not_named(agreement, job),
        _beyond_limits(agreement, job, runs),
    ):
        for clause, why in found:
            raise AgreementRefusal(*agreement.named, clause, why)


def _outside_validity(agreement: Agreement, now: datetime) -> Clauses:
    assessment, reporting = agreement.impact_assessment, agreement.credit_reporting
    if now < agreement.valid.start:
        yield "valid.from", "it is not yet valid"
    if now >= agreement.valid.until:
        yield "valid.until", "it is no longer valid"
    if assessment.valid_until is not None and now >= assessment.valid_until:
        yield "impact_assessment.valid_until", "the assessment is no longer valid"
    if reporting and reporting.valid_until is not None and now >= reporting.valid_until:
        yield "credit_reporting.valid_until", "the licence is no longer valid"


def _not_named(agreement: Agreement, job: Job) -> Clauses:
    if job.purpose != agreement.purpose:
        yield "purpose", f"it is for {agreement.purpose}, not for {job.purpose}"
    terms = getattr(agreement.jobs, job.job)
    if terms is None:
        yield f"jobs.{job.job}", "it does not allow this kind of job"
    if job.between is not None and terms.populations is None:
        yield "jobs.stability.populations", "it names no populations to compare"
    for name, statistics in job.features.items():
        clause = f"data.partner.features.{name}"
        feature = agreement.data.partner.features.get(name)
        if feature is None:
            yield clause, "it names no such feature"
            return
        more = [statistic for statistic in statistics if statistic not in terms.statistics]
        if more:
            yield "jobs.insight.statistics", f"it does not allow {', '.join(more)}"
        if "histogram" in statistics and not feature.bins:
            yield f"{clause}.bins", "a histogram needs its edges there"
        if "share" in statistics and feature.share is None:
            yield f"{clause}.share", "a share needs its condition there"
        if "ratio" in statistics and feature.over is None:
            yield f"{clause}.over", "a ratio needs what it divides by there"
        if "variance" in statistics and feature.span**2 >= 2**63:
            yield clause, "its range is too wide for a variance to be exact"
    yield from _partly_divided(agreement, job)


def _partly_divided(agreement: Agreement, job: Job) -> Clauses:
    """Ratios over those who have both, where not everybody has.

    Beside a sum over all who have one, the difference would be about the few between.
    """
    features = agreement.data.partner.features
    for name, statistics in job.features.items():
        over = features[name].over
        for one in (name, over) if "ratio" in statistics and over else ():
            if features[one].may_be_missing:
                clause = f"data.partner.features.{one}.may_be_missing"
                yield clause, "a ratio needs `false` there, of both that it is made of"


def features_read(agreement: Agreement, job: Job) -> list[str]:
    """The partner's features that the job reads: of an insight, what ratios divide by as well."""
    terms = getattr(agreement.jobs, job.job)
    if isinstance(terms, _Tabled | Binned):
        return list(terms.features)
    declared = agreement.data.partner.features
    over = [declared[name].over for name, asked in job.features.items() if "ratio" in asked]
    return list(dict.fromkeys([*job.features, *(name for name in over if name is not None)]))


def _beyond_limits(agreement: Agreement, job: Job, runs: Callable[[timedelta], int]) -> Clauses:
    limits = agreement.limits
    most = limits.features_per_job
    if most is not None and (count := len(features_read(agreement, job))) > most:
        yield "limits.features_per_job", f"the job uses {count} features"
    for name, (window, words) in _WINDOWS.items():
        limit = getattr(limits, name)
        if limit is not None and (started := runs(window)) >= limit:
            yield (
                f"limits.{name}",
                f"{started} runs were started in the last {words}, unfinished ones included",
            )
    hours = limits.hours_between_runs
    if hours is not None and runs(timedelta(hours=hours)):
        yield "limits.hours_between_runs", f"a run was started in the last {hours} hours"


# Reading

_SHOWN = 10  # problems of a document; there may be thousands


def _check_distinct(names: Iterable[str], what: str) -> None:
    names = list(names)
    if len(names) != len(set(names)):
        raise ValueError(f"{what} should all differ")


def _problems(error: ValidationError) -> list[str]:
    """The first problems as `path: what is wrong`, without the values given."""
    lines = []
    problems = error.errors(include_url=False, include_input=False)
    for problem in problems[:_SHOWN]:
        path = "".join(
            f"[{at + 1}]" if isinstance(at, int) else f".{shown(at)}" for at in problem["loc"]
        )
        context = problem.get("ctx", {})
        match problem["type"]:
            case "missing":
                what = "is missing"
            case "extra_forbidden":
                what = "is not known here"
            case "string_type":
                what = "should be text (put it in quotes)"
            case "string_pattern_mismatch":
                what = "should be a short name"
            case "literal_error":
                what = f"should be {context['expected']}"
            case "too_short":
                what = "should name at least one"
            case "timezone_aware":
                what = "should have an offset from UTC, such as +08:00"
            case "value_error":
                what = str(context["error"])
            case _:
                what = problem["msg"].replace("Input should", "should")
        lines.append(f"{path[1:]}: {what}" if path else what)
    if len(problems) > _SHOWN:
        lines.append(f"and {len(problems) - _SHOWN} more")
    return lines
