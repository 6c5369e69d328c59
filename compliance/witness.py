"""Witness each other's logs: C2SP tlog-witness (v1.0.0), both ends, over any transport.

A witness cosigns a checkpoint only if it extends the last one it cosigned for that log. So a log
that has a witness cannot be rewritten without the witness's help.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy import Column, Connection, LargeBinary, String, Table, delete, func, insert, select

from compliance import merkle
from compliance.canonical import to_base64
from compliance.errors import (
    InvalidProof,
    LogDamaged,
    LogRolledBack,
    MalformedNote,
    MalformedProof,
    NotInLog,
    SplitView,
    UnverifiedNote,
    WitnessRefused,
)
from compliance.log import Log, cosignatures
from compliance.note import (
    COSIGNATURE,
    MAX_NOTE,
    Checkpoint,
    Note,
    VerifierKey,
    cosign,
    from_decimal,
)
from compliance.proof import parse_hashes
from compliance.signing import SigningKey
from compliance.store import Integer64, metadata

MAX_REQUEST = MAX_NOTE + 4096  # a checkpoint, and at most 63 hashes

TEXT = "text/plain; charset=utf-8"
TREE_SIZE = "text/x.tlog.size"

# The last checkpoint cosigned for each log.
witnessed = Table(
    "witnessed",
    metadata,
    Column("origin", String, primary_key=True),
    Column("size", Integer64, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("note", LargeBinary, nullable=False),
)


@dataclass(frozen=True)
class Request:
    """The body of add-checkpoint: a checkpoint, and proof that it extends the one of size `old`."""

    old: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint

    def encode(self) -> bytes:
        lines = [f"old {self.old}", *map(to_base64, self.proof), "", ""]
        return "\n".join(lines).encode() + self.checkpoint.encode()

    @classmethod
    def parse(cls, body: bytes) -> Self:
        """Raises MalformedProof or MalformedNote. Nothing is verified yet."""
        if len(body) > MAX_REQUEST:
            raise _malformed()
        head, _, checkpoint = body.partition(b"\n\n")
        try:
            first, *lines = head.decode().split("\n")
            label, number = first.split(" ")
            old, proof = from_decimal(number), parse_hashes(lines)
        except ValueError as error:
            raise _malformed() from error
        if label != "old":
            raise _malformed()
        return cls(old, proof, Checkpoint.parse(checkpoint))


@dataclass(frozen=True)
class Answer:
    """An HTTP-like status and body; the transport may be another."""

    status: int
    body: bytes
    content_type: str = TEXT


class Witness:
    """Cosigns the checkpoints of known logs, whose verifier keys bear their origins."""

    def __init__(self, name: str, key: SigningKey, logs: Iterable[VerifierKey]) -> None:
        self.name = name
        self._key = key
        self._logs = {log.name: log for log in logs}

    @property
    def verifier(self) -> VerifierKey:
        return VerifierKey(self.name, self._key.public, COSIGNATURE)

    def add_checkpoint(  # noqa: PLR0911 (one for each answer)
        self, conn: Connection, body: bytes, now: datetime
    ) -> Answer:
        """Answer one request: 200 with a cosignature, or 400, 403, 404, 409, 422.

        `conn` is in a write transaction, so that nobody else cosigns between check and record.
        The answer may be sent once that is committed. Raises LogDamaged if the witness's own
        record was tampered with.
        """
        try:
            request = Request.parse(body)
        except (MalformedProof, MalformedNote):
            return Answer(400, b"malformed request\n")
        checkpoint = request.checkpoint
        log = self._logs.get(checkpoint.origin)
        if log is None:
            return Answer(404, b"unknown log\n")
        try:
            checkpoint.verify(log)
        except UnverifiedNote:
            return Answer(403, b"no valid signature of the log\n")
        if request.old > checkpoint.size:
            return Answer(400, b"the old size is larger than the checkpoint\n")
        size, root = _last(conn, checkpoint.origin)
        if request.old != size:
            return Answer(409, b"%d\n" % size, TREE_SIZE)
        if size == checkpoint.size and root != checkpoint.root:
            return Answer(409, b"another tree of this size has been cosigned\n")
        try:
            merkle.verify_consistency(size, root, checkpoint.size, checkpoint.root, request.proof)
        except InvalidProof:
            return Answer(422, b"the consistency proof does not verify\n")
        _record(conn, checkpoint)
        line = cosign(checkpoint.text, self.name, self._key, now)
        return Answer(200, f"{line}\n".encode())


def request(conn: Connection, log: Log, old: int) -> Request:
    """Ask for a cosignature on the log's latest checkpoint, from a witness that has seen `old`.

    Raises LogRolledBack if the witness has seen more than there is, NotInLog without a checkpoint.
    """
    head = log.head(conn)
    if head is None:
        raise NotInLog("The log has no checkpoint yet.", "Start the node once; it makes one.")
    if old > head.size:
        raise LogRolledBack(
            f"A witness has seen {old} entries of this log, which now has {head.size}.",
            "An old copy of the store is in use, or entries were removed: restore the latest.",
        )
    return Request(old, tuple(log.consistency_proof(conn, old, head.size)), head)


def cosigned_size(conn: Connection, witness: VerifierKey) -> int:
    """The largest size this witness is known to have cosigned, 0 at first."""
    sizes = select(func.max(cosignatures.c.size)).where(cosignatures.c.witness == witness.name)
    return conn.execute(sizes).scalar() or 0


def receive(
    conn: Connection, log: Log, witness: VerifierKey, sent: Request, answer: Answer
) -> int | None:
    """Take in a witness's answer: store its cosignature, or return the size to ask from instead.

    Raises SplitView if the witness has cosigned another tree, WitnessRefused for any other
    refusal, UnverifiedNote or MalformedNote for an answer that is not what was asked for.
    """
    if answer.status == 409 and (size := _size(answer.body)) not in {None, sent.old}:
        return size
    if answer.status in {409, 422}:
        raise SplitView(
            f"Witness {witness.name} has cosigned a log that ours does not continue.",
            "Stop the node, keep the store as evidence and compare both institutions' logs.",
        )
    if answer.status != 200:
        raise WitnessRefused(
            f"Witness {witness.name} refused to cosign (status {answer.status}).",
            "Check that the two nodes are paired and that neither log's key has changed.",
        )
    cosigned = Note.parse(sent.checkpoint.text.encode() + b"\n" + answer.body)
    cosigned.verify(witness)
    signature = next(line for line in cosigned.signatures if line.by(witness))
    log.add_cosignature(conn, sent.checkpoint.size, signature)
    return None


def sizes(conn: Connection) -> dict[str, int]:
    """The size last cosigned for each log, by its origin."""
    query = select(witnessed.c.origin, witnessed.c.size).order_by(witnessed.c.origin)
    return {row.origin: row.size for row in conn.execute(query)}


def cosigned_by_all(
    conn: Connection, log: Log, witnesses: Sequence[VerifierKey], after: int
) -> Checkpoint | None:
    """The latest checkpoint of more than `after` entries with every one of these cosignatures."""
    common: set[int] | None = None
    for witness in witnesses:
        query = select(cosignatures.c.size).where(
            cosignatures.c.witness == witness.name, cosignatures.c.size > after
        )
        found = set(conn.execute(query).scalars())
        common = found if common is None else common & found
    for size in sorted(common or (), reverse=True):
        checkpoint = log.checkpoint_at(conn, size)
        try:
            checkpoint.verify(log.verifier, *witnesses)
        except UnverifiedNote:  # by a key that the witness no longer has
            continue
        return checkpoint
    return None


def _last(conn: Connection, origin: str) -> tuple[int, bytes]:
    """Size and root last cosigned for a log; the empty tree's at first."""
    row = conn.execute(select(witnessed).where(witnessed.c.origin == origin)).one_or_none()
    if row is None:
        return 0, merkle.EMPTY_ROOT
    try:
        last = Checkpoint.parse(row.note)
    except MalformedNote:
        last = None
    if last is None or (last.origin, last.size, last.root) != (origin, row.size, row.root):
        raise LogDamaged(
            "The record of what this node has cosigned for a partner was changed.",
            "Stop the node, keep the store as evidence and restore the latest backup.",
        )
    return last.size, last.root


def _record(conn: Connection, checkpoint: Checkpoint) -> None:
    conn.execute(delete(witnessed).where(witnessed.c.origin == checkpoint.origin))
    conn.execute(
        insert(witnessed).values(
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=checkpoint.root,
            note=checkpoint.encode(),
        )
    )


def _size(body: bytes) -> int | None:
    try:
        return from_decimal(body.decode().removesuffix("\n"))
    except ValueError:
        return None


def _malformed() -> MalformedProof:
    return MalformedProof(
        "A request for a cosignature is malformed.",
        "Check that both nodes run the same version of Concordat.",
    )
