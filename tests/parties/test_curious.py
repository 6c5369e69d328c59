import hashlib

import pyarrow as pa

from federated.identifiers import Ids
from parties import curious


def phones(numbers: range) -> Ids:
    text = [f"+8613900{number:06d}" for number in numbers]
    return Ids.from_strings("phone", pa.array(text, pa.large_string()))


def test_guessing_undoes_a_plain_hash_and_not_a_blinded_point() -> None:
    customers, guesses = phones(range(0, 3000, 10)), phones(range(2000))
    hashes = curious.on_hashes(customers, guesses)
    assert hashes.named == 200
    assert hashes.seen[0] == hashlib.sha256(b"+8613900000000").hexdigest()
    points = curious.on_points(customers, guesses)
    assert points.named == 0
    assert len(points.seen) == len(set(points.seen)) == 300
    assert points.seen != curious.on_points(customers, guesses).seen  # a new scalar in every run
