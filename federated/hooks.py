"""What a protocol calls back while it runs."""

from collections.abc import Callable

# Called once, just before this side sends what reveals something or returns its result.
# To stop the run there, raise: nothing more is sent.
Release = Callable[[], None]

# Called with (stage in plain words, done, total) as work proceeds.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Progress nobody looks at."""
