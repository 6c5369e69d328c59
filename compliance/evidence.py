"""Evidence: a folder that an outsider verifies offline, with the one Python file that lies in it.

Its log is the stored entries, one a line; where entries are not shown, the hash of a complete
subtree stands for them, so that the root comes out the same. A manifest, signed by the
institution, names every file by its SHA-256. What a folder may hold and how it is checked is what
`compliance.offline` says, of which `verify.py` in the folder is a copy.
"""

import hashlib
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, BinaryIO

from sqlalchemy import ColumnElement, Connection, Select, func, select

from compliance import lifecycle, offline, people, receipt, register, succession
from compliance.batch import fetch_in
from compliance.canonical import canonical, parse, timestamp
from compliance.errors import EvidenceUnwritable, NotInLog
from compliance.log import Log, cosignatures, hidden_hashes, log_entries
from compliance.note import Checkpoint, VerifierKey
from compliance.notice import notices
from compliance.receipt import receipts
from compliance.signing import Envelope, SigningKey
from compliance.witness import witnessed

README = """\
Evidence from a Concordat node. To verify it, with Python 3.9 or later and without a network:

    python3 -I verify.py

With the partner's evidence in another folder, both at once:

    python3 -I verify.py . PARTNERS_FOLDER

Do not take verify.py from a folder you do not trust: it is compliance/offline.py of the program,
and the only file here that the manifest does not name. Likewise the keys: compare those it prints
with the institutions themselves, or give a file of trusted ones with --trust.
"""


@dataclass(frozen=True)
class Source:
    """Whose evidence it is, and whom it knows: keys by the name of their owner, oldest first.

    signing: public keys (32 bytes) of parties, this institution among them. logs, witnesses: of
    all of these; and of third witnesses. A later key is one that the log introduces.
    """

    conn: Connection
    log: Log
    name: str
    key: SigningKey
    signing: Mapping[str, Sequence[bytes]]
    logs: Mapping[str, Sequence[VerifierKey]]
    witnesses: Mapping[str, Sequence[VerifierKey]]

    def heads(self) -> list[Checkpoint]:
        """The latest checkpoint, and the latest that each witness has cosigned; oldest first.

        Raises NotInLog (E521) if nothing was signed yet.
        """
        head = self.log.head(self.conn)
        if head is None:
            raise NotInLog("The log has no checkpoint yet.", "Start the node once; it makes one.")
        names = {key.name for keys in self.witnesses.values() for key in keys}
        witness, size = cosignatures.c.witness, cosignatures.c.size
        latest = select(func.max(size)).where(witness.in_(names)).group_by(witness)
        sizes = {*self.conn.execute(latest).scalars()} - {head.size}
        heads = [*(self.log.checkpoint_at(self.conn, at) for at in sorted(sizes)), head]
        shown = names | {self.log.origin}
        return [
            replace(one, signatures=tuple(line for line in one.signatures if line.name in shown))
            for one in heads
        ]


@dataclass(frozen=True)
class Scope:
    """What of the log is shown: all of it, one run, or what was entered from, and until before."""

    run: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def to_json(self) -> dict[str, str]:
        if self.run is not None:
            return {"run": self.run}
        times = {"since": self.since, "until": self.until}
        said = {name: timestamp(time) for name, time in times.items() if time is not None}
        return said or {"log": "whole"}

    @property
    def whole(self) -> bool:
        return self == Scope()

    def covers(self) -> ColumnElement[bool]:
        """The entries that are asked for; those that belong to them are shown with them."""
        entry = log_entries.c
        if self.run is not None:
            return entry.run == self.run
        since = timestamp(self.since) if self.since else ""
        until = timestamp(self.until) if self.until else "~"
        return (entry.time >= since) & (entry.time < until)


class Folder:
    """A folder of evidence in the making. Everything in it is for its owner's eyes only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, str] = {}  # SHA-256 in hex, by name

    @contextmanager
    def file(self, name: str) -> Iterator["_Hashed"]:
        """A file to be written a piece at a time."""
        path = self.path / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            hashed = _Hashed(file)
            yield hashed
        self.files[name] = hashed.digest.hexdigest()

    def write(self, name: str, data: bytes) -> None:
        with self.file(name) as file:
            file.write(data)

    def close(self, source: Source, scope: Mapping[str, Any], time: datetime) -> None:
        """Adds keys and manifest, and what reads them."""
        keys = {
            "signing": {name: [key.hex() for key in line] for name, line in source.signing.items()},
            "log": {name: [*map(str, line)] for name, line in source.logs.items()},
            "witness": {name: [*map(str, line)] for name, line in source.witnesses.items()},
        }
        known = {"institution": source.name, "keys": keys}
        self.write(offline.KEYS, canonical(known))
        self.write("README.txt", README.encode())
        manifest = {
            "evidence": offline.FORM,
            "institution": source.name,
            "made": timestamp(time),
            "scope": dict(scope),
            "files": self.files,
        }
        signed = Envelope(offline.EVIDENCE, canonical(manifest)).sign(source.key)
        self.write(offline.MANIFEST, signed.to_json())
        shutil.copyfile(offline.__file__, self.path / offline.ITSELF)
        (self.path / offline.ITSELF).chmod(0o600)


class _Hashed:
    """A file, and the SHA-256 of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self._file.write(data)


@contextmanager
def folder(path: Path) -> Iterator[Folder]:
    """A new folder at this place, there once it is whole. Raises EvidenceUnwritable (E553)."""
    if path.exists():
        raise EvidenceUnwritable(
            f"{path} exists already.", "Name a folder that does not exist; nothing was changed."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(mkdtemp(prefix=f".{path.name}.", dir=path.parent))  # mode 0700
        try:
            yield Folder(partial)
            partial.rename(path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    except OSError as error:
        raise EvidenceUnwritable(
            f"{path} cannot be written: {error.strerror}.",
            "Name a place where this user may write and the disk has room.",
        ) from error


def export(
    source: Source,
    path: Path,
    scope: Scope,
    *,
    time: datetime,
    more: Mapping[str, bytes] | None = None,
) -> int:
    """Writes evidence of the log, or of a part of it; how many entries it shows.

    more: files to go with it, by name. Raises NotInLog (E521), EvidenceUnwritable (E553).
    """
    with folder(path) as made:
        runs = _covered(source, scope)
        if not scope.whole:
            source = _concerned(source, runs)
        shown = _add_log(source, made, scope, runs)
        add_receipts(source, made, runs, every=scope.whole)
        if scope.whole:
            _add_everything_else(source, made)
        for name, (key, *_) in source.logs.items():
            query = select(witnessed.c.note).where(witnessed.c.origin == key.name)
            note = source.conn.execute(query).scalar()
            if note is not None:
                made.write(f"seen/{name}.note", note)
        for name, data in (more or {}).items():
            made.write(name, data)
        made.close(source, scope.to_json(), time)
    return shown


def _covered(source: Source, scope: Scope) -> list[str]:
    """The runs that what is asked for speaks of, oldest first. Raises NotInLog (E521)."""
    if scope.whole:
        return _runs(source.conn)
    query = select(log_entries.c.run).where(scope.covers()).distinct()
    chosen = {*source.conn.execute(query).scalars()}
    if not chosen:
        raise NotInLog("The log has no such entry.", "Ask for another run or another time.")
    return [run for run in _runs(source.conn) if run in chosen]


def _add_log(source: Source, made: Folder, scope: Scope, runs: Sequence[str]) -> int:
    """Adds the log and its heads; how many entries are shown."""
    conn, heads = source.conn, source.heads()
    for head in heads:
        made.write(f"checkpoints/{head.size}.note", head.encode())
    size = heads[-1].size
    if scope.whole:
        with made.file(offline.LOG) as file:
            for one in source.log.entries(conn, 0, size):
                file.write(one.leaf + b"\n")
        return size
    asked = conn.execute(select(log_entries.c.index).where(scope.covers())).scalars()
    belonging, gates = belonging_to(source, runs)
    shown = {index for index in {*asked} | belonging if index < size}
    shown |= users_behind(conn, shown)
    cuts = {head.size for head in heads} | gates
    with made.file(offline.LOG) as file:
        at = 0
        for index in [*sorted(shown), size]:
            for start, stop in _pieces(at, index, cuts):
                for level, node in hidden_hashes(conn, start, stop):
                    file.write(b'[%d,"%s"]\n' % (level, node.hex().encode()))
            if index < size:
                file.write(next(source.log.entries(conn, index, index + 1)).leaf + b"\n")
            at = index + 1
    return len(shown)


def add_receipts(source: Source, made: Folder, runs: Iterable[str], *, every: bool = False) -> None:
    """Adds what both have signed about these runs, and the agreements they were under.

    every: add whatever agreements both have signed.
    """
    named: dict[tuple[str, int], None] = {}
    if every:
        held = register.every(source.conn)
        named = {one.agreement.named: None for one in held if one.state == register.SIGNED}
    with made.file(offline.RECEIPTS) as file:
        for run in runs:
            query = select(receipts).where(receipts.c.run == run).order_by(receipts.c.entry)
            for row in source.conn.execute(query):
                file.write(row.envelope + b"\n")
                if row.kind == "intent":
                    named[_agreement(row.envelope)] = None
    with made.file(offline.AGREEMENTS) as file:
        for name, version in named:
            envelope = register.find(source.conn, name, version).envelope
            file.write(envelope.to_json() + b"\n")


def _add_everything_else(source: Source, made: Folder) -> None:
    """Adds all notices: on agreements, and what people were told."""
    conn = source.conn
    steps = lifecycle.notices.c
    queries: dict[str, Select[Any]] = {
        offline.STEPS: select(steps.envelope).order_by(steps.entry),
        offline.NOTICES: select(notices.c.document).order_by(notices.c.entry),
    }
    for name, query in queries.items():
        with made.file(name) as file:
            for document in conn.execute(query).scalars():
                file.write(document + b"\n")


def _concerned(source: Source, runs: Iterable[str]) -> Source:
    """The source as far as runs are concerned: who else is a partner is not to be shown."""
    parties = {source.name}
    for run in runs:
        intent = receipt.find(source.conn, run, "intent")
        if intent is not None:
            said = receipt.started(intent)
            parties |= {said[role]["party"] for role in ("bank", "partner")}
    thirds = source.witnesses.keys() - source.signing.keys()
    return replace(
        source,
        signing={name: line for name, line in source.signing.items() if name in parties},
        logs={name: line for name, line in source.logs.items() if name in parties},
        witnesses={n: line for n, line in source.witnesses.items() if n in parties | thirds},
    )


def _agreement(intent: bytes) -> tuple[str, int]:
    named = parse(Envelope.from_json(intent).payload)["predicate"]["agreement"]
    return named["id"], named["version"]


def _runs(conn: Connection) -> list[str]:
    """All runs that have an intent, oldest first."""
    query = select(receipts.c.run).where(receipts.c.kind == "intent").order_by(receipts.c.entry)
    return list(conn.execute(query).scalars())


def belonging_to(source: Source, runs: Iterable[str]) -> tuple[set[int], set[int]]:
    """The entries about runs, their agreements and keys; and the sizes that their intents name."""
    conn, entry = source.conn, log_entries.c
    shown: set[int] = set()
    sizes: set[int] = set()
    names = set()
    for run in runs:
        shown.update(conn.execute(select(entry.index).where(entry.run == run)).scalars())
        intent = receipt.find(conn, run, "intent")
        if intent is not None:
            sizes.add(receipt.own_section(intent, source.log.origin)["log"]["size"])
            names.add(_agreement(intent.to_json())[0])
    query = select(entry.index, entry.leaf).where(entry.type.startswith("agreement."))
    for index, leaf in conn.execute(query):
        if parse(leaf).get("agreement") in names:
            shown.add(index)
    steps = succession.entered(conn)
    return shown | {one.index for one in steps if one.party in source.signing}, sizes


def users_behind(conn: Connection, shown: Collection[int]) -> set[int]:
    """The entries before these that tell of the users who have signed them, or signed for those."""
    entry = log_entries.c
    query = select(entry.index, entry.leaf).where(entry.type.in_(people.USER_CHANGES))
    query = query.where(entry.index < max(shown, default=0))
    changes = {index: parse(leaf) for index, leaf in conn.execute(query)}
    if not changes:
        return set()
    leaves = fetch_in(conn, select(entry.index, entry.leaf), entry.index, sorted(shown))["leaf"]
    found: set[int] = set()
    signers = {parse(leaf)["by"] for leaf in leaves if b'"signature":' in leaf}
    while signers:
        more = {index for index, said in changes.items() if said["user"] in signers} - found
        signers = {changes[index]["by"] for index in more if "signature" in changes[index]}
        found |= more
    return found


def _pieces(start: int, stop: int, cuts: Iterable[int]) -> Iterator[tuple[int, int]]:
    """A range of entries, cut wherever somebody has signed for a root."""
    ends = sorted(cut for cut in cuts if start < cut < stop)
    return pairwise([start, *ends, stop])
