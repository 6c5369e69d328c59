"""The log and the gate at the size of a bank, on both databases, on all cores.

Durable batches beside a bare loop that writes the same bytes and syncs; proofs and verification at
a million entries; the gate on ten million ids. By wall clock: what waits for a disk uses no CPU.
"""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from secrets import token_bytes, token_hex
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from sqlalchemy import Engine

from benchmarks.environment import Environment
from benchmarks.measure import Absent, Bench, Cost
from compliance import gate
from compliance.batch import add, as_bytes
from compliance.consent import GIVEN, NEVER, consents, terms
from compliance.log import Log
from compliance.signing import SigningKey
from compliance.store import open_store, read, write
from compliance.vault import VaultKeys, subjects
from compliance.verify import verify_log
from tests import postgres

NOW = datetime(2026, 11, 24, tzinfo=UTC)
BATCH = 100  # events that are committed together
ROUND = 50  # batches a round
SCOPE = gate.Scope("offers", 1, "credit-offer", "shop", frozenset({"profile"}))


@dataclass
class Here:
    """Something done in this process; `work` returns to how many elements it was done."""

    name: str
    work: Callable[[], int]

    def run(self) -> Cost:
        cpu, wall = time.process_time(), time.perf_counter()
        elements = self.work()
        return Cost(elements, time.perf_counter() - wall, time.process_time() - cpu)

    def close(self) -> None:
        """Nothing is kept."""


def run(bench: Bench, peers: Environment) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        stores = {"SQLite": f"sqlite:///{folder}/log.db"}
        server = stack.enter_context(postgres.serving())
        if server is not None:
            stores["PostgreSQL"] = server.new_store()
        sides = {name: _Side(open_store(url, create=True)) for name, url in stores.items()}
        absent = [] if server is not None else [Absent("PostgreSQL", postgres.MISSING)]
        _durable(bench, sides, absent, folder)
        entries = 20_000 if bench.quick else 1_000_000
        for side in sides.values():
            side.fill(entries)
        _proofs(bench, sides, absent, entries)
        bench.compare(
            f"verify {entries:,} entries",
            [*(Here(name, side.verified) for name, side in sides.items()), *absent],
            element="entry",
            by="seconds",
            rounds=3,
            budget=5,
        )
        people, ids = (20_000, 200_000) if bench.quick else (1_000_000, 10_000_000)
        asked = _asked(ids)
        for side in sides.values():
            side.enrol(people)
        bench.compare(
            f"the gate on {ids:,} ids, {people:,} people with a consent",
            [*(Here(name, partial(side.decided, asked)) for name, side in sides.items()), *absent],
            element="id",
            by="seconds",
            rounds=3,
            budget=2,
        )


def _durable(bench: Bench, sides: dict[str, "_Side"], absent: list[Absent], folder: Path) -> None:
    leaf = os.urandom(_size(next(iter(sides.values()))))

    def file() -> int:
        with (folder / "bare").open("ab") as file:
            for _ in range(ROUND):
                file.write(leaf * BATCH)
                file.flush()
                os.fsync(file.fileno())
        return ROUND * BATCH

    def table(side: _Side) -> int:
        """Straight through the driver."""
        kind, insert = "BLOB", "INSERT INTO bare VALUES (?)"
        if side.engine.dialect.name == "postgresql":
            kind, insert = "BYTEA", "INSERT INTO bare VALUES (%s)"
        with closing(side.engine.raw_connection()) as connection:
            cursor = connection.cursor()
            cursor.execute(f"CREATE TABLE IF NOT EXISTS bare (leaf {kind})")
            connection.commit()
            for _ in range(ROUND):
                cursor.execute("BEGIN")
                cursor.executemany(insert, [(leaf,)] * BATCH)
                cursor.execute("COMMIT")
        return ROUND * BATCH

    for name, side in sides.items():
        bench.compare(
            f"durable batches of {BATCH} events in {name}",
            [
                Here("log: append, sign, commit", side.appended),
                Here("bare loop: insert, commit", partial(table, side)),
                Here("bare loop: write to a file, fsync", file),
                *absent,
            ],
            element="event",
            by="seconds",
            note="At least half the rate of a bare loop that writes the same bytes is asked for.",
        )


def _size(side: "_Side") -> int:
    """Bytes of an entry."""
    side.appended(1)
    with read(side.engine) as conn:
        return len(next(side.log.entries(conn, 0, 1)).leaf)


def _proofs(bench: Bench, sides: dict[str, "_Side"], absent: list[Absent], entries: int) -> None:
    chosen = np.random.default_rng(5).integers(0, entries, 200).tolist()

    def inclusion(side: _Side) -> int:
        with read(side.engine) as conn:
            for index in chosen:
                side.log.inclusion_proof(conn, index, entries)
        return len(chosen)

    def consistency(side: _Side) -> int:
        with read(side.engine) as conn:
            for size in chosen:
                side.log.consistency_proof(conn, size, entries)
        return len(chosen)

    for name, prove in (("inclusion", inclusion), ("consistency", consistency)):
        bench.compare(
            f"{name} proof at {entries:,} entries",
            [*(Here(at, partial(prove, side)) for at, side in sides.items()), *absent],
            element="proof",
            by="seconds",
            budget=1000,
        )


class _Side:
    """A log and a vault in one database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.log = Log("bank.example/log", SigningKey.generate())
        self.keys = VaultKeys(token_bytes(32), token_bytes(32))

    def appended(self, batches: int = ROUND) -> int:
        for _ in range(batches):
            with write(self.engine) as conn:
                self.log.append_many(conn, EVENTS, time=NOW)
                self.log.checkpoint(conn)
        return batches * BATCH

    def fill(self, entries: int) -> None:
        with read(self.engine) as conn:
            head = self.log.head(conn)
        for start in range(head.size if head else 0, entries, 10_000):
            with write(self.engine) as conn:
                count = min(10_000, entries - start)
                self.log.append_many(conn, [_event() for _ in range(count)], time=NOW)
                self.log.checkpoint(conn)

    def verified(self) -> int:
        with read(self.engine) as conn:
            report = verify_log(conn, self.log.verifier)
        if not report.ok:
            raise AssertionError(report.findings[0])
        return report.size

    def enrol(self, people: int) -> None:
        """Every tenth id has a consent; straight into the tables, as imports are not measured."""
        names = self.keys.subjects_of(_asked(10 * people)[::10])
        ids = np.arange(1, people + 1)
        under = self.keys.wrapping_of(names)
        secrets = np.frombuffer(token_bytes(32 * people), np.uint8).reshape(-1, 32)
        with write(self.engine) as conn:
            one = {"id": 1, "purpose": SCOPE.purpose, "recipient": SCOPE.recipient}
            add(conn, terms, pd.DataFrame([one | {"categories": "profile", "kind": "general"}]))
            columns: dict[str, Any] = {
                "id": ids,
                "subject": as_bytes(names),
                "secret": self.keys.wrap(secrets, names, under),
                "wrapping_key": under,
                "restricted": False,
            }
            add(conn, subjects, pd.DataFrame(columns))
            columns = {
                "id": ids,
                "subject": ids,
                "terms": 1,
                "granted_at": 0,
                "expires_at": NEVER,
                "state": GIVEN,
                "withdrawn_at": NEVER,
            }
            add(conn, consents, pd.DataFrame(columns))

    def decided(self, asked: Any) -> int:
        with write(self.engine) as conn:
            gate.decide(conn, self.log, self.keys, asked, SCOPE, now=NOW)
        return len(asked)


def _event() -> tuple[str, dict[str, str]]:
    """As large as a change of a consent."""
    return "consent.given", {"record": token_hex(32), "reference": token_hex(32)}


EVENTS = [_event() for _ in range(BATCH)]


def _asked(ids: int) -> Any:
    """Arrow array of so many phone numbers, as the gate is asked for them."""
    return pa.array(
        pd.Series(np.arange(13_000_000_000, 13_000_000_000 + ids)).astype(str).radd("phone:+86"),
        pa.large_string(),
    )
