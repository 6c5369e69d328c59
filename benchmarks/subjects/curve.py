"""Curve25519 on one core: multiplication beside OpenSSL's, and hashing to the curve."""

from benchmarks.environment import Environment
from benchmarks.measure import Bench
from benchmarks.worker import Worker, last_core


def run(bench: Bench, peers: Environment, count: int | None = None) -> None:
    count = count or 1 << (13 if bench.quick else 16)
    core = last_core()
    bench.compare(
        "multiplication",
        [
            Worker("concordat", "concordat", "multiply", core=core, count=count),
            peers.contender(
                "cryptography X25519", "cryptography", "x25519", "multiply", core=core, count=count
            ),
        ],
        element="point",
        budget=2.6,
    )
    bench.compare(
        "hash to the curve",
        [Worker("concordat", "concordat", "hash_ids", core=core, count=count)],
        element="point",
        budget=2.5,
        note="No peer: SPU's Elligator 2 is in `intersect`.",
    )
