"""Tables of lookups and scores: those this node has made, in its memory; its copies of a partner's,
in its home.

A table holds a scalar that must not outlive its epoch. It is never written down: a node that is
started again makes its tables anew.
"""

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from compliance import gate
from compliance.agreement import Agreement, Job
from compliance.canonical import canonical
from federated.arrays import I64, Bool
from federated.psi.lookup import EPOCH, Copy, Head, Sign, Table, Terms, Verify
from federated.risk import score
from federated.risk.scorecard import Grid
from parties.config import Home
from parties.files import write_private
from protos.errors import ConcordatError

Slot = tuple[str, str]  # a table's place: the agreement's name and the kind of job

LOOKED_AT = 10.0  # seconds between looks at whether a table's agreement is in force

VALUE = 9  # bytes of a feature in a lookup's payload: whether it is there, and an int64


def terms(agreement: Agreement, job: Job, suite: str) -> Terms | None:
    """What a job's table is bound to; None if it has none."""
    if job.job == "lookup" and agreement.jobs.lookup:
        names = agreement.jobs.lookup.features
        payload = VALUE * len(names)
    elif job.job == "score" and agreement.jobs.score:
        names = agreement.jobs.score.features
        payload = score.payload_bytes(agreement.jobs.score.key_bits)
    else:
        return None
    schema = canonical({"job": job.job, "features": list(names)})  # the rest is in the agreement
    return Terms(suite, agreement.digest, schema, payload)


def grids(agreement: Agreement) -> list[Grid]:
    """The bins of the features that a scorecard may use."""
    declared, names = agreement.data.partner.features, agreement.jobs.score
    return [
        Grid(
            name,
            tuple(int(edge.scaleb(declared[name].decimals)) for edge in declared[name].bins),
            declared[name].decimals,
        )
        for name in (names.features if names else ())
    ]


@dataclass(frozen=True)
class Use:
    """What a run has of a table that both sides go on with, and how it is kept."""

    terms: Terms
    copy: Copy | None  # the bank's
    table: Table | None  # the partner's
    known: int | None  # the version of it that the bank has
    keep: Callable[[Copy], None]
    hold: Callable[[Table], None]
    rows: Callable[[], I64]  # which of the ids the table was built of each person of the run is
    sign: Sign
    verify: Verify


# The partner's


@dataclass
class Held:
    """A table with the people in it, as the gate has last let them in.

    in_force: whether the agreement is so still, neither suspended nor ended nor replaced.
    """

    agreement: bytes  # digest
    table: Table
    decision: gate.Decision
    rows: I64  # which of the ids the table was built of each person of the decision is
    until: datetime
    in_force: Callable[[], bool]

    def narrow(self, stays: Bool, decision: gate.Decision) -> None:
        """Leave out everyone else. stays: bool, one for each person of the decision so far."""
        present = np.zeros(int(self.table.people.max(initial=-1)) + 1, np.bool_)
        present[self.rows[stays]] = True
        self.table.keep(present)
        self.rows, self.decision = self.rows[stays], decision


class Tables:
    """The tables a node has made, one for each agreement and kind of job.

    A table goes when its epoch ends or its agreement is no longer in force, used or not. Commands
    change agreements in the store alone, so that the node has to look there now and then.
    """

    def __init__(self) -> None:
        self._held: dict[Slot, Held] = {}
        self._ends: dict[Slot, threading.Timer] = {}
        self._lock = threading.Lock()

    def find(self, slot: Slot, agreement: bytes, now: datetime) -> Held | None:
        """The table made under this agreement (a digest), if its epoch is not over."""
        with self._lock:
            held = self._held.get(slot)
            if held and (held.agreement != agreement or now >= held.until):
                self._drop(slot)
                return None
            return held

    def hold(self, slot: Slot, held: Held, lasts: timedelta) -> None:
        """Keep a table, in place of the one before."""
        with self._lock:
            self._drop(slot)
            self._held[slot] = held
            self._wait(slot, held.table.epoch, time.monotonic() + lasts.total_seconds())

    def check(self) -> None:
        """Drop the tables whose agreement is no longer in force."""
        with self._lock:
            for slot in [slot for slot, held in self._held.items() if not held.in_force()]:
                self._drop(slot)

    def _wait(self, slot: Slot, epoch: bytes, ends: float) -> None:
        seconds = min(LOOKED_AT, max(0.0, ends - time.monotonic()))
        self._ends[slot] = timer = threading.Timer(seconds, self._look, (slot, epoch, ends))
        timer.daemon = True
        timer.start()

    def _look(self, slot: Slot, epoch: bytes, ends: float) -> None:
        with self._lock:
            held = self._held.get(slot)
            if held is None or held.table.epoch != epoch:
                return
            if time.monotonic() < ends and held.in_force():
                self._wait(slot, epoch, ends)
            else:
                self._drop(slot)

    def _drop(self, slot: Slot) -> None:
        """Nothing here refers to the table any more, so that its scalar is zeroised."""
        self._held.pop(slot, None)
        if timer := self._ends.pop(slot, None):
            timer.cancel()


# The bank's


@dataclass
class Copies:
    """The bank's copies, one for each agreement and kind of job, as files of its home."""

    home: Home
    _known: dict[Path, tuple[bytes, Copy]] = field(default_factory=dict)

    def find(self, slot: Slot, terms: Terms, made_for: bytes, verify: Verify) -> Copy | None:
        """The copy, if it is sound and was made for this and these terms."""
        path = self._path(slot)
        if path not in self._known:
            with suppress(OSError, ValueError, KeyError, TypeError, ConcordatError):
                self._known[path] = _read(path, terms, verify)
        purpose, copy = self._known.get(path, (b"", None))
        return copy if hmac.compare_digest(purpose, _purpose(terms, made_for)) else None

    def keep(self, slot: Slot, terms: Terms, made_for: bytes, copy: Copy) -> None:
        path, purpose = self._path(slot), _purpose(terms, made_for)
        header = {
            "purpose": purpose.hex(),
            "epoch": copy.head.epoch.hex(),
            "version": copy.head.version,
            "rows": copy.head.rows,
            "digest": copy.head.digest.hex(),
            "signature": copy.signature.hex(),
        }
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_private(path, canonical(header) + b"\n" + copy.rows.tobytes(), overwrite=True)
        self._known[path] = purpose, copy

    def _path(self, slot: Slot) -> Path:
        return self.home.path / "tables" / ".".join(slot)


def _purpose(terms: Terms, made_for: bytes) -> bytes:
    """What a copy is good for."""
    return hashlib.sha256(terms.bind(bytes(EPOCH)) + made_for).digest()


def _read(path: Path, terms: Terms, verify: Verify) -> tuple[bytes, Copy]:
    """Raises what is wrong with the file; it is then as if there were none."""
    data = path.read_bytes()
    line, _, rows = data.partition(b"\n")
    header = json.loads(line)
    head = Head(
        bytes.fromhex(header["epoch"]),
        int(header["version"]),
        int(header["rows"]),
        bytes.fromhex(header["digest"]),
    )
    table = np.frombuffer(rows, np.uint8).reshape(-1, terms.width)
    copy = Copy(head, bytes.fromhex(header["signature"]), table)
    copy.check(terms, verify)
    return bytes.fromhex(header["purpose"]), copy
