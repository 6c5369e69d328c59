"""The rule by which releases of a period are compared, and what is kept for it."""

from datetime import UTC, datetime, timedelta
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from institutions import AGREEMENT, INSIGHT, NOW, YAML

from compliance import differencing
from compliance.agreement import Agreement, Job
from compliance.differencing import ROWS, Known, Release, Slot
from compliance.disclosure import disclosure
from compliance.errors import (
    AgreementInvalid,
    CellsReleased,
    SegmentationChanged,
    StoreDamaged,
    TooFewDiffer,
)
from compliance.log import Log
from compliance.signing import SigningKey
from compliance.store import open_store, read, write

PERIOD = "period: {per: month, cells: 40}\n"
WITH_PERIOD = Agreement.from_yaml(YAML.replace("limits:", f"{PERIOD}limits:"))
SLOT = Slot("offers", "insight", "2026-11")
MINIMUM = 10


def people(*numbers: int) -> np.ndarray:
    """One row a person, as a pseudonym looks."""
    rows = np.zeros((len(numbers), 16), np.uint8)
    rows[:, 8:] = np.array(numbers, ">u8").view(np.uint8).reshape(-1, 8)
    rows[:, :8] = rows[:, 8:] * 37 + 11
    return rows


def known(*segments: range, released: tuple[int, ...] | None = None) -> Known:
    """What was released of these segments; by default all of them."""
    told = range(len(segments)) if released is None else released
    return Known(
        b"",
        b"",
        released=True,
        people=people(*(one for part in segments for one in part)),
        segment=np.repeat(np.arange(len(segments)), [len(part) for part in segments]),
        counts={segment: {ROWS: [len(segments[segment])]} for segment in told},
    )


def compare(before: Known, *groups: range | list[int]) -> list[int]:
    sizes = np.array([len(group) for group in groups], np.int64)
    rows = people(*(one for group in groups for one in group))
    return differencing.compared(before, sizes, rows, MINIMUM).tolist()


# What the bank sends


def test_the_same_people_in_another_order_are_the_same_segments():
    assert compare(known(range(20), range(20, 50)), range(49, 19, -1), range(20)) == [1, 0]


@pytest.mark.parametrize("gone", [1, 9])
def test_few_people_less(gone):
    with pytest.raises(TooFewDiffer, match="fewer than 10 people"):
        compare(known(range(40)), range(gone, 40))


@pytest.mark.parametrize("gone", [0, 10, 25])
def test_nobody_less_or_as_many_as_the_minimum(gone):
    assert compare(known(range(40)), range(gone, 40)) == [0]


def test_few_people_less_than_in_what_was_never_released():
    assert compare(known(range(40), released=()), range(1, 40)) == [0]


@pytest.mark.parametrize(
    "groups",
    [
        [range(40)],  # the union of two
        [range(15), range(15, 20), range(20, 40)],  # a part of one
        [[*range(19), 39], [*range(20, 39), 19]],  # two change places
        [[*range(20), 20], range(21, 40)],  # one moves
        [range(21)],  # one segment and one of the other
    ],
)
def test_people_elsewhere(groups):
    with pytest.raises(SegmentationChanged, match="in one segment are in two"):
        compare(known(range(20), range(20, 40)), *groups)


def test_new_people():
    with pytest.raises(SegmentationChanged, match="2 people are in it who were not"):
        compare(known(range(20)), range(22))
    with pytest.raises(SegmentationChanged, match="1 people are in it who were not"):
        compare(known(range(20)), [99, *range(20)])


def test_a_whole_segment_of_new_people():
    with pytest.raises(SegmentationChanged, match="30 people are in it who were not"):
        compare(known(range(20), range(20, 40)), range(50, 80), range(20, 40))


# What is counted


@pytest.mark.parametrize(
    ("before", "now", "near"),
    [(30, 30, False), (30, 29, True), (30, 21, True), (30, 20, False), (30, 31, True)],
)
def test_counts_that_are_too_near(before, now, near):
    assert differencing.too_near({ROWS: [before]}, {ROWS: [now]}, MINIMUM) is near


def test_every_feature_counts_for_itself_and_every_release():
    earlier = {ROWS: [60, 40], "spend": [50, 30]}
    assert not differencing.too_near(earlier, {ROWS: [40], "spend": [30]}, MINIMUM)
    assert differencing.too_near(earlier, {ROWS: [40], "spend": [29]}, MINIMUM)
    assert differencing.too_near(earlier, {ROWS: [55], "spend": [30]}, MINIMUM)
    assert not differencing.too_near(earlier, {ROWS: [40], "orders": [39]}, MINIMUM)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_nothing_made_of_what_is_released_speaks_of_few(data):
    """All small combinations of the releases of a period, in which people leave as they like."""
    shared, kept, counts = [set(range(14)), set(range(14, 26))], [], [{}, {}]
    for _ in range(4):
        for segment, there in enumerate(shared):
            there -= set(data.draw(st.lists(st.sampled_from(sorted(there) or [0]), max_size=4)))
            told = {ROWS: [len(there)]}
            if len(there) < 3 or differencing.too_near(counts[segment], told, 3):
                continue
            earlier = counts[segment].get(ROWS, [])
            counts[segment] = {ROWS: [*earlier, len(there)]}
            kept.append([int(one in there) for one in range(26)])
    releases = np.unique(np.array(kept, np.int64).reshape(-1, 26), axis=0)[:5]
    for factors in product((-2, -1, 0, 1, 2), repeat=len(releases)):
        told = np.count_nonzero(np.array(factors, np.int64) @ releases)
        assert not 1 <= told < 3


# What is kept


@pytest.fixture
def store(store_url):
    return open_store(store_url, create=True)


@pytest.fixture
def log():
    return Log("bank.example/log", SigningKey.generate())


def released(segment: np.ndarray, **counts: int) -> Release:
    told = {ROWS: [len(segment)]} | {name: [count] for name, count in counts.items()}
    return Release({0: segment}, {0: told})


def begin(conn, slot: Slot, *segments: np.ndarray) -> None:
    differencing.begin(conn, slot, b"t" * 32, b"r" * 32, dict(enumerate(segments)))


def test_a_segmentation_is_logged_once_and_can_be_fixed_anew_until_a_release(store, log):
    def fix(*numbers: int) -> Known:
        return differencing.fix(
            conn,
            log,
            SLOT,
            run="a" * 32,
            terms=b"t" * 32,
            people=people(*numbers),
            segment=np.arange(len(numbers)) % 2,
            now=NOW,
        )

    with write(store) as conn:
        first = fix(1, 2, 3)
        assert fix(1, 2, 3).root == first.root
        second = fix(1, 2, 3, 4)
        assert second.root != first.root
        logged = [entry.leaf for entry in log.entries(conn)]
        assert [first.root.hex() in str(leaf) for leaf in logged] == [True, False]
        assert len(logged) == 2
    with read(store) as conn:
        found = differencing.find(conn, SLOT)
    assert found is not None
    assert (found.root, found.released, found.counts) == (second.root, False, {})
    assert found.find(people(4, 9, 1)).tolist() == [1, -1, 0]


def test_the_order_of_people_does_not_change_the_root():
    segment = np.array([0, 1, 1, 0])
    root = differencing.segmentation_root(people(1, 2, 3, 4), segment)
    assert root == differencing.segmentation_root(people(4, 3, 2, 1), segment[::-1])
    assert root != differencing.segmentation_root(people(1, 2, 3, 4), segment[::-1].copy() * 0)


def test_what_is_released_is_kept_and_only_shrinks(store):
    first = released(people(*range(30)), spend=20)
    first.own = people(*range(100))
    then = released(people(*range(12)), orders=11)
    then.own = people(*range(90))
    with write(store) as conn:
        begin(conn, SLOT, people(*range(30)), people(*range(30, 45)))
        differencing.record(conn, SLOT, first)
        differencing.record(conn, SLOT, then)
    with read(store) as conn:
        found = differencing.find(conn, SLOT)
        assert differencing.find(conn, Slot("offers", "evaluate", "2026-11")) is None
    assert found is not None
    assert found.sizes.tolist() == [12, 15]
    assert found.counts == {0: {ROWS: [12, 30], "spend": [20], "orders": [11]}}
    assert found.own is not None
    assert differencing.within(found.own, people(89, 90)).tolist() == [True, False]


def test_what_is_over_is_forgotten(store):
    slots = [
        Slot("offers", "insight", period)
        for period in ("2025", "2026", "2026-10", "2026-11", "2026-11-23", "2026-11-24")
    ]
    with write(store) as conn:
        for slot in slots:
            begin(conn, slot, people(*range(20)))
        ended = differencing.over(conn, datetime(2026, 11, 24, tzinfo=UTC))
        assert {slot.period for slot in ended} == {"2025", "2026-10", "2026-11-23"}
        differencing.forget(conn, ended)
        assert differencing.over(conn, datetime(2026, 11, 24, tzinfo=UTC)) == []
        assert differencing.find(conn, slots[1]) is not None
        assert differencing.find(conn, slots[0]) is None


def test_nothing_released_is_nothing_fixed(store):
    with write(store) as conn:
        begin(conn, SLOT, people(1, 2))
        differencing.record(conn, SLOT, Release({0: people(1)}))
        found = differencing.find(conn, SLOT)
        assert found is not None
        assert (found.released, found.sizes.tolist()) == (False, [2])


def test_what_is_forgotten_meanwhile_is_over(store):
    with write(store) as conn:
        differencing.record(conn, SLOT, released(people(1)))
        assert differencing.find(conn, SLOT) is None


@pytest.mark.parametrize(
    "values", [{"people": b"x" * 17}, {"counts": "["}, {"counts": "[1]"}, {"counts": '{"a": 1}'}]
)
def test_what_was_changed_behind_its_back(store, values):
    with write(store) as conn:
        begin(conn, SLOT, people(*range(20)))
        conn.execute(differencing.period_segments.update().values(**values))
        with pytest.raises(StoreDamaged):
            differencing.find(conn, SLOT)


def test_one_person_twice_is_no_period(store):
    with pytest.raises(StoreDamaged):
        Known(b"", b"", False, people(1, 1), np.zeros(2, np.int64), {}).find(people(1))


# The clause


def test_a_run_belongs_to_the_period_in_which_it_starts():
    start = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
    slot = Slot.of(WITH_PERIOD, INSIGHT, start)
    assert slot == Slot(AGREEMENT.agreement, "insight", "2026-11")
    assert Slot.of(WITH_PERIOD, INSIGHT, start + timedelta(hours=1)) != slot
    assert Slot.of(AGREEMENT, INSIGHT, start) is None
    overlap = Job.from_yaml(
        f"job: overlap\nagreement: {AGREEMENT.agreement}\npurpose: {AGREEMENT.purpose}\n"
    )
    assert Slot.of(WITH_PERIOD, overlap, start) is None


def test_the_partner_is_told_that_people_can_be_known_again():
    said = disclosure(WITH_PERIOD, INSIGHT)[AGREEMENT.parties.partner]
    assert "which of these nameless customers are the same in all runs of a month" in said
    assert not any("all runs of" in line for line in disclosure(AGREEMENT, INSIGHT)["partner"])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("month", "week", "period.per: should be 'day', 'month' or 'year'"),
        ("cells: 40", "cells: 0", "period.cells: should be greater than or equal to 1"),
        (", cells: 40", "", "period.cells: is missing"),
    ],
)
def test_a_period_that_makes_no_sense(old, new, problem):
    with pytest.raises(AgreementInvalid, match=problem):
        Agreement.from_yaml(YAML.replace("limits:", f"{PERIOD.replace(old, new)}limits:"))


def test_a_period_is_for_jobs_that_release_sums():
    start, end = YAML.index("  insight:"), YAML.index("limits:")
    with pytest.raises(AgreementInvalid, match="period: is for insight, evaluate and stability"):
        Agreement.from_yaml(f"{YAML[:start]}{PERIOD}{YAML[end:]}")


# Figures


def test_figures_are_counted_and_capped(store, log):
    each = differencing.figures(WITH_PERIOD, INSIGHT)
    with write(store) as conn:

        def count(segments: int, now: datetime = NOW) -> None:
            differencing.count_cells(
                conn, log, WITH_PERIOD, INSIGHT, run="a" * 32, segments=segments, now=now
            )

        def left(now: datetime = NOW) -> int | None:
            return differencing.cells_left(conn, WITH_PERIOD, now=now)

        assert left() == 40
        count(0)
        count(2)
        assert left() == 40 - 2 * each
        with pytest.raises(CellsReleased, match="40 figures without noise be released a month"):
            count(40)
        assert left() == 40 - 2 * each
        assert left(NOW + timedelta(days=32)) == 40
        assert differencing.cells_left(conn, AGREEMENT, now=NOW) is None
