"""What an agreement's runs have released in a period, so that no two releases differ by few people.

Sums can be subtracted: two of them over segments that differ in one person tell that person's
values. So in a period, who is in which segment is fixed by the bank before its first run, and its
root logged; from then on people only leave. Each side keeps who was in the last release, under
pseudonyms that last as long as the period, and compares.

As segments do not overlap and only shrink, what can be made of all releases of a period by adding
and subtracting are sums over those who left between two releases of a segment, or were in its last
one. If none of these is of fewer than the minimum, nothing made of them is (ADR 0122).

The released figures are counted by entries in the log, `cells.released`, as a budget is.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    delete,
    insert,
    select,
    update,
)

from compliance.agreement import Agreement, Binned, Job
from compliance.batch import I64, U8, joined_rows, next_id, sorted_rows
from compliance.canonical import calendar, canonical, parse, timestamp
from compliance.errors import CellsReleased, SegmentationChanged, StoreDamaged, TooFewDiffer
from compliance.log import Log, log_entries
from compliance.store import Integer64, metadata
from federated import _native

PSEUDONYM = 16  # bytes
OWN_ROWS = -1  # the segment under which the partner keeps who of its own was in the last release
ROWS = ""  # the name under which the count of people stands among those of features

_FIXED, _RELEASED = "segments.fixed", "cells.released"

Counts = dict[str, list[int]]  # by feature, how many people had it in releases: each number once

periods = Table(
    "periods",
    metadata,
    Column("id", Integer64, primary_key=True),
    Column("agreement", String(64), nullable=False),
    Column("job", String(16), nullable=False),
    Column("period", String(10), nullable=False),
    Column("terms", LargeBinary(32), nullable=False),  # what divides people into segments
    Column("root", LargeBinary(32), nullable=False),  # of the bank's segmentation
    Column("released", Integer, nullable=False),  # whether anything was, so that it stays
    UniqueConstraint("agreement", "job", "period"),
)

# Who may still be in a segment, and what was counted of it when it was released.
period_segments = Table(
    "period_segments",
    metadata,
    Column("period", ForeignKey("periods.id"), primary_key=True),
    Column("segment", Integer, primary_key=True, autoincrement=False),
    Column("people", LargeBinary, nullable=False),  # PSEUDONYM bytes each
    Column("counts", String, nullable=False),  # canonical JSON of Counts; {}: not released
)


@dataclass(frozen=True)
class Slot:
    """Runs that are held against each other: of one agreement and kind of job, in one period."""

    agreement: str
    job: str
    period: str

    @classmethod
    def of(cls, agreement: Agreement, job: Job, started: datetime) -> Self | None:
        """None where the agreement has no period, or the job releases no sums."""
        if agreement.period is None or not agreement.releases(job.job):
            return None
        kind = job.between or job.job
        return cls(agreement.agreement, kind, calendar(agreement.period.per, started))


@dataclass(frozen=True, repr=False)
class Known:
    """A period as it stands. people: uint8 (n, 16), with the segment of each, int64 (n,).

    counts: of the segments that were released. own: uint8 (m, 16), the partner's own people, once
    something was.
    """

    terms: bytes
    root: bytes
    released: bool
    people: U8
    segment: I64
    counts: Mapping[int, Counts]
    own: U8 | None = None

    def find(self, people: U8) -> I64:
        """The segment of each of these, int64 (k,); -1 for who may be in none."""
        return _found(self.people, self.segment, people)

    @property
    def sizes(self) -> I64:
        """How many people may still be in each segment, by its number."""
        return np.bincount(self.segment)


def within(known: U8, people: U8) -> NDArray[np.bool_]:
    """Which of these people, uint8 (n, 16), are among the known: bool (n,)."""
    among: NDArray[np.bool_] = _found(known, np.zeros(len(known), np.int64), people) == 0
    return among


def _found(known: U8, value: I64, people: U8) -> I64:
    try:
        index = _native.Index(known)
    except ValueError:
        raise _damaged() from None
    return np.append(value, -1)[index.find(people)]


def few(before: I64, now: I64, minimum: int) -> NDArray[np.bool_]:
    """Where as few are gone as could be told apart: at least one, fewer than the minimum."""
    gone = before - now
    return (gone >= 1) & (gone < minimum)


# The partner's comparison


def compared(known: Known, sizes: I64, people: U8, minimum: int) -> I64:
    """Which segment each of the bank's groups is, int64 (groups,).

    people: uint8 (n, 16), group after group. Raises SegmentationChanged (E314) where somebody is
    new or elsewhere, TooFewDiffer (E313) where a group that was released has lost few people.

    Nor may a whole group be new: under another scalar of the bank's everybody would seem to be.
    """
    segment = known.find(people)
    new = int(np.count_nonzero(segment < 0))
    if new:
        raise changed(f"{new:,} people are in it who were not in the period's first run")
    groups: I64 = segment[np.cumsum(sizes) - sizes]
    if (segment != np.repeat(groups, sizes)).any() or len(np.unique(groups)) < len(groups):
        raise changed("people who were in one segment are in two, or the other way round")
    released = np.array([int(one) in known.counts for one in groups])
    near = released & few(known.sizes[groups], sizes, minimum)
    if near.any():
        raise TooFewDiffer(
            f"Of the segments sent, {int(near.sum())} had a release in this period that differs by "
            f"fewer than {minimum} people: subtracted, the two would speak of those few.",
            "Use the earlier result, or wait for the next period.",
        )
    return groups


def too_near(earlier: Counts, counts: Counts, minimum: int) -> bool:
    """Whether a release would differ from an earlier one of its segment by few shared people.

    As everyone in it was in the earlier ones too, the difference in counts is exactly who left.
    """
    for feature, (count,) in counts.items():
        for before in earlier.get(feature, ()):
            if 1 <= abs(before - count) < minimum:
                return True
    return False


# What is kept


def find(conn: Connection, slot: Slot) -> Known | None:
    """What is kept of it. Raises StoreDamaged (E707)."""
    row = conn.execute(select(periods).where(*_in(slot))).mappings().one_or_none()
    if row is None:
        return None
    held = period_segments.c
    query = select(held.segment, held.people, held.counts).where(held.period == row["id"])
    rows = conn.execute(query.order_by(held.segment)).all()
    parts = {segment: _rows(people) for segment, people, _ in rows}
    own = parts.pop(OWN_ROWS, None)
    counts = {segment: _counts(text) for segment, _, text in rows if segment >= 0}
    return Known(
        terms=row["terms"],
        root=row["root"],
        released=bool(row["released"]),
        people=np.concatenate([_rows(b""), *parts.values()]),
        segment=np.repeat(
            np.array(list(parts), np.int64), [len(people) for people in parts.values()]
        ),
        counts={segment: one for segment, one in counts.items() if one},
        own=own,
    )


def fix(
    conn: Connection,
    log: Log,
    slot: Slot,
    *,
    run: str,
    terms: bytes,
    people: U8,
    segment: I64,
    now: datetime,
) -> Known:
    """The bank's segmentation for the period, until something is released; its root is logged.

    people: uint8 (n, 16), with the segment of each, int64 (n,).
    """
    root = segmentation_root(people, segment)
    before = find(conn, slot)
    if before is None or before.root != root:
        body = {
            "run": run,
            "agreement": slot.agreement,
            "job": slot.job,
            "period": slot.period,
            "root": root.hex(),
            "people": len(people),
        }
        log.append(conn, _FIXED, body, time=now)
    begin(conn, slot, terms, root, {one: people[rows] for one, rows in by_segment(segment)})
    return Known(terms, root, False, people, segment, {})


def begin(
    conn: Connection, slot: Slot, terms: bytes, root: bytes, segments: Mapping[int, U8]
) -> None:
    """Keep who is in which segment; instead of what there was, of which nothing was released.

    segments: uint8 (n, 16) each. The partner does so with what it is sent, before it answers: what
    the bank's node then keeps home may be sent later.
    """
    forget(conn, [slot])
    number = next_id(conn, periods)
    row = {"terms": terms, "root": root, "released": 0}
    conn.execute(insert(periods).values(id=number, **vars(slot), **row))
    for segment, people in segments.items():
        _put(conn, number, segment, people, {})


def segmentation_root(people: U8, segment: I64) -> bytes:
    """The RFC 6962 tree head over pseudonym || segment (4 bytes, big-endian), sorted.

    The pseudonyms' key is what salts it: without it nobody can try who is in it.
    """
    labels = segment.astype(">i4").view(np.uint8).reshape(-1, 4)
    return _native.merkle_root(*joined_rows(sorted_rows(np.hstack([people, labels]))))


@dataclass
class Release:
    """What a run is about to release. segments: who is in those that were sent.

    counts: of those that are released; the others' people stay as they were known. own: who of the
    partner's own people is in it.
    """

    segments: dict[int, U8] = field(default_factory=dict)
    counts: dict[int, Counts] = field(default_factory=dict)
    own: U8 | None = None


def record(conn: Connection, slot: Slot, released: Release) -> None:
    """Keep what is about to be released, before it is, in the same transaction.

    What is recorded counts as released whatever becomes of the run: nobody can tell afterwards how
    much of the answer arrived.
    """
    if not released.counts:
        return
    known = find(conn, slot)
    if known is None:  # it is over by now, and forgotten
        return
    number = conn.execute(select(periods.c.id).where(*_in(slot))).scalar_one()
    conn.execute(update(periods).where(periods.c.id == number).values(released=1))
    sizes = known.sizes.tolist()
    for segment, counts in released.counts.items():
        people, earlier = released.segments[segment], known.counts.get(segment, {})
        more = {
            feature: sorted({*earlier.get(feature, ()), *counts.get(feature, ())})
            for feature in earlier | counts
        }
        _change(conn, number, segment, people if len(people) < sizes[segment] else None, more)
    if released.own is None:
        return
    if known.own is None:
        _put(conn, number, OWN_ROWS, released.own, {})
    elif len(released.own) < len(known.own):
        _change(conn, number, OWN_ROWS, released.own, {})


def over(conn: Connection, now: datetime) -> list[Slot]:
    """The slots of periods that have ended by then."""
    query = select(periods.c.agreement, periods.c.job, periods.c.period)
    slots = [Slot(*row) for row in conn.execute(query)]
    return [slot for slot in slots if is_over(slot.period, now)]


def is_over(period: str, now: datetime) -> bool:
    """period: as `calendar` names it."""
    return period < timestamp(now)[: len(period)]


def forget(conn: Connection, slots: Iterable[Slot]) -> None:
    """Delete what is kept of these."""
    for slot in slots:
        number = select(periods.c.id).where(*_in(slot)).scalar_subquery()
        conn.execute(delete(period_segments).where(period_segments.c.period == number))
        conn.execute(delete(periods).where(*_in(slot)))


# Cells


def figures(agreement: Agreement, job: Job) -> int:
    """How many figures a run of this job releases about each segment or group.

    Of an insight one a statistic of a feature, a histogram's every bin; of the others, one a bin.
    That of missing values counts.
    """
    declared, terms = agreement.data.partner.features, getattr(agreement.jobs, job.job)

    def bins(feature: str) -> int:
        return len(declared[feature].bins) + 2

    if isinstance(terms, Binned):
        return sum((terms.bins + 1) if terms.bins else bins(one) for one in terms.features)
    return sum(
        bins(feature) if statistic == "histogram" else 1
        for feature, statistics in job.features.items()
        for statistic in statistics
    )


def cells_left(conn: Connection, agreement: Agreement, *, now: datetime) -> int | None:
    """How many figures without noise this period may still have; None if there is no period."""
    if agreement.period is None:
        return None
    entry = log_entries.c
    period = calendar(agreement.period.per, now)
    query = select(entry.leaf).where(
        entry.run.is_not(None), entry.type == _RELEASED, entry.time.startswith(period)
    )
    released = [parse(leaf) for leaf in conn.execute(query).scalars()]
    own = [
        int(one["cells"])
        for one in released
        if one["agreement"] == agreement.agreement and not one["noised"]
    ]
    return max(agreement.period.cells - sum(own), 0)


def check_cells(
    conn: Connection, agreement: Agreement, job: Job, segments: int, *, now: datetime
) -> None:
    """Raises CellsReleased (E315) where so many segments are more than is left without noise."""
    left = cells_left(conn, agreement, now=now)
    if left is None or agreement.period is None or not agreement.releases(job.job):
        return
    cells = segments * figures(agreement, job)
    if cells > left and not agreement.noised(job.job):
        name, version = agreement.named
        raise CellsReleased(
            f"{name}, version {version}, lets {agreement.period.cells:,} figures without noise be "
            f"released a {agreement.period.per}; {left:,} are left, and this run would take "
            f"{cells:,}.",
            f"Ask for fewer features, wait for the next {agreement.period.per} (in UTC), or agree "
            "on a new version with `release: noised`.",
        )


def count_cells(
    conn: Connection,
    log: Log,
    agreement: Agreement,
    job: Job,
    *,
    run: str,
    segments: int,
    now: datetime,
) -> None:
    """Log how many figures a run is about to release about so many segments.

    Raises CellsReleased (E315); then nothing is counted.
    """
    if agreement.period is None or not segments:
        return
    check_cells(conn, agreement, job, segments, now=now)
    body = {
        "run": run,
        "agreement": agreement.agreement,
        "period": calendar(agreement.period.per, now),
        "segments": segments,
        "cells": segments * figures(agreement, job),
        "noised": agreement.noised(job.job),
    }
    log.append(conn, _RELEASED, body, time=now)


def features_counted(agreement: Agreement, job: Job) -> list[str]:
    """The features of which a run tells how many people have them, in its order."""
    if job.job == "insight":
        return list(job.features)
    return list(getattr(agreement.jobs, job.job).features)


def dividing(agreement: Agreement, job: Job) -> bytes:
    """SHA-256 over what says who is in which segment or group."""
    terms: Any = None
    if job.between is not None and agreement.jobs.stability:
        terms = [agreement.segmentation, agreement.jobs.stability.populations]
    elif job.job == "insight":
        terms = [agreement.segmentation]
    elif job.job == "evaluate":
        terms = [agreement.data.bank.label]
    return hashlib.sha256(canonical(_plain(terms))).digest()


def _plain(terms: Any) -> Any:
    """Of models, what they say."""
    if isinstance(terms, list | tuple):
        return [_plain(one) for one in terms]
    return terms if terms is None else terms.model_dump(mode="json")


def by_segment(segment: I64) -> Iterator[tuple[int, I64]]:
    """The rows of each segment that has any."""
    order = np.argsort(segment, kind="stable")
    numbers, starts = np.unique(segment[order], return_index=True)
    yield from zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)


def changed(why: str) -> SegmentationChanged:
    return SegmentationChanged(
        f"The segmentation is not the one this period began with: {why}.",
        "Wait for the next period; until then runs use the segmentation of the first one.",
    )


# The store


def _in(slot: Slot) -> list[Any]:
    return [periods.c[name] == value for name, value in vars(slot).items()]


def _put(conn: Connection, period: int, segment: int, people: U8, counts: Counts) -> None:
    row = {"period": period, "segment": segment, "people": people.tobytes()}
    conn.execute(insert(period_segments).values(**row, counts=json.dumps(counts)))


def _change(conn: Connection, period: int, segment: int, people: U8 | None, counts: Counts) -> None:
    values: dict[str, Any] = {"counts": json.dumps(counts)}
    if people is not None:
        values["people"] = people.tobytes()
    held = period_segments.c
    conn.execute(
        update(period_segments)
        .where(held.period == period, held.segment == segment)
        .values(**values)
    )


def _rows(people: bytes) -> U8:
    if len(people) % PSEUDONYM:
        raise _damaged()
    return np.frombuffer(people, np.uint8).reshape(-1, PSEUDONYM)


def _counts(text: str) -> Counts:
    try:
        return {str(name): [int(one) for one in found] for name, found in json.loads(text).items()}
    except (AttributeError, TypeError, ValueError):
        raise _damaged() from None


def _damaged() -> StoreDamaged:
    return StoreDamaged(
        "What the store holds of a period's releases is none.",
        "Stop the node, keep the store as evidence and restore the latest backup.",
    )
