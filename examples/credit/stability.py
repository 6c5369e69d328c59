"""How far apart the scores of two populations lie: stability.py SCORE.csv CUSTOMERS.csv OUT.csv

Expected: customers with a limit up to 100,000; actual: those above 300,000. Deciles of the former.
"""

import sys
from pathlib import Path

import pandas as pd

from federated.risk.stability import shift
from parties.scorecards import apart, write_apart
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
    rows = apart(small, large)
    write_apart(rows, out)
    total = rows[0]["total_psi"]
    print(f"  population stability index: {total:.4f} ({shift(total)})")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
