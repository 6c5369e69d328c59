"""The gate: whose records may enter a run, decided before the first data byte and again at release.

Anyone with a live consent for this purpose, recipient and all these categories may; everyone else
is left out and counted under the reason nearest to being let in. What is not clearly allowed is
not allowed.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from secrets import token_bytes
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    ForeignKey,
    LargeBinary,
    String,
    Table,
    case,
    cast,
    false,
    func,
    insert,
    select,
)

from compliance.agreement import Agreement
from compliance.batch import (
    BATCH,
    I64,
    U8,
    U64,
    Strings,
    as_bytes,
    fetch,
    integers,
    joined_rows,
    sorted_rows,
)
from compliance.canonical import canonical
from compliance.consent import ENDED, GRANTED, NEVER, consents, terms
from compliance.errors import ConsentChanged, NobodyEligible, StoreDamaged
from compliance.log import Log, log_entries
from compliance.note import Checkpoint
from compliance.store import metadata, packed
from compliance.vault import WRAPPED_BYTES, VaultKeys, subjects
from federated import _native

_PART = 1 << 16  # rows of the vault held at a time
_FEW = 20  # times as many people in the vault: those asked for are looked up one by one

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Entries of the log that say nothing of who may be in a run.
_WITHOUT_EFFECT = (
    "cells.released",
    "job.refused",
    "noise.spent",
    "run.completion",
    "run.ended",
    "run.intent",
    "run.release",
    "score.card",
    "score.watch",
    "segments.fixed",
    "withdrawal.acknowledged",
    "withdrawal.honoured",
    "withdrawal.noticed",
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


# What each person a side put into a run is called there by both sides: where the other side may
# hold them in clear, a withdrawal names them so. In the order of the leaves, of equal width.
run_rows = Table(
    "run_rows",
    metadata,
    Column("run", ForeignKey("run_inputs.run"), primary_key=True),
    Column("tokens", LargeBinary, nullable=False),
)


@dataclass(frozen=True, repr=False)
class Decision:
    """Who may enter a run, as of a checkpoint of the log."""

    scope: Scope
    eligible: NDArray[np.bool_]  # (m,), in the order of the ids asked for
    excluded: dict[str, int]  # the others, by reason
    people: I64  # (k,), the vault's row ids of the eligible
    subjects: U8  # (k, 32), what the vault knows them by
    references: U8  # (k, 32), one for each of them
    salt: bytes  # 32 random bytes that stay on this side
    leaves: U8  # (k, 32), sorted: HMAC(salt, reference)
    root: bytes  # RFC 6962 tree head over the leaves
    checkpoint: Checkpoint
    settled: tuple[int, int]  # from and until when time alone changes nothing of it

    @property
    def size(self) -> int:
        return len(self.leaves)


def decide(
    conn: Connection, log: Log, keys: VaultKeys, ids: Strings, scope: Scope, *, now: datetime
) -> Decision:
    """Who of a table may enter a run. In a write transaction, because it signs a checkpoint.

    ids: distinct, each `kind:` and canonical id. Raises NobodyEligible (E401), VaultKey (E404).
    """
    everybody = keys.subjects_of(ids)
    vault = _vault(conn, everybody, sealed=True)
    standing = _standing(conn, vault, scope, now)
    eligible: NDArray[np.bool_] = standing == Standing.LIVE
    counts = enumerate(np.bincount(standing[~eligible]).tolist())
    excluded = {str(Standing(reason)): count for reason, count in counts if count}
    if not eligible.any():
        raise NobodyEligible(excluded)

    rows = np.flatnonzero(eligible)
    references = np.empty((len(rows), 32), np.uint8)
    for start in range(0, len(rows), _PART):
        part = rows[start : start + _PART]
        secrets = keys.unwrap_rows(vault.sealed[part], everybody[part], vault.under[part])
        references[start : start + _PART] = run_references(secrets, log.origin, scope)
    salt = token_bytes(32)
    leaves = sorted_rows(_native.hmac_sha256(salt, *joined_rows(references)))
    return Decision(
        scope=scope,
        eligible=eligible,
        excluded=excluded,
        people=vault.ids[rows],
        subjects=everybody[rows],
        references=references,
        salt=salt,
        leaves=leaves,
        root=_native.merkle_root(*joined_rows(leaves)),
        checkpoint=log.checkpoint(conn),
        settled=_settled(conn, now),
    )


def confirm(conn: Connection, decision: Decision, *, now: datetime) -> None:
    """Raises ConsentChanged (E402) unless everyone in the decision may still be in the run.

    In the transaction that logs the release, so that what is true here is true there.
    """
    gone = ~still(conn, decision, now=now)
    if gone.any():
        raise ConsentChanged(int(gone.sum()))


def still(conn: Connection, decision: Decision, *, now: datetime) -> NDArray[np.bool_]:
    """Who of the people in a decision may still be in the run: bool (k,).

    Everyone, without a look at them, as long as the log has no entry since that could matter and
    no consent in the store has begun or ended by time.
    """
    if _nothing_changed(conn, decision, now):
        return np.ones(len(decision.people), np.bool_)
    vault = _vault(conn, decision.subjects)
    standing = _standing(conn, vault, decision.scope, now)
    # Whoever was erased and came back is not the person who was asked.
    stays: NDArray[np.bool_] = (vault.ids == decision.people) & (standing == Standing.LIVE)
    return stays


def narrowed(
    conn: Connection, log: Log, decision: Decision, stays: NDArray[np.bool_], *, now: datetime
) -> Decision:
    """The decision without whom `still` no longer names, as of a new checkpoint.

    In a write transaction, that of `decide` or `still`. Raises NobodyEligible (E401).
    """
    if not stays.any():
        raise NobodyEligible({**decision.excluded, "no longer": len(stays)})
    if not stays.all():
        references = decision.references[stays]
        leaves = sorted_rows(_native.hmac_sha256(decision.salt, *joined_rows(references)))
        decision = replace(
            decision,
            people=decision.people[stays],
            subjects=decision.subjects[stays],
            references=references,
            leaves=leaves,
            root=_native.merkle_root(*joined_rows(leaves)),
        )
    return replace(decision, checkpoint=log.checkpoint(conn), settled=_settled(conn, now))


def _nothing_changed(conn: Connection, decision: Decision, now: datetime) -> bool:
    start, end = decision.settled
    if not start <= _microseconds(now) < end:
        return False
    entry = log_entries.c
    since = entry.index >= decision.checkpoint.size
    query = select(entry.index).where(since, entry.type.not_in(_WITHOUT_EFFECT)).limit(1)
    return conn.execute(query).first() is None


def _settled(conn: Connection, now: datetime) -> tuple[int, int]:
    """From now until the next of all consents begins or ends by itself."""
    instant = _microseconds(now)
    columns = (consents.c.granted_at, consents.c.expires_at, consents.c.withdrawn_at)
    ahead = (func.min(column).filter(column > instant) for column in columns)
    found = conn.execute(select(*ahead)).one()
    return instant, min((int(time) for time in found if time is not None), default=NEVER)


def _microseconds(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def admit(conn: Connection, run: str, decision: Decision) -> None:
    """Keeps what goes into a run, to show later who was in it; with the entry of its intent."""
    leaves = decision.leaves.tobytes()
    conn.execute(insert(run_inputs).values(run=run, salt=decision.salt, leaves=leaves))


def release(
    conn: Connection,
    log: Log,
    run: str,
    decision: Decision,
    *,
    now: datetime,
    tokens: U8 | None = None,
) -> int:
    """Confirms the decision and logs that the result may go out; returns the entry's index.

    Once the transaction is committed, and only then. tokens: uint8 (k, w), what each of the
    decision's people is called in the run, where the other side may come to hold them in clear.
    Raises ConsentChanged (E402).
    """
    confirm(conn, decision, now=now)
    body = {"run": run, "root": decision.root.hex(), "size": decision.size}
    if tokens is not None:
        kept = _by_leaf(decision, tokens).tobytes()
        conn.execute(insert(run_rows).values(run=run, tokens=kept))
        body["tokens"] = hashlib.sha256(kept).hexdigest()
    entry = log.append(conn, "run.release", body, time=now)
    log.checkpoint(conn)
    return entry


def as_tokens(places: I64) -> U8:
    """Places of a sequence as tokens, uint8 (n, 8); -1, a place nobody knows, as UNKNOWN."""
    return places.astype(">i8").view(np.uint8).reshape(-1, 8)


UNKNOWN = b"\xff" * 8


def _by_leaf(decision: Decision, tokens: U8) -> U8:
    """The tokens of the decision's people in the order of its leaves."""
    names = _native.hmac_sha256(decision.salt, *joined_rows(decision.references))
    order = np.argsort(np.ascontiguousarray(names[:, :8]).view(">u8").ravel().astype(np.uint64))
    if not (names[order] == decision.leaves).all():  # two that begin alike
        order = np.argsort(np.ascontiguousarray(names).view("S32").ravel())
    return tokens[order]


def places_in(leaves: bytes, salt: bytes, references: U8) -> I64:
    """Where these people's leaves are among those of a run, int64 (n,); -1 for who was not in it.

    leaves, salt: as `run_inputs` holds them. references: of `run_references`, uint8 (n, 32).
    """
    held = np.frombuffer(leaves, np.uint8).reshape(-1, 32)
    names = _native.hmac_sha256(salt, *joined_rows(references))
    found = np.searchsorted(held.view("S32").ravel(), names.view("S32").ravel())
    at = np.minimum(found, len(held) - 1)
    return np.where((held[at] == names).all(axis=1), at, -1)


def lets_in(conn: Connection, people: U8, scope: Scope, *, now: datetime) -> NDArray[np.bool_]:
    """Which of these subjects, uint8 (n, 32), may enter a run of this scope: bool (n,)."""
    allowed: NDArray[np.bool_] = _standing(conn, _vault(conn, people), scope, now) == Standing.LIVE
    return allowed


def run_references(secrets: U8, origin: str, scope: Scope) -> U8:
    """What stands for each person under one agreement and purpose: uint8 (n, 32).

    HMAC under the person's secret, uint8 (n, 32): across agreements nobody else can link two.
    """
    text = canonical(["concordat.run", origin, scope.agreement, scope.version, scope.purpose])
    references = np.empty_like(secrets)
    for start in range(0, len(secrets), _PART):
        part = secrets[start : start + _PART]
        texts = np.tile(np.frombuffer(text, np.uint8), (len(part), 1))
        references[start : start + _PART] = _native.hmac_sha256_each(part, *joined_rows(texts))
    return references


@dataclass(frozen=True, repr=False)
class _Vault:
    """What the vault has of people, (m,) in the order they were asked for."""

    ids: I64  # their row ids, 0 for whom it does not know
    restricted: NDArray[np.bool_]
    sealed: U8  # (m, 60), the secrets of those it knows; (0, 60) if they were not wanted
    under: NDArray[np.bytes_]  # the names of the keys they are wrapped with


def _vault(conn: Connection, people: U8, *, sealed: bool = False) -> _Vault:
    """people: distinct subjects, uint8 (m, 32). The vault is read a part at a time."""
    ids, restricted = np.zeros(len(people), np.int64), np.zeros(len(people), np.bool_)
    secrets = np.empty((len(people) if sealed else 0, WRAPPED_BYTES), np.uint8)
    under = np.empty(len(secrets), "S16")
    index, names = _native.Index(people), _as_numbers(people)
    known = subjects.c
    # One number for both: whoever is restricted has the negative of the row's.
    columns = [case((known.restricted.is_(false()), known.id), else_=-known.id), known.subject]
    if sealed:
        columns += [known.secret, cast(known.wrapping_key, LargeBinary(16))]
    for part in _parts(conn, known.id, known.subject, people):
        signed, texts, *wrapped = _read(conn, columns, part)
        numbers, found = _numbers(signed), np.frombuffer(texts, np.uint8).reshape(-1, 32)
        at = index.find(found)
        asked = (at >= 0) & (names[at] == _as_numbers(found)).all(axis=1)
        at, numbers = at[asked], numbers[asked]
        ids[at], restricted[at] = abs(numbers), numbers < 0
        if wrapped:
            secrets[at] = np.frombuffer(wrapped[0], np.uint8).reshape(-1, WRAPPED_BYTES)[asked]
            under[at] = np.frombuffer(wrapped[1], "S16")[asked]
    return _Vault(ids, restricted, secrets, under)


def _as_numbers(rows: U8) -> U64:
    """Rows, uint8 (n, 32), as uint64 (n, 4), to be compared faster."""
    return np.ascontiguousarray(rows).view(np.uint64)


def _standing(conn: Connection, vault: _Vault, scope: Scope, now: datetime) -> I64:
    """How near each person is to being let in."""
    rows = np.flatnonzero(vault.ids)
    rows = rows[np.argsort(vault.ids[rows])]
    known = vault.ids[rows]
    standing = np.full(len(vault.ids), Standing.NO_CONSENT, np.int64)
    said = consents.c.subject * len(Standing) + _of_consents(_of_terms(conn, scope), now)
    for part in _parts(conn, consents.c.id, consents.c.subject, known):
        (text,) = _read(conn, [said], part)
        subject, nearness = np.divmod(_numbers(text), len(Standing))
        at = np.searchsorted(known, subject)
        asked = known[np.minimum(at, len(known) - 1)] == subject
        np.maximum.at(standing, rows[at[asked]], nearness[asked])
    standing[vault.restricted & (standing == Standing.LIVE)] = Standing.RESTRICTED
    return standing


def _parts(
    conn: Connection, key: Column[int], column: Column[Any], wanted: I64 | U8
) -> Iterator[ColumnElement[bool]]:
    """Conditions that together find all rows wanted by what they have in a column.

    By their names, if they are few; else all rows there are, in ranges of the key.
    """
    last = conn.execute(select(func.max(key))).scalar() or 0
    if len(wanted) * _FEW < last:
        for start in range(0, len(wanted), BATCH):
            part: Any = wanted[start : start + BATCH]
            yield column.in_(as_bytes(part) if part.ndim == 2 else part.tolist())
    elif len(wanted):
        first = conn.execute(select(func.min(key))).scalar()
        while first is not None:
            yield key.between(first, first + _PART - 1)
            first = conn.execute(select(func.min(key)).where(key >= first + _PART)).scalar()


def _read(
    conn: Connection, columns: Sequence[ColumnElement[Any]], where: ColumnElement[bool]
) -> list[bytes]:
    found = packed(conn, columns, where)
    if found is None:
        raise _damaged()
    return found[1]


def _numbers(text: bytes) -> I64:
    try:
        return integers(text)
    except ValueError:
        raise _damaged() from None


def _damaged() -> StoreDamaged:
    return StoreDamaged(
        "The vault holds something that this program never puts there.",
        "Stop the node, keep the store as evidence and run `concordat audit verify`.",
    )


def _of_terms(conn: Connection, scope: Scope) -> dict[int, list[int]]:
    """The row ids of the terms by the best standing that consents under them can have."""
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
    return {best: known.loc[standing == best, "id"].tolist() for best in set(standing.tolist())}


def _of_consents(allowed: dict[int, list[int]], now: datetime) -> ColumnElement[int]:
    """The standing of a consent at a time, in SQL: live only if everything says so."""
    held, instant = consents.c, _microseconds(now)
    live = held.terms.in_(allowed.pop(Standing.LIVE, []))
    known = held.state.in_([*GRANTED, *ENDED])
    in_time = (held.granted_at <= instant) & (held.expires_at > instant)
    return case(
        # First, because it is most people's.
        (live & known & in_time & (held.withdrawn_at > instant), Standing.LIVE),
        (~known, Standing.NO_CONSENT),
        *((held.terms.in_(ids), best) for best, ids in allowed.items()),
        (held.withdrawn_at <= instant, Standing.WITHDRAWN),
        (held.expires_at <= instant, Standing.EXPIRED),
        (held.granted_at > instant, Standing.NOT_YET_VALID),
        else_=Standing.NO_CONSENT,
    )
