"""Tables of people who do not exist, with a known answer for each recipe: for tests and trials.

The bank has the first four fifths of the people, the partner the last four; of both, some have not
consented. What is true of each person follows from how the tables are made, not from reading them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parties.telecom import generate as calls

END = np.datetime64("2026-01-01")  # of every window
MIDDLE = np.datetime64("2025-07-02")  # of the window before it, where there is one
PEOPLE = 3000
_DAY = np.timedelta64(1, "D")

Random = np.random.Generator
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class MadeUp:
    """bank, partner: tables by the name of their file. truth: a row for each person, with `phone`.

    Everybody is in the truth; `shared` are those in both sides' tables who consented on both.
    """

    bank: dict[str, pd.DataFrame]
    partner: dict[str, pd.DataFrame]
    truth: pd.DataFrame

    def shared(self) -> pd.DataFrame:
        """What is true of those whom a job finds."""
        both = _consented(self.truth, 0) & _consented(self.truth, 1)
        return self.truth[both].reset_index(drop=True)

    def consents(self, side: int, purpose: str, recipient: str, categories: str) -> pd.DataFrame:
        """side: 0 the bank's, 1 the partner's."""
        phones = self.truth.loc[_consented(self.truth, side), ["phone"]]
        return phones.assign(
            purpose=purpose,
            recipient=recipient,
            categories=categories,
            kind="separate",
            granted_at="2025-06-01T09:00:00+08:00",
            expires_at="2035-01-01T00:00:00+08:00",
            withdrawn_at="",
        )


def generate(name: str, people: int = PEOPLE, seed: int = 1) -> MadeUp:
    """The tables of a recipe; the same for the same seed."""
    return _OF[name](people, np.random.default_rng(seed))


def right_moment(people: int, random: Random) -> MadeUp:
    """Each buys electronics every so many days, always for the same money, and groceries at random.

    The wealthier, the more often and the more at a time. One in ten never bought electronics.
    """
    rank = random.integers(0, 3, people)
    cycle = random.integers(np.array([60, 30, 10])[rank], np.array([120, 60, 30])[rank])
    since = random.integers(1, cycle * 5 // 4)
    basket = random.integers(np.array([50, 300, 1500])[rank], np.array([300, 1500, 6000])[rank])
    truth = _people(people).assign(
        assets=_named(("-50k", "50k-200k", "200k-"), rank),
        next_days=cycle - since,
        basket=basket,
        buys=random.random(people) < 0.9,
    )
    who, nth = np.repeat(np.arange(people), 5), np.tile(np.arange(5), people)
    electronics = pd.DataFrame(
        {
            "phone": truth["phone"].to_numpy()[who],
            "time": END - (since[who] + nth * cycle[who]) * _DAY,
            "amount": basket[who],
            "category": "electronics",
        }
    )
    groceries = electronics.assign(
        time=END - random.integers(1, 365, len(who)) * _DAY,
        amount=random.integers(5, 90, len(who)),
        category="groceries",
    )
    balances = truth[["phone"]].assign(
        time=END - 10 * _DAY,
        account="a" + truth["index"].astype(str),
        balance=random.integers(
            np.array([0, 50_001, 200_001])[rank], np.array([50_001, 200_001, 900_000])[rank]
        ),
    )
    return _divided(
        truth,
        {"customers": truth[["phone"]], "balances": balances},
        {"transactions": pd.concat([electronics[truth["buys"].to_numpy()[who]], groceries])},
    )


_CATEGORIES = ("books", "electronics", "travel")
_CHANNELS = ("app", "web", "store")


def preferences(people: int, random: Random) -> MadeUp:
    """Ten orders each, of the same money; the young buy books by app, the old travel in stores."""
    rank = random.integers(0, 3, people)
    liked = np.array([[0.6, 0.3, 0.1], [0.2, 0.6, 0.2], [0.1, 0.2, 0.7]])
    category = random.multinomial(10, liked[rank])
    channel = random.multinomial(10, liked[rank])
    truth = _people(people).assign(age=_named(("-29", "30-44", "45-"), rank))
    for names, counts in ((_CATEGORIES, category), (_CHANNELS, channel)):
        for at, name in enumerate(names):
            truth[name] = counts[:, at] / 10
    years = random.integers(np.array([18, 30, 45])[rank], np.array([30, 45, 80])[rank])
    orders = pd.DataFrame(
        {
            "phone": np.repeat(truth["phone"].to_numpy(), 10),
            "time": END - np.tile(np.arange(1, 11), people) * 7 * _DAY,
            "amount": 100,
            "category": _spelled(_CATEGORIES, category),
            "channel": _spelled(_CHANNELS, channel),
        }
    )
    born = (END.astype("M8[Y]") - years.astype("m8[Y]")).astype("M8[D]")  # on the first of January
    customers = truth[["phone"]].assign(born=born)
    return _divided(truth, {"customers": customers}, {"transactions": orders})


def credit_assessment(people: int, random: Random) -> MadeUp:
    """Call records whose habits are known; the new, those whom few call back and those who work in
    another city fall behind more often. How far they commute says nothing.
    """
    network = calls.generate(people, calls_a_contact=1, seed=int(random.integers(1 << 30)))
    habits = network.people
    reciprocity = (habits["mutual"] / habits["contacts"]).round(4)
    risk = 0.04 + 0.25 * (habits["tenure_days"] <= 365) + 0.2 * (reciprocity <= 0.2)
    bad = random.random(people) < risk + 0.1 * habits["away"]
    truth = habits.assign(
        index=np.arange(people),
        reciprocity=reciprocity,
        cities=1 + habits["away"],
        bad=bad.astype(int),
    )
    # Of fewer calls, all may be from one place.
    truth = truth[truth["contacts"] >= 5].reset_index(drop=True)
    records, out = network.calls, network.calls["direction"] == "out"
    records = pd.DataFrame(
        {
            "phone": records["caller"].where(out, records["callee"]),
            "contact": records["callee"].where(out, records["caller"]),
            "time": records["start"],
            "direction": records["direction"],
            "cell": records["cell"],
        }
    )
    who, nth = np.repeat(np.arange(len(truth)), 3), np.tile(np.arange(3), len(truth))
    due = np.array(["2025-06-01", "2025-07-01", "2025-08-01"], "M8[D]")[nth]
    late = (nth == 1) & (truth["bad"].to_numpy()[who] == 1)
    repayments = pd.DataFrame(
        {
            "phone": truth["phone"].to_numpy()[who],
            "time": due,
            "paid": due + np.where(late, 120, 1) * _DAY,
        }
    )
    return _divided(
        truth,
        {"customers": truth[["phone"]], "repayments": repayments},
        {"calls": records, "cells": network.cells, "subscribers": network.subscribers},
    )


def early_warning(people: int, random: Random) -> MadeUp:
    """In the second half of the year those in trouble top up half as often; nobody loses contacts.

    Before, they do not differ from others; at the bank each is late with one repayment.
    """
    trouble = random.random(people) < 0.25
    before = random.integers(5, 46, people)
    truth = _people(people).assign(
        contacts=random.integers(5, 30, people),
        before=before,
        after=np.where(trouble, 2 * before, before),
        warning=trouble.astype(int).astype(str),
    )
    who = np.repeat(np.arange(people), truth["contacts"])
    nth = np.arange(len(who)) - np.searchsorted(who, who)
    halves = [
        pd.DataFrame(
            {
                "phone": truth["phone"].to_numpy()[who],
                "contact": calls.phone(50_000_000 + 32 * who + nth),
                "time": end - random.integers(1, 180, len(who)) * _DAY,
                "direction": "out",
            }
        )
        for end in (MIDDLE, END)
    ]
    topups = [
        _every(truth["phone"], truth[column].to_numpy(), end)
        for column, end in (("before", MIDDLE), ("after", END))
    ]
    due = np.datetime64("2025-10-15")
    repayments = truth[["phone"]].assign(time=due, paid=due + np.where(trouble, 45, 2) * _DAY)
    return _divided(
        truth,
        {"customers": truth[["phone"]], "repayments": repayments},
        {"calls": pd.concat(halves), "topups": pd.concat(topups)},
    )


def experience(people: int, random: Random) -> MadeUp:
    """The wealthier are happier, served sooner and accept more. One in five gave no score."""
    rank = random.integers(0, 3, people)
    score = np.clip(random.normal(np.array([6, 7.5, 8.5])[rank], 1.8).round(), 0, 10)
    offers = random.integers(0, 6, people)
    truth = _people(people).assign(
        segment=_named(("mass", "affluent", "wealthy"), rank),
        nps=np.where(random.random(people) < 0.8, score, np.nan),
        hours=random.gamma(2.0, np.array([30, 20, 10])[rank]).round(1),
        offers=offers,
        accepted=random.binomial(offers, np.array([0.1, 0.2, 0.4])[rank]),
    )
    served = truth[["phone", "nps", "hours", "offers", "accepted"]].assign(
        nps=truth["nps"].astype("Int64")
    )
    return _divided(truth, {"customers": truth[["phone", "segment"]]}, {"service": served})


def campaign(people: int, random: Random) -> MadeUp:
    """Two in three were written to; of them one in seven bought, of the others one in twelve."""
    written = random.random(people) < 2 / 3
    bought = random.random(people) < np.where(written, 1 / 7, 1 / 12)
    orders = np.where(bought, random.integers(1, 4, people), 0)
    truth = _people(people).assign(
        group=np.where(written, "audience", "hold-out"),
        orders=orders,
        spend=orders * random.integers(20, 300, people),
    )
    sold = truth[["phone", "orders", "spend"]]
    return _divided(truth, {"customers": truth[["phone", "group"]]}, {"accounts": sold})


_OF: dict[str, Callable[[int, Random], MadeUp]] = {
    "right-moment": right_moment,
    "preferences": preferences,
    "credit-assessment": credit_assessment,
    "early-warning": early_warning,
    "experience": experience,
    "campaign": campaign,
}


# What these have in common


def _people(count: int) -> pd.DataFrame:
    return pd.DataFrame({"phone": calls.phone(np.arange(count)), "index": np.arange(count)})


def _named(names: tuple[str, ...], rank: I64) -> "NDArray[np.object_]":
    return np.array(names, object)[rank]


def _spelled(names: tuple[str, ...], counts: I64) -> "NDArray[np.object_]":
    """Each name as many times as is said, row after row: counts int64 (n, names)."""
    return np.repeat(np.tile(np.array(names, object), len(counts)), counts.ravel())


def _every(phones: "pd.Series[str]", days: I64, end: np.datetime64) -> pd.DataFrame:
    """Top-ups every so many days within the 180 before the end."""
    times = 180 // days
    who = np.repeat(np.arange(len(days)), times)
    nth = np.arange(len(who)) - np.searchsorted(who, who)
    return pd.DataFrame(
        {"phone": phones.to_numpy()[who], "time": end - (1 + nth * days[who]) * _DAY, "amount": 50}
    )


def _of_side(truth: pd.DataFrame, side: int) -> "pd.Series[bool]":
    fifth = (int(truth["index"].max()) + 1) // 5
    return truth["index"] >= fifth if side else truth["index"] < 4 * fifth


def _consented(truth: pd.DataFrame, side: int) -> "pd.Series[bool]":
    """All but one in ten."""
    return _of_side(truth, side) & (truth["index"] % 10 != (7 if side else 3))


def _divided(
    truth: pd.DataFrame, bank: dict[str, pd.DataFrame], partner: dict[str, pd.DataFrame]
) -> MadeUp:
    """Each side's people only, of the tables that are about people."""

    def own(side: int, tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        phones = truth.loc[_of_side(truth, side), "phone"]
        return {
            name: table[table["phone"].isin(phones)] if "phone" in table else table
            for name, table in tables.items()
        }

    return MadeUp(own(0, bank), own(1, partner), truth)
