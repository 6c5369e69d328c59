"""Draws docs/img/recipe-*.svg of docs/recipes/*.csv: python tests/docs/recipe_plots.py"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
import pandas as pd

DOCS = Path(__file__).parents[2] / "docs"
LIKED = {"-50k": 0, "50k-200k": 1, "200k-": 2, "-29": 0, "30-44": 1, "45-": 2}
STYLE = {"svg.hashsalt": "concordat", "axes.spines.top": False, "axes.spines.right": False}


def right_moment(table: pd.DataFrame, axes: Any) -> None:
    wide = table.pivot_table(index="due", columns="assets", values="people", sort=False)
    wide[sorted(wide, key=LIKED.get)].plot.bar(ax=axes, rot=0, colormap="viridis", width=0.8)
    axes.set(xlabel="days to the expected next purchase", ylabel="people")
    baskets = table.groupby("assets")["mean_basket"].first()
    handles, labels = axes.get_legend_handles_labels()
    told = [f"{label}: mean basket {baskets[label]:,.0f}" for label in labels]
    axes.legend(
        handles, told, title="assets", frameon=False, loc="upper left", bbox_to_anchor=(1, 1)
    )


def preferences(table: pd.DataFrame, axes: Any) -> None:
    wide = table.pivot_table(index="name", columns="age", values="share", sort=False)
    wide[sorted(wide, key=LIKED.get)].plot.bar(ax=axes, rot=0, colormap="viridis", width=0.8)
    axes.set(xlabel="", ylabel="mean share of purchases")
    axes.legend(title="age", frameon=False, loc="upper left", bbox_to_anchor=(1, 1))


def credit_assessment(table: pd.DataFrame, axes: Any) -> None:
    axes.barh(table["feature"], table["iv"], color="#3b528b")
    axes.invert_yaxis()
    for iv, words in ((0.02, "weak"), (0.1, "medium"), (0.3, "strong")):
        axes.axvline(iv, color="grey", linewidth=0.8, linestyle=":")
        axes.text(iv, len(table) - 0.45, f" {words}", color="grey", fontsize=8)
    axes.set(xlabel="information value")


def early_warning(table: pd.DataFrame, axes: Any) -> None:
    axes.barh(table["feature"], table["psi"], color="#3b528b", height=0.5)
    axes.invert_yaxis()
    for psi, words in ((0.1, "small"), (0.25, "large")):
        axes.axvline(psi, color="grey", linewidth=0.8, linestyle=":")
        axes.text(psi, 0.5, f" {words}", color="grey", fontsize=8)
    axes.set(xlabel="population stability index, with a warning against without")


def experience(table: pd.DataFrame, axes: Any) -> None:
    left = pd.Series(0.0, table.index)
    for name, colour in (("detractors", "#b23"), ("passives", "#ccc"), ("promoters", "#283")):
        axes.barh(table["segment"], table[name], left=left, color=colour, label=name, height=0.6)
        left += table[name]
    axes.set_yticks(range(len(table)))
    axes.set_yticklabels(
        f"{one.segment}\nNPS {100 * one.nps:+.0f}, accepts {one.acceptance:.0%}"
        for one in table.itertuples()
    )
    axes.set(xlabel="share of those who answered")
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))


def campaign(table: pd.DataFrame, axes: Any) -> None:
    ends = [table["rate"] - table["lower"], table["upper"] - table["rate"]]
    axes.errorbar(table["rate"], table["group"], xerr=ends, fmt="o", color="#3b528b", capsize=4)
    axes.axvline(0, color="grey", linewidth=0.8, linestyle=":")
    axes.invert_yaxis()
    axes.margins(y=0.3)
    axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
    axes.set(xlabel="who bought, with the interval at 95 % confidence")


OF: dict[str, Callable[[pd.DataFrame, Any], None]] = {
    "right-moment": right_moment,
    "preferences": preferences,
    "credit-assessment": credit_assessment,
    "early-warning": early_warning,
    "experience": experience,
    "campaign": campaign,
}


def main() -> None:
    with mpl.rc_context(STYLE):
        for name, draw in OF.items():
            table = pd.read_csv(DOCS / "recipes" / f"{name}.csv")
            figure, axes = plt.subplots(figsize=(7.5, 3), layout="constrained")
            draw(table, axes)
            figure.savefig(DOCS / "img" / f"recipe-{name}.svg", metadata={"Date": None})
            plt.close(figure)


if __name__ == "__main__":
    main()
