"""A table made once and asked many times, both nodes on this machine; and a score's rows."""

from benchmarks.environment import Environment
from benchmarks.measure import Bench
from benchmarks.worker import Worker, last_core

ASKED = 1000


def run(bench: Bench, _: Environment, rows: int | None = None) -> None:
    rows = rows or (50_000 if bench.quick else 1_000_000)
    rounds = 3
    bench.compare(
        "making a table",
        [Worker("concordat", "tables", "build", rows=rows)],
        element="row",
        by="seconds",
        rounds=rounds,
        note="Once an epoch, at the partner.",
    )
    bench.compare(
        f"asking for {ASKED:,} people",
        [
            Worker("lookup", "tables", "ask", rows=rows, asked=ASKED),
            Worker("intersect", "tables", "intersection", rows=rows, asked=ASKED),
        ],
        element="person asked for",
        by="seconds",
        rounds=rounds,
        budget=200.0,
        note="Both sides; the bank has fetched the table before. No peer has a lookup.",
    )
    bits, core = 2048, last_core()
    bench.compare(
        "a score's ciphertext, 2048 bits, 6 features",
        [
            Worker("concordat", "tables", "sums", core=core, rows=500, bits=bits, features=6),
            Worker("r^n", "tables", "uniform", core=core, rows=50, bits=bits),
        ],
        element="row",
        rounds=rounds,
        note="Before the first row, n-th powers are drawn: as much as 288 rows of r^n.",
    )
