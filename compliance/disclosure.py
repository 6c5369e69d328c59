"""What each party learns from a job, in sentences that both institutions sign.

What is signed is English. A sentence is also known by the name of its template and by what is put
into it, so that it can be shown in another language beside what was signed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from compliance.agreement import Agreement, Binned, Job, Stability, Statistic

# A change here changes what is signed from then on; what was signed before stays as it was.
TEMPLATES: dict[str, str] = {
    "size": "the size of {party}'s set",
    "shared_with": "how many customers it shares with {party}",
    "matched": "which of its own customers are also {party}'s",
    "segments": (
        "the shared count of every segment of at least {minimum} customers, suppressed ones too"
    ),
    "figures": (
        "for each segment with at least {minimum} shared customers: how many of them have each "
        "feature, and {asked}{noise}"
    ),
    "nameless_segments": (
        "the sizes and shared counts of segments of at least {minimum} customers, and how many "
        "values of each feature are missing in them, without the segments' names, and never who "
        "is in them"
    ),
    "asked_for": "how many people {party} asks for, and never who",
    "looked_up": "of the people it asks for: who is in {party}'s set, and of those {features}",
    "scored": (
        "of the people it asks for: who is in {party}'s set, and of those the score; with points "
        "chosen for it, also which bins they are in of {features}"
    ),
    "no_points": "neither points nor which bins have any",
    "shared_pair": (
        "how many of its customers with {axis} {expected} and of those with {axis} {actual} are "
        "shared, also if fewer than the minimum"
    ),
    "bins_of_pair": (
        "if at least {minimum} of both are: how many of both are in each bin of {features}, "
        "and where these bins meet{cell}"
    ),
    "nameless_pair": (
        "the sizes and shared counts of two nameless groups, and never who is in them"
    ),
    "shared_any": "how many customers are shared, also if fewer than the minimum",
    "bins": (
        "if at least {minimum} are: how many of them are in each bin of {features}, "
        "and where these bins meet{cell}"
    ),
    "shared": "how many customers are shared",
    "shared_labelled": (
        "how many of its good and of its bad customers are shared, also if fewer than the minimum"
    ),
    "bins_of_label": (
        "if at least {minimum} of both are: how many good and bad are in each bin of {features}"
        "{noise}, and where these bins meet{cell}"
    ),
    "labelled_groups": (
        "the sizes and shared counts of two nameless groups, of which the smaller is visibly the "
        "bad one, and never who is in them"
    ),
    "persisting": "which of these nameless customers are the same in all runs of a {per}",
    # Parts of the above.
    "asked": "{feature} ({statistics})",
    "ratio": "ratio to {over} of those who have both, whose sums its node learns",
    "noise": (
        ", all with noise (epsilon {epsilon} of {budget} a {per}) but the counts of customers and "
        "of features"
    ),
    "cell": "; bins that hold fewer than {cell} are not shown",
    "comma": ", ",
    "semicolon": "; ",
    **{f"word.{one}": one for one in (*get_args(Statistic), "day", "month", "year")},
}

Disclosure = dict[str, list[str]]  # what each party learns, by its name


@dataclass(frozen=True)
class Sentence:
    """A template by its name, and what is put into it; names of features and parties stay."""

    template: str
    values: "Mapping[str, Part]"

    def written(self, templates: Mapping[str, str] = TEMPLATES) -> str:
        """In the language of these templates."""
        values = {name: _written(value, templates) for name, value in self.values.items()}
        return templates[self.template].format(**values)


@dataclass(frozen=True)
class Listed:
    """Parts one after the other."""

    parts: "tuple[Part, ...]"
    between: Literal["comma", "semicolon"] = "comma"


Part = str | int | Sentence | Listed


def _written(part: Part, templates: Mapping[str, str]) -> str:
    match part:
        case Sentence():
            return part.written(templates)
        case Listed(parts, between):
            return templates[between].join(_written(one, templates) for one in parts)
        case _:
            return str(part)


def _said(template: str, **values: Part) -> Sentence:
    return Sentence(template, values)


def disclosure(agreement: Agreement, job: Job) -> Disclosure:
    """What each party learns from a job that `permits` lets through, as it is signed."""
    return {
        party: [sentence.written() for sentence in learned]
        for party, learned in sentences(agreement, job).items()
    }


def sentences(agreement: Agreement, job: Job) -> dict[str, list[Sentence]]:
    """The same as sentences that can be written in other languages."""
    bank, partner = agreement.parties.bank, agreement.parties.partner
    theirs, ours = _said("size", party=partner), _said("size", party=bank)
    match job.job:
        case "overlap":
            return {bank: [_said("shared_with", party=partner), theirs], partner: [ours]}
        case "intersect":
            learns = {bank: [_said("matched", party=partner), theirs], partner: [ours]}
            if agreement.jobs.intersect and agreement.jobs.intersect.partner_learns == "ids":
                learns[partner].append(_said("matched", party=bank))
            return learns
        case "insight":
            minimum = agreement.jobs.insight.minimum_group if agreement.jobs.insight else 0
            asked = [_asked(agreement, job, name) for name in sorted(job.features)]
            figures = _said(
                "figures",
                minimum=minimum,
                asked=Listed(tuple(asked), "semicolon"),
                noise=_noise(agreement, "insight"),
            )
            return {
                bank: [theirs, _said("segments", minimum=minimum), figures],
                partner: [_said("nameless_segments", minimum=minimum), *_persisting(agreement)],
            }
        case "lookup" | "score":
            return _by_name(agreement, job.job, theirs)
        case "evaluate" | "stability":
            return _of_bins(agreement, job, theirs, ours)


def _listed(names: Iterable[str]) -> Listed:
    return Listed(tuple(names))


def _asked(agreement: Agreement, job: Job, name: str) -> Sentence:
    """A ratio says what it divides by: its node learns both sums, whatever it shows."""
    over = agreement.data.partner.features[name].over
    statistics = [
        _said("ratio", over=over) if over and one == "ratio" else _said(f"word.{one}")
        for one in job.features[name]
    ]
    return _said("asked", feature=name, statistics=Listed(tuple(statistics)))


def _noise(agreement: Agreement, job: str) -> Sentence | str:
    if agreement.noise is None or not agreement.noised(job):
        return ""
    terms = agreement.noise
    return _said(
        "noise",
        epsilon=str(terms.epsilon),
        budget=str(terms.budget.epsilon),
        per=_said(f"word.{terms.budget.per}"),
    )


def _persisting(agreement: Agreement) -> list[Sentence]:
    """What the partner learns of several runs, where it holds them against each other."""
    if agreement.period is None:
        return []
    return [_said("persisting", per=_said(f"word.{agreement.period.per}"))]


def _by_name(
    agreement: Agreement, kind: Literal["lookup", "score"], size: Sentence
) -> dict[str, list[Sentence]]:
    bank, partner = agreement.parties.bank, agreement.parties.partner
    terms = getattr(agreement.jobs, kind)
    features = _listed(terms.features if terms else ())
    asked = _said("asked_for", party=bank)
    template = "looked_up" if kind == "lookup" else "scored"
    return {
        bank: [size, _said(template, party=partner, features=features)],
        partner: [asked] if kind == "lookup" else [asked, _said("no_points")],
    }


def _of_bins(
    agreement: Agreement, job: Job, theirs: Sentence, ours: Sentence
) -> dict[str, list[Sentence]]:
    bank, partner = agreement.parties.bank, agreement.parties.partner
    terms: Binned | None = getattr(agreement.jobs, job.job)
    if terms is None:
        raise ValueError(f"the agreement allows no {job.job}")
    put_in: dict[str, Part] = {
        "minimum": terms.minimum_group,
        "features": _listed(terms.features),
        "cell": _said("cell", cell=terms.minimum_cell) if terms.minimum_cell else "",
    }
    if job.between is not None and isinstance(terms, Stability) and terms.populations:
        named = terms.populations
        pair = {"axis": named.axis, "expected": named.expected, "actual": named.actual}
        return {
            bank: [theirs, Sentence("shared_pair", pair), Sentence("bins_of_pair", put_in)],
            partner: [ours, _said("nameless_pair"), *_persisting(agreement)],
        }
    if job.job == "stability":
        return {
            bank: [theirs, _said("shared_any"), Sentence("bins", put_in)],
            partner: [ours, _said("shared"), *_persisting(agreement)],
        }
    noise = _noise(agreement, "evaluate")
    return {
        bank: [
            theirs,
            _said("shared_labelled"),
            Sentence("bins_of_label", {**put_in, "noise": noise}),
        ],
        partner: [ours, _said("labelled_groups"), *_persisting(agreement)],
    }
