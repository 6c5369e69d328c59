import json
from datetime import datetime, timedelta

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from institutions import AGREEMENT, INSIGHT, NOW, YAML

from compliance.agreement import (
    MINIMUM_GROUP_FLOOR,
    Agreement,
    Job,
    features_read,
    permits,
)
from compliance.canonical import canonical
from compliance.disclosure import disclosure
from compliance.document import MAX_CHARACTERS
from compliance.errors import AgreementInvalid, AgreementRefusal, JobInvalid, NotCanonical
from compliance.gate import Scope

NOISE = "noise: {epsilon: 0.5, delta: 1.0e-9, budget: {epsilon: 2, per: month}}\n"


def test_the_document_is_the_canonical_json_of_what_was_written():
    document = json.loads(AGREEMENT.document)
    assert canonical(document) == AGREEMENT.document
    assert document["valid"]["from"] == "2026-01-01T00:00:00+08:00"
    assert document["data"]["partner"]["features"]["bill_amt1"] == {
        "unit": "TWD",
        "lower": -200000,
        "upper": 1000000,
        "decimals": 0,
    }, "no default is filled in"


def test_both_sides_read_the_same_agreement():
    received = Agreement.from_document(AGREEMENT.document)
    assert received == AGREEMENT
    assert (received.document, received.digest) == (AGREEMENT.document, AGREEMENT.digest)


def noised(noise: str = NOISE) -> str:
    return YAML.replace("release: exact", "release: noised").replace("limits:", f"{noise}limits:")


def test_noise_has_terms():
    agreement = Agreement.from_yaml(noised())
    assert agreement.noised("insight")
    assert not agreement.noised("overlap")
    said = disclosure(agreement, INSIGHT)[agreement.parties.bank]
    assert any("all with noise (epsilon 0.5 of 2 a month)" in line for line in said)
    assert not any("noise" in line for line in disclosure(AGREEMENT, INSIGHT)["bank"])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("epsilon: 0.5", "epsilon: 0", "noise.epsilon: should be greater"),
        ("epsilon: 0.5", "epsilon: 11", "noise.epsilon: should be less"),
        ("epsilon: 0.5", 'epsilon: "0.5"', "noise.epsilon: should be a number"),
        ("epsilon: 0.5, ", "", "noise.epsilon: is missing"),
        ("1.0e-9", "0.01", "noise.delta: should be less"),
        ("1.0e-9", "0", "noise.delta: should be greater"),
        ("{epsilon: 2,", "{epsilon: 0.4,", "budget.epsilon: is too small for a single run"),
        ("month", "week", "noise.budget.per: should be 'day', 'month' or 'year'"),
    ],
)
def test_noise_terms_that_make_no_sense(old, new, problem):
    assert old in NOISE
    with pytest.raises(AgreementInvalid, match=problem):
        Agreement.from_yaml(noised(NOISE.replace(old, new)))


@given(st.randoms(use_true_random=False))
def test_the_order_in_which_names_are_written_does_not_matter(random):
    def shuffled(value):
        if isinstance(value, dict):
            items = [(name, shuffled(item)) for name, item in value.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    document = shuffled(json.loads(AGREEMENT.document))
    again = Agreement.from_yaml(yaml.safe_dump(document, sort_keys=False))
    assert again.document == AGREEMENT.document


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("version: 1", "version: 1.5", "version: should be a valid integer"),
        ("version: 1", "version: '1'", "version: should be a valid integer"),
        ("agreement: credit-2026", "agreement: credit 2026", "agreement: should be a short name"),
        ("partner: partner}", "partner: bank}", "two institutions"),
        ("legal_basis: consent", "legal_basis: contract", "legal_basis: should be 'consent'"),
        ("from: 2026-01-01T00:00:00+08:00", "from: 2026-01-01", "valid.from: should be a time"),
        ("01T00:00:00+08:00, until", "01T00:00:00, until", "valid.from: should have an offset"),
        ("from: 2026-01-01T00", "from: 2026-02-30T00", "valid.from: should be a time"),
        ("from: 2026", "from: 2029", "from should be before until"),
        ("retention_days: 730", "retention_day: 730", "retention_day: is not known here"),
        ("retention_days: 730\n", "", "retention_days: is missing"),
        ("[customer-profile, credit-performance]", "[]", "categories: should name at least one"),
        ("customer-profile, credit-perf", "a, a, credit-perf", "categories should all differ"),
        ("identifier: phone", "identifier: email", "the same identifier"),
        ("identifier: phone", "identifier: name", "data.bank.identifier: should be 'phone'"),
        ("lower: -2e+05", "lower: 1000000", "bill_amt1: lower should be below upper"),
        ("lower: -2e+05", "lower: -0.5", "more than 0 decimals"),
        ("lower: -2e+05", "lower: -1e+18", "too large to be kept exactly"),
        ("bins: [-1, 0, 2]", "bins: [0, -1]", "bins should be edges in ascending order"),
        ("bins: [-1, 0, 2]", "bins: [0, 9]", "between lower and upper"),
        ("share: {above: 0}", "share: {above: 2, up_to: 0}", "pay_0: share should say"),
        ("share: {above: 0}", "share: {}", "pay_0: share should say"),
        ("share: {above: 0}", "over: pay_1", "pay_0.over: should name another of the features"),
        ("share: {above: 0}", "over: pay_0", "pay_0.over: should name another of the features"),
        ("unit: TWD", "kind: text, unit: TWD", "kind: should be 'numeric'"),
        ('label: "-29"', "label: -29", r"segmentation\[1\].bands\[1\].label: should be text"),
        (", upper: 49}", "}", "every band but the last"),
        ("upper: 49", "upper: 29", "bands should be in ascending order"),
        ('"30-49"', '"-29"', "labels should all differ"),
        (", values: [north, south]", "", "either bands or values"),
        ("column: region", "column: region, bands: [{label: all}]", "either bands or values"),
        ("label: region", "label: age_band", "segmentation: labels should all differ"),
        ("overlap: {}", "everything: {}", "jobs.everything: is not known here"),
        ("overlap: {}", "intersect: {}", "jobs.intersect.partner_learns: is missing"),
        ("release: exact", "release: noised", "noise: should be there where"),
        ("limits:", f"{NOISE}limits:", "noise: should be there where"),
        ("release: exact", "release: blurred", "release: should be 'exact' or 'noised'"),
        ("minimum_group: 50", "minimum_group: 9", "greater than or equal to 10"),
        ("key_bits: 3072", "key_bits: 1024", "key_bits: should be 2048 or 3072"),
        ("[count, sum", "[median, sum", r"statistics\[1\]: should be 'count', 'sum'"),
        ("[count, sum", "[sum, sum", "statistics should all differ"),
        ("runs_per_day: 2", "runs_per_day: 0", "runs_per_day: should be greater"),
        ("{runs_per_day: 2}", "{hours_between_runs: 1}", "limits: should say runs_per_day"),
        ("{runs_per_day: 2}", "{runs_per_week: 0}", "runs_per_week: should be greater"),
        ("{runs_per_day: 2}", "{runs_per_day: 2, features_per_job: 0}", "features_per_job"),
        ("PIA-2026-014", "{valid_until: 2027-01-01T00:00:00Z}", "assessment.reference: is missing"),
        ("PIA-2026-014", "{reference: PIA, valid_until: soon}", "valid_until: should be a time"),
        ("PIA-2026-014", "[PIA]", "impact_assessment: should be"),
        ("PIA-2026-014", "PIA\ncredit_reporting: {}", "credit_reporting.licence: is missing"),
        ("credit-risk-assessment", "credit-reporting", "credit_reporting: this purpose needs"),
        ("retention_days: 730", "retention_days: 730\nversion: 2", "version is given twice"),
    ],
)
def test_a_wrong_agreement_is_refused_by_its_place(old, new, problem):
    assert old in YAML
    with pytest.raises(AgreementInvalid, match=problem):
        Agreement.from_yaml(YAML.replace(old, new, 1))


@pytest.mark.parametrize(
    "number",
    ["1E+999999999", "1E-999999999999999999", "1_0", "\u0661", " 1 ", "1", "NaN", True, None, [1]],
)
def test_a_bound_is_a_number_and_never_text(number):
    document = json.loads(AGREEMENT.document)
    for name in ("lower", "upper"):
        document["data"]["partner"]["features"]["bill_amt1"][name] = number
        with pytest.raises(AgreementInvalid, match=f"{name}: should be a number"):
            Agreement.from_document(canonical(document))


def test_a_refusal_is_short_and_printable_whatever_the_document():
    document = json.loads(AGREEMENT.document)
    document |= {f"\x1b[31m{number}" + "x" * 100: 1 for number in range(1000)}
    with pytest.raises(AgreementInvalid, match="is not known here; and 990 more") as refused:
        Agreement.from_document(canonical(document))
    assert len(refused.value.message) < 1000
    assert refused.value.message.isprintable()
    with pytest.raises(AgreementInvalid, match="given twice") as refused:
        Agreement.from_yaml(f"{'x' * 100}: 1\n" * 2)
    assert "x" * 65 not in refused.value.message


def test_the_floor_of_the_minimum_group_is_allowed():
    text = YAML.replace("minimum_group: 50", f"minimum_group: {MINIMUM_GROUP_FLOOR}")
    assert Agreement.from_yaml(text).jobs.insight.minimum_group == MINIMUM_GROUP_FLOOR


def test_an_insight_needs_segments_and_features():
    text = YAML[: YAML.index("segmentation:")] + YAML[YAML.index("jobs:") :]
    with pytest.raises(AgreementInvalid, match="needs segmentation"):
        Agreement.from_yaml(text)


def test_segments_have_a_limit():
    document = json.loads(AGREEMENT.document)
    values = [str(value) for value in range(100)]
    axes = [{"label": f"axis{i}", "column": "c", "values": values} for i in range(2)]
    Agreement.from_yaml(json.dumps(document | {"segmentation": axes}))
    more = [*axes, {"label": "more", "column": "c", "values": ["a", "b"]}]
    with pytest.raises(AgreementInvalid, match="more than 10000 segments"):
        Agreement.from_yaml(json.dumps(document | {"segmentation": more}))


def test_a_partner_cannot_send_other_than_canonical_json():
    with pytest.raises(NotCanonical):
        Agreement.from_document(AGREEMENT.document + b" ")
    with pytest.raises(NotCanonical):
        Agreement.from_document(YAML.encode())
    with pytest.raises(AgreementInvalid, match="longer"):
        Agreement.from_document(canonical("x" * MAX_CHARACTERS))


def test_axes_name_their_segments():
    assert [axis.labels for axis in AGREEMENT.segmentation] == [
        ("-29", "30-49", "50-"),
        ("north", "south"),
    ]


def job(**changes):
    document = json.loads(INSIGHT.shared) | changes
    return Job.from_document(
        canonical({name: value for name, value in document.items() if value is not None})
    )


def test_a_job_is_the_same_on_both_sides():
    text = "job: overlap\nagreement: credit-2026\npurpose: credit-risk-assessment"
    ours = Job.from_yaml(text)
    theirs = Job.from_document(ours.shared)
    assert theirs.shared == ours.shared


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"job": "train"}, "job: should be 'overlap', 'intersect', 'insight'"),
        ({"purpose": None}, "purpose: is missing"),
        ({"features": None}, "an insight names at least one"),
        ({"job": "overlap"}, "another job names none"),
        ({"features": {"pay_0": []}}, "features.pay_0: should name at least one"),
        ({"features": {"pay_0": ["sum", "sum"]}}, "features.pay_0 should all differ"),
        ({"features": {"pay_0": ["mode"]}}, r"features.pay_0\[1\]: should be"),
        ({"limit": 3}, "limit: is not known here"),
        ({"output": "result.csv"}, "output: is not known here"),
        ({"people": "people.csv"}, "people: only a lookup or a score"),
        ({"watch": {"fell_by": 3}}, "scorecard, watch: only a score"),
        ({"job": "score", "features": None, "watch": {"fell_by": "3"}}, "should be a number"),
        ({"job": "lookup", "features": None, "people": "a\nb"}, "people: should be a short name"),
    ],
)
def test_a_wrong_job_is_refused_by_its_place(changes, problem):
    with pytest.raises(JobInvalid, match=problem):
        job(**changes)


def test_what_lies_at_the_bank_is_not_shared():
    whole = job(
        job="score", features=None, people="p.csv", scorecard="s.yaml", watch={"fell_by": 3}
    )
    assert whole.shared == canonical(
        {"job": "score", "agreement": "credit-2026", "purpose": "credit-risk-assessment"}
    )


TABLED = YAML.replace(
    "jobs:",
    """jobs:
  lookup: {features: [bill_amt1], people_per_day: 9, epoch_hours: 24}
  score: {features: [pay_0], people_per_day: 9, epoch_hours: 1, key_bits: 2048}""",
)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("[bill_amt1]", "[bill_amt2]", "jobs.lookup.features: bill_amt2 is no feature"),
        ("[bill_amt1]", "[bill_amt1, bill_amt1]", "features should all differ"),
        ("[bill_amt1]", "[]", "should name at least one"),
        ("[pay_0]", "[bill_amt1]", "jobs.score.features: bill_amt1 has no bins"),
        ("epoch_hours: 24", "epoch_hours: 25", "epoch_hours: should be less than"),
        ("people_per_day: 9, epoch_hours: 1,", "epoch_hours: 1,", "people_per_day: is missing"),
    ],
)
def test_a_wrong_table_is_refused_by_its_place(old, new, problem):
    Agreement.from_yaml(TABLED)
    with pytest.raises(AgreementInvalid, match=problem):
        Agreement.from_yaml(TABLED.replace(old, new, 1))


def test_a_table_uses_the_features_of_its_agreement():
    """They count against features_per_job."""
    for refused in (False, True):
        text = TABLED.replace("[bill_amt1]", "[bill_amt1, pay_0]" if refused else "[bill_amt1]")
        limits = "{runs_per_day: 2, features_per_job: 1}"
        agreement = Agreement.from_yaml(text.replace("{runs_per_day: 2}", limits))
        lookup = job(job="lookup", features=None)
        if not refused:
            permits(agreement, lookup, now=NOW, runs=none)
            continue
        with pytest.raises(AgreementRefusal, match="uses 2 features"):
            permits(agreement, lookup, now=NOW, runs=none)


def none(_):
    """No run was started before."""
    return 0


def test_what_the_agreement_names_is_permitted():
    permits(AGREEMENT, INSIGHT, now=NOW, runs=lambda _: 1)
    permits(AGREEMENT, job(job="overlap", features=None), now=AGREEMENT.valid.start, runs=none)


@pytest.mark.parametrize(
    ("changes", "clause"),
    [
        ({"agreement": "other"}, "agreement"),
        ({"purpose": "marketing"}, "purpose"),
        ({"job": "intersect", "features": None}, "jobs.intersect"),
        ({"features": {"pay_6": ["sum"]}}, "data.partner.features.pay_6"),
        ({"features": {"bill_amt1": ["histogram"]}}, "data.partner.features.bill_amt1.bins"),
        ({"features": {"bill_amt1": ["share"]}}, "data.partner.features.bill_amt1.share"),
    ],
)
def test_a_refusal_names_the_clause(changes, clause):
    with pytest.raises(AgreementRefusal, match=f"by {clause}: ") as refused:
        permits(AGREEMENT, job(**changes), now=NOW, runs=none)
    assert refused.value.clause == clause


@pytest.mark.parametrize(
    ("now", "runs", "clause"),
    [
        (AGREEMENT.valid.start - timedelta(microseconds=1), 0, "valid.from"),
        (AGREEMENT.valid.until, 0, "valid.until"),
        (NOW, 2, "limits.runs_per_day"),
    ],
)
def test_time_and_number_of_runs_are_limited(now, runs, clause):
    with pytest.raises(AgreementRefusal) as refused:
        permits(AGREEMENT, INSIGHT, now=now, runs=lambda _: runs)
    assert refused.value.clause == clause


def test_each_limit_of_runs_has_a_window_of_its_own():
    """Four runs, three days apart; the last was two days ago."""
    days = [2, 5, 8, 11, 35]

    def limited(limits):
        agreement = Agreement.from_yaml(YAML.replace("{runs_per_day: 2}", limits))
        permits(
            agreement,
            INSIGHT,
            now=NOW,
            runs=lambda window: sum(timedelta(days=day) < window for day in days),
        )

    for limits in (
        "{runs_per_day: 1}",
        "{runs_per_week: 3, runs_per_day: 1}",
        "{runs_per_month: 5}",
        "{runs_per_month: 5, hours_between_runs: 48}",
        "{runs_per_month: 5, features_per_job: 2}",
    ):
        limited(limits)
    for limits, clause in (
        ("{runs_per_week: 2, runs_per_day: 1}", "runs_per_week"),
        ("{runs_per_month: 4}", "runs_per_month"),
        ("{runs_per_month: 5, hours_between_runs: 49}", "hours_between_runs"),
        ("{runs_per_month: 5, features_per_job: 1}", "features_per_job"),
    ):
        with pytest.raises(AgreementRefusal) as refused:
            limited(limits)
        assert refused.value.clause == f"limits.{clause}"


@pytest.mark.parametrize(
    ("assessment", "reporting", "clause"),
    [
        ("reference: PIA-1, {until}", "licence: L-1", "impact_assessment"),
        ("reference: PIA-1", "licence: L-1, {until}", "credit_reporting"),
    ],
)
def test_what_an_agreement_refers_to_may_run_out_first(assessment, reporting, clause):
    text = YAML.replace("PIA-2026-014", f"{{{assessment}}}") + f"credit_reporting: {{{reporting}}}"
    text = text.replace("{until}", "valid_until: 2026-12-01T00:00:00+08:00")
    agreement = Agreement.from_yaml(text)
    ends = datetime.fromisoformat("2026-12-01T00:00:00+08:00")
    permits(agreement, INSIGHT, now=ends - timedelta(microseconds=1), runs=none)
    with pytest.raises(AgreementRefusal) as refused:
        permits(agreement, INSIGHT, now=ends, runs=none)
    assert refused.value.clause == f"{clause}.valid_until"


def test_credit_reporting_needs_a_licence_and_written_consents():
    assert AGREEMENT.accepted_kinds is None
    text = YAML.replace("credit-risk-assessment", "credit-reporting-retail")
    with pytest.raises(AgreementInvalid, match="needs a licence"):
        Agreement.from_yaml(text)
    agreement = Agreement.from_yaml(text + "credit_reporting: {licence: PBOC-2026-7}\n")
    assert agreement.accepted_kinds == {"written"}
    assert Scope.of(agreement, "partner").kinds == {"written"}


def test_an_agreement_may_say_which_kinds_of_consent_count():
    agreement = Agreement.from_yaml(YAML + "consent_kinds: [separate, written]\n")
    assert Scope.of(agreement, "bank").kinds == {"separate", "written"}
    for kinds, more, problem in (
        ("[separate]", "credit_reporting: {licence: L}", "takes written consents only"),
        ("[separate, separate]", "", "consent_kinds should all differ"),
        ("[verbal]", "", r"consent_kinds\[1\]: should be 'general'"),
    ):
        with pytest.raises(AgreementInvalid, match=problem):
            Agreement.from_yaml(f"{YAML}consent_kinds: {kinds}\n{more}")


def test_a_variance_needs_a_range_whose_square_is_exact():
    """Squares have 63 bits: what is wider is refused here, not once the intent is signed."""
    asked = job(features={"bill_amt1": ["variance"]})

    def bounded(upper):
        return Agreement.from_yaml(
            YAML.replace("lower: -2e+05, upper: 1000000", f"lower: 0, upper: {upper}")
        )

    permits(bounded(3037000499), asked, now=NOW, runs=none)
    permits(bounded(3037000500), job(features={"bill_amt1": ["mean"]}), now=NOW, runs=none)
    with pytest.raises(AgreementRefusal, match="too wide"):
        permits(bounded(3037000500), asked, now=NOW, runs=none)


def test_a_ratio_reads_what_it_divides_by_and_says_so():
    declared = YAML.replace(
        "{unit: TWD,", "{unit: TWD, may_be_missing: false, over: pay_0,"
    ).replace("histogram]", "histogram, ratio]")
    partly = Agreement.from_yaml(declared)
    with pytest.raises(AgreementRefusal, match=r"by data.partner.features.pay_0.may_be_missing: "):
        permits(partly, job(features={"bill_amt1": ["ratio"]}), now=NOW, runs=none)
    declared = declared.replace("pay_0: {lower", "pay_0: {may_be_missing: false, lower")
    asked = job(features={"bill_amt1": ["mean", "ratio"]})
    divided = Agreement.from_yaml(declared)
    permits(divided, asked, now=NOW, runs=none)
    assert features_read(divided, asked) == ["bill_amt1", "pay_0"]
    assert disclosure(divided, asked)["bank"][-1].endswith(
        "bill_amt1 (mean, ratio to pay_0 of those who have both, whose sums its node learns)"
    )
    limited = declared.replace("runs_per_day: 2", "runs_per_day: 2, features_per_job: 1")
    with pytest.raises(AgreementRefusal, match="uses 2 features"):
        permits(Agreement.from_yaml(limited), asked, now=NOW, runs=none)
    with pytest.raises(AgreementRefusal, match=r"by data.partner.features.pay_0.over: "):
        permits(divided, job(features={"pay_0": ["ratio"]}), now=NOW, runs=none)
    with pytest.raises(AgreementRefusal, match="does not allow ratio"):
        permits(Agreement.from_yaml(declared.replace(", ratio", "")), asked, now=NOW, runs=none)


def test_a_statistic_must_be_allowed():
    agreement = Agreement.from_yaml(YAML.replace("share, histogram]", "histogram]"))
    with pytest.raises(AgreementRefusal) as refused:
        permits(agreement, INSIGHT, now=NOW, runs=none)
    assert refused.value.clause == "jobs.insight.statistics"


def test_a_time_without_a_zone_is_no_time():
    with pytest.raises(TypeError):
        permits(AGREEMENT, INSIGHT, now=datetime(2026, 11, 23), runs=none)


def test_each_job_says_who_learns_what():
    learns = disclosure(AGREEMENT, INSIGHT)
    assert learns["bank"] == [
        "the size of partner's set",
        "the shared count of every segment of at least 50 customers, suppressed ones too",
        "for each segment with at least 50 shared customers: how many of them have each feature, "
        "and bill_amt1 (sum, mean); pay_0 (share, histogram)",
    ]
    assert learns["partner"] == [
        "the sizes and shared counts of segments of at least 50 customers, and how many values of "
        "each feature are missing in them, without the segments' names, and never who is in them"
    ]
    overlap = disclosure(AGREEMENT, job(job="overlap", features=None))
    assert overlap == {
        "bank": ["how many customers it shares with partner", "the size of partner's set"],
        "partner": ["the size of bank's set"],
    }


@pytest.mark.parametrize(("learns", "more"), [("size", 0), ("ids", 1)])
def test_an_intersection_tells_the_partner_no_ids_unless_agreed(learns, more):
    text = YAML.replace("overlap: {}", f"intersect: {{partner_learns: {learns}}}")
    told = disclosure(Agreement.from_yaml(text), job(job="intersect", features=None))
    assert told["bank"][0] == "which of its own customers are also partner's"
    assert len(told["partner"]) == 1 + more
