"""Computing in a second thread while the first sends or receives."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.pipeline import pipelined


@given(st.lists(st.integers()))
def test_it_is_a_map(items: list[int]) -> None:
    assert list(pipelined(lambda item: 2 * item, items)) == [2 * item for item in items]


def test_the_next_is_computed_while_the_last_is_used() -> None:
    """Were it not, the user of a result would wait for ever."""
    computed = [threading.Event() for _ in range(5)]

    def function(item: int) -> int:
        computed[item].set()
        return item

    for result in pipelined(function, range(5)):
        if result + 1 < 5:
            assert computed[result + 1].wait(10)


def test_an_item_is_got_while_the_one_before_is_computed() -> None:
    got = [threading.Event() for _ in range(5)]

    def items() -> Iterator[int]:
        for item in range(5):
            got[item].set()
            yield item

    def function(item: int) -> bool:
        return item + 1 == 5 or got[item + 1].wait(10)

    assert all(pipelined(function, items()))


def test_no_more_than_two_items_are_under_way() -> None:
    got = 0

    def items() -> Iterator[int]:
        nonlocal got
        for item in range(100):
            got += 1
            yield item

    for used, _ in enumerate(pipelined(abs, items())):
        assert got <= used + 2


def test_what_fails_in_the_other_thread_is_raised_here_in_its_turn() -> None:
    results = pipelined(lambda item: 1 // item, [2, 1, 0, 3])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_what_fails_where_items_come_from_ends_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise EOFError

    with pytest.raises(EOFError):
        list(pipelined(abs, items()))


def test_no_thread_is_left() -> None:
    results = pipelined(abs, range(10))
    next(results)
    mine = [thread for thread in threading.enumerate() if thread.name.startswith("pipeline")]
    results.close()  # type: ignore[attr-defined]
    assert mine
    for thread in mine:
        thread.join(10)
        assert not thread.is_alive()
