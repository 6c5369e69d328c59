"""What a protocol calls back while it runs."""

from collections.abc import Callable

from federated.arrays import I64

# Called once, just before this side sends what reveals something or returns its result.
# To stop the run there, raise: nothing more is sent.
Release = Callable[[], None]

# Called once, just before `Release`, with what each of this side's ids, in their order, is called
# in this run: int64 (n,), its place in the partner's sequence, -1 where this side cannot know it.
Named = Callable[[I64], None]

# Called with (stage in plain words, done, total) as work proceeds.
Progress = Callable[[str, int, int], None]


def unnamed(places: I64) -> None:
    """Names nobody asks for."""


def silent(stage: str, done: int, total: int) -> None:
    """Progress nobody looks at."""
