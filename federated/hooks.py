"""What a protocol calls back while it runs."""

from collections.abc import Callable
from typing import Protocol

from federated._native import Scalar
from federated.arrays import I64, U8, Bool

# Called once, just before this side sends what reveals something or returns its result.
# To stop the run there, raise: nothing more is sent.
Release = Callable[[], None]

# Called once, just before `Release`, with what each of this side's ids, in their order, is called
# in this run: int64 (n,), its place in the partner's sequence, -1 where this side cannot know it.
Named = Callable[[I64], None]

# Called with (stage in plain words, done, total) as work proceeds.
Progress = Callable[[str, int, int], None]


class BankPeriod(Protocol):
    """The period that a run belongs to, as the bank keeps it: people go by one pseudonym in it."""

    @property
    def scalar(self) -> Scalar:
        """What makes the pseudonyms."""

    def counted(self, groups: I64, shared: I64, /) -> None:
        """Called just before `Release`: the groups sent, by number, and what they share."""

    def held_back(self, groups: I64, /) -> None:
        """Called at the end: the groups whose sums the partner has held back."""


class PartnerPeriod(Protocol):
    """The period that a run belongs to, as the partner keeps it: what it has released in it."""

    def pseudonyms(self, points: U8, /) -> U8:
        """What people of the bank's are called here, uint8 (n, 16), by their points, (n, 32)."""

    def sent(self, sizes: I64, pseudonyms: U8, /) -> None:
        """The bank's groups, before anything is answered. To refuse the run, raise.

        pseudonyms: uint8 (n, 16), one a person, group after group.
        """

    def counted(self, counts: I64, reached: Bool, /) -> Bool:
        """Which groups must not be released, bool (n,). Called just before `Release`.

        counts: int64 (n, 1 + features), the shared people of each group and how many of them have
        each feature. reached: bool (n,), the groups that would be released.
        """


def unnamed(places: I64) -> None:
    """Names nobody asks for."""


def silent(stage: str, done: int, total: int) -> None:
    """Progress nobody looks at."""
