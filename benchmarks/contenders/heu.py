"""SecretFlow HEU, ZPaillier: Damgård-Jurik-Nielsen encryption with exponents of n/2 bits."""

import random

from heu import numpy as hnp
from heu import phe

from benchmarks.worker import Job


class _Case:
    """A key and `count` plaintexts nearly as long as it allows."""

    def __init__(self, bits: int, count: int) -> None:
        self.kit = hnp.setup(phe.SchemaType.ZPaillier, bits)
        draw = random.Random(1)  # noqa: S311
        numbers = [draw.getrandbits(bits - 64) for _ in range(count)]
        self.plaintexts = hnp.array(numbers, self.kit.bigint_encoder())


def encrypt(bits: int, count: int) -> Job:
    case = _Case(bits, count)

    def job() -> int:
        case.kit.encryptor().encrypt(case.plaintexts)
        return count

    return job


def add(bits: int, count: int, rounds: int) -> Job:
    """One sum of `count` ciphertexts, `rounds` times. Encrypting them is not measured."""
    case = _Case(bits, count)
    ciphertexts = case.kit.encryptor().encrypt(case.plaintexts)
    evaluator = case.kit.evaluator()

    def job() -> int:
        for _ in range(rounds):
            evaluator.sum(ciphertexts)
        return rounds * count

    return job


def decrypt(bits: int, count: int) -> Job:
    case = _Case(bits, count)
    ciphertexts = case.kit.encryptor().encrypt(case.plaintexts)

    def job() -> int:
        case.kit.decryptor().decrypt(ciphertexts)
        return count

    return job
