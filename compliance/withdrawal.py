"""Withdrawal notices: who has withdrawn is taken out of what a partner was given of them in clear.

A notice names its people by run and token: what the run itself called them on both sides (see
`compliance.gate.run_rows`). It names no id, and not why. The recipient deletes what it holds of
these rows and acknowledges, whether it held any or not: what it held would tell who is its
customer. The acknowledgement comes with proof that the recipient's log, as its witness the sender
has cosigned it, says the same.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from secrets import token_hex
from typing import Any, Self

import numpy as np
from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    LargeBinary,
    Row,
    String,
    Table,
    insert,
    select,
    update,
)

from compliance import register
from compliance.agreement import Agreement
from compliance.batch import I64, U8, as_bytes, fetch_in, from_bytes
from compliance.canonical import canonical, parse, timestamp
from compliance.errors import AcknowledgementRefused, WithdrawalRefused
from compliance.gate import UNKNOWN, Scope, lets_in, places_in, run_inputs, run_references, run_rows
from compliance.log import Log
from compliance.note import VerifierKey
from compliance.proof import Proof
from compliance.receipt import receipts, started
from compliance.signing import Envelope, SigningKey, keyid
from compliance.store import metadata
from compliance.succession import at as keys_at
from compliance.vault import VaultKeys, subjects
from protos.errors import ConcordatError

PAYLOAD_TYPE = "application/vnd.concordat.withdrawal-notice+json"
ACKNOWLEDGEMENT_TYPE = "application/vnd.concordat.withdrawal-acknowledgement+json"

NOTICED = "withdrawal.noticed"
HONOURED = "withdrawal.honoured"
ACKNOWLEDGED = "withdrawal.acknowledged"

MAX_ROWS = 1000  # of a notice, so that it fits the smallest message a node may be set to take
MAX_LEAF = 64 << 10
HOURS = 72  # to acknowledge, unless the agreement says otherwise

_RUN = re.compile(r"[0-9a-f]{32}")
_TIME = re.compile(r"[12]\d{3}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_TOKEN = re.compile(r"([0-9a-f]{16}){1,2}")

notices = Table(
    "withdrawal_notices",
    metadata,
    Column("notice", String(32), primary_key=True),
    Column("agreement", String(64), nullable=False),
    Column("party", String(64), nullable=False),  # who has sent it
    Column("recipient", String(64), nullable=False),
    Column("time", String(20), nullable=False),
    Column("entry", ForeignKey("log_entries.index"), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("acknowledgement", LargeBinary, nullable=True),
    Column("problem", String(8), nullable=True),  # what kept it from being delivered last
)


# Who is affected


@dataclass(frozen=True)
class Presence:
    """A run that some of the people asked for were in, on this side.

    tokens: of those whom the other side may hold in clear.
    """

    run: str
    agreement: str
    purpose: str
    recipient: str
    tokens: tuple[str, ...]


def presences(
    conn: Connection,
    log: Log,
    keys: VaultKeys,
    people: Sequence[int],
    *,
    institution: str,
    now: datetime,
    erasing: bool = False,
) -> list[Presence]:
    """The runs that people were in who may be in such a run no longer, oldest first.

    people: row ids of the vault. institution: this one's name. erasing: all of them are about to be
    erased, whatever the gate says of them. Raises VaultKey (E404), E306, E502 for a damaged store.
    """
    rows = fetch_in(conn, select(subjects), subjects.c.id, list(people))
    if rows.empty:
        return []
    names, secrets = from_bytes(rows["subject"], 32), keys.unwrap(rows)
    gone: dict[tuple[str, int], tuple[Scope, U8]] = {}  # by agreement and version
    found = []
    query = (
        select(receipts.c.run, receipts.c.envelope, run_inputs.c.salt, run_inputs.c.leaves)
        .add_columns(run_rows.c.tokens)
        .join_from(receipts, run_inputs, receipts.c.run == run_inputs.c.run)
        .join(run_rows, run_rows.c.run == run_inputs.c.run, isouter=True)
        .where(receipts.c.kind == "intent")
        .order_by(receipts.c.entry)
    )
    for row in conn.execute(query.execution_options(yield_per=1)):
        named = started(Envelope.from_json(row.envelope))["agreement"]
        which = named["id"], named["version"]
        if which not in gone:
            agreement = register.find(conn, *which).agreement
            scope = Scope.of(
                agreement, "bank" if agreement.parties.bank == institution else "partner"
            )
            out = (
                np.ones(len(names), np.bool_) if erasing else ~lets_in(conn, names, scope, now=now)
            )
            gone[which] = scope, run_references(secrets[out], log.origin, scope)
        scope, references = gone[which]
        if not len(references):
            continue
        at = places_in(row.leaves, row.salt, references)
        at = at[at >= 0]
        if len(at):
            tokens = tuple(_tokens(row.tokens, len(row.leaves) // 32, at))
            found.append(Presence(row.run, scope.agreement, scope.purpose, scope.recipient, tokens))
    return found


def _tokens(kept: bytes | None, people: int, at: I64) -> Iterator[str]:
    """What those with these leaves are called in a run, if anything, in hex."""
    if kept is None:
        return
    table = np.frombuffer(kept, np.uint8).reshape(people, -1)
    for token in as_bytes(table[np.sort(at)]):
        if token != UNKNOWN:
            yield token.hex()


def about(conn: Connection, run: str, place: int) -> Iterator[Row[Any]]:
    """The notices sent from here on whoever has this place among the leaves of a run."""
    query = select(run_inputs.c.leaves, run_rows.c.tokens).join_from(run_inputs, run_rows)
    row = conn.execute(query.where(run_rows.c.run == run)).one_or_none()
    if row is None:
        return
    named = {*_tokens(row.tokens, len(row.leaves) // 32, np.array([place]))}
    for notice in conn.execute(select(notices).order_by(notices.c.entry)):
        if named & {*_read(Envelope.from_json(notice.envelope)).rows.get(run, ())}:
            yield notice


# Notices


@dataclass(frozen=True)
class Notice:
    """rows: tokens of the people that the notice is about, by run."""

    notice: str
    agreement: str
    party: str
    recipient: str
    time: str
    rows: Mapping[str, Sequence[str]]
    envelope: Envelope

    @property
    def digest(self) -> str:
        return sha256(self.envelope.payload).hexdigest()

    def _named(self) -> dict[str, str]:
        """As an entry of the log names it. What it says of runs stays out."""
        return {"notice": self.notice, "digest": self.digest}


def announce(
    conn: Connection,
    log: Log,
    key: SigningKey,
    found: Sequence[Presence],
    *,
    institution: str,
    time: datetime,
) -> list[Notice]:
    """Signs the notices that tell partners of the rows found; they wait to be delivered."""
    rows: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for one in found:
        of = rows.setdefault((one.agreement, one.recipient), [])
        of += [(one.run, token) for token in one.tokens]
    notices_ = []
    for (agreement, recipient), named in rows.items():
        for start in range(0, len(named), MAX_ROWS):
            by_run: dict[str, list[str]] = {}
            for run, token in named[start : start + MAX_ROWS]:
                by_run.setdefault(run, []).append(token)
            payload = {
                "notice": token_hex(16),
                "agreement": agreement,
                "party": institution,
                "recipient": recipient,
                "time": timestamp(time),
                "rows": by_run,
            }
            notice = _read(Envelope(PAYLOAD_TYPE, canonical(payload)).sign(key))
            body = notice._named() | {"agreement": agreement, "to": recipient}
            entry = log.append(conn, NOTICED, body, time=time)
            _insert(conn, notice, entry)
            notices_.append(notice)
    return notices_


def check(envelope: Envelope, key: bytes, *, sender: str, recipient: str) -> Notice:
    """A notice as a partner gives it. Raises WithdrawalRefused (E414), InvalidSignature (E503)."""
    notice = _read(envelope)
    if (notice.party, notice.recipient) != (sender, recipient):
        raise _refused(f"it is not from {sender} to {recipient}")
    envelope.verify({keyid(key): key})
    return notice


def _read(envelope: Envelope) -> Notice:
    """What an envelope says; its signature is not verified. Raises WithdrawalRefused (E414)."""
    try:
        notice = Notice(**parse(envelope.payload), envelope=envelope)
        texts = (notice.agreement, notice.party, notice.recipient, notice.time)
        if (
            envelope.payload_type == PAYLOAD_TYPE
            and len(envelope.signatures) == 1
            and _RUN.fullmatch(notice.notice)
            and all(0 < len(text) <= 64 and text.isprintable() for text in texts)
            and _TIME.fullmatch(notice.time)
            and datetime.fromisoformat(notice.time)
            and 0 < sum(map(len, notice.rows.values())) <= MAX_ROWS
            and all(_RUN.fullmatch(run) and tokens for run, tokens in notice.rows.items())
            and all(_TOKEN.fullmatch(token) for row in notice.rows.values() for token in row)
            and all(isinstance(row, list) for row in notice.rows.values())
        ):
            return notice
    except (ConcordatError, AttributeError, TypeError, ValueError):
        pass
    raise _refused("it is not one")


def _insert(
    conn: Connection, notice: Notice, entry: int, acknowledgement: bytes | None = None
) -> None:
    names = ("notice", "agreement", "party", "recipient", "time")
    row = {name: getattr(notice, name) for name in names}
    row |= {"entry": entry, "envelope": notice.envelope.to_json()}
    conn.execute(insert(notices).values(**row, acknowledgement=acknowledgement))


# At the recipient


@dataclass(frozen=True)
class Acknowledgement:
    """That a notice was honoured: signed, with the entry of the recipient's log and its proof."""

    envelope: bytes
    entry: bytes
    proof: bytes

    def encode(self) -> bytes:
        """Canonical JSON; the three parts are text."""
        return canonical({name: part.decode() for name, part in vars(self).items()})

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Raises AcknowledgementRefused (E415)."""
        try:
            parts = parse(data)
            return cls(**{name: part.encode() for name, part in parts.items()})
        except (ConcordatError, AttributeError, TypeError, ValueError):
            raise _unproved("it is not one") from None


def held(conn: Connection, notice: Notice) -> Row[Any] | None:
    """What was entered of a notice with this name. Raises WithdrawalRefused (E414) for another."""
    row = conn.execute(select(notices).where(notices.c.notice == notice.notice)).one_or_none()
    if row is not None and Envelope.from_json(row.envelope).payload != notice.envelope.payload:
        raise _refused("another one has its name")
    return row


def honour(
    conn: Connection, log: Log, notice: Notice, key: SigningKey, *, time: datetime
) -> tuple[int, bytes]:
    """Enters that a notice was honoured, once: the entry's index, and the signed acknowledgement.

    Raises as `held`.
    """
    row = held(conn, notice)
    if row is not None:
        return row.entry, row.acknowledgement
    said = {
        "notice": notice.notice,
        "digest": notice.digest,
        "party": notice.recipient,
        "time": timestamp(time),
    }
    signed = Envelope(ACKNOWLEDGEMENT_TYPE, canonical(said)).sign(key).to_json()
    body = notice._named() | {"by": notice.party, "acknowledgement": sha256(signed).hexdigest()}
    entry = log.append(conn, HONOURED, body, time=time)
    _insert(conn, notice, entry, signed)
    return entry, signed


# At the sender again


def undelivered(conn: Connection, institution: str) -> list[Notice]:
    """What this institution has announced and nobody has acknowledged, oldest first."""
    mine = (notices.c.party == institution) & notices.c.acknowledgement.is_(None)
    query = select(notices.c.envelope).where(mine).order_by(notices.c.entry)
    return [_read(Envelope.from_json(data)) for data in conn.execute(query).scalars()]


def fail(conn: Connection, notice: Notice, code: str) -> None:
    """Keeps by what error a notice was not delivered."""
    where = (notices.c.notice == notice.notice) & notices.c.acknowledgement.is_(None)
    conn.execute(update(notices).where(where).values(problem=code))


def acknowledge(
    conn: Connection,
    log: Log,
    notice: Notice,
    answer: Acknowledgement,
    *,
    key: bytes,
    their_log: VerifierKey,
    witness: VerifierKey,
    time: datetime,
) -> None:
    """Enters the recipient's acknowledgement, verified; one that is there already stays.

    key: the recipient's public signing key. witness: this node's own, which has to have cosigned
    the recipient's log as the proof shows it. Raises AcknowledgementRefused (E415).
    """
    verify(notice, answer, key=key, their_log=their_log, witness=witness)
    row = held(conn, notice)
    if row is None or row.acknowledgement is not None:
        return
    kept = answer.encode()
    body = notice._named() | {"by": notice.recipient, "acknowledgement": sha256(kept).hexdigest()}
    log.append(conn, ACKNOWLEDGED, body, time=time)
    where = notices.c.notice == notice.notice
    conn.execute(update(notices).where(where).values(acknowledgement=kept, problem=None))


def verify(
    notice: Notice,
    answer: Acknowledgement,
    *,
    key: bytes,
    their_log: VerifierKey,
    witness: VerifierKey,
) -> None:
    """Raises AcknowledgementRefused (E415) unless the recipient has signed and logged it."""
    try:
        if max(map(len, (answer.envelope, answer.entry))) > MAX_LEAF:
            raise _unproved("it is too large")
        envelope = Envelope.from_json(answer.envelope)
        said = parse(envelope.payload)
        expected = {**notice._named(), "party": notice.recipient, "time": said.get("time")}
        if envelope.payload_type != ACKNOWLEDGEMENT_TYPE or said != expected:
            raise _unproved("it acknowledges something else")
        envelope.verify({keyid(key): key})
        entry = parse(answer.entry)
        logged = {
            **notice._named(),
            "acknowledgement": sha256(answer.envelope).hexdigest(),
            "by": notice.party,
            "type": HONOURED,
        }
        if {name: entry.get(name) for name in logged} != logged:
            raise _unproved("the entry of the log says something else")
        Proof.parse(answer.proof).verify(answer.entry, their_log, witness)
    except AcknowledgementRefused:
        raise
    except (ConcordatError, AttributeError) as error:
        problem = error.message if isinstance(error, ConcordatError) else "it is not one"
        raise _unproved(problem.removesuffix(".")) from None


def _refused(why: str) -> WithdrawalRefused:
    return WithdrawalRefused(
        f"A withdrawal notice is refused: {why}.",
        "`concordat consent withdrawals` lists what was sent and received; ask the other "
        "institution to look into it.",
    )


def _unproved(why: str) -> AcknowledgementRefused:
    return AcknowledgementRefused(
        f"The acknowledgement of a withdrawal notice is refused: {why}.",
        "The notice counts as not acknowledged and is sent again; ask the partner to look into it.",
    )


# Looking


def every(conn: Connection, *, now: datetime) -> list[dict[str, Any]]:
    """All notices, sent and received, oldest first, each with its runs and how it stands.

    state: `acknowledged`, `late` (not within the hours that the agreement allows) or `waiting`.
    """
    found = []
    for row in conn.execute(select(notices).order_by(notices.c.entry)):
        notice = _read(Envelope.from_json(row.envelope))
        due = datetime.fromisoformat(notice.time) + _allowed(conn, notice.agreement)
        open_ = row.acknowledgement is None
        found.append(
            {
                **{name: getattr(row, name) for name in ("notice", "agreement", "time", "entry")},
                "from": row.party,
                "to": row.recipient,
                "runs": list(notice.rows),
                "due": timestamp(due),
                "state": ("late" if now >= due else "waiting") if open_ else "acknowledged",
                "problem": row.problem,
            }
        )
    return found


def _allowed(conn: Connection, name: str) -> timedelta:
    try:
        agreement: Agreement = register.find(conn, name).agreement
    except ConcordatError:  # damaged, or gone: the usual time then
        return timedelta(hours=HOURS)
    return timedelta(hours=agreement.acknowledge_within_hours or HOURS)


# Auditing


def problems(
    conn: Connection, keys: Mapping[str, bytes], entries: Mapping[int, Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Where notices and their entries in the log differ, as places and what is wrong there."""
    logged = {
        index: entry for index, entry in entries.items() if entry.get("type") in {NOTICED, HONOURED}
    }
    answered = {
        (entry.get("notice"), entry.get("acknowledgement"))
        for entry in entries.values()
        if entry.get("type") == ACKNOWLEDGED
    }
    for row in conn.execute(select(notices).order_by(notices.c.entry)):
        where = f"withdrawal notice {row.notice[:8]}"
        entry = logged.pop(row.entry, {})
        try:
            notice = _read(Envelope.from_json(row.envelope))
            key = keys_at(keys, row.entry).get(notice.party, b"")
            notice.envelope.verify({keyid(key): key})
        except ConcordatError as error:
            yield where, error.numbered
            continue
        names = ("notice", "agreement", "party", "recipient", "time")
        if any(getattr(row, name) != getattr(notice, name) for name in names):
            yield where, "its columns differ from what is signed"
        if {name: entry.get(name) for name in ("notice", "digest")} != notice._named():
            yield where, f"entry {row.entry} does not speak of it"
        kept = None if row.acknowledgement is None else sha256(row.acknowledgement).hexdigest()
        if entry.get("type") == HONOURED:
            if entry.get("acknowledgement") != kept:
                yield where, "its acknowledgement is not the one that was logged"
        elif (row.notice, kept) in answered:
            answered.remove((row.notice, kept))
        elif kept is not None:
            yield where, "no entry speaks of its acknowledgement"
    for index in logged:
        yield f"entry {index}", "the withdrawal notice it speaks of is missing"
    for name, _ in sorted(answered, key=str):
        yield f"withdrawal notice {str(name)[:8]}", "its acknowledgement is in the log only"
