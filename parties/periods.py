"""A run's period as each side keeps it: who may still be in it, and by which pseudonyms.

The secret of a period lies among the node's keys, so that a restart changes no pseudonym, and goes
once the period is over.
"""

import secrets
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection

from compliance import differencing
from compliance.agreement import Agreement, Job
from compliance.batch import joined_rows
from compliance.differencing import PSEUDONYM, ROWS, Known, Release, Slot
from compliance.errors import TooFewDiffer
from compliance.store import scrub
from federated._native import Scalar, hmac_sha256
from federated.arrays import I64, U8, Bool
from federated.identifiers import Ids
from parties.files import write_private

if TYPE_CHECKING:
    from parties.node import Node

_ORDER = 2**252 + 27742317777372353535851937790883648493  # of the prime group of Curve25519
_LATE = timedelta(days=1)  # a partner's clock may be behind, and its run still be of the period
_SECRET = 32  # bytes


def expire(node: "Node") -> None:
    """Destroy what was kept of periods that are over; the secret first."""
    until = node.now() - _LATE
    # A run that ended early has left nothing else.
    for path in node.home.key("").glob("period.*"):
        if differencing.is_over(path.name.rpartition(".")[2], until):
            path.unlink(missing_ok=True)
    with node.reading() as conn:
        ended = differencing.over(conn, until)
    if not ended:
        return
    with node.writing() as conn:
        differencing.forget(conn, ended)
    scrub(node.store, [differencing.periods, differencing.period_segments])


class _Side:
    """What both sides have of a run in a period.

    waiting: how many people were left out because they were not in the period's first run.
    """

    def __init__(self, node: "Node", slot: Slot, agreement: Agreement, job: Job, run: str) -> None:
        self._node, self._agreement, self._job, self._run = node, agreement, job, run
        self.slot = slot
        self.root = b""
        self.waiting = 0
        self._known: Known | None = None
        self._minimum: int = getattr(agreement.jobs, job.job).minimum_group
        self._terms = differencing.dividing(agreement, job)
        self._release = Release()
        self._released = 0  # segments

    def record(self, conn: Connection, now: datetime) -> None:
        """Count and keep what is about to be released. Raises CellsReleased (E315)."""
        differencing.count_cells(
            conn,
            self._node.log,
            self._agreement,
            self._job,
            run=self._run,
            segments=self._released,
            now=now,
        )
        differencing.record(conn, self.slot, self._release)

    def _derived(self, label: bytes, size: int) -> bytes:
        """From the period's secret. Raises HomeUnusable where that is lost."""
        path = self._node.home.key(_file(self.slot))
        if not path.exists() and (self._known is None or not self._known.released):
            write_private(path, secrets.token_bytes(_SECRET))
        secret = self._node.home.read(path)
        return HKDF(SHA256(), size, salt=None, info=b"concordat period " + label).derive(secret)

    def _pseudonyms(self, ids: Ids) -> U8:
        """For what is kept here, and goes nowhere."""
        named = hmac_sha256(self._derived(b"people", 32), ids.data, ids.offsets)
        return np.ascontiguousarray(named[:, :PSEUDONYM])


class BankSide(_Side):
    """held: the segments held back, by either side, as they are too near to an earlier release.

    home: the segments that are not sent.
    """

    held: tuple[int, ...] = ()
    home: tuple[int, ...] = ()

    def place(self, conn: Connection, ids: Ids, segment: I64, now: datetime) -> tuple[Bool, I64]:
        """Which people stay in the run, and in which segment they are by the period's segmentation.

        segment: int64 (n,), in which they would be now, -1 for none. In a write transaction. Raises
        SegmentationChanged (E314).
        """
        node, terms = self._node, self._terms
        self._known = differencing.find(conn, self.slot)
        people = self._pseudonyms(ids)
        stays = np.ones(len(people), np.bool_)
        if self._known is None or not self._known.released:
            placed = segment >= 0
            self._known = differencing.fix(
                conn,
                node.log,
                self.slot,
                run=self._run,
                terms=terms,
                people=people[placed],
                segment=segment[placed],
                now=now,
            )
        else:
            if self._known.terms != terms:
                raise differencing.changed("the agreement divides customers in another way by now")
            found = self._known.find(people)
            stays = (found >= 0) | (segment < 0)
            self.waiting = int((~stays).sum())
            segment = found[stays]
            self._stay_home(self._known, segment)
        self.root = self._known.root
        self._people, self._segment = people[stays], segment
        return stays, segment

    def _stay_home(self, known: Known, segment: I64) -> None:
        """Keep back what the partner would refuse, and what was too small in the first run."""
        sizes = known.sizes
        now = np.bincount(segment[segment >= 0], minlength=len(sizes))
        few = np.flatnonzero(differencing.few(sizes, now, self._minimum)).tolist()
        self.held = tuple(one for one in few if one in known.counts)
        unsent = [one for one in range(len(sizes)) if one not in known.counts]
        self.home = (*self.held, *unsent)

    @property
    def scalar(self) -> Scalar:
        number = int.from_bytes(self._derived(b"scalar", 64), "little") % (_ORDER - 1) + 1
        return Scalar.from_bytes((8 * number).to_bytes(32, "little"))

    def counted(self, groups: I64, shared: I64, /) -> None:
        reached = shared >= self._minimum
        if self._job.job != "insight" and not reached.all():
            return
        self._released = int(reached.sum())
        if not self._released:
            return
        counts = dict(zip(groups.tolist(), shared.tolist(), strict=True))
        for group, rows in differencing.by_segment(self._segment):
            if group in counts:
                self._release.segments[group] = self._people[rows]
                self._release.counts[group] = {ROWS: [counts[group]]}

    def held_back(self, groups: I64, /) -> None:
        self.held = tuple(sorted({*self.held, *groups.tolist()}))

    @property
    def flaw(self) -> TooFewDiffer | None:
        """Why segments are missing in the result."""
        if not self.held:
            return None
        return TooFewDiffer(
            f"Held back: {len(self.held)} of the segments. Each differs from an earlier release of "
            f"{self.slot.period} by fewer than {self._minimum} people, of whom the two together "
            "would speak.",
            "Use the earlier result for them, or wait for the next period.",
        )


class PartnerSide(_Side):
    """What the bank sends, and what it would be told, held against what was released.

    held: how many segments were held back.
    """

    held = 0

    def admit(self, conn: Connection, ids: Ids) -> Bool:
        """Which of the partner's own people may be in the run: bool (n,)."""
        self._known = differencing.find(conn, self.slot)
        people = self._pseudonyms(ids)
        stays = np.ones(len(people), np.bool_)
        if self._known is not None and self._known.own is not None:
            stays = differencing.within(self._known.own, people)
        self.waiting = int((~stays).sum())
        self._release.own = people[stays]
        return stays

    def check_root(self, root: bytes) -> None:
        """Raises SegmentationChanged (E314) unless it is that of the period's first release."""
        known = self._known
        if known is not None and (known.root, known.terms) != (root, self._terms):
            if known.released and known.terms != self._terms:
                raise differencing.changed("the agreement divides customers in another way by now")
            if known.released:
                raise differencing.changed("its root is another one")
            self._known = None  # nothing rests on it
        self.root = root

    def pseudonyms(self, points: U8, /) -> U8:
        """Of the whole point and under a secret: the bank chooses all its bytes.

        So it can make no two points that go by one pseudonym.
        """
        named = hmac_sha256(self._derived(b"points", 32), *joined_rows(points))
        return np.ascontiguousarray(named[:, :PSEUDONYM])

    def sent(self, sizes: I64, pseudonyms: U8, /) -> None:
        self._groups = np.arange(len(sizes))
        if self._known is not None:
            self._groups = differencing.compared(self._known, sizes, pseudonyms, self._minimum)
        ends = np.cumsum(sizes)
        for group, start, end in zip(self._groups.tolist(), ends - sizes, ends, strict=True):
            self._release.segments[group] = pseudonyms[start:end]
        if self._known is None:
            with self._node.writing() as conn:
                differencing.begin(conn, self.slot, self._terms, self.root, self._release.segments)

    def counted(self, counts: I64, reached: Bool, /) -> Bool:
        earlier = self._known.counts if self._known else {}
        features = differencing.features_counted(self._agreement, self._job)
        held = np.zeros(len(reached), np.bool_)
        for at in np.flatnonzero(reached).tolist():
            group, (rows, *have) = int(self._groups[at]), counts[at].tolist()
            told = {ROWS: [rows]} | {
                name: [count]
                for name, count in zip(features, have, strict=True)
                if count >= self._minimum
            }
            held[at] = differencing.too_near(earlier.get(group, {}), told, self._minimum)
            if not held[at]:
                self._release.counts[group] = told
        if self._job.job != "insight" and held.any():
            self._release.counts.clear()
        self._released, self.held = len(self._release.counts), int(held.sum())
        return held


def _file(slot: Slot) -> str:
    return f"period.{slot.agreement}.{slot.job}.{slot.period}"
