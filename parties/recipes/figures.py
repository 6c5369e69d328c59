"""From the result of a recipe's job to the figures it was run for: pure functions, a table each.

What a job hands out as CSV goes in; rows of plain values come out, None where nothing is known.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Any

from compliance.agreement import Agreement, Feature
from parties.errors import RecipeUnknown, ResultUnfit

Row = dict[str, Any]
Rows = list[Row]
Said = list[Mapping[str, str]]  # the rows of a job's CSV

CONFIDENCE = 0.95


def report(name: str, agreement: Agreement, result: bytes) -> Rows:
    """The figures of a recipe, of the result (CSV) of its job under this agreement.

    Raises RecipeUnknown (E670), and ResultUnfit (E671) for the result of something else.
    """
    if name not in _OF:
        raise RecipeUnknown(f"There is no recipe {name!r}.", f"There are {', '.join(NAMES)}.")
    try:
        said: Said = list(csv.DictReader(io.StringIO(result.decode())))
        rows = _OF[name](agreement, said)
    except (KeyError, IndexError, TypeError, ValueError, csv.Error):
        rows = []
    if not rows:
        raise ResultUnfit(
            f"This is no result of the recipe {name} under the agreement {agreement.agreement}.",
            "Name the agreement and the CSV that the recipe's job wrote with `--output`.",
        )
    return rows


def to_csv(rows: Sequence[Row]) -> bytes:
    """Empty cells where nothing is known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


# The recipes


def right_moment(agreement: Agreement, said: Said) -> Rows:
    """By segment and days until the next purchase: people, their share, the segment's basket.

    due: the bin of days; below zero the purchase is overdue. mean_basket: of the segment.
    """
    due, basket = "ecommerce.next_purchase_days", "ecommerce.basket_value"
    bins = intervals(agreement.data.partner.features[due])
    rows = []
    for segment, of in _segments(agreement, said):
        counts = _counts(of[due]) or [None] * len(bins)
        for bin_, people, share in zip(bins, counts, _shares(counts), strict=True):
            row = segment | {"due": bin_, "people": people, "share": share}
            rows.append(row | {"mean_basket": _number(of[basket]["mean"])})
    return rows


def preferences(agreement: Agreement, said: Said) -> Rows:
    """By segment, category and channel: the mean share in people's purchases, and its index.

    index: 100 times the share over that of all segments which are shown, weighted by people.
    """
    rows = []
    for segment, of in _segments(agreement, said):
        for name, one in of.items():
            kind, _, value = name.partition(".")[2].partition("_share:")
            people, share = _whole(one["count"]), _number(one["mean"])
            rows.append(segment | {"of": kind, "name": value, "people": people, "share": share})
    for row in rows:
        alike = [one for one in rows if (one["of"], one["name"]) == (row["of"], row["name"])]
        shown = [one for one in alike if one["share"] is not None]
        total = math.fsum(one["people"] * one["share"] for one in shown)
        share = row["share"]
        people = sum(one["people"] for one in shown)
        row["index"] = 100 * share * people / total if share is not None and total else None
    return rows


def credit_assessment(_: Agreement, said: Said) -> Rows:
    """By feature, the strongest first: its information value, and its riskiest and safest bins.

    strength: below 0.02 none, below 0.1 weak, below 0.3 medium (Siddiqi, Credit Risk Scorecards,
    2006). A bin's bad_share: of the people in it whose label is known. Bins not shown do not count.
    """
    rows = []
    for name, bins in _by_feature(said).items():
        iv = _number(bins[0]["total_iv"])
        shares = [
            (int(one["bad"]) / (int(one["bad"]) + int(one["good"])), _bin(one))
            for one in bins
            if one["bad"] and int(one["bad"]) + int(one["good"])
        ]
        worst, best = (max(shares), min(shares)) if shares else ((None, None), (None, None))
        rows.append(
            {
                "feature": name,
                "iv": iv,
                "strength": strength(iv),
                "riskiest": worst[1],
                "riskiest_bad_share": worst[0],
                "safest": best[1],
                "safest_bad_share": best[0],
            }
        )
    return sorted(rows, key=lambda row: -(row["iv"] or 0))


def early_warning(_: Agreement, said: Said) -> Rows:
    """By feature, the farthest first: its stability index, and the bin that has grown most.

    expected_share, actual_share: of that bin, in the people whose bins are shown. A first run has
    nothing to compare with.
    """
    rows = []
    for name, bins in _by_feature(said).items():
        shown = [one for one in bins if one["expected"] and one["actual"]]
        expected = [int(one["expected"]) for one in shown]
        actual = [int(one["actual"]) for one in shown]
        grown = [
            (later / sum(actual) - before / sum(expected), before / sum(expected), _bin(one))
            for one, before, later in zip(shown, expected, actual, strict=True)
            if sum(actual) and sum(expected)
        ]
        more, before, bin_ = max(grown, default=(None, None, None))
        rows.append(
            {
                "feature": name,
                "psi": _number(bins[0]["total_psi"]),
                "shift": bins[0]["shift"] or None,
                "grown": bin_,
                "expected_share": before,
                "actual_share": before + more if more is not None and before is not None else None,
            }
        )
    return sorted(rows, key=lambda row: -(row["psi"] or 0))


def experience(agreement: Agreement, said: Said) -> Rows:
    """By segment: the net promoter score, how long things took, how many offers were accepted.

    promoters (9 and 10 of 10), passives (7, 8), detractors (0 to 6): shares of those who answered;
    nps: promoters less detractors, -1 to 1 (Reichheld 2003, Harvard Business Review 81(12):46).
    acceptance: accepted offers over offers.
    """
    rows = []
    for segment, of in _segments(agreement, said):
        detractors, passives, promoters = _shares(_counts(of["nps"]) or [None] * 3)
        rows.append(
            segment
            | {
                "answers": _whole(of["nps"]["count"]),
                "promoters": promoters,
                "passives": passives,
                "detractors": detractors,
                "nps": None if promoters is None or detractors is None else promoters - detractors,
                "mean_hours": _number(of["hours"]["mean"]),
                "in_time": _number(of["hours"]["share"]),
                "acceptance": _number(of["accepted"]["ratio"]),
            }
        )
    return rows


def campaign(agreement: Agreement, said: Said) -> Rows:
    """By group: people reached, how many of them bought, their rate with a confidence interval.

    The first axis of the segmentation says which group; its first value is the audience, the second
    the hold-out. The row `difference` has the rate of the audience less that of the hold-out, with
    lower and upper at 95 % confidence, by `wilson` and `newcombe`.
    """
    axis = agreement.segmentation[0]
    audience, hold_out = axis.labels[:2]
    rows: Rows = []
    pairs: dict[tuple[Any, ...], dict[str, tuple[int, int]]] = {}
    for segment, of in _segments(agreement, said):
        people, share = _whole(of["orders"]["count"]), _number(of["orders"]["share"])
        group, rest = segment[axis.label], tuple(segment.items())[1:]
        row = segment | {"people": people, "conversions": None}
        row |= dict.fromkeys(("rate", "lower", "upper"), None)
        if people and share is not None:
            conversions = round(people * share)
            lower, upper = wilson(conversions, people)
            row |= {"conversions": conversions, "rate": share, "lower": lower, "upper": upper}
            pairs.setdefault(rest, {})[group] = (conversions, people)
        rows.append(row | {"mean_spend": _number(of["spend"]["mean"])})
    for rest, of_group in pairs.items():
        if {audience, hold_out} <= of_group.keys():
            one, other = of_group[audience], of_group[hold_out]
            lower, upper = newcombe(one, other)
            rows.append(
                {
                    axis.label: "difference",
                    **dict(rest),
                    "people": None,
                    "conversions": None,
                    "rate": one[0] / one[1] - other[0] / other[1],
                    "lower": lower,
                    "upper": upper,
                    "mean_spend": None,
                }
            )
    return rows


_OF: dict[str, Callable[[Agreement, Said], Rows]] = {
    "right-moment": right_moment,
    "preferences": preferences,
    "credit-assessment": credit_assessment,
    "early-warning": early_warning,
    "experience": experience,
    "campaign": campaign,
}
NAMES = tuple(_OF)


# Statistics


def wilson(hits: int, of: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The score interval of a proportion hits/of, of >= 1 (Wilson 1927, JASA 22:209)."""
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = hits / of
    centre = p + z * z / (2 * of)
    half = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def newcombe(
    one: tuple[int, int], other: tuple[int, int], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """The hybrid score interval of the difference of two independent proportions, (hits, of) each.

    Without continuity correction: method 10 of Newcombe 1998, Statistics in Medicine 17:873.
    """
    p, q = one[0] / one[1], other[0] / other[1]
    (l1, u1), (l2, u2) = wilson(*one, confidence), wilson(*other, confidence)
    return p - q - math.hypot(p - l1, u2 - q), p - q + math.hypot(u1 - p, q - l2)


def strength(iv: float | None) -> str | None:
    """What an information value is called (Siddiqi 2006)."""
    if iv is None:
        return None
    bands = ((0.02, "none"), (0.1, "weak"), (0.3, "medium"))
    return next((name for upper, name in bands if iv < upper), "strong")


# Reading


def intervals(feature: Feature) -> list[str]:
    """What the bins of a histogram are called, such as (0, 14]."""
    ends = ["", *(f"{edge.normalize():f}" for edge in feature.bins), ""]
    return [_interval(*pair) for pair in pairwise(ends)]


def _bin(row: Mapping[str, str]) -> str:
    if row["bin"] == "missing":
        return "missing"
    return _interval(*(f"{float(row[end]):g}" if row[end] else "" for end in ("lower", "upper")))


def _interval(lower: str, upper: str) -> str:
    return f"({lower or '-inf'}, {f'{upper}]' if upper else 'inf)'}"


def _segments(
    agreement: Agreement, said: Said
) -> Iterator[tuple[Row, dict[str, Mapping[str, str]]]]:
    """Each segment's labels, and its row of every feature."""
    axes = [axis.label for axis in agreement.segmentation]
    found: dict[tuple[str, ...], dict[str, Mapping[str, str]]] = {}
    for row in said:
        found.setdefault(tuple(row[axis] for axis in axes), {})[row["feature"]] = row
    for labels, of in found.items():
        yield dict(zip(axes, labels, strict=True)), of


def _by_feature(said: Said) -> dict[str, Said]:
    found: dict[str, Said] = {}
    for row in said:
        found.setdefault(row["feature"], []).append(row)
    return found


def _number(text: str) -> float | None:
    return float(text) if text else None


def _whole(text: str) -> int | None:
    return int(text) if text else None


def _counts(row: Mapping[str, str]) -> list[int | None]:
    """Of a histogram; none where it is not shown."""
    return [int(count) for count in row["histogram"].split(";")] if row["histogram"] else []


def _shares(counts: Sequence[int | None]) -> list[float | None]:
    total = sum(count or 0 for count in counts)
    return [None if count is None or not total else count / total for count in counts]
