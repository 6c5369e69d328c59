"""What is fuzzed, and what counts as a crash."""

import resource
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from protos.errors import ConcordatError

MAX_INPUT = 64 << 10  # bytes
MAX_SECONDS = 2.0  # of CPU for one input
MAX_GROWTH = 256 << 20  # bytes of memory for one input


class Exhausting(AssertionError):
    """An input took too much time or memory."""


@dataclass(frozen=True)
class Target:
    """A parser, inputs it takes, and the exceptions it may raise for others.

    Anything else it raises is a crash, and so is too much time or memory.
    """

    parse: Callable[[bytes], object]
    seeds: Sequence[bytes]
    refusals: tuple[type[Exception], ...] = (ConcordatError,)

    def __call__(self, data: bytes) -> None:
        start, before = time.process_time(), peak()
        with suppress(*self.refusals):
            self.parse(data)
        seconds, growth = time.process_time() - start, peak() - before
        if seconds > MAX_SECONDS or growth > MAX_GROWTH:
            raise Exhausting(f"{len(data)} bytes took {seconds:.1f} s and {growth} bytes of memory")


Setup = Callable[[Path], Target]
"""Makes a target; the folder is its own, and empty."""


def peak() -> int:
    """The most memory that the process ever had resident, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
