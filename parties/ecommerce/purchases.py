"""Features of what people bought, each a method by the name that the catalogue gives it.

Every one is an array with a float64 for each person, NaN where missing; definitions, units and
sources are in parties/catalogue.yaml.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np

from parties import measures
from parties.measures import DAY, F64, I64, Bool, Cycle, Events, Times

NIGHT = (22, 6)  # from, until: hours of the local day
PAY_DAYS = 5  # the pay day and the days after it on which pay is spent


class Purchases:
    """Of the table `transactions`: an item or a whole order a row, refunds below zero."""

    def __init__(self, tables: Mapping[str, Events]) -> None:
        self._all = tables["transactions"]
        self._n = self._all.people

    # Recency, frequency, monetary value

    def recency_days(self) -> F64:
        return _days(self._as_of - self._cycle.last)

    def frequency(self) -> F64:
        return measures.count(self._order_person, self._n)

    def monetary(self) -> F64:
        return measures.total(self._all.person, self._all.numbers("amount"), self._n)

    # The basket

    def basket_value(self) -> F64:
        return measures.mean(self._order_person, self._per_order("amount"), self._n)

    def basket_items(self) -> F64:
        return measures.mean(self._order_person, self._per_order("quantity"), self._n)

    def refund_rate(self) -> F64:
        amounts = self._all.numbers("amount")
        back = measures.total(self._all.person, np.minimum(amounts, 0), self._n)
        spent = measures.total(self._all.person, np.maximum(amounts, 0), self._n)
        return measures.ratio(np.abs(back), spent)

    # When

    def cycle_days(self) -> F64:
        return self._cycle.typical

    def cycle_regularity(self) -> F64:
        return self._cycle.regularity

    def next_purchase_days(self) -> F64:
        return self._cycle.typical - self.recency_days()

    def night_share(self) -> F64:
        times = self._order_time
        if not (times != measures.day(times)).any():  # dates, without a time of day
            return np.full(self._n, np.nan)
        hour = measures.hour(times)
        return self._share_of_orders((hour >= NIGHT[0]) | (hour < NIGHT[1]))

    def weekend_share(self) -> F64:
        return self._share_of_orders(measures.weekday(self._order_time) >= 5)

    def payday_share(self, pay_day: str) -> F64:
        """pay_day: the day of the month, the last where a month has fewer."""
        # Of the few days of the window rather than of the many orders.
        start = measures.day(np.array(self._all.start))
        days = start + np.arange(int((self._as_of - start) / DAY)) * DAY
        after = np.zeros(len(days), np.bool_)
        for back in range(PAY_DAYS):
            after |= _is_day_of_month(days - back * DAY, int(pay_day))
        since = (measures.day(self._order_time) - start).astype(np.int64)
        return self._share_of_orders(after[since])

    # What, and how

    def categories(self) -> F64:
        return measures.distinct(*self._category_of_rows, self._n)

    def top_category_share(self) -> F64:
        person, _, spent = self._by_category
        _, most = measures.largest(person, spent, self._n)
        return measures.ratio(most, measures.total(person, spent, self._n))

    def category_entropy(self) -> F64:
        person, _, spent = self._by_category
        return measures.entropy(person, spent, self._n)

    def category_share(self, category: str) -> F64:
        person, which, spent = self._by_category
        names = self._bought.frame["category"].cat.categories
        code = names.get_loc(category) if category in names else -1
        part = measures.total(person, np.where(which == code, spent, 0), self._n)
        return measures.ratio(part, measures.total(person, spent, self._n))

    def channel_share(self, channel: str) -> F64:
        known = self._bought.codes("channel")[self._first_row] >= 0
        same = (self._bought.frame["channel"] == channel).to_numpy()[self._first_row]
        whole = measures.count(self._order_person[known], self._n)
        return measures.ratio(measures.count(self._order_person[same], self._n), whole)

    # What these have in common

    @property
    def _as_of(self) -> Times:
        return measures.day(np.array(self._all.as_of))

    @cached_property
    def _bought(self) -> Events:
        """Without refunds."""
        if not self._all.has("amount"):
            return self._all
        return self._all.where(~(self._all.numbers("amount") < 0))

    @cached_property
    def _cycle(self) -> Cycle:
        return measures.cycle(self._bought.person, self._bought.times(), self._n)

    @cached_property
    def _order(self) -> I64:
        """Which order each row of what was bought is of; orders are sorted by person."""
        bought, times = self._bought, self._bought.times()
        new = np.ones(len(times), np.bool_)
        new[1:] = (bought.person[1:] != bought.person[:-1]) | (times[1:] != times[:-1])
        together = np.cumsum(new) - 1
        if not bought.has("order"):
            return together
        named = bought.codes("order")
        unnamed = named < 0
        named[unnamed] = together[unnamed] + named.max(initial=0) + 1
        return measures.pairs(bought.person, named)[2]

    @cached_property
    def _first_row(self) -> I64:
        """The first row of each order."""
        first = np.full(int(self._order.max(initial=-1)) + 1, -1, np.int64)
        rows = np.arange(len(self._order))[::-1]
        first[self._order[::-1]] = rows  # of several, the last is kept
        return first

    @cached_property
    def _order_person(self) -> I64:
        return self._bought.person[self._first_row]

    @cached_property
    def _order_time(self) -> Times:
        return self._bought.times()[self._first_row]

    def _per_order(self, column: str) -> F64:
        """Each order's sum; NaN where nothing of it is known."""
        values, orders = self._bought.numbers(column), len(self._first_row)
        known = measures.count(self._order[~np.isnan(values)], orders)
        return np.where(known > 0, measures.total(self._order, values, orders), np.nan)

    def _share_of_orders(self, which: Bool) -> F64:
        part = measures.count(self._order_person[which], self._n)
        return measures.ratio(part, self.frequency())

    @cached_property
    def _category_of_rows(self) -> tuple[I64, I64]:
        """Person and category of each row that has one."""
        category = self._bought.codes("category")
        return self._bought.person[category >= 0], category[category >= 0]

    @cached_property
    def _by_category(self) -> tuple[I64, I64, F64]:
        """Person, category and what that person spent in it."""
        person, category, pair = measures.pairs(*self._category_of_rows)
        amounts = self._bought.numbers("amount")[self._bought.codes("category") >= 0]
        return person, category, measures.total(pair, amounts, len(person))


def _days(span: np.ndarray) -> F64:
    """Days as float64, NaN for NaT."""
    return np.where(np.isnat(span), np.nan, span.astype("timedelta64[D]").astype(np.float64))


def _is_day_of_month(days: np.ndarray, wanted: int) -> Bool:
    """Of datetime64[D]: whether it is that day of its month, or its last if that has fewer."""
    month = days.astype("datetime64[M]")
    of_month = (days - month.astype("datetime64[D]")).astype(np.int64) + 1
    length = ((month + 1).astype("datetime64[D]") - month.astype("datetime64[D]")).astype(np.int64)
    found: Bool = of_month == np.minimum(wanted, length)
    return found
