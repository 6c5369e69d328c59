"""`intersect` through two nodes, from files to files, beside other libraries' PSI by ECDH."""

from benchmarks.contenders.nodes import Deal, Nodes, NodesJob
from benchmarks.environment import Environment
from benchmarks.measure import Absent, Bench, Contender, machine

# Without the instructions both ours and SPU's take half a millisecond or so for a person.
_QUICK, _FULL = [1 << 11, 1 << 12], [1 << power for power in (16, 18, 20, 22)]
# SPU's multiplication in lanes keeps up; the others take a third of a millisecond or more.
_SPU_UP_TO = {True: 1 << 20, False: 1 << 16}
_OTHERS_UP_TO = 1 << 16


def run(bench: Bench, peers: Environment) -> None:
    for people in bench.sizes or (_QUICK if bench.quick else _FULL):
        with Nodes(people, features=1) as nodes:
            bench.compare(
                f"intersect, {people:,} x {people:,}",
                [NodesJob(nodes, "intersect", Deal()), *_peers(peers, people)],
                element="person",
                rounds=3,
                budget=19,
                note="Ours with gate, receipts and both nodes over mutual TLS. SPU without TLS; "
                "its CURVE_25519 takes a hash for a point. OpenMined in memory.",
            )


def _peers(peers: Environment, people: int) -> list[Contender | Absent]:
    curves = ["CURVE_25519"] if people <= _SPU_UP_TO[machine()["avx512_ifma"]] else []
    if people > _OTHERS_UP_TO:
        return [_spu(peers, people, curve) for curve in curves]
    openmined = peers.contender(
        "OpenMined PSI", "openmined-psi", "openmined", "intersect", people=people
    )
    return [
        *(_spu(peers, people, curve) for curve in [*curves, "CURVE_25519_ELLIGATOR2"]),
        openmined,
    ]


def _spu(peers: Environment, people: int, curve: str) -> Contender | Absent:
    return peers.contender(f"SPU {curve}", "spu", "spu", "intersect", people=people, curve=curve)
