"""Suspending, resuming and terminating an agreement: one party declares, and tells the other.

A notice is signed by the institution that declares it and holds at once; the partner's signature
below it acknowledges that it was received. Each party lifts its own suspension only, and what one
has terminated stays so. Every step is an entry in the log.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Literal, get_args

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Integer,
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
from compliance.canonical import canonical, parse, timestamp
from compliance.errors import AgreementRefusal, InvalidSignature, NoticeRefused
from compliance.register import Keys, Register
from compliance.signing import Envelope, SigningKey, keyid
from compliance.store import metadata
from compliance.succession import ever
from protos.errors import ConcordatError

PAYLOAD_TYPE = "application/vnd.concordat.agreement-notice+json"
MAX_NOTICES = 1000  # of one party on one agreement
MAX_REASON = 256  # characters

Step = Literal["suspended", "resumed", "terminated"]
SUSPENDED, RESUMED, TERMINATED = get_args(Step)

# What a party may declare after what it declared last.
_FOLLOWS: dict[str | None, tuple[str, ...]] = {
    None: (SUSPENDED, TERMINATED),
    SUSPENDED: (RESUMED, TERMINATED),
    RESUMED: (SUSPENDED, TERMINATED),
    TERMINATED: (),
}

notices = Table(
    "agreement_notices",
    metadata,
    Column("agreement", String(64), primary_key=True),
    Column("party", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("step", String(16), nullable=False),
    Column("entry", ForeignKey("log_entries.index"), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)


@dataclass(frozen=True)
class Notice:
    """What a party has declared; `number` counts its notices on this agreement from 1."""

    agreement: str
    party: str
    number: int
    step: str
    reason: str
    time: str
    envelope: Envelope

    @property
    def digest(self) -> str:
        return sha256(self.envelope.payload).hexdigest()

    def __str__(self) -> str:
        because = f" ({self.reason})" if self.reason else ""
        return f"{self.party} {self.step} it on {self.time[:10]}{because}"


def in_force(conn: Connection, name: str, keys: Keys) -> Agreement:
    """The latest version both have signed, unless a party has suspended or terminated it.

    Raises AgreementUnknown (E304), AgreementUnsigned (E305), AgreementBroken (E306),
    AgreementRefusal (E310) with the clause `suspended` or `terminated`.
    """
    agreement = register.latest_signed(conn, name, keys)
    for notice in standing(conn, name).values():
        if notice.step != RESUMED:
            raise AgreementRefusal(*agreement.named, notice.step, str(notice))
    return agreement


def check_still(conn: Connection, agreement: Agreement, keys: Keys) -> None:
    """Raises as `in_force`, and AgreementRefusal if a newer version has come into force."""
    now = in_force(conn, agreement.agreement, keys)
    if now.digest != agreement.digest:
        raise AgreementRefusal(
            *agreement.named, "superseded", f"version {now.version} is in force since"
        )


def check_open(conn: Connection, name: str) -> None:
    """Raises NoticeRefused (E311) if the agreement is terminated: nothing more is signed."""
    for notice in standing(conn, name).values():
        if notice.step == TERMINATED:
            raise NoticeRefused(
                f"Agreement {name} is terminated: {notice}.",
                "Agree on a new one under another name.",
            )


def standing(conn: Connection, name: str) -> dict[str, Notice]:
    """The last notice of each party that has given one, by party."""
    return {notice.party: notice for notice in every(conn, name)}


def every(conn: Connection, name: str) -> list[Notice]:
    """All notices on an agreement, as they were entered. Raises E502, E311 if one is damaged."""
    query = select(notices).where(notices.c.agreement == name).order_by(notices.c.entry)
    return [_read(Envelope.from_json(row.envelope)) for row in conn.execute(query)]


def declare(
    conn: Connection,
    ours: Register,
    name: str,
    step: Step,
    key: SigningKey,
    *,
    reason: str,
    by: str,
    time: datetime,
) -> Notice:
    """Declares a step on an agreement both have signed; it holds at once.

    One that is declared already is returned as it is, so that the partner can be told again.
    Raises as `register.latest_signed`, and NoticeRefused (E311).
    """
    register.latest_signed(conn, name, ours.keys)
    last = standing(conn, name).get(ours.name)
    if last is not None and last.step == step:
        return last
    payload = {
        "agreement": name,
        "party": ours.name,
        "number": 1 if last is None else last.number + 1,
        "step": step,
        "reason": reason,
        "time": timestamp(time),
    }
    notice = _read(Envelope(PAYLOAD_TYPE, canonical(payload)).sign(key))
    return _enter(conn, ours, notice, last, by=by, time=time)


def check_step(conn: Connection, ours: Register, name: str, step: Step) -> None:
    """Raises as `declare` would, so that nothing is proposed that cannot be."""
    register.latest_signed(conn, name, ours.keys)
    _check_follows(ours.name, standing(conn, name).get(ours.name), step)


def receive(
    conn: Connection,
    ours: Register,
    envelope: Envelope,
    key: SigningKey,
    *,
    sender: str,
    time: datetime,
) -> Notice:
    """Takes in a partner's notice; what is returned bears the signature that acknowledges it.

    Raises as `register.latest_signed`, NoticeRefused (E311), InvalidSignature (E503).
    """
    notice = _read(envelope)
    agreement = register.latest_signed(conn, notice.agreement, ours.keys)
    if notice.party != sender or sender not in vars(agreement.parties).values():
        raise _refused(f"it is not {sender}'s to give")
    theirs = ours.keys[sender]
    envelope.verify({keyid(theirs): theirs})
    known = {one.number: one for one in every(conn, notice.agreement) if one.party == sender}
    if notice.number in known:
        held = known[notice.number]
        if held.envelope.payload != envelope.payload:
            raise _refused("another notice has its number")
    else:
        bare = replace(envelope, signatures={keyid(theirs): envelope.signatures[keyid(theirs)]})
        last = known[max(known)] if known else None
        held = _enter(conn, ours, replace(notice, envelope=bare), last, by=sender, time=time)
    signature = held.envelope.sign(key).signatures[key.keyid]
    return acknowledge(conn, ours, held, key.public, signature, by=ours.name, time=time)


def acknowledge(
    conn: Connection,
    ours: Register,
    notice: Notice,
    key: bytes,
    signature: bytes,
    *,
    by: str,
    time: datetime,
) -> Notice:
    """Keeps the signature that says a notice was received. Raises InvalidSignature (E503)."""
    named = {"agreement": notice.agreement, "party": notice.party, "number": notice.number}
    held = conn.execute(select(notices.c.envelope).filter_by(**named)).scalar_one()
    notice = _read(Envelope.from_json(held))  # as it is now: it may have been told twice at once
    if keyid(key) in notice.envelope.signatures:
        return notice
    signatures = {**notice.envelope.signatures, keyid(key): signature}
    envelope = replace(notice.envelope, signatures=signatures)
    envelope.verify({keyid(key): key})
    conn.execute(update(notices).filter_by(**named).values(envelope=envelope.to_json()))
    body = _named(notice) | {"key": keyid(key), "by": by}
    ours.log.append(conn, "agreement.acknowledged", body, time=time)
    return replace(notice, envelope=envelope)


def unacknowledged(conn: Connection, name: str) -> list[Notice]:
    """The notices that only the party itself has signed."""
    return [notice for notice in every(conn, name) if len(notice.envelope.signatures) < 2]


def undelivered(conn: Connection, party: str) -> list[Notice]:
    """All that a party has declared and the other has not acknowledged, as they were entered."""
    query = select(notices).where(notices.c.party == party).order_by(notices.c.entry)
    found = [_read(Envelope.from_json(row.envelope)) for row in conn.execute(query)]
    return [notice for notice in found if len(notice.envelope.signatures) < 2]


def _enter(
    conn: Connection,
    ours: Register,
    notice: Notice,
    last: Notice | None,
    *,
    by: str,
    time: datetime,
) -> Notice:
    _check_follows(notice.party, last, notice.step)
    if notice.number != (last.number if last else 0) + 1:
        raise _refused("one before it is missing")
    if notice.number > MAX_NOTICES:
        raise _refused(f"{notice.party} has given {MAX_NOTICES} of them")
    key = ours.keys[notice.party]
    body = _named(notice) | {"reason": notice.reason, "key": keyid(key), "by": by}
    entry = ours.log.append(conn, f"agreement.{notice.step}", body, time=time)
    row = {
        "agreement": notice.agreement,
        "party": notice.party,
        "number": notice.number,
        "step": notice.step,
        "entry": entry,
        "envelope": notice.envelope.to_json(),
    }
    conn.execute(insert(notices).values(row))
    return notice


def _check_follows(party: str, last: Notice | None, step: str) -> None:
    before = last.step if last else None
    if step not in _FOLLOWS[before]:
        stands = f"{before} it before" if before else "has not suspended it"
        raise _refused(f"{party} {stands}")


def _named(notice: Notice) -> dict[str, Any]:
    """A notice as an entry names it."""
    return {
        "agreement": notice.agreement,
        "party": notice.party,
        "number": notice.number,
        "notice": notice.digest,
    }


def _read(envelope: Envelope) -> Notice:
    """What an envelope declares; its signatures are not verified. Raises NoticeRefused (E311)."""
    try:
        said = parse(envelope.payload)
        notice = Notice(**said, envelope=envelope)
        texts = (notice.agreement, notice.party, notice.reason, notice.time)
        if (
            envelope.payload_type == PAYLOAD_TYPE
            and notice.step in get_args(Step)
            and type(notice.number) is int
            and notice.number > 0
            and all(isinstance(text, str) and _printable(text) for text in texts)
        ):
            return notice
    except (ConcordatError, TypeError):
        pass
    raise _refused("it is not one")


def _printable(text: str) -> bool:
    return len(text) <= MAX_REASON and (not text or text.isprintable())


def _refused(why: str) -> NoticeRefused:
    return NoticeRefused(
        f"A notice about an agreement is refused: {why}.",
        "`concordat agreement show` says how the agreement stands.",
    )


# Auditing


def problems(
    conn: Connection, keys: Mapping[str, bytes], entries: Mapping[int, Mapping[str, Any]]
) -> Iterator[tuple[str, str]]:
    """Where notices and their entries in the log differ, as places and what is wrong there."""
    declared = {
        index: entry
        for index, entry in entries.items()
        if entry.get("type") in {f"agreement.{step}" for step in get_args(Step)}
    }
    received = {
        json.dumps([entry.get(name) for name in ("agreement", "party", "number", "notice", "key")])
        for entry in entries.values()
        if entry.get("type") == "agreement.acknowledged"
    }
    numbers: dict[tuple[str, str], int] = {}
    for row in conn.execute(select(notices).order_by(notices.c.entry)):
        where = f"notice {row.number} of {row.party} on agreement {row.agreement}"
        for problem in _row_problems(row, keys, declared.pop(row.entry, {}), received):
            yield where, problem
        last = numbers.get((row.agreement, row.party), 0)
        if row.number != last + 1:
            yield where, "the one before it is missing"
        numbers[row.agreement, row.party] = row.number
    for index in declared:
        yield f"entry {index}", "the notice it speaks of is missing"
    for name in sorted(received):
        agreement, party, number, *_ = json.loads(name)
        where = f"notice {number} of {party} on agreement {agreement}"
        yield where, "its acknowledgement is in the log only"


def _row_problems(
    row: Row[Any], keys: Mapping[str, bytes], entry: Mapping[str, Any], received: set[str]
) -> Iterator[str]:
    try:
        notice = _read(Envelope.from_json(row.envelope))
    except ConcordatError as error:
        yield error.numbered
        return
    columns = (row.agreement, row.party, row.number, row.step)
    if columns != (notice.agreement, notice.party, notice.number, notice.step):
        yield "its columns differ from what is signed"
        return
    said = _named(notice) | {"type": f"agreement.{notice.step}", "reason": notice.reason}
    if any(entry.get(name) != value for name, value in said.items()):
        yield f"entry {row.entry} does not speak of it"
    by_id = {keyid(key): key for party in keys for key in ever(keys, party)}
    signers = [keyid(key) for key in ever(keys, notice.party)]
    declarer = next((name for name in signers if name in notice.envelope.signatures), "")
    if declarer not in notice.envelope.signatures or entry.get("key") != declarer:
        yield f"{notice.party} has not signed it"
    for name in notice.envelope.signatures:
        try:
            if name in by_id:
                notice.envelope.verify({name: by_id[name]})
            else:
                yield "a signature is of no party's key"
        except InvalidSignature as error:
            yield error.numbered
        if name == declarer:
            continue
        ack = json.dumps([notice.agreement, notice.party, notice.number, notice.digest, name])
        if ack in received:
            received.remove(ack)
        else:
            yield "no entry speaks of its acknowledgement"
