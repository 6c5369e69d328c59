"""Features of whom people call, where they are and how they pay, each a method by its name.

Every one is an array with a float64 for each person, NaN where missing; definitions, units and
sources are in parties/catalogue.yaml. They follow the bandicoot toolbox (de Montjoye, Rocher and
Pentland 2016, Journal of Machine Learning Research 17:175) where it has them.
"""

from collections.abc import Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from parties import measures
from parties.measures import F64, I64, Bool, Cycle, Events

NIGHT = (19, 7)  # from, until: bandicoot's
OFFICE = (9, 17)  # of working days
EARTH_KM = 6371.0088  # mean radius (IUGG)


class Subscribers:
    """Of the tables `calls`, `cells`, `subscribers` and `topups`; those that are needed."""

    def __init__(self, tables: Mapping[str, Events]) -> None:
        self._tables = tables
        self._calls = tables["calls"]
        self._n = self._calls.people

    # Ties

    def contacts(self) -> F64:
        return measures.count(self._tie_person, self._n)

    def reciprocity(self) -> F64:
        direction = self._talk.frame["direction"]
        both = self._ties_with((direction == "in").to_numpy()) & self._ties_with(
            (direction == "out").to_numpy()
        )
        return self._share_of_ties(both)

    def contact_entropy(self) -> F64:
        return measures.entropy(self._tie_person, self._tie_rows, self._n)

    def top_contact_share(self) -> F64:
        _, most = measures.largest(self._tie_person, self._tie_rows, self._n)
        return measures.ratio(most, measures.count(self._talk.person, self._n))

    def tie_strength_seconds(self) -> F64:
        seconds = measures.total(self._talk.person, self._talk.numbers("duration"), self._n)
        return measures.ratio(seconds, self.contacts())

    def contact_churn(self) -> F64:
        middle = self._calls.start + (self._calls.as_of - self._calls.start) / 2
        late = self._talk.times() >= middle
        before, after = self._ties_with(~late), self._ties_with(late)
        kept = measures.count(self._tie_person[before & after], self._n)
        halves = [measures.count(self._tie_person[half], self._n) for half in (before, after)]
        churn = 1 - measures.ratio(kept, self.contacts())
        return np.where((halves[0] > 0) & (halves[1] > 0), churn, np.nan)

    def night_share(self) -> F64:
        calls = self._talk
        if calls.has("kind"):
            calls = calls.where((calls.frame["kind"] != "text").to_numpy())
        night = measures.count(calls.person[_at_night(calls)], self._n)
        return measures.ratio(night, measures.count(calls.person, self._n))

    # Places

    def radius_of_gyration_km(self) -> F64:
        person, where = self._positions
        number = measures.count(person, self._n)
        centre = [measures.ratio(measures.total(person, axis, self._n), number) for axis in where]
        # Of points on a sphere, the mean squared distance from their centre of mass is what that
        # lacks of the radius squared. The chords are within 0.1% of the arcs up to 1000 km.
        lacking = 1 - (centre[0] ** 2 + centre[1] ** 2 + centre[2] ** 2)
        return np.asarray(EARTH_KM * np.sqrt(np.maximum(lacking, 0)))

    def location_entropy(self) -> F64:
        person, _, rows = self._visits
        return measures.entropy(person, rows, self._n)

    def cities_visited(self) -> F64:
        city = self._of_cell("city")[self._located.codes("cell")].astype(np.int64)
        known = city >= 0
        found = measures.distinct(self._located.person[known], city[known], self._n)
        return np.where(found > 0, found, np.nan)

    def home_share(self) -> F64:
        at_home = self._located.codes("cell") == self._home[self._located.person]
        part = measures.count(self._located.person[at_home], self._n)
        share = measures.ratio(part, measures.count(self._located.person, self._n))
        return np.where(self._home >= 0, share, np.nan)

    def commute_km(self) -> F64:
        return _great_circle(self._position(self._home), self._position(self._work))

    def commute_share(self) -> F64:
        cell, person = self._located.codes("cell"), self._located.person
        since = measures.day(self._located.times()) - measures.day(np.array(self._calls.start))
        whose, _, day = measures.pairs(person, since.astype(np.int64))
        both = np.ones(len(whose), np.bool_)
        for place in (self._home, self._work):
            seen = np.zeros(len(whose), np.bool_)
            seen[day[cell == place[person]]] = True
            both &= seen
        share = measures.ratio(measures.count(whose[both], self._n), measures.count(whose, self._n))
        return np.where((self._home >= 0) & (self._work >= 0), share, np.nan)

    # The account

    def tenure_days(self) -> F64:
        known = self._tables["subscribers"]
        since = np.full(self._n, np.datetime64("NaT"), "datetime64[us]")
        since[known.person] = known.frame["since"].to_numpy("datetime64[us]")
        days = (measures.day(np.array(self._calls.as_of)) - measures.day(since)).astype(np.float64)
        return np.where(np.isnat(since) | (days < 0), np.nan, days)

    def topup_amount(self) -> F64:
        topups = self._tables["topups"]
        return measures.mean(topups.person, topups.numbers("amount"), self._n)

    def topup_cycle_days(self) -> F64:
        return self._topups.typical

    def topup_regularity(self) -> F64:
        return self._topups.regularity

    # What these have in common

    @cached_property
    def _talk(self) -> Events:
        """What was said to somebody."""
        return self._calls.where(self._calls.codes("contact") >= 0)

    @cached_property
    def _ties(self) -> tuple[I64, I64]:
        """The person of each tie, a pair of person and contact; which tie each row of talk is."""
        person, _, tie = measures.pairs(self._talk.person, self._talk.codes("contact"))
        return person, tie

    @property
    def _tie_person(self) -> I64:
        return self._ties[0]

    @cached_property
    def _tie_rows(self) -> F64:
        return measures.count(self._ties[1], len(self._tie_person))

    def _ties_with(self, rows: Bool) -> Bool:
        """The ties that have one of these rows of talk."""
        found = np.zeros(len(self._tie_person), np.bool_)
        found[self._ties[1][rows]] = True
        return found

    def _share_of_ties(self, which: Bool) -> F64:
        return measures.ratio(measures.count(self._tie_person[which], self._n), self.contacts())

    @cached_property
    def _located(self) -> Events:
        """What happened at a known cell."""
        return self._calls.where(self._calls.codes("cell") >= 0)

    @cached_property
    def _visits(self) -> tuple[I64, I64, F64]:
        """Person, cell and how many rows."""
        return _visits(self._located)

    @cached_property
    def _home(self) -> I64:
        """The cell where each person is most at night; -1 if there is none."""
        person, cell, rows = _visits(self._located.where(_at_night(self._located)))
        return self._most(person, cell, rows)

    @cached_property
    def _work(self) -> I64:
        """The cell, other than home, where each person is most in office hours; -1 if none."""
        times = self._located.times()
        hour = measures.hour(times)
        office = (hour >= OFFICE[0]) & (hour < OFFICE[1]) & (measures.weekday(times) < 5)
        person, cell, rows = _visits(self._located.where(office))
        away = cell != self._home[person]
        return self._most(person[away], cell[away], rows[away])

    def _most(self, person: I64, cell: I64, rows: F64) -> I64:
        """The cell with the most rows, the first by name of several."""
        names = self._calls.frame["cell"].cat.categories
        rank = np.argsort(np.argsort(names.to_numpy(), kind="stable"))
        order = np.lexsort((rank[cell], person))
        row, _ = measures.largest(person[order], rows[order], self._n)
        return np.append(cell[order], -1)[row]

    def _of_cell(self, column: str) -> NDArray[np.float64]:
        """What the table of cells says of each cell: a number, or a city's code; by code of cell.

        NaN, or -1, where it says nothing; the last value is for the code -1.
        """
        cells = self._tables["cells"].frame.drop_duplicates("cell").set_index("cell")
        names = self._calls.frame["cell"].cat.categories
        values = cells[column]
        if column == "city":
            found = values.cat.codes.reindex(names, fill_value=-1)
            return np.append(found.to_numpy(np.float64), -1)
        return np.append(values.reindex(names).to_numpy(np.float64), np.nan)

    def _position(self, cell: I64) -> tuple[F64, F64]:
        """Latitude and longitude in radians; NaN where unknown or out of range."""
        lat, lon = self._of_cell("lat")[cell], self._of_cell("lon")[cell]
        real = (np.abs(lat) <= 90) & (np.abs(lon) <= 180)
        return np.radians(np.where(real, lat, np.nan)), np.radians(np.where(real, lon, np.nan))

    @cached_property
    def _positions(self) -> tuple[I64, tuple[F64, F64, F64]]:
        """Person, and the point on the unit sphere, of each row with a known position."""
        lat, lon = self._position(self._located.codes("cell"))
        known = ~np.isnan(lat)
        lat, lon = lat[known], lon[known]
        point = (np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat))
        return self._located.person[known], point

    @cached_property
    def _topups(self) -> Cycle:
        topups = self._tables["topups"]
        return measures.cycle(topups.person, topups.times(), self._n)


def _visits(events: Events) -> tuple[I64, I64, F64]:
    person, cell, pair = measures.pairs(events.person, events.codes("cell"))
    return person, cell, measures.count(pair, len(person))


def _at_night(events: Events) -> Bool:
    hour = measures.hour(events.times())
    return (hour >= NIGHT[0]) | (hour < NIGHT[1])


def _great_circle(one: tuple[F64, F64], other: tuple[F64, F64]) -> F64:
    """Kilometres between two points, by the haversine formula."""
    (lat1, lon1), (lat2, lon2) = one, other
    chord = (
        np.sin((lat2 - lat1) / 2) ** 2
        + np.cos(lat1) * np.cos(lat2) * np.sin((lon2 - lon1) / 2) ** 2
    )
    return np.asarray(2 * EARTH_KM * np.arcsin(np.sqrt(np.minimum(chord, 1))))
