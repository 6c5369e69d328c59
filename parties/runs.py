"""What this node remembers of its runs: how each ended, what it cost, what it gave."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, String, Table, func, insert, select, update

from compliance.store import metadata
from parties.errors import Interrupted, UnknownRun

# A run is `running` until it is one of the others; a node that died mid-run finds it `interrupted`.
RUNNING, COMPLETED, REFUSED, FAILED, CANCELLED, INTERRUPTED = (
    "running",
    "completed",
    "refused",
    "failed",
    "cancelled",
    "interrupted",
)

_runs = Table(
    "runs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("job", String(32), nullable=False),
    Column("agreement", String(128), nullable=False),
    Column("role", String(16), nullable=False),
    Column("peer", String(63), nullable=False),
    Column("state", String(16), nullable=False),
    Column("started_at", String, nullable=False),
    Column("ended_at", String),
    Column("report", String),
)


def record_start(
    conn: Connection, run: str, *, job: str, agreement: str, role: str, peer: str, now: datetime
) -> None:
    conn.execute(
        insert(_runs).values(
            id=run,
            job=job,
            agreement=agreement,
            role=role,
            peer=peer,
            state=RUNNING,
            started_at=now.isoformat(timespec="seconds"),
        )
    )


def record_end(
    conn: Connection, run: str, state: str, report: Mapping[str, Any], now: datetime
) -> None:
    conn.execute(
        update(_runs)
        .where(_runs.c.id == run)
        .values(state=state, ended_at=now.isoformat(timespec="seconds"), report=json.dumps(report))
    )


def under_way(conn: Connection) -> list[str]:
    """The runs that have no end; after a restart, those that the node was stopped in."""
    return list(conn.execute(select(_runs.c.id).where(_runs.c.state == RUNNING)).scalars())


def opened_since(conn: Connection, peer: str, since: datetime) -> int:
    """How many runs a partner has opened here, whatever became of them."""
    query = select(func.count()).where(
        _runs.c.peer == peer,
        _runs.c.role == "partner",
        _runs.c.started_at >= since.isoformat(timespec="seconds"),
    )
    return int(conn.execute(query).scalar_one())


def record_interrupted(conn: Connection, run: str, now: datetime) -> None:
    reason = {"error": {"code": Interrupted.code, "message": "The node stopped during this run."}}
    record_end(conn, run, INTERRUPTED, reason, now)


def list_runs(conn: Connection) -> list[dict[str, Any]]:
    """Newest first, without their reports."""
    columns = [column for column in _runs.c if column.name != "report"]
    rows = conn.execute(select(*columns).order_by(_runs.c.started_at.desc()))
    return [dict(row) for row in rows.mappings()]


def exists(conn: Connection, run: str) -> bool:
    return conn.execute(select(_runs.c.id).where(_runs.c.id == run)).first() is not None


def find_run(conn: Connection, run: str) -> dict[str, Any]:
    """One run with its report; `run` may be the first digits of its id. Raises UnknownRun."""
    found = conn.execute(select(_runs).where(_runs.c.id.startswith(run, autoescape=True)).limit(2))
    rows = [dict(row) for row in found.mappings()]
    if len(rows) != 1 or not run:
        raise UnknownRun(
            f"{'No run' if not rows else 'More than one run'} has an id that starts with {run!r}.",
            "`concordat job list HOME` shows them.",
        )
    row = rows[0]
    row["report"] = json.loads(row["report"]) if row["report"] else {}
    return row


class Outcome(NamedTuple):
    job: str
    role: str
    state: str
    report: dict[str, Any]


def outcomes(conn: Connection) -> list[Outcome]:
    """What became of every run."""
    rows = conn.execute(select(_runs.c.job, _runs.c.role, _runs.c.state, _runs.c.report))
    return [Outcome(*row[:3], json.loads(row[3]) if row[3] else {}) for row in rows]


@dataclass
class Stage:
    """What one stage of a run cost this node."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0


@dataclass
class Stages:
    """A run's stages, in order, measured from one change of stage to the next.

    CPU seconds are the whole process's, kernels' threads included.
    """

    listener: Callable[[str, int, int], None] = lambda stage, done, total: None
    traffic: Callable[[], tuple[int, int]] = lambda: (0, 0)
    costs: dict[str, Stage] = field(default_factory=dict)
    reached: tuple[int, int] = (0, 0)  # of the current stage: how far, of how much (or 0)
    _current: str | None = None
    _mark: tuple[float, float, int, int] = (0.0, 0.0, 0, 0)

    def __call__(self, stage: str, done: int = 0, total: int = 0) -> None:
        """Report progress; a new name opens a new stage."""
        if stage != self._current:
            self.close()
            self._current = stage
        self.reached = (done, total)
        self.listener(stage, done, total)

    def now(self) -> dict[str, Any]:
        """How far the run is: stage, done, total, seconds in the stage, bytes either way."""
        done, total = self.reached
        sent, received = self.traffic()
        return {
            "stage": self._current or "",
            "done": done,
            "total": total,
            "seconds": time.monotonic() - self._mark[0],
            "bytes_sent": sent,
            "bytes_received": received,
        }

    def close(self) -> None:
        """Charge what was spent since the last change to the current stage."""
        mark = (time.monotonic(), time.process_time(), *self.traffic())
        if self._current is not None:
            cost = self.costs.setdefault(self._current, Stage())
            cost.seconds += mark[0] - self._mark[0]
            cost.cpu_seconds += mark[1] - self._mark[1]
            cost.bytes_sent += mark[2] - self._mark[2]
            cost.bytes_received += mark[3] - self._mark[3]
        self._current = None
        self._mark = mark
