"""Measures of groups, a column at a time: what the sectors' libraries count with.

A group is an integer from 0 to n-1: a person, or a pair of a person and something else. What a
group has none of is NaN. Events come sorted by person and time.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
Times = NDArray[np.datetime64]

DAY = np.timedelta64(1, "D")


@dataclass(frozen=True)
class Events:
    """What happened: person int64 (m,), from 0 to people-1; the columns of the frame, as many rows.

    time: local, datetime64[us]. number: float64, NaN where missing. text: categorical.
    as_of: the end of the window, exclusive; start: its start, inclusive.
    """

    person: I64
    frame: pd.DataFrame
    people: int
    start: np.datetime64
    as_of: np.datetime64

    def has(self, column: str) -> bool:
        return column in self.frame

    def times(self) -> Times:
        return self.frame["time"].to_numpy("datetime64[us]")

    def numbers(self, column: str) -> F64:
        return self.frame[column].to_numpy(np.float64)

    def codes(self, column: str) -> I64:
        """-1 where missing."""
        return np.asarray(self.frame[column].cat.codes, np.int64)

    def where(self, rows: Bool) -> "Events":
        return Events(self.person[rows], self.frame[rows], self.people, self.start, self.as_of)


def day(times: Times) -> NDArray[np.datetime64]:
    """The days: datetime64[D]."""
    return times.astype("datetime64[D]")


def hour(times: Times) -> I64:
    """The hour of the day, 0 to 23."""
    return np.asarray((times - day(times)).astype("timedelta64[h]"), np.int64)


def weekday(times: Times) -> I64:
    """0 on Mondays to 6 on Sundays; the first of January 1970 was a Thursday."""
    return np.asarray((day(times).astype(np.int64) + 3) % 7, np.int64)


def count(group: I64, n: int) -> F64:
    """How many rows each group has."""
    return np.bincount(group, minlength=n).astype(np.float64)


def total(group: I64, values: F64, n: int) -> F64:
    """The sum of each group's values, those missing aside; 0 without any."""
    return np.asarray(np.bincount(group, np.nan_to_num(values), n), np.float64)


def ratio(part: F64, whole: F64) -> F64:
    """part / whole; NaN where the whole is not above zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / whole, np.nan)


def mean(group: I64, values: F64, n: int) -> F64:
    there = ~np.isnan(values)
    return ratio(total(group, values, n), count(group[there], n))


def median(group: I64, values: F64, n: int) -> F64:
    found = pd.Series(values).groupby(group).median()
    return np.asarray(found.reindex(np.arange(n)), np.float64)


def last(group: I64, times: Times, n: int) -> Times:
    """The time of each group's last row, of rows sorted by group and time; NaT without any."""
    found = np.full(n, np.datetime64("NaT"), times.dtype)
    found[group] = times  # of several, the last is kept
    return found


def pairs(group: I64, other: I64) -> tuple[I64, I64, I64]:
    """The distinct pairs, sorted: group, other, and which pair each row is.

    other: not negative.
    """
    width = int(other.max(initial=0)) + 1
    codes, distinct = pd.factorize(group * width + other, sort=True)
    return distinct // width, distinct % width, codes.astype(np.int64)


def distinct(group: I64, other: I64, n: int) -> F64:
    """How many different others each group has."""
    return count(pairs(group, other)[0], n)


def entropy(group: I64, weights: F64, n: int) -> F64:
    """Shannon's entropy of a group's weights, in nats; NaN without any."""
    whole = total(group, weights, n)
    share = ratio(weights, whole[group])
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(share > 0, -share * np.log(share), 0.0)
    # That of a single weight is 0, and not -0.
    return np.where(whole > 0, np.abs(total(group, parts, n)), np.nan)


def largest(group: I64, weights: F64, n: int) -> tuple[I64, F64]:
    """The row of each group's largest weight, the first of several, -1 without any; the weight."""
    order = np.lexsort((-np.arange(len(group)), weights, group))
    row = np.full(n, -1, np.int64)
    row[group[order]] = order
    found = np.where(row >= 0, weights[row] if len(weights) else np.nan, np.nan)
    return row, found


@dataclass(frozen=True)
class Cycle:
    """The gaps between the days on which something happened to a person, once a day.

    last: the last such day, datetime64[D] (n,), NaT without any. days: how many of them there are.
    typical: the median gap in days; NaN with fewer than two days.
    regularity: (mean - sd) / (mean + sd) of the gaps, 1 where all are equal, about 0 where they
    come at random (Goh and Barabási 2008, Burstiness and memory in complex systems, with the sign
    turned); NaN with fewer than three days.
    """

    last: NDArray[np.datetime64]
    days: F64
    typical: F64
    regularity: F64


def cycle(person: I64, times: Times, n: int) -> Cycle:
    """Of rows sorted by person and time."""
    days = day(times)
    first = np.ones(len(days), np.bool_)
    first[1:] = (person[1:] != person[:-1]) | (days[1:] != days[:-1])
    person, days = person[first], days[first]
    inside = person[1:] == person[:-1]
    gaps = (days[1:] - days[:-1])[inside].astype(np.float64)
    whose = person[1:][inside]
    number = count(whose, n)
    average = ratio(total(whose, gaps, n), number)
    # About the mean, so that equal gaps have exactly no spread.
    spread = np.sqrt(ratio(total(whose, (gaps - average[whose]) ** 2, n), number))
    regularity = np.where(number >= 2, (average - spread) / (average + spread), np.nan)
    return Cycle(last(person, days, n), count(person, n), median(whose, gaps, n), regularity)
