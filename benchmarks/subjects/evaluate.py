"""`evaluate` over 300 features in ten bins each, through two nodes, from files to files.

FATE publishes a time for its feature binning of as many rows and features, doc/2.0/fate/
performance.md in its repository: 68 s on two hosts, 16 cores of each (Xeon Platinum 8255C, which
has no AVX-512 IFMA). Its rows are matched before, and both sides know who they are.
"""

from benchmarks.contenders.nodes import Deal, Nodes, NodesJob
from benchmarks.environment import Environment
from benchmarks.measure import Absent, Bench

FEATURES = 300
FATE_CORE_SECONDS = 68 * 2 * 16
_PUBLISHED = f"published: 100,000 rows in 68 s on 2 x 16 cores, {FATE_CORE_SECONDS:,} core-seconds"


def run(bench: Bench, _: Environment) -> None:
    sizes = bench.sizes or ([1 << 10] if bench.quick else [100_000])
    deals = [Deal(2048), Deal(2048, "short")]
    for people in sizes:
        with Nodes(people, features=FEATURES, deals=deals) as nodes:
            nodes.add_key(2048)
            for deal in deals:
                bench.compare(
                    f"evaluate, {people:,} x {people:,}, {deal.exponents} exponents",
                    [NodesJob(nodes, "evaluate", deal), Absent("FATE", _PUBLISHED)],
                    element="person",
                    rounds=1,
                )
