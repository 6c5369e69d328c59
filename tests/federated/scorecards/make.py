"""Write the scorecards beside this file: python tests/federated/scorecards/make.py

Each library is installed into an environment of its own, which is thrown away. It fits a scorecard
to made-up people; its table and the scores it gives to a few of them are kept as it writes them.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LIBRARIES = {
    # The last scorecardpy needs the pandas and the setuptools of its time.
    "scorecardpy": [
        "scorecardpy==0.1.9.7",
        "pandas<2.1",
        "numpy<2",
        "scikit-learn<1.5",
        "setuptools<81",
    ],
    "optbinning": ["optbinning==1.0.0"],
}
FEATURES = ["pay_0", "bill_amt1"]
SCALE = {"pdo": 20, "odds": 50, "points": 600}


def people():
    """Whole numbers, some missing, and who did not pay."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(5)
    size = 4000
    table = pd.DataFrame(
        {
            "pay_0": random.integers(-2, 9, size).astype(float),
            "bill_amt1": random.normal(50_000, 60_000, size).round(),
        }
    )
    table.loc[random.random(size) < 0.08, "bill_amt1"] = np.nan
    worse = -2 + 0.6 * table["pay_0"] - table["bill_amt1"].fillna(0) / 100_000
    table["bad"] = (random.random(size) < 1 / (1 + np.exp(-worse))).astype(int)
    return table


def fit_scorecardpy(table):
    import pandas as pd
    import scorecardpy
    from sklearn.linear_model import LogisticRegression

    bins = scorecardpy.woebin(table, "bad", no_cores=1)
    woe = scorecardpy.woebin_ply(table, bins, no_cores=1)
    columns = [f"{name}_woe" for name in FEATURES]
    model = LogisticRegression().fit(woe[columns], woe["bad"])
    card = scorecardpy.scorecard(
        bins,
        model,
        columns,
        points0=SCALE["points"],
        odds0=1 / SCALE["odds"],
        pdo=SCALE["pdo"],
    )
    rows = pd.concat(card.values())[["variable", "bin", "points"]]
    return rows, scorecardpy.scorecard_ply(table, card, print_step=0)["score"]


def fit_optbinning(table):
    from optbinning import BinningProcess, Scorecard
    from sklearn.linear_model import LogisticRegression

    card = Scorecard(
        binning_process=BinningProcess(FEATURES),
        estimator=LogisticRegression(),
        scaling_method="pdo_odds",
        scaling_method_params={
            "pdo": SCALE["pdo"],
            "odds": SCALE["odds"],
            "scorecard_points": SCALE["points"],
        },
        rounding=True,
    )
    card.fit(table[FEATURES], table["bad"], metric_missing="empirical")
    return card.table(style="summary"), card.score(table[FEATURES])


def write(library: str) -> None:
    """Run inside the library's environment."""
    table = people()
    card, scores = {"scorecardpy": fit_scorecardpy, "optbinning": fit_optbinning}[library](table)
    card.to_csv(HERE / f"{library}.csv", index=False)
    sample = table.drop(columns="bad").assign(score=list(scores)).head(300)
    sample.to_csv(HERE / f"{library}_scores.csv", index=False)


def main() -> None:
    for library, packages in LIBRARIES.items():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            python = Path(folder) / "bin/python"
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
            subprocess.run([python, __file__, library], check=True)


if __name__ == "__main__":
    write(sys.argv[1]) if sys.argv[1:] else main()
