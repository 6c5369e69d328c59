"""Paillier on one core, beside SecretFlow HEU's ZPaillier and python-paillier."""

from typing import Any

from benchmarks.environment import Environment
from benchmarks.measure import Absent, Bench, Contender
from benchmarks.worker import Worker, last_core
from federated.paillier import keys

_SHORT = keys.SHORT_EXPONENT_BITS

# Budgets of the design: microseconds at 2048 bits on AVX-512 IFMA.
_BUDGET = {"secret": 38, "secret short": 8, "public": 57, "public short": 29, "add": 0.45}
_BUDGET["decrypt"] = 258


def run(bench: Bench, peers: Environment) -> None:
    for bits in _SHORT:
        _Size(bench, peers, bits).run()


class _Size:
    def __init__(self, bench: Bench, peers: Environment, bits: int) -> None:
        self.bench, self.peers, self.bits = bench, peers, bits
        self.key = b"".join(keys.generate(bits).primes()).hex()

    def run(self) -> None:
        short = _SHORT[self.bits]
        ours, few = (300, 60) if self.bench.quick else (2000, 300)
        encryption = [self._heu("encrypt", count=few), self._phe("encrypt", count=few // 6)]
        for name, function, exponents in (
            ("secret", "encrypt_secret", 0),
            ("secret short", "encrypt_secret", short),
            ("public", "encrypt_public", 0),
            ("public short", "encrypt_public", short),
        ):
            length = f"{exponents}-bit" if exponents else _full(function, self.bits)
            what = f"encrypt with the {name.split(maxsplit=1)[0]} key, {length} exponents"
            self._compare(
                what,
                name,
                [self._ours(function, count=ours, exponent_bits=exponents), *encryption],
                "HEU encrypts with the public key and exponents of n/2 bits.",
            )
        many = 2_000 if self.bench.quick else 10_000
        self._compare(
            f"add, sums of {many:,}",
            "add",
            [
                self._ours("add", count=many, rounds=5),
                self._heu("add", count=many, rounds=1),
                self._phe("add", count=many, rounds=1),
            ],
        )
        self._compare(
            "decrypt",
            "decrypt",
            [
                self._ours("decrypt", count=few),
                self._heu("decrypt", count=few // 4),
                self._phe("decrypt", count=few // 4),
            ],
        )

    def _compare(
        self, what: str, budget: str, contenders: list[Contender | Absent], note: str = ""
    ) -> None:
        self.bench.compare(
            f"{what}, {self.bits} bits",
            contenders,
            element="ciphertext",
            budget=_BUDGET[budget] if self.bits == 2048 else None,
            note=note,
        )

    def _ours(self, function: str, **arguments: Any) -> Worker:
        return Worker(
            "concordat",
            "concordat",
            function,
            core=last_core(),
            key=self.key,
            bits=self.bits,
            **arguments,
        )

    def _heu(self, function: str, **arguments: Any) -> Contender | Absent:
        return self._peer("HEU ZPaillier", "sf-heu", "heu", function, **arguments)

    def _phe(self, function: str, **arguments: Any) -> Contender | Absent:
        return self._peer("phe", "phe", "phe", function, **arguments)

    def _peer(
        self, name: str, package: str, module: str, function: str, **arguments: Any
    ) -> Contender | Absent:
        return self.peers.contender(
            name, package, module, function, core=last_core(), bits=self.bits, **arguments
        )


def _full(function: str, bits: int) -> str:
    return "full-length" if function == "encrypt_secret" else f"{bits // 2}-bit (n/2)"
