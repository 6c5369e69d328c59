"""What an insight's report shows: segments as heat map and bars, histograms, the right moment."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from itertools import pairwise

import pandas as pd

from compliance.agreement import Feature
from parties.reports.figures import Axes, Chart, Series, bars, heat, number, percent
from parties.reports.told import Told

_MAIN = ("mean", "share", "ratio", "sum")  # which statistic of a feature is drawn: the first it has
_WEEKS = 12  # of a calendar
_MOST = 60  # segments that a chart shows; the table has them all


def charts(told: Told, frame: pd.DataFrame) -> Iterator[Chart]:
    """frame: insight.csv, all text: the axes' columns, feature, statistics, suppressed."""
    names = list(told.job.features)
    axes = list(frame.columns[: frame.columns.get_loc("feature")])
    by_feature = {name: frame[frame["feature"] == name] for name in names}
    if len(axes) == 1 and len(names) > 1 and (index := _index(told, by_feature, axes)):
        yield index
    for name, rows in by_feature.items():
        statistic = next((one for one in _MAIN if one in told.job.features[name]), None)
        if statistic:
            yield from _segments(told, name, statistic, rows, axes)
        if "histogram" in told.job.features[name]:
            feature = told.agreement.data.partner.features[name]
            yield from _histogram(told, name, feature, rows, axes)


def _labels(rows: pd.DataFrame, axes: Sequence[str]) -> list[str]:
    return rows[list(axes)].agg(" / ".join, axis=1).tolist()


def _figures(rows: pd.DataFrame, column: str) -> list[float | None]:
    """None where suppressed, and where nobody has the feature."""
    hidden = rows["suppressed"] == "true"
    return [
        float(text) if text and not closed else None
        for text, closed in zip(rows[column], hidden, strict=True)
    ]


def _unit(told: Told, name: str, statistic: str) -> str:
    """Of a feature's statistic, for an axis."""
    unit = told.agreement.data.partner.features[name].unit
    said = told.say(f"report.{statistic}")
    if statistic == "share":
        return f"{said} ({_condition(told, name)})"
    if statistic == "ratio":
        return f"{said} ({name} / {told.agreement.data.partner.features[name].over})"
    return f"{said} ({unit})" if unit else said


def _condition(told: Told, name: str) -> str:
    share = told.agreement.data.partner.features[name].share
    above, up_to = (share.above, share.up_to) if share else (None, None)
    parts = [f"> {above}" if above is not None else "", f"≤ {up_to}" if up_to is not None else ""]
    return f"{name} {', '.join(part for part in parts if part)}"


def _shown(told: Told, statistic: str, value: float | None, closed: bool) -> str:
    if value is None:
        return told.say("report.suppressed" if closed else "report.nobody")
    return percent(value) if statistic == "share" else number(value)


def _segments(
    told: Told, name: str, statistic: str, rows: pd.DataFrame, axes: Sequence[str]
) -> Iterator[Chart]:
    values, closed = _figures(rows, statistic), (rows["suppressed"] == "true").tolist()
    texts = [_shown(told, statistic, *one) for one in zip(values, closed, strict=True)]
    what = _unit(told, name, statistic)
    if len(axes) > 1:
        across = _labels(rows, axes[1:])
        columns, down = list(dict.fromkeys(across)), list(dict.fromkeys(rows[axes[0]]))
        places = list(zip(rows[axes[0]], across, strict=True))
        at = {place: i for i, place in enumerate(places)}
        yield Chart(
            told.say("report.by_segment", feature=name),
            heat(
                Axes(" / ".join(axes[1:]), axes[0]),
                columns,
                down,
                [[values[at[y, x]] for x in columns] for y in down],
                [[texts[at[y, x]] for x in columns] for y in down],
                scale=what,
            ),
            [axes[0], *columns],
            [[y, *(texts[at[y, x]] for x in columns)] for y in down],
            height=140 + 44 * len(down),
        )
    labels = _labels(rows, axes)
    shown = slice(_MOST)
    yield Chart(
        told.say("report.segments", feature=name),
        bars(
            Axes(" / ".join(axes), what),
            labels[shown],
            [Series(name, values[shown], texts=_over(values, texts)[shown])],
            told.say("report.suppressed"),
        ),
        *_table(told, name, rows, axes),
        note=told.say("report.cut", n=_MOST) if len(labels) > _MOST else "",
    )


def _over(values: Sequence[float | None], texts: Sequence[str]) -> list[str]:
    """What stands at a bar: nothing where there is none."""
    return ["" if value is None else text for value, text in zip(values, texts, strict=True)]


def _table(
    told: Told, name: str, rows: pd.DataFrame, axes: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Every statistic of a feature but its histogram, a row a segment."""
    asked = [
        one
        for one in ("sum", "mean", "variance", "share", "ratio")
        if one in told.job.features[name]
    ]
    columns = ["count", *asked]
    shown = []
    for row in rows.to_dict("records"):
        closed = row["suppressed"] == "true"
        values = [float(row[one]) if row[one] and not closed else None for one in columns]
        figures = [_shown(told, one, v, closed) for one, v in zip(columns, values, strict=True)]
        shown.append([*(str(row[axis]) for axis in axes), *figures])
    return [*axes, *(told.say(f"report.{one}") for one in columns)], shown


def _index(told: Told, by_feature: Mapping[str, pd.DataFrame], axes: Sequence[str]) -> Chart | None:
    """Features beside each other, whatever their units: 100 is all shown segments together."""
    down, values, texts, labels = [], [], [], list[str]()
    for name, rows in by_feature.items():
        statistic = next((one for one in ("mean", "share") if one in told.job.features[name]), None)
        if statistic is None:
            continue
        labels = _labels(rows, axes)
        found, counts = _figures(rows, statistic), _figures(rows, "count")
        pairs = [(v, n) for v, n in zip(found, counts, strict=True) if v is not None and n]
        together = sum(v * n for v, n in pairs) / (sum(n for _, n in pairs) or 1)
        if not together:
            continue
        down.append(name)
        values.append([None if v is None else 100 * v / together for v in found])
        closed = (rows["suppressed"] == "true").tolist()
        texts.append(
            [
                f"{v:.0f}" if v is not None else _shown(told, statistic, None, c)
                for v, c in zip(values[-1], closed, strict=True)
            ]
        )
    if not down:
        return None
    what = told.say("report.index")
    return Chart(
        told.say("report.index_title"),
        heat(Axes(axes[0], ""), labels, down, values, texts, scale=what),
        [what, *labels],
        [[name, *row] for name, row in zip(down, texts, strict=True)],
        note=told.say("report.index_note"),
        height=130 + 44 * len(down),
    )


# Histograms


def _histogram(
    told: Told, name: str, feature: Feature, rows: pd.DataFrame, axes: Sequence[str]
) -> Iterator[Chart]:
    labels = _labels(rows, axes)
    counts = [[int(one) for one in text.split(";")] if text else None for text in rows["histogram"]]
    columns = bin_names(told, [float(edge) for edge in feature.bins])
    closed = told.say("report.suppressed")
    texts = [[closed] * len(columns) if row is None else [*map(number, row)] for row in counts]
    shares = [
        [None] * len(columns) if row is None else [100 * one / (sum(row) or 1) for one in row]
        for row in counts
    ]
    unit = f" ({feature.unit})" if feature.unit else ""
    if _counts_from_today(feature):
        yield _calendar(told, name, feature, [row for row in counts if row is not None])
    yield Chart(
        told.say("report.histogram", feature=name),
        heat(
            Axes(f"{name}{unit}", " / ".join(axes)),
            columns,
            labels[:_MOST],
            shares[:_MOST],
            [[f"{one:.0f} %" if one is not None else closed for one in row] for row in shares][
                :_MOST
            ],
            scale=told.say("report.of_segment"),
        ),
        [" / ".join(axes), *columns],
        [[label, *row] for label, row in zip(labels, texts, strict=True)],
        note=told.say("report.cut", n=_MOST) if len(labels) > _MOST else "",
        height=130 + 34 * min(len(labels), _MOST),
    )


def bin_names(told: Told, inner: Sequence[float]) -> list[str]:
    """(lower, upper], in words."""
    ends = [number(edge) for edge in inner]
    if not ends:
        return [told.say("report.all")]
    between = [f"{low} < … ≤ {high}" for low, high in pairwise(ends)]
    return [f"≤ {ends[0]}", *between, f"> {ends[-1]}"]


def _counts_from_today(feature: Feature) -> bool:
    """Days that may be below zero are counted from now on, as those to the next purchase."""
    return feature.unit == "days" and feature.lower < 0 and bool(feature.bins)


def _calendar(told: Told, name: str, feature: Feature, counts: Sequence[Sequence[int]]) -> Chart:
    """Customers of all shown segments by the day they are expected, weeks one below the other.

    A bin holds whole days: what is in it is spread over them evenly. Days count from the run's.
    """
    total = [sum(column) for column in zip(*counts, strict=True)] or [0] * (len(feature.bins) + 1)
    today = date.fromisoformat(told.started[:10])
    spans = _spans([float(edge) for edge in feature.bins])
    monday = today - timedelta(days=today.weekday())
    last = min(max((stop for _, stop in spans if stop is not None), default=0), 7 * _WEEKS)
    weeks = max(1, ((today - monday).days + last) // 7 + 1)
    per_day: dict[date, float] = {}
    for (start, stop), people in zip(spans, total, strict=True):
        if start is None or stop is None:
            continue
        for day in range(max(start, 0), min(stop, last) + 1):
            per_day[today + timedelta(days=day)] = people / (stop - start + 1)
    days = [[monday + timedelta(days=7 * week + i) for i in range(7)] for week in range(weeks)]
    weekdays = told.say("report.weekdays").split()
    figure = heat(
        Axes("", told.say("report.week_from")),
        weekdays,
        [f"{week[0]:%Y-%m-%d}" for week in days],
        [[per_day.get(day) for day in week] for week in days],
        [
            [
                f"{day.day}: {number(round(per_day[day], 1))}" if day in per_day else ""
                for day in week
            ]
            for week in days
        ],
        scale=told.say("report.a_day"),
    )
    rows = []
    for (start, stop), people, label in zip(
        spans, total, bin_names(told, [float(edge) for edge in feature.bins]), strict=True
    ):
        dates = [
            f"{today + timedelta(days=end):%Y-%m-%d}" if end is not None else "…"
            for end in (start, stop)
        ]
        rows.append([label, *dates, number(people)])
    return Chart(
        told.say("report.calendar", feature=name),
        figure,
        [
            f"{name} ({feature.unit})",
            told.say("report.from"),
            told.say("report.to"),
            told.say("report.count"),
        ],
        rows,
        note=told.say("report.calendar_note", people=number(_outside(spans, total))),
        height=130 + 40 * weeks,
    )


def _outside(spans: Sequence[tuple[int | None, int | None]], total: Sequence[int]) -> int:
    """Those whose day has passed, or is in a bin without end."""
    pairs = zip(spans, total, strict=True)
    return sum(n for (start, stop), n in pairs if start is None or stop is None or stop < 0)


def _spans(inner: Sequence[float]) -> list[tuple[int | None, int | None]]:
    """First and last whole day of each bin (lower, upper]; None is without end."""
    ends = [int(edge // 1) for edge in inner]
    starts = [None, *(end + 1 for end in ends)]
    return list(zip(starts, [*ends, None], strict=True))
