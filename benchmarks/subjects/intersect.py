"""`intersect` through two nodes, from files to files, beside other libraries' PSI by ECDH."""

from benchmarks.contenders.nodes import Deal, Nodes, NodesJob
from benchmarks.environment import Environment
from benchmarks.measure import Absent, Bench, Contender, machine

# Without the instructions both ours and SPU's take half a millisecond or so for a person.
_QUICK, _FULL = [1 << 11, 1 << 12], [1 << power for power in (16, 18, 20, 22)]
_PEERS_UP_TO = {True: 1 << 20, False: 1 << 16}


def run(bench: Bench, peers: Environment) -> None:
    limit = _PEERS_UP_TO[machine()["avx512_ifma"]]
    for people in bench.sizes or (_QUICK if bench.quick else _FULL):
        with Nodes(people, features=1) as nodes:
            bench.compare(
                f"intersect, {people:,} x {people:,}",
                [NodesJob(nodes, "intersect", Deal()), *_peers(peers, people, limit)],
                element="person",
                rounds=3,
                budget=19,
                note="Ours with gate, receipts and both nodes over mutual TLS. SPU without TLS; "
                "its CURVE_25519 takes a hash for a point. OpenMined in memory.",
            )


def _peers(peers: Environment, people: int, limit: int) -> list[Contender | Absent]:
    if people > limit:
        return []
    spu = [
        peers.contender(f"SPU {curve}", "spu", "spu", "intersect", people=people, curve=curve)
        for curve in ("CURVE_25519", "CURVE_25519_ELLIGATOR2")
    ]
    openmined = peers.contender(
        "OpenMined PSI", "openmined-psi", "openmined", "intersect", people=people
    )
    return [*spu, openmined]
