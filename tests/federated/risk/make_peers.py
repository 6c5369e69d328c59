"""What scorecardpy and optbinning make of the same columns: writes peers.json beside this file.

    python tests/federated/risk/make_peers.py

Each library runs in an environment of its own, made and thrown away, with the versions named here.
Values have two decimals and edges three, so that it does not matter that both libraries' bins are
[lower, upper) and ours (lower, upper]. Nor has any bin a count of zero, which each treats its own
way. Figures are stored as the libraries give them; the tests convert the sign.
"""

import json
import math
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = {
    "scorecardpy": ["scorecardpy==0.1.9.7", "pandas==2.1.4", "numpy==1.26.4", "setuptools==75.8.0"],
    "optbinning": ["optbinning==1.0.0"],
}
EDGES = [-1.005, -0.505, 0.005, 0.505]
PSI_STEP = 50


def columns():
    """x, with some missing, and its label; and the same x in a later, shifted population."""
    import numpy as np

    random = np.random.default_rng(20)
    x = random.normal(size=1000).round(2)
    bad = random.random(1000) < 1 / (1 + np.exp(1.5 - x))
    later = (random.normal(size=600) * 1.1 + 0.3).round(2)
    x[::37] = np.nan
    return x, bad.astype(int), later


def of_scorecardpy() -> dict:
    import numpy as np
    import pandas as pd
    import scorecardpy

    x, bad, later = columns()
    table = scorecardpy.woebin(
        pd.DataFrame({"x": x, "y": bad}), y="y", breaks_list={"x": EDGES}, print_step=0
    )["x"]
    table = pd.concat([table[1:], table[:1]])  # missing first, there
    present = ~np.isnan(x)
    scores = {"expected": x[present] * 100, "actual": later * 100}
    labels = {"expected": pd.Series(bad[present]), "actual": pd.Series([0, 1] * 300)}
    psi = scorecardpy.perf_psi(
        score={name: pd.DataFrame({"score": column}) for name, column in scores.items()},
        label=labels,
        x_tick_break=PSI_STEP,
        return_distr_dat=True,
        show_plot=False,
    )
    counts = psi["dat"]["score"]["N"]
    return {
        "good": table["good"].tolist(),
        "bad": table["bad"].tolist(),
        "woe": table["woe"].tolist(),
        "iv": table["bin_iv"].tolist(),
        "total_iv": float(table["total_iv"].iloc[0]),
        "expected": counts["expected"].tolist(),
        "actual": counts["actual"].tolist(),
        "psi": float(psi["psi"]["PSI"].iloc[0]),
    }


def of_optbinning() -> dict:
    import numpy as np
    from optbinning import OptimalBinning
    from optbinning.binning.metrics import jeffrey

    x, bad, later = columns()
    binning = OptimalBinning(
        "x",
        monotonic_trend=None,
        min_prebin_size=0.01,
        user_splits=EDGES,
        user_splits_fixed=[True] * len(EDGES),
    )
    table = binning.fit(x, bad).binning_table.build()
    total = float(table["IV"].iloc[-1])
    table = table[(table["Count"] > 0) & (table.index != "Totals")]
    expected, actual = (
        np.histogram(column, [-np.inf, *EDGES, np.inf])[0] for column in (x[~np.isnan(x)], later)
    )
    psi = jeffrey(actual / actual.sum(), expected / expected.sum())
    return {
        "good": table["Non-event"].astype(int).tolist(),
        "bad": table["Event"].astype(int).tolist(),
        "woe": table["WoE"].astype(float).tolist(),
        "iv": table["IV"].astype(float).tolist(),
        "total_iv": total,
        "expected": expected.tolist(),
        "actual": actual.tolist(),
        "psi": psi.tolist(),
    }


def main() -> None:
    x, bad, later = columns_as_lists()
    found = {"edges": EDGES, "x": x, "bad": bad, "later": later}
    for name, packages in PACKAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            venv.create(folder, with_pip=True)
            python = Path(folder) / "bin/python"
            subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
            done = subprocess.run(
                [python, "-W", "ignore", __file__, name], check=True, capture_output=True, text=True
            )
        found[name] = {"packages": packages, **json.loads(done.stdout.splitlines()[-1])}
    (HERE / "peers.json").write_text(json.dumps(found) + "\n", "utf-8")


def columns_as_lists() -> tuple[list, list, list]:
    x, bad, later = columns()
    return [None if math.isnan(v) else v for v in x.tolist()], bad.tolist(), later.tolist()


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        made = {"scorecardpy": of_scorecardpy, "optbinning": of_optbinning}[sys.argv[1]]()
        print(json.dumps(made))
