"""The gate: whose records may enter a run, decided before the first data byte and again at release.

Anyone with a live consent for this purpose, recipient and all these categories may; everyone else
is left out and counted under the reason nearest to being let in. What is not clearly allowed is
not allowed.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from secrets import token_bytes
from typing import Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import Column, Connection, LargeBinary, String, Table, func, insert, select

from compliance.agreement import Agreement
from compliance.batch import (
    I64,
    U8,
    Strings,
    as_bytes,
    fetch,
    fetch_in,
    from_bytes,
    joined,
    joined_rows,
    sorted_rows,
)
from compliance.canonical import canonical
from compliance.consent import ENDED, GRANTED, NEVER, consents, terms
from compliance.errors import ConsentChanged, NobodyEligible
from compliance.log import Log, log_entries
from compliance.note import Checkpoint
from compliance.store import metadata
from compliance.vault import VaultKeys, subjects
from federated import _native

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Entries of the log that say nothing of who may be in a run.
_WITHOUT_EFFECT = (
    "job.refused",
    "run.completion",
    "run.ended",
    "run.intent",
    "run.release",
    "score.card",
    "score.watch",
)


class Standing(IntEnum):
    """How near a consent comes to letting its person in, from farthest to nearest."""

    NO_CONSENT = 0
    ANOTHER_PURPOSE = 1
    ANOTHER_RECIPIENT = 2
    CATEGORIES_NOT_COVERED = 3
    ANOTHER_KIND = 4
    NOT_YET_VALID = 5
    EXPIRED = 6
    WITHDRAWN = 7
    RESTRICTED = 8
    LIVE = 9

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


# What a side put into a run, so that it can show whether a person was among it.
run_inputs = Table(
    "run_inputs",
    metadata,
    Column("run", String(32), primary_key=True),
    Column("salt", LargeBinary(32), nullable=False),
    Column("leaves", LargeBinary, nullable=False),  # 32 bytes each, sorted
)


@dataclass(frozen=True)
class Scope:
    """What a run asks of one side's people: under which agreement, for what, to whom, what data.

    kinds: those of consent that count; None: any.
    """

    agreement: str
    version: int
    purpose: str
    recipient: str
    categories: frozenset[str]
    kinds: frozenset[str] | None = None

    @classmethod
    def of(cls, agreement: Agreement, side: Literal["bank", "partner"]) -> Self:
        """The scope of what one side provides."""
        parties, data = agreement.parties, agreement.data
        return cls(
            agreement=agreement.agreement,
            version=agreement.version,
            purpose=agreement.purpose,
            recipient=parties.partner if side == "bank" else parties.bank,
            categories=frozenset((data.bank if side == "bank" else data.partner).categories),
            kinds=agreement.accepted_kinds,
        )


@dataclass(frozen=True, repr=False)
class Decision:
    """Who may enter a run, as of a checkpoint of the log."""

    scope: Scope
    eligible: NDArray[np.bool_]  # (m,), in the order of the ids asked for
    excluded: dict[str, int]  # the others, by reason
    people: pd.DataFrame  # the vault's id and subject of each of the eligible
    references: U8  # (k, 32), one for each of them
    salt: bytes  # 32 random bytes that stay on this side
    leaves: U8  # (k, 32), sorted: HMAC(salt, reference)
    root: bytes  # RFC 6962 tree head over the leaves
    checkpoint: Checkpoint
    settled: tuple[int, int] = (0, 0)  # from and until when time alone changes nothing of it

    @property
    def size(self) -> int:
        return len(self.leaves)


def decide(
    conn: Connection, log: Log, keys: VaultKeys, ids: Strings, scope: Scope, *, now: datetime
) -> Decision:
    """Who of a table may enter a run. In a write transaction, because it signs a checkpoint.

    ids: distinct, each `kind:` and canonical id. Raises NobodyEligible (E401), VaultKey (E404).
    """
    found = _standing(conn, keys.subjects_of(ids), scope, now)
    eligible = (found["standing"] == Standing.LIVE).to_numpy()
    left_out, counts = np.unique(found.loc[~eligible, "standing"], return_counts=True)
    excluded = {str(Standing(at)): int(n) for at, n in zip(left_out, counts, strict=True)}
    if not eligible.any():
        raise NobodyEligible(excluded)

    people = found[eligible]
    references = run_references(keys.unwrap(people), log.origin, scope)
    salt = token_bytes(32)
    leaves = sorted_rows(_native.hmac_sha256(salt, *joined_rows(references)))
    return Decision(
        scope=scope,
        eligible=eligible,
        excluded=excluded,
        people=people[["id", "subject"]],
        references=references,
        salt=salt,
        leaves=leaves,
        root=_native.merkle_root(*joined_rows(leaves)),
        checkpoint=log.checkpoint(conn),
    )


def confirm(conn: Connection, decision: Decision, *, now: datetime) -> None:
    """Raises ConsentChanged (E402) unless everyone in the decision may still be in the run.

    In the transaction that logs the release, so that what is true here is true there.
    """
    gone = ~still(conn, decision, now=now)
    if gone.any():
        raise ConsentChanged(int(gone.sum()))


def still(conn: Connection, decision: Decision, *, now: datetime) -> NDArray[np.bool_]:
    """Who of the people in a decision may still be in the run: bool (k,)."""
    people = decision.people
    if _nothing_changed(conn, decision, now):
        return np.ones(len(people), np.bool_)
    found = _standing(conn, from_bytes(people["subject"], 32), decision.scope, now)
    # Whoever was erased and came back is not the person who was asked.
    same: NDArray[np.bool_] = found["id"].to_numpy() == people["id"].to_numpy()
    return same & (found["standing"] == Standing.LIVE).to_numpy()


def narrowed(
    conn: Connection, log: Log, decision: Decision, stays: NDArray[np.bool_], *, now: datetime
) -> Decision:
    """The decision without whom `still` no longer names, as of a new checkpoint, and settled.

    A settled decision is confirmed without a look at its people, as long as the log has no entry
    that could matter and no consent in the store begins or ends. In a write transaction, that of
    `decide` or `still`. Raises NobodyEligible (E401).
    """
    if not stays.any():
        raise NobodyEligible({**decision.excluded, "no longer": len(stays)})
    if not stays.all():
        references = decision.references[stays]
        leaves = sorted_rows(_native.hmac_sha256(decision.salt, *joined_rows(references)))
        decision = replace(
            decision,
            people=decision.people[stays],
            references=references,
            leaves=leaves,
            root=_native.merkle_root(*joined_rows(leaves)),
        )
    instant = _microseconds(now)
    return replace(
        decision,
        checkpoint=log.checkpoint(conn),
        settled=(instant, _next_change(conn, instant)),
    )


def _nothing_changed(conn: Connection, decision: Decision, now: datetime) -> bool:
    start, end = decision.settled
    if not start <= _microseconds(now) < end:
        return False
    entry = log_entries.c
    since = entry.index >= decision.checkpoint.size
    query = select(entry.index).where(since, entry.type.not_in(_WITHOUT_EFFECT)).limit(1)
    return conn.execute(query).first() is None


def _next_change(conn: Connection, instant: int) -> int:
    """When the next of all consents begins or ends by itself."""
    columns = (consents.c.granted_at, consents.c.expires_at, consents.c.withdrawn_at)
    queries = (select(func.min(column)).where(column > instant) for column in columns)
    found = (conn.execute(query).scalar_one_or_none() for query in queries)
    return min((int(time) for time in found if time is not None), default=NEVER)


def _microseconds(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def admit(conn: Connection, run: str, decision: Decision) -> None:
    """Keeps what goes into a run, to show later who was in it; with the entry of its intent."""
    leaves = decision.leaves.tobytes()
    conn.execute(insert(run_inputs).values(run=run, salt=decision.salt, leaves=leaves))


def release(conn: Connection, log: Log, run: str, decision: Decision, *, now: datetime) -> int:
    """Confirms the decision and logs that the result may go out; returns the entry's index.

    Once the transaction is committed, and only then. Raises ConsentChanged (E402).
    """
    confirm(conn, decision, now=now)
    body = {"run": run, "root": decision.root.hex(), "size": decision.size}
    entry = log.append(conn, "run.release", body, time=now)
    log.checkpoint(conn)
    return entry


def run_references(secrets: U8, origin: str, scope: Scope) -> U8:
    """What stands for each person under one agreement and purpose: uint8 (n, 32).

    HMAC under the person's secret, uint8 (n, 32): across agreements nobody else can link two.
    """
    text = canonical(["concordat.run", origin, scope.agreement, scope.version, scope.purpose])
    return _native.hmac_sha256_each(secrets, *joined([text.decode()] * len(secrets)))


def _standing(conn: Connection, people: U8, scope: Scope, now: datetime) -> pd.DataFrame:
    """How near each person is to being let in: `standing`, beside the columns of `subjects`.

    people: distinct subjects, uint8 (n, 32). Whoever the vault does not know has id 0.
    """
    names = as_bytes(people)
    known = fetch_in(conn, select(subjects), subjects.c.subject, names)
    found = pd.DataFrame({"subject": names}, dtype=object)
    found = found.merge(known, "left", on="subject", validate="1:1")
    found["id"] = found["id"].fillna(0).astype(np.int64)

    held = fetch_in(conn, select(consents), consents.c.subject, known["id"].tolist())
    held["standing"] = _of_consents(held, _of_terms(conn, scope), now)
    nearest = held.groupby("subject")["standing"].max()
    standing = found["id"].map(nearest).fillna(Standing.NO_CONSENT).astype(np.int64)
    restricted = found["id"].isin(known.loc[known["restricted"].astype(bool), "id"])
    found["standing"] = standing.mask(restricted & (standing == Standing.LIVE), Standing.RESTRICTED)
    return found


def _of_terms(conn: Connection, scope: Scope) -> pd.Series:
    """The best standing that consents under these terms can have, by the row id of the terms."""
    known = fetch(conn, select(terms))
    covers = np.array(
        [scope.categories <= set(names.split(";")) for names in known["categories"]], np.bool_
    )
    fits = known["kind"].isin(known["kind"] if scope.kinds is None else list(scope.kinds))
    standing = np.select(
        [
            known["purpose"] != scope.purpose,
            known["recipient"] != scope.recipient,
            ~covers,
            ~fits,
        ],
        [
            Standing.ANOTHER_PURPOSE,
            Standing.ANOTHER_RECIPIENT,
            Standing.CATEGORIES_NOT_COVERED,
            Standing.ANOTHER_KIND,
        ],
        Standing.LIVE,
    )
    return pd.Series(standing, known["id"])


def _of_consents(held: pd.DataFrame, allowed: pd.Series, now: datetime) -> I64:
    """The standing of each consent at a time: live only if everything says so."""
    instant = _microseconds(now)
    best = held["terms"].map(allowed)
    standing: I64 = np.select(
        [
            ~held["state"].isin([*GRANTED, *ENDED]),
            best < Standing.LIVE,
            held["withdrawn_at"] <= instant,
            held["expires_at"] <= instant,
            held["granted_at"] > instant,
            best == Standing.LIVE,
        ],
        [
            Standing.NO_CONSENT,
            best,
            Standing.WITHDRAWN,
            Standing.EXPIRED,
            Standing.NOT_YET_VALID,
            Standing.LIVE,
        ],
        Standing.NO_CONSENT,
    )
    return standing
