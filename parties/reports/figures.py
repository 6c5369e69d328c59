"""Charts for plotly, as data, each with its figures as a table.

Colours are those of Okabe and Ito (2008) and of cividis (Nuñez et al. 2018), which the colour-blind
tell apart; none is the only sign of anything. Names come from agreements: plotly takes some markup
in texts, so that what it is given is escaped.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any, NamedTuple

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#6b7280"
_HIDDEN = "#e3e6ea"  # of cells without a figure
_FONT = {"family": "system-ui, 'Noto Sans', 'Noto Sans CJK SC', sans-serif", "size": 12}


@dataclass(frozen=True)
class Chart:
    """figure: plotly's `data` and `layout`. columns, rows: the same for who cannot see it."""

    title: str
    figure: dict[str, Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    height: int = 300


class Axes(NamedTuple):
    """Titles, with units."""

    x: str
    y: str


@dataclass(frozen=True)
class Series:
    """values: one a place, None where it is suppressed."""

    name: str
    values: Sequence[float | None]
    colours: str | Sequence[str] = BLUE
    texts: Sequence[str] = field(default=())


def number(value: float | str) -> str:
    """A figure as people read it: thousands apart, four digits of what is not whole."""
    found = float(value)
    if found == int(found) and abs(found) < 1e15:
        return f"{int(found):,}"
    if abs(found) >= 1000:
        return f"{found:,.0f}"
    return f"{found:,.4g}" if abs(found) >= 0.0001 else f"{found:.1e}"


def percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def plain(text: str) -> str:
    """A text as it stands, to plotly: no markup."""
    return escape(text, quote=False)


def bars(
    axes: Axes,
    places: Sequence[str],
    series: Sequence[Series],
    hidden: str,
    *,
    lines: Sequence[tuple[float, str]] = (),
    across: bool = False,
) -> dict[str, Any]:
    """A bar for each place and series. hidden: what stands where a figure is suppressed.

    lines: marked values, with their names. across: bars lie, the first on top.
    """
    names = [plain(place) for place in places]
    value, place = ("x", "y") if across else ("y", "x")
    data = [
        {
            "type": "bar",
            "name": plain(one.name),
            "orientation": "h" if across else "v",
            place: names,
            value: list(one.values),
            "marker": {"color": one.colours if isinstance(one.colours, str) else [*one.colours]},
            "text": [plain(text) for text in one.texts] or [_text(each) for each in one.values],
            "texttemplate": "%{text}",
            "textposition": "auto",
            "cliponaxis": False,
            "hovertemplate": f"%{{{place}}}: %{{text}}<extra></extra>",
        }
        for one in series
    ]
    missing = [at for at in range(len(names)) if all(one.values[at] is None for one in series)]
    notes: list[dict[str, Any]] = [
        {
            place: at,  # a name such as -29 would be taken for a number
            value: 0,
            "text": plain(hidden),
            "showarrow": False,
            "textangle": 0 if across else -90,
            "xanchor": "left" if across else "center",
            "yanchor": "middle" if across else "bottom",
            "font": {"color": GREY},
        }
        for at in missing
    ]
    marks = [
        {
            "type": "line",
            f"{value}0": at,
            f"{value}1": at,
            f"{place}0": 0,
            f"{place}1": 1,
            f"{place}ref": "paper",
            "line": {"color": GREY, "dash": "dash", "width": 1.5},
        }
        for at, _ in lines
    ]
    notes += [
        {
            value: at,
            place: 1,
            f"{place}ref": "paper",
            "text": plain(name),
            "showarrow": False,
            "xanchor": "left" if i else "right",
            "yanchor": "bottom",
            "font": {"color": GREY},
        }
        for i, (at, name) in enumerate(lines)
    ]
    layout = _layout(axes, legend=len(series) > 1)
    layout[f"{place}axis"] |= {"type": "category", "categoryarray": names}
    layout[f"{place}axis"] |= {"categoryorder": "array"}
    if across:
        layout["yaxis"]["autorange"] = "reversed"
    layout |= {"annotations": notes, "shapes": marks, "barmode": "group", "bargap": 0.3}
    return {"data": data, "layout": layout}


def heat(
    axes: Axes,
    across: Sequence[str],
    down: Sequence[str],
    values: Sequence[Sequence[float | None]],
    texts: Sequence[Sequence[str]],
    *,
    scale: str,
    ticks: bool = True,
) -> dict[str, Any]:
    """A field for each place across and down, the first on top; a suppressed one is grey.

    texts: what stands in the fields. scale: what the colours and texts say, with its unit.
    """
    x, y = [plain(one) for one in across], [plain(one) for one in down]
    data = {
        "type": "heatmap",
        "x": x,
        "y": y,
        "z": [[*row] for row in values],
        "text": [
            ["" if value is None else plain(text) for value, text in zip(*both, strict=True)]
            for both in zip(values, texts, strict=True)
        ],
        "texttemplate": "%{text}",
        "colorscale": "Cividis",
        "xgap": 2,
        "ygap": 2,
        "colorbar": {"thickness": 12},
        "hovertemplate": "%{y}, %{x}: %{text}<extra></extra>",
        "hoverongaps": False,
    }
    layout = _layout(axes, legend=False)
    for name, places in (("xaxis", x), ("yaxis", y)):
        layout[name] |= {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": places,
            "showgrid": False,
            "showticklabels": ticks or name == "xaxis",
        }
    layout["yaxis"]["autorange"] = "reversed"
    layout["plot_bgcolor"] = _HIDDEN
    layout["title"] = {"text": plain(scale), "font": _FONT, "x": 1, "xref": "paper", "y": 0.99}
    layout["title"] |= {"xanchor": "right", "yanchor": "top"}
    layout["annotations"] = [
        {
            "x": i,  # a name such as -29 would be taken for a number
            "y": j,
            "text": plain(texts[j][i]),
            "showarrow": False,
            "font": {"color": GREY},
        }
        for j, row in enumerate(values)
        for i, value in enumerate(row)
        if value is None and texts[j][i]
    ]
    return {"data": [data], "layout": layout}


def _layout(axes: Axes, *, legend: bool) -> dict[str, Any]:
    return {
        "autosize": True,
        "font": _FONT,
        "margin": {"t": 24 if not legend else 40, "r": 24, "b": 48, "l": 64},
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#ffffff",
        "showlegend": legend,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "xaxis": _axis(axes.x),
        "yaxis": _axis(axes.y),
    }


def _axis(title: str) -> dict[str, Any]:
    """With room between its names and its title."""
    return {
        "title": {"text": plain(title), "standoff": 10},
        "automargin": True,
        "gridcolor": _HIDDEN,
    }


def _text(value: float | None) -> str:
    return "" if value is None else number(value)
