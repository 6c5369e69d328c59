"""Call records of people who do not exist, whose habits are known: for tests and trials.

Each person has a number of contacts, of whom some call back and some are new in the second half of
the year; sleeps at one cell and works at another; calls at night as often as is said; tops up every
so many days. What the features should find of them follows from that by arithmetic.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

# What the tables below are as the library wants them: each record from the side of the subscriber.
SQL = """\
SELECT CASE direction WHEN 'out' THEN caller ELSE callee END AS phone,
       CASE direction WHEN 'out' THEN callee ELSE caller END AS contact,
       start AS time, direction, duration, kind, cell
FROM source
"""

START, END = np.datetime64("2025-01-01"), np.datetime64("2026-01-01")
KM_PER_DEGREE = 111.195  # of latitude, on a sphere with the earth's mean radius
_HALF = (END - START).astype("timedelta64[s]") // 2
_OTHERS = 50_000_000  # contacts have numbers from here on


@dataclass(frozen=True)
class Network:
    """Tables as an operator has them, and what is true of each person.

    calls: caller, callee, start, duration, direction, kind, cell. cells: cell, lat, lon, city.
    subscribers: phone, since. topups: phone, time, amount. people: phone and their habits:
    contacts, mutual and new ones; at_work, the share of calls in office hours, the others being at
    night; commute_km; away, whether work is in another city; tenure_days; topup_days.
    """

    calls: pd.DataFrame
    cells: pd.DataFrame
    subscribers: pd.DataFrame
    topups: pd.DataFrame
    people: pd.DataFrame


def phone(number: NDArray[np.int64]) -> pd.Series:
    """Numbers from 0 as mobile numbers of China."""
    return pd.Series("+86" + (13_900_000_000 + number).astype(str))


def generate(people: int, calls_a_contact: int = 4, seed: int = 1) -> Network:
    """One year of so many people, the same for the same seed."""
    random = np.random.default_rng(seed)
    truth = _people(people, random)
    return Network(
        _calls(truth, calls_a_contact, random),
        _cells(truth),
        pd.DataFrame(
            {"phone": truth["phone"], "since": END - truth["tenure_days"].to_numpy("m8[D]")}
        ),
        _topups(truth),
        truth,
    )


def _people(count: int, random: np.random.Generator) -> pd.DataFrame:
    contacts = random.integers(2, 40, count)
    return pd.DataFrame(
        {
            "phone": phone(np.arange(count)),
            "contacts": contacts,
            "mutual": random.integers(0, contacts + 1),
            "new": random.integers(0, contacts // 2 + 1),
            "at_work": random.choice([0.25, 0.5, 0.75], count),
            "commute_km": random.uniform(1, 60, count).round(1),
            "away": random.random(count) < 0.3,
            "tenure_days": random.integers(30, 4000, count),
            "topup_days": random.integers(5, 45, count),
        }
    )


def _cells(truth: pd.DataFrame) -> pd.DataFrame:
    """Two for each person: home somewhere in the south of China, work north of it."""
    number = np.arange(len(truth))
    lat = 22 + number % 500 / 100
    lon = 110 + number // 500 % 1000 / 100
    home = pd.DataFrame({"cell": _home(number), "lat": lat, "lon": lon, "city": "here"})
    work = pd.DataFrame(
        {
            "cell": _work(number),
            "lat": lat + truth["commute_km"] / KM_PER_DEGREE,
            "lon": lon,
            "city": np.where(truth["away"], "there", "here"),
        }
    )
    return pd.concat([home, work], ignore_index=True)


def _home(number: NDArray[np.int64]) -> pd.Series:
    return "h" + pd.Series(number).astype(str)


def _work(number: NDArray[np.int64]) -> pd.Series:
    return "w" + pd.Series(number).astype(str)


def _calls(truth: pd.DataFrame, each: int, random: np.random.Generator) -> pd.DataFrame:
    """So many calls, or as many both ways, with each contact in each half it is one in."""
    contacts = truth["contacts"].to_numpy()
    ties = pd.DataFrame({"person": np.repeat(np.arange(len(truth)), contacts)})
    ties["nth"] = ties.groupby("person").cumcount()
    habits = truth.loc[ties["person"], ["contacts", "new", "mutual"]].reset_index(drop=True)
    # The first ones are lost after the first half, and the last ones come with the second.
    halves = [ties["nth"] < habits["contacts"] - habits["new"], ties["nth"] >= habits["new"]]
    back = ties[ties["nth"] < habits["mutual"]].index
    parts = []
    for late, there in enumerate(halves):
        now = ties.index[there]
        for direction, tied in (("out", now), ("in", now.intersection(back))):
            rows = ties.loc[tied.repeat(each)].assign(late=late, direction=direction)
            parts.append(rows)
    calls = pd.concat(parts, ignore_index=True)
    calls = calls.iloc[random.permutation(len(calls))].reset_index(drop=True)
    return _written(calls, truth, random)


def _written(calls: pd.DataFrame, truth: pd.DataFrame, random: np.random.Generator) -> pd.DataFrame:
    """Each call with its time, place and length. Of each person, the share at work is exact."""
    person = calls["person"].to_numpy()
    nth = calls.groupby("person").cumcount().to_numpy()
    total = np.bincount(person)[person]
    working = nth < np.floor(truth["at_work"].to_numpy()[person] * total + 0.5)
    weeks = random.integers(0, 25, len(calls))
    # 2025 begins on a Wednesday, and its second half on another, if two days are left out.
    begin = START + calls["late"].to_numpy() * np.timedelta64(26 * 7 + 7, "D")
    workday = np.array([0, 1, 2, 5, 6])[random.integers(0, 5, len(calls))]
    day = weeks * 7 + np.where(working, workday, random.integers(0, 7, len(calls)))
    second = np.where(
        working,
        random.integers(9 * 3600, 17 * 3600, len(calls)),
        random.integers(19 * 3600, 31 * 3600, len(calls)) % 86_400,
    )
    ours = truth["phone"].to_numpy()[person]
    theirs = phone(_OTHERS + (person * 64 + calls["nth"].to_numpy()) % 40_000_000).to_numpy()
    out = (calls["direction"] == "out").to_numpy()
    return pd.DataFrame(
        {
            "caller": np.where(out, ours, theirs),
            "callee": np.where(out, theirs, ours),
            "start": begin + day.astype("m8[D]") + second.astype("m8[s]"),
            "duration": random.integers(1, 600, len(calls)),
            "direction": calls["direction"],
            "kind": "call",
            "cell": np.where(working, _work(person), _home(person)),
        }
    )


def _topups(truth: pd.DataFrame) -> pd.DataFrame:
    """Every so many days, from the first of the year on, always the same."""
    every = truth["topup_days"].to_numpy()
    times = 365 // every
    person = np.repeat(np.arange(len(truth)), times)
    nth = np.arange(len(person)) - np.repeat(np.cumsum(times) - times, times)
    return pd.DataFrame(
        {
            "phone": truth["phone"].to_numpy()[person],
            "time": START + (nth * every[person]).astype("m8[D]"),
            "amount": every[person] * 2,
        }
    )
