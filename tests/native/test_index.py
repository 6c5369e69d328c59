import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated import _native


@given(
    st.lists(st.binary(min_size=16, max_size=16), unique=True, max_size=50),
    st.lists(st.binary(min_size=16, max_size=16), max_size=10),
)
def test_finds_rows_as_a_dictionary_would(keys: list[bytes], others: list[bytes]) -> None:
    table = {key: row for row, key in enumerate(keys)}
    asked = [*reversed(keys), *others]
    index = _native.Index(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16))
    found = index.find(np.frombuffer(b"".join(asked), np.uint8).reshape(-1, 16))
    assert len(index) == len(keys)
    assert found.dtype == np.int64
    assert found.tolist() == [table.get(key, -1) for key in asked]


def test_only_the_first_16_bytes_count() -> None:
    rows = np.arange(3 * 32, dtype=np.uint8).reshape(3, 32)
    other = rows.copy()
    other[:, 16:] = 0
    assert _native.Index(rows).find(other).tolist() == [0, 1, 2]
    assert _native.Index(rows).find(np.ascontiguousarray(rows[:, :16])).tolist() == [0, 1, 2]


def test_refuses_repeated_and_short_keys() -> None:
    rows = np.arange(4 * 16, dtype=np.uint8).reshape(4, 16)
    rows[3] = rows[1]
    with pytest.raises(ValueError, match="row 3 has the key of row 1"):
        _native.Index(rows)
    with pytest.raises(ValueError, match="16 columns"):
        _native.Index(np.zeros((1, 15), np.uint8))


def test_many_keys() -> None:
    rows = np.zeros((100_000, 16), np.uint8)
    rows[:, :4] = np.arange(100_000, dtype="<u4").view(np.uint8).reshape(-1, 4)
    shuffled = _native.permutation(len(rows))
    found = _native.Index(rows).find(rows[shuffled])
    assert (found == shuffled.astype(np.int64)).all()


@given(st.integers(0, 300))
def test_permutations_hold_every_number_once(n: int) -> None:
    permutation = _native.permutation(n)
    assert permutation.dtype == np.uint64
    assert sorted(permutation.tolist()) == list(range(n))


def test_permutations_differ() -> None:
    assert (_native.permutation(1000) != _native.permutation(1000)).any()


def test_permutations_beyond_memory() -> None:
    with pytest.raises(MemoryError):
        _native.permutation(2**61)
