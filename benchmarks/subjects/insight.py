"""`insight` with twenty features (counts and sums) through two nodes, from files to files."""

from benchmarks.contenders.nodes import Deal, Nodes, NodesJob
from benchmarks.environment import Environment
from benchmarks.measure import Absent, Bench, machine

FEATURES = 20

_QUICK = [1 << 10, 1 << 12]
_FULL = {True: [1 << power for power in (16, 18, 20, 22)], False: [1 << 12, 1 << 14, 1 << 16]}
_DEALS = {
    Deal(2048): 70.0,
    Deal(2048, "short"): 40.0,
    Deal(3072): None,
    Deal(3072, "short"): None,
    Deal(2048, missing=True): None,
}


def run(bench: Bench, _: Environment) -> None:
    sizes = bench.sizes or (_QUICK if bench.quick else _FULL[machine()["avx512_ifma"]])
    for people in sizes:
        # The sizes tell how cost grows; what the variants cost is told at the largest.
        deals = list(_DEALS) if people == max(sizes) else list(_DEALS)[:2]
        with Nodes(people, features=FEATURES, deals=deals) as nodes:
            for bits in {deal.key_bits for deal in deals}:
                nodes.add_key(bits)
            for deal in deals:
                bench.compare(
                    f"insight, {people:,} x {people:,}, {_words(deal)}",
                    [
                        NodesJob(nodes, "insight", deal),
                        Absent("private-join-and-compute", "it is not on PyPI"),
                    ],
                    element="person",
                    rounds=1 if bench.quick else 3,
                    budget=_DEALS[deal],
                )


def _words(deal: Deal) -> str:
    words = f"{deal.key_bits} bits, {deal.exponents} exponents"
    return f"{words}, features may be missing" if deal.missing else words
