"""What a bank divides its customers by, and what became of their credit, each a method by its name.

Every one is an array with a float64 for each customer, NaN where missing; definitions, bands and
sources are in parties/catalogue.yaml. Whether a customer is a person or a company, the identifier's
kind says.
"""

from collections.abc import Mapping

import numpy as np

from parties import measures
from parties.measures import F64, Events, Times

DEFAULT_DAYS = 90
WARNING_DAYS = 30
RECENT = np.timedelta64(90, "D")  # how long a warning lasts


class Customers:
    """Of the tables `customers`, `balances`, `income`, `repayments`; those that are needed."""

    def __init__(self, tables: Mapping[str, Events]) -> None:
        self._tables = tables
        self._n = tables["customers"].people
        self._as_of = measures.day(np.array(tables["customers"].as_of))

    # Segments

    def age_years(self) -> F64:
        return self._years_since("born")

    def company_age_years(self) -> F64:
        return self._years_since("founded")

    def assets(self) -> F64:
        latest = self._latest_balances()
        held = measures.total(latest.person, np.maximum(latest.numbers("balance"), 0), self._n)
        return np.where(measures.count(latest.person, self._n) > 0, held, np.nan)

    def products(self) -> F64:
        latest = self._latest_balances()
        product = latest.codes("product")
        known = product >= 0
        return measures.distinct(latest.person[known], product[known], self._n)

    def income_month(self) -> F64:
        income = self._tables["income"]
        month = income.times().astype("datetime64[M]").astype(np.int64)
        month -= month.min(initial=0)
        person, _, pair = measures.pairs(income.person, month)
        sums = measures.total(pair, income.numbers("amount"), len(person))
        return measures.median(person, sums, self._n)

    # Labels

    def arrears_days(self) -> F64:
        return self._worst(self._tables["repayments"])

    def delinquent(self) -> F64:
        worst = self.arrears_days()
        return np.where(np.isnan(worst), np.nan, worst >= DEFAULT_DAYS)

    def early_warning(self) -> F64:
        repayments, worst = self._tables["repayments"], self.arrears_days()
        recent = self._worst(repayments.where(repayments.times() >= self._as_of - RECENT))
        neither = np.isnan(worst) | (worst >= DEFAULT_DAYS)
        return np.where(neither, np.nan, recent >= WARNING_DAYS)

    # What these have in common

    def _years_since(self, column: str) -> F64:
        """Whole years, of those who are in the table."""
        customers = self._tables["customers"]
        since = np.full(self._n, np.datetime64("NaT"), "datetime64[us]")
        since[customers.person] = customers.frame[column].to_numpy("datetime64[us]")
        begun = _months(self._as_of) - _months(since) - (_day(self._as_of) < _day(since))
        years = np.floor_divide(begun, 12)
        return np.where(np.isnat(since) | (years < 0), np.nan, years)

    def _latest_balances(self) -> Events:
        """The last row in the window of each account."""
        balances = self._tables["balances"]
        account = balances.codes("account")
        known = balances.where(account >= 0)
        _, _, which = measures.pairs(known.person, known.codes("account"))
        row = np.full(int(which.max(initial=-1)) + 1, -1, np.int64)
        row[which] = np.arange(len(which))  # of several, the last is kept
        latest = np.zeros(len(which), np.bool_)
        latest[row] = True
        return known.where(latest)

    def _worst(self, repayments: Events) -> F64:
        """The most days that one of these is or was late; NaN without any."""
        due = measures.day(repayments.times())
        paid = measures.day(repayments.frame["paid"].to_numpy("datetime64[us]"))
        until = np.where(np.isnat(paid) | (paid > self._as_of), self._as_of, paid)
        late = np.maximum((until - due).astype(np.float64), 0)
        _, worst = measures.largest(repayments.person, late, self._n)
        return worst


def _months(times: Times) -> F64:
    """Months since 1970, NaN for NaT."""
    months = times.astype("datetime64[M]")
    return np.where(np.isnat(months), np.nan, months.astype(np.float64))


def _day(times: Times) -> F64:
    """The day of the month, from 0."""
    days = times.astype("datetime64[D]") - times.astype("datetime64[M]").astype("datetime64[D]")
    return np.where(np.isnat(days), np.nan, days.astype(np.float64))
