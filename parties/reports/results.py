"""What each kind of job shows of its result: aggregates only, and never a row about a person."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from federated.risk.stability import LARGE, MODERATE
from parties.reports import insight
from parties.reports.figures import BLUE, GREY, ORANGE, Axes, Chart, Series, bars, number, percent
from parties.reports.told import Told

FEWEST = 10  # people of whom a distribution is drawn
_BARS = 10


def charts(told: Told, result: bytes) -> list[Chart]:
    """result: the file as it was released, or without those who have withdrawn since."""
    return list(_CHARTS[told.job.job](told, result))


def withdrawn(told: Told, result: bytes) -> int:
    """How many rows a result with a row a person has lost since it was released."""
    if told.job.job not in {"intersect", "lookup", "score"}:
        return 0
    figures = told.summary
    released = figures.get("fell", figures.get("found", figures.get("count", 0)))
    return max(0, int(released) - (len(result.splitlines()) - 1))


def _frame(result: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(result), dtype=str, keep_default_na=False)


# overlap, intersect


def _overlap(told: Told, result: bytes) -> Iterator[Chart]:
    yield _sets(told, int(json.loads(result)["count"]))


def _intersect(told: Told, result: bytes) -> Iterator[Chart]:
    yield _sets(told, int(told.summary.get("count", 0)))


def _sets(told: Told, shared: int) -> Chart:
    bank, partner = told.sizes[told.bank], told.sizes[told.partner]
    places = [
        told.say("report.only", party=told.bank),
        told.say("report.both"),
        told.say("report.only", party=told.partner),
    ]
    counts = [bank - shared, shared, partner - shared]
    customers = told.say("report.customers")
    rows = [[place, number(count)] for place, count in zip(places, counts, strict=True)]
    return Chart(
        told.say("report.sets"),
        bars(
            Axes(customers, ""),
            places,
            [Series(customers, counts, [GREY, BLUE, GREY])],
            "",
            across=True,
        ),
        [told.say("report.sets"), customers],
        rows,
        note=told.say(
            "report.sets_note",
            of_bank=percent(shared / bank),
            bank=told.bank,
            of_partner=percent(shared / partner),
            partner=told.partner,
        ),
        height=240,
    )


# lookup, score


def _lookup(told: Told, result: bytes) -> Iterator[Chart]:
    frame = _frame(result)
    names = list(frame.columns[1:])
    if not len(frame):
        return
    known = [int((frame[name] != "").sum()) for name in names]
    shares = [count / len(frame) for count in known]
    title = told.say("report.complete")
    axis = told.say("report.complete_axis")
    yield Chart(
        title,
        bars(
            Axes(axis, ""),
            names,
            [Series(title, [100 * one for one in shares], texts=[*map(percent, shares)])],
            "",
            across=True,
        ),
        [told.say("report.feature"), told.say("report.known"), axis],
        [
            [name, number(count), percent(share)]
            for name, count, share in zip(names, known, shares, strict=True)
        ],
        note=told.say("report.in_file"),
        height=110 + 36 * len(names),
    )


def _score(told: Told, result: bytes) -> Iterator[Chart]:
    frame = _frame(result)
    column = "fall" if "fall" in frame else "score"  # of an early warning, who is listed
    title = told.say(f"report.{column}s")
    values = frame[column].astype(float).to_numpy()
    if len(values) < FEWEST:
        return
    counts, edges = np.histogram(values, _BARS)
    places = [f"{number(low)} – {number(high)}" for low, high in pairwise(edges)]
    axes = Axes(told.say(f"report.{column}"), told.say("report.people"))
    yield Chart(
        title,
        bars(axes, places, [Series(title, counts.tolist())], ""),
        list(axes),
        [[place, number(int(count))] for place, count in zip(places, counts, strict=True)],
        note=told.say("report.in_file"),
    )


# evaluate, stability


def _number(text: str) -> float | None:
    return float(text) if text else None


def _bins(told: Told, rows: pd.DataFrame) -> list[str]:
    """Where each bin lies: (lower, upper]."""
    names = []
    for row in rows.to_dict("records"):
        low, high = (number(row[end]) if row[end] else "" for end in ("lower", "upper"))
        if row["bin"] == "missing":
            names.append(told.say("report.missing"))
        elif low and high:
            names.append(f"{low} < … ≤ {high}")
        else:
            names.append(f"> {low}" if low else f"≤ {high}" if high else told.say("report.all"))
    return names


def _axis_of(told: Told, name: str) -> str:
    unit = told.agreement.data.partner.features[name].unit
    return f"{name} ({unit})" if unit else name


def _by_feature(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for name in dict.fromkeys(frame["feature"]):
        yield str(name), frame[frame["feature"] == name]


def _ranked(frame: pd.DataFrame, column: str) -> dict[str, float | None]:
    """The total of each feature, the largest first."""
    totals = {name: _number(rows[column].iloc[0]) for name, rows in _by_feature(frame)}
    return dict(sorted(totals.items(), key=lambda one: -(one[1] or 0)))


def _evaluate(told: Told, result: bytes) -> Iterator[Chart]:
    frame = _frame(result)
    if frame.empty:
        return
    ranking = _ranked(frame, "total_iv")
    iv = told.say("report.iv")
    hidden = told.say("report.suppressed")
    yield Chart(
        told.say("report.iv_ranking"),
        bars(
            Axes(iv, ""), list(ranking), [Series(iv, list(ranking.values()))], hidden, across=True
        ),
        [told.say("report.feature"), iv],
        [[name, hidden if one is None else number(one)] for name, one in ranking.items()],
        height=110 + 32 * len(ranking),
    )
    for name in ranking:
        rows = frame[frame["feature"] == name]
        woe, places = [_number(text) for text in rows["woe"]], _bins(told, rows)
        yield Chart(
            told.say("report.woe", feature=name),
            bars(
                Axes(_axis_of(told, name), told.say("report.woe_axis")),
                places,
                [Series("WOE", woe, [ORANGE if (one or 0) > 0 else BLUE for one in woe])],
                hidden,
            ),
            [
                _axis_of(told, name),
                told.say("report.good"),
                told.say("report.bad"),
                "WOE",
                iv,
            ],
            _rows(rows, places, ("good", "bad", "woe", "iv"), hidden),
            note=told.say("report.woe_sign"),
        )


def _rows(
    rows: pd.DataFrame, places: Sequence[str], columns: Sequence[str], hidden: str
) -> list[list[str]]:
    return [
        [place, *(number(row[one]) if row[one] else hidden for one in columns)]
        for place, row in zip(places, rows.to_dict("records"), strict=True)
    ]


def _stability(told: Told, result: bytes) -> Iterator[Chart]:
    frame = _frame(result)
    if frame.empty:
        return
    hidden, psi = told.say("report.suppressed"), told.say("report.psi")
    compared = (frame["total_psi"] != "").any()
    ranking = _ranked(frame, "total_psi")
    if compared:
        shifts = frame.groupby("feature")["shift"].first()
        bands = [told.say(f"report.{shifts[name]}") if shifts[name] else hidden for name in ranking]
        texts = [
            f"{number(one)}: {band}" if one is not None else hidden
            for one, band in zip(ranking.values(), bands, strict=True)
        ]
        yield Chart(
            told.say("report.psi_of"),
            bars(
                Axes(psi, ""),
                list(ranking),
                [Series(psi, list(ranking.values()), texts=texts)],
                hidden,
                lines=[
                    (MODERATE, f"{told.say('report.moderate')} {MODERATE}"),
                    (LARGE, f"{told.say('report.large')} {LARGE}"),
                ],
                across=True,
            ),
            [told.say("report.feature"), psi, told.say("report.band")],
            [
                [name, number(one) if one is not None else hidden, band]
                for (name, one), band in zip(ranking.items(), bands, strict=True)
            ],
            note=told.say("report.psi_note"),
            height=130 + 36 * len(ranking),
        )
    for name in ranking:
        rows = frame[frame["feature"] == name]
        places = _bins(told, rows)
        columns = ["expected", "actual", "psi"] if compared else ["actual"]
        colours = {"expected": GREY, "actual": BLUE}
        series = [
            Series(told.say(f"report.{one}"), _shares(rows[one]), colours[one])
            for one in columns
            if one != "psi"
        ]
        yield Chart(
            told.say("report.distribution", feature=name),
            bars(Axes(_axis_of(told, name), told.say("report.of_shown")), places, series, hidden),
            [_axis_of(told, name), *(told.say(f"report.{one}") for one in columns)],
            _rows(rows, places, columns, hidden),
            note="" if compared else told.say("report.no_earlier"),
        )


def _shares(counts: pd.Series) -> list[float | None]:
    """Percent of all that is shown."""
    found = [_number(text) for text in counts]
    total = sum(one or 0 for one in found) or 1
    return [None if one is None else 100 * one / total for one in found]


def _insight(told: Told, result: bytes) -> Iterator[Chart]:
    yield from insight.charts(told, _frame(result))


_CHARTS: dict[str, Callable[[Told, bytes], Iterator[Chart]]] = {
    "overlap": _overlap,
    "intersect": _intersect,
    "insight": _insight,
    "lookup": _lookup,
    "score": _score,
    "evaluate": _evaluate,
    "stability": _stability,
}
