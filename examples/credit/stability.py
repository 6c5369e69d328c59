"""How far apart the scores of two populations lie: stability.py SCORE.csv CUSTOMERS.csv OUT.csv

Expected: customers with a limit up to 100,000; actual: those above 300,000. Deciles of the former.
"""

import csv
import sys
from pathlib import Path

import pandas as pd

from federated.risk.stability import between, shift
from parties.sources import Dataset, Identifier, numbers, read_table


def main(scores: Path, customers: Path, out: Path) -> None:
    """Joins by the canonical phone number, whatever way the bank's table writes it."""
    dataset = Dataset(
        path=customers.absolute(), identifier=Identifier(column="phone", kind="phone")
    )
    table = read_table(dataset, Path.cwd(), ["limit_bal"])
    limit = pd.Series(numbers(table.frame["limit_bal"]).values, table.ids.to_strings().to_pylist())
    score = pd.read_csv(scores, dtype={"phone": str}).set_index("phone")["score"].astype(float)
    of_each = limit.reindex(score.index)
    small, large = score[of_each <= 100_000].to_numpy(), score[of_each > 300_000].to_numpy()
    if not (len(small) and len(large)):
        side = "above 300,000" if len(small) else "up to 100,000"
        print(f"  Nobody with a score has a limit {side}: nothing to compare, no {out.name}.")
        return
    edges, found = between(small, large)
    with out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["bin", "lower", "upper", "expected", "actual", "psi", "total_psi"])
        for where, expected, actual, psi in zip(
            edges.limits(),
            found.base.tolist(),
            found.other.tolist(),
            found.parts.tolist(),
            strict=True,
        ):
            writer.writerow([*where, expected, actual, psi, found.total])
    print(f"  population stability index: {found.total:.4f} ({shift(found.total or 0)})")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
