"""The targets of `make fuzz`, each on a few hundred inputs nearly valid."""

import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.mutation import mutate
from fuzz.target import MAX_GROWTH, MAX_INPUT, MAX_SECONDS, Exhausting, Target, peak
from fuzz.targets import TARGETS

EXAMPLES = 200
SLOW = {
    **dict.fromkeys(["evidence-log", "evidence-part", "evidence-present", "evidence-absent"], 40),
    **dict.fromkeys(["answered-run", "consents", "run", "table-csv", "table-parquet"], 20),
    **dict.fromkeys(["native-ciphertexts", "native-points", "native-unchecked"], 60),
}


@pytest.mark.parametrize("name", TARGETS)
def test_whatever_the_bytes_a_target_stands_them(name: str, tmp_path: Path) -> None:
    target = TARGETS[name](tmp_path)
    for seed in target.seeds:
        target.parse(seed)  # so that what is mutated is valid

    @given(st.sampled_from(target.seeds), st.randoms(use_true_random=False))
    @settings(max_examples=SLOW.get(name, EXAMPLES), deadline=None)
    def attack(seed: bytes, random: Random) -> None:
        target(mutate(random, seed, target.seeds))

    attack()


def test_what_a_target_may_not_do_is_a_crash() -> None:
    def parse(data: bytes) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        Target(parse, [])(b"")
    Target(parse, [], (KeyError,))(b"")


def test_too_much_memory_or_time_is_a_crash() -> None:
    def spend(data: bytes) -> None:
        end = time.process_time() + 1.1 * MAX_SECONDS
        while time.process_time() < end:
            pass

    for parse in (spend, lambda data: b"1" * (MAX_GROWTH + peak())):
        with pytest.raises(Exhausting):
            Target(parse, [])(b"")


@given(st.binary(max_size=100), st.randoms(use_true_random=False))
def test_no_mutation_is_larger_than_the_largest_input(data: bytes, random: Random) -> None:
    assert len(mutate(random, data, [data, b"other"])) <= MAX_INPUT
