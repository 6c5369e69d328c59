"""Measures subjects, prints the tables, and writes benchmarks/results."""

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.environment import Environment
from benchmarks.measure import RESULTS, Bench, machine
from benchmarks.plot import draw
from benchmarks.subjects import (
    curve,
    evaluate,
    features,
    insight,
    intersect,
    lookup,
    paillier,
    store,
)

Subject = Callable[[Bench, Environment], None]

SUBJECTS: dict[str, Subject] = {
    "curve25519": curve.run,
    "paillier": paillier.run,
    "intersect": intersect.run,
    "insight": insight.run,
    "evaluate": evaluate.run,
    "lookup": lookup.run,
    "store": store.run,
    "features": features.run,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)}")
    parser.add_argument("--quick", action="store_true", help="small inputs: minutes in all")
    parser.add_argument(
        "--people",
        type=lambda text: [1 << int(power) for power in text.split(",")],
        metavar="N,N",
        help="jobs with 2^N people on each side, for each N",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the JSON")
    options = parser.parse_args()
    unknown = set(options.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"no such subject: {', '.join(sorted(unknown))}")
    peers = Environment()
    peers.install()
    bench = Bench(quick=options.quick, versions=peers.versions(), sizes=options.people)
    print(*(f"{name}: {value}" for name, value in (machine() | bench.versions).items()), sep="\n")
    for name in options.subjects or SUBJECTS:
        with bench.subject(name):
            SUBJECTS[name](bench, peers)
        result = bench.write(options.results, name)
        print(f"  -> {result} {draw(result) or ''}", flush=True)


if __name__ == "__main__":
    main()
