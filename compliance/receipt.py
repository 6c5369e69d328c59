"""Receipts: what both institutions sign about a run, before it starts and once it is complete.

A receipt is an in-toto statement (version 1) in a DSSE envelope. Both sides build the statement
from what they have told each other, byte for byte the same, and each signs: for its own section
and the shared part; the other's section it attests only as received. A run whose intent has no
completion was started and not finished; it counts against limits all the same.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from secrets import token_bytes
from typing import Any, Literal, Self

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    LargeBinary,
    String,
    Table,
    func,
    insert,
    select,
)

from compliance.agreement import Agreement, Job
from compliance.canonical import canonical, parse, timestamp
from compliance.disclosure import disclosure
from compliance.errors import InvalidSignature, ReceiptBroken, ReceiptConflict
from compliance.gate import Decision, admit
from compliance.log import Log
from compliance.signing import Envelope, SigningKey, keyid
from compliance.store import metadata
from compliance.succession import ever
from protos.errors import ConcordatError

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"

Kind = Literal["intent", "completion"]
PREDICATES: dict[Kind, str] = {
    "intent": "urn:concordat:run-intent:v1",
    "completion": "urn:concordat:run-completion:v1",
}

receipts = Table(
    "receipts",
    metadata,
    Column("run", String(32), primary_key=True),
    Column("kind", String(16), primary_key=True),
    Column("agreement", String(64), nullable=False),
    Column("time", String(20), nullable=False, index=True),  # of the entry, as in the log
    Column("entry", ForeignKey("log_entries.index"), nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)


@dataclass(frozen=True)
class Section:
    """What one side attests of its own input."""

    party: str
    key: bytes  # Ed25519 public key (32 bytes) that signs the receipts
    root: bytes  # sorted Merkle tree over HMAC(run salt, subject reference)
    size: int  # people in it
    log_origin: str
    log_size: int  # the gate's checkpoint
    log_root: bytes

    @classmethod
    def of(cls, party: str, key: bytes, decision: Decision) -> Self:
        """This side's own section."""
        at = decision.checkpoint
        return cls(party, key, decision.root, decision.size, at.origin, at.size, at.root)

    def _json(self) -> dict[str, Any]:
        return {
            "party": self.party,
            "key": self.key.hex(),
            "inputs": {"root": self.root.hex(), "size": self.size},
            "log": {
                "origin": self.log_origin,
                "size": self.log_size,
                "root": self.log_root.hex(),
            },
        }


def intent(
    run: str,
    agreement: Agreement,
    job: Job,
    *,
    suite: str,
    bank: Section,
    partner: Section,
    started: datetime,
    segmentation: Mapping[str, str] | None = None,
) -> bytes:
    """The statement of what is about to be run, as canonical JSON.

    segmentation: period, job and root of the bank's, where releases of a period are compared.
    """
    subject = {
        f"agreement/{agreement.agreement}/{agreement.version}": agreement.digest,
        "job": hashlib.sha256(job.shared).digest(),
    }
    predicate = {
        "run": run,
        "started": timestamp(started),
        "agreement": {
            "id": agreement.agreement,
            "version": agreement.version,
            "digest": agreement.digest.hex(),
        },
        "purpose": agreement.purpose,
        "job": parse(job.shared),
        "suite": suite,
        "disclosure": disclosure(agreement, job),
        "bank": bank._json(),
        "partner": partner._json(),
    }
    if segmentation is not None:
        predicate["segmentation"] = dict(segmentation)
    return _statement("intent", subject, predicate)


def completion(
    intent: bytes,
    *,
    transcript: bytes,
    commitment: bytes,
    versions: Mapping[str, str],
    finished: datetime,
) -> bytes:
    """The statement that a run is complete, as canonical JSON.

    intent: its statement. transcript: hash of all frames (32 bytes). commitment: of `commit`.
    versions: of the code on each side, by party.
    """
    started = parse(intent)["predicate"]
    subject = {"intent": hashlib.sha256(intent).digest(), "salted result": commitment}
    predicate = {
        "run": started["run"],
        "finished": timestamp(finished),
        "intent": hashlib.sha256(intent).hexdigest(),
        "transcript": transcript.hex(),
        "commitment": commitment.hex(),
        "versions": dict(versions),
    }
    return _statement("completion", subject, predicate)


def commit(result: bytes) -> tuple[bytes, bytes]:
    """A salt that the result party keeps, and SHA-256(salt || result), 32 bytes each.

    Without the salt, a count could be found by trying them all.
    """
    salt = token_bytes(32)
    return salt, hashlib.sha256(salt + result).digest()


def signed(statement: bytes, key: SigningKey) -> Envelope:
    """The statement's envelope with one's own signature."""
    return Envelope(PAYLOAD_TYPE, statement).sign(key)


def countersigned(envelope: Envelope, key: bytes, signature: bytes) -> Envelope:
    """The envelope with the other side's signature added. Raises InvalidSignature (E503)."""
    signatures = {**envelope.signatures, keyid(key): signature}
    envelope = replace(envelope, signatures=signatures)
    envelope.verify({keyid(key): key})
    return envelope


def check(envelope: Envelope, intent: Envelope, keys: Mapping[str, bytes]) -> dict[str, Any]:
    """The predicate of a receipt, if both parties of its intent have signed it.

    An intent is checked as its own. keys: the pinned public key of each party, by name. Raises
    InvalidSignature (E503), ReceiptBroken (E551).
    """
    kind, predicate = _read(envelope)
    _, started = _read(intent)
    try:
        sides = [started["bank"], started["partner"]]
        public = {side["party"]: bytes.fromhex(side["key"]) for side in sides}
        completed = predicate["intent"] if kind == "completion" else None
    except (KeyError, TypeError, ValueError):
        raise _broken("lacks a part") from None
    if kind == "completion" and completed != hashlib.sha256(intent.payload).hexdigest():
        raise _broken("completes another intent")
    if any(key not in ever(keys, party) for party, key in public.items()):
        raise _broken("names a key that is not the party's pinned one")
    if len(set(public.values())) < len(sides):
        raise _broken("is not between two institutions")
    envelope.verify({keyid(key): key for key in public.values()})
    return predicate


def own_section(intent: Envelope, origin: str) -> dict[str, Any]:
    """The section of the side whose log has this origin. Raises ReceiptBroken (E551)."""
    _, started = _read(intent)
    for side in (started["bank"], started["partner"]):
        if side["log"]["origin"] == origin:
            return dict(side)
    raise _broken("has no section of this log")


def begin(
    conn: Connection,
    log: Log,
    envelope: Envelope,
    decision: Decision,
    keys: Mapping[str, bytes],
    *,
    time: datetime,
) -> int:
    """Records a run's intent with what this side puts in; returns the entry's index in the log.

    Before the first data message. keys: as for `check`. Raises InvalidSignature (E503),
    ReceiptBroken (E551), ReceiptConflict (E552).
    """
    predicate = check(envelope, envelope, keys)
    attested = {"root": decision.root.hex(), "size": decision.size}
    if attested not in [predicate["bank"]["inputs"], predicate["partner"]["inputs"]]:
        raise _broken("attests other inputs than the gate let through")
    # What the salt is has to be settled now: with another one, anybody would seem to be absent.
    salt = hashlib.sha256(decision.salt).hexdigest()
    entry = _record(conn, log, envelope, envelope, time, salt=salt)
    admit(conn, predicate["run"], decision)
    return entry


def complete(
    conn: Connection,
    log: Log,
    envelope: Envelope,
    keys: Mapping[str, bytes],
    *,
    time: datetime,
) -> int:
    """Records a run's completion, of an intent recorded here; returns the entry's index.

    keys: as for `check`. Raises as `begin`.
    """
    intent = find(conn, _read(envelope)[1]["run"], "intent")
    if intent is None:
        raise _broken("completes a run that has no intent")
    check(envelope, intent, keys)
    return _record(conn, log, envelope, intent, time)


def _record(
    conn: Connection, log: Log, envelope: Envelope, intent: Envelope, time: datetime, **more: str
) -> int:
    kind, predicate = _read(envelope)
    run = predicate["run"]
    if find(conn, run, kind) is not None:
        raise ReceiptConflict(
            f"The {kind} of run {run} is already recorded.", "Start a new run for another try."
        )
    data = envelope.to_json()
    agreement = _read(intent)[1]["agreement"]
    body = {
        "run": run,
        "agreement": agreement["id"],
        "version": agreement["version"],
        "receipt": hashlib.sha256(data).hexdigest(),
        **more,
    }
    entry = log.append(conn, f"run.{kind}", body, time=time)
    row = {
        "run": run,
        "kind": kind,
        "agreement": agreement["id"],
        "time": timestamp(time),
        "entry": entry,
        "envelope": data,
    }
    conn.execute(insert(receipts).values(row))
    return entry


def find(conn: Connection, run: str, kind: Kind) -> Envelope | None:
    """A run's receipt. Raises MalformedEnvelope (E502) if the store was damaged."""
    query = select(receipts.c.envelope).where(receipts.c.run == run, receipts.c.kind == kind)
    data = conn.execute(query).scalar_one_or_none()
    return None if data is None else Envelope.from_json(data)


def started(intent: Envelope) -> dict[str, Any]:
    """What an intent says of its run. Raises ReceiptBroken (E551)."""
    return _read(intent)[1]


def unfinished(conn: Connection) -> list[str]:
    """The runs that were started and have no completion, oldest first."""
    completed = select(receipts.c.run).where(receipts.c.kind == "completion")
    query = select(receipts.c.run).where(
        receipts.c.kind == "intent", receipts.c.run.not_in(completed)
    )
    return list(conn.execute(query.order_by(receipts.c.entry)).scalars())


def runs_started_since(conn: Connection, agreement: str, since: datetime) -> int:
    """How many runs were started under an agreement, whatever became of them."""
    table = receipts.c
    query = select(func.count()).where(
        table.agreement == agreement, table.kind == "intent", table.time >= timestamp(since)
    )
    return int(conn.execute(query).scalar_one())


def people_asked_since(conn: Connection, agreement: str, job: str, since: datetime) -> int:
    """How many people the bank has put into runs of a kind of job, repeats included."""
    table = receipts.c
    query = select(table.envelope).where(
        table.agreement == agreement, table.kind == "intent", table.time >= timestamp(since)
    )
    started = (_read(Envelope.from_json(data))[1] for data in conn.execute(query).scalars())
    return sum(int(run["bank"]["inputs"]["size"]) for run in started if run["job"]["job"] == job)


def run_of(envelope: Envelope) -> tuple[str, Kind]:
    """The run that a receipt, as anyone shows it, is about. Raises ReceiptBroken (E551)."""
    kind, predicate = _read(envelope)
    return str(predicate.get("run")), kind


def differences(ours: Envelope, theirs: Envelope, keys: Mapping[str, bytes]) -> list[str]:
    """Every place where the other side's receipt says something else, or is signed otherwise.

    Nothing, if the two attest the same. keys: the pinned public key of each party, by name.
    """
    found = list(_differences(parse(ours.payload), parse(theirs.payload), ""))
    for party in keys:
        for key in ever(keys, party):
            if keyid(key) in ours.signatures:
                try:
                    theirs.verify({keyid(key): key})
                except InvalidSignature:
                    found.append(f"signature of {party}: holds here, not there")
    return found


def _differences(ours: Any, theirs: Any, place: str) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            where = f"{place}.{name}" if place else name
            yield from _differences(ours.get(name), theirs.get(name), where)
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for at, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(one, other, f"{place}[{at}]")
    elif ours != theirs:
        yield f"{place}: here {json.dumps(ours)}, there {json.dumps(theirs)}"


def _statement(kind: Kind, subject: Mapping[str, bytes], predicate: Mapping[str, Any]) -> bytes:
    return canonical(
        {
            "_type": STATEMENT,
            "subject": [
                {"name": name, "digest": {"sha256": digest.hex()}}
                for name, digest in subject.items()
            ],
            "predicateType": PREDICATES[kind],
            "predicate": predicate,
        }
    )


def _read(envelope: Envelope) -> tuple[Kind, dict[str, Any]]:
    """Kind and predicate of a receipt. Raises ReceiptBroken (E551)."""
    kinds = {predicate: kind for kind, predicate in PREDICATES.items()}
    try:
        statement = parse(envelope.payload)
        kind, predicate = kinds[statement["predicateType"]], statement["predicate"]
        right = envelope.payload_type == PAYLOAD_TYPE and statement["_type"] == STATEMENT
        if right and isinstance(predicate, dict):
            return kind, predicate
    except (ConcordatError, KeyError, TypeError):
        pass
    raise _broken("is no statement about a run")


def _broken(problem: str) -> ReceiptBroken:
    return ReceiptBroken(
        f"A receipt {problem}.", "Do not rely on it; compare both institutions' receipts."
    )
